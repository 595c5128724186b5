"""What the functions of ``webhooks`` make of deliveries: Meta's own examples, known vectors, and anything else."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.webhooks import (
    TOPICS,
    AccountChange,
    account_changes,
    answer_handshake,
    verify_signature,
)

SECRET = "5ecre7" * 5
TOKEN = "meatyhamhock"
HANDSHAKE = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": TOKEN}
# Airflow's default of [scheduler] allowed_run_id_pattern. A run id has at most 250 characters.
RUN_ID = re.compile(r"[A-Za-z0-9_.~:+-]{1,250}")

PORTFOLIO, WABA, OWNER = "2949482758682047", "980198427658004", "2329417887457253"
SHARED = {"waba_id": WABA, "owner_business_id": OWNER}

# Also halves of surrogate pairs, which cannot be encoded.
texts = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def change(value: Any, field: str = "account_update") -> dict[str, Any]:
    return {"field": field, "value": value}


def delivery(*changes: Any, entry_id: Any = PORTFOLIO, sent: Any = 1744823932) -> bytes:
    entry = {"id": entry_id, "time": sent, "changes": list(changes)}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def read_one(*args: Any, **kwargs: Any) -> AccountChange:
    (found,) = account_changes(delivery(*args, **kwargs))
    return found


def added(**more: Any) -> dict[str, Any]:
    return change({"event": "PARTNER_ADDED", "waba_info": SHARED, **more})


# An example of each topic from Meta's page about it, and its event.
TOPIC_EXAMPLES: list[tuple[str, dict[str, Any], str]] = [
    (
        "account_alerts",
        {"entity_type": "BUSINESS", "entity_id": PORTFOLIO, "alert_info": {"alert_type": "OBA_REJECTED"}},
        "OBA_REJECTED",
    ),
    ("account_alerts", {"entity_type": "WABA", "entity_id": 123456, "alert_type": "OBA_APPROVED"}, "OBA_APPROVED"),
    ("account_review_update", {"decision": "APPROVED"}, "APPROVED"),
    (
        "account_settings_update",
        {"timestamp": "1671644824", "type": "PHONE_NUMBER_SETTINGS", "phone_number_settings": {"calling": None}},
        "PHONE_NUMBER_SETTINGS",
    ),
    ("account_update", {"event": "ACCOUNT_DELETED"}, "ACCOUNT_DELETED"),
    ("business_capability_update", {"max_phone_numbers_per_waba": 25}, "business_capability_update"),
    ("business_status_update", {"business_id": 123, "event": "COMPROMISED_NOTIFICATION"}, "COMPROMISED_NOTIFICATION"),
    ("business_username_updates", {"username": "luckyshrub", "status": "approved"}, "approved"),
    ("flows", {"event": "FLOW_STATUS_CHANGE", "flow_id": "6627390910605886"}, "FLOW_STATUS_CHANGE"),
    ("message_template_components_update", {"message_template_id": 1}, "message_template_components_update"),
    ("message_template_quality_update", {"previous_quality_score": "GREEN", "new_quality_score": "RED"}, "RED"),
    ("message_template_status_update", {"event": "PAUSED", "message_template_id": 1689556908129832}, "PAUSED"),
    ("partner_solutions", {"event": "SOLUTION_CREATED", "solution_status": "INITIATED"}, "SOLUTION_CREATED"),
    ("payment_configuration_update", {"provider_name": "razorpay", "status": "Needs Testing"}, "Needs Testing"),
    ("phone_number_name_update", {"decision": "APPROVED", "rejection_reason": None}, "APPROVED"),
    ("phone_number_quality_update", {"event": "FLAGGED", "current_limit": "TIER_1K"}, "FLAGGED"),
    ("security", {"event": "PIN_RESET_REQUEST", "requester": "61555822107539"}, "PIN_RESET_REQUEST"),
    ("template_category_update", {"previous_category": "UTILITY", "new_category": "MARKETING"}, "MARKETING"),
    ("template_correct_category_detection", {"category": "UTILITY", "correct_category": "MARKETING"}, "MARKETING"),
]

PLACES = (
    "object",
    "entry",
    "id",
    "time",
    "changes",
    "field",
    "value",
    "event",
    "waba_info",
    "waba_id",
    "owner_business_id",
)


def with_value(place: str, value: Any) -> bytes:
    """A delivery with another value in one place."""

    def put(node: Any) -> Any:
        if isinstance(node, list):
            return [put(item) for item in node]
        if isinstance(node, dict):
            return {name: value if name == place else put(item) for name, item in node.items()}
        return node

    return json.dumps(put(json.loads(delivery(added())))).encode()


class TestSignature:
    @pytest.mark.parametrize(
        ("secret", "body", "digest"),
        [
            # The first is test case 2 of RFC 4231.
            (
                "Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                "key",
                b"The quick brown fox jumps over the lazy dog",
                "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8",
            ),
            (
                "test_app_secret",
                b'{"object":"whatsapp_business_account","entry":[]}',
                "dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756",
            ),
        ],
    )
    def test_known_vectors(self, secret: str, body: bytes, digest: str) -> None:
        assert verify_signature(body, f"sha256={digest}", secret)
        assert not verify_signature(body + b" ", f"sha256={digest}", secret)
        assert not verify_signature(body, f"sha256={digest}", secret + "x")

    @given(st.binary(), st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip))
    def test_what_was_signed_is_accepted(self, body: bytes, secret: str) -> None:
        assert verify_signature(body, sign(body, secret), secret)

    @given(st.binary(), st.none() | texts, texts)
    def test_anything_else_is_refused(self, body: bytes, header: str | None, secret: str) -> None:
        assert verify_signature(body, header, secret) is False

    @given(st.binary(min_size=1), st.data())
    def test_one_bit_counts(self, body: bytes, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(body) * 8 - 1))
        changed = bytearray(body)
        changed[place // 8] ^= 1 << place % 8
        assert not verify_signature(bytes(changed), sign(body), SECRET)

    @pytest.mark.parametrize("secret", ["", "  "])
    def test_without_a_secret_nobody_can_sign(self, secret: str) -> None:
        assert not verify_signature(b"{}", sign(b"{}", secret), secret)

    def test_only_this_form(self) -> None:
        good = sign(b"{}")
        assert verify_signature(b"{}", good, SECRET)
        digest = good.removeprefix("sha256=")
        sha1 = "sha1=" + hmac.new(SECRET.encode(), b"{}", "sha1").hexdigest()
        for header in (
            digest,
            sha1,
            f"{good},{good}",
            f" {good}",
            f"{good}\n",
            f"SHA256={digest}",
            good[:-1],
            "sha256=",
        ):
            assert not verify_signature(b"{}", header, SECRET), header
        # Half of a surrogate pair cannot be encoded.
        assert not verify_signature(b"{}", "sha256=\ud800", SECRET)
        assert not verify_signature(b"{}", good, "\ud800")


class TestHandshake:
    def test_of_metas_documentation(self) -> None:
        assert answer_handshake(HANDSHAKE, TOKEN) == "1158201444"

    @pytest.mark.parametrize(
        "other",
        [
            {"hub.mode": "unsubscribe"},
            {"hub.mode": ""},
            {"hub.verify_token": "meatyhamhoc"},
            {"hub.verify_token": "mëatyhamhock"},
            {"hub.verify_token": "\ud800"},
            {"hub.verify_token": [TOKEN]},
            {"hub.challenge": ""},
            {"hub.challenge": "<script>alert(1)</script>"},
            {"hub.challenge": "1" * 513},
            {"hub.challenge": "1\n"},
            {"hub.challenge": 5},
        ],
    )
    def test_refused(self, other: dict[str, Any]) -> None:
        assert answer_handshake({**HANDSHAKE, **other}, TOKEN) is None

    @pytest.mark.parametrize("missing", HANDSHAKE)
    def test_a_part_is_missing(self, missing: str) -> None:
        assert answer_handshake({name: value for name, value in HANDSHAKE.items() if name != missing}, TOKEN) is None
        assert answer_handshake({}, TOKEN) is None
        assert answer_handshake(None, TOKEN) is None

    @pytest.mark.parametrize("token", ["", " "])
    def test_without_a_verify_token_nothing_is_accepted(self, token: str) -> None:
        assert answer_handshake({**HANDSHAKE, "hub.verify_token": token}, token) is None

    @given(st.dictionaries(st.sampled_from(list(HANDSHAKE)), texts | st.just("subscribe")), st.text())
    def test_nothing_but_the_token_opens(self, query: dict[str, str], token: str) -> None:
        answer = answer_handshake(query, token)
        assert answer is None or (query["hub.verify_token"] == token and query["hub.challenge"] == answer)


class TestMetasExamples:
    """The examples of Meta's references of account_update and account_review_update."""

    def test_partner_added(self) -> None:
        value = {
            "event": "PARTNER_ADDED",
            "waba_info": {**SHARED, "solution_id": "1715120619246906", "solution_partner_business_ids": [PORTFOLIO]},
        }
        found = read_one(change(value))
        assert found == AccountChange(
            waba_id=WABA,
            event="PARTNER_ADDED",
            field="account_update",
            owner_business_id=OWNER,
            sent_at=datetime(2025, 4, 16, 17, 18, 52, tzinfo=timezone.utc),
            key=found.key,
            value=value,
        )
        assert len({found, read_one(change(value))}) == 1

    @pytest.mark.parametrize(
        "event",
        [
            "PARTNER_REMOVED",
            "PARTNER_APP_INSTALLED",
            "PARTNER_APP_UNINSTALLED",
            "AD_ACCOUNT_LINKED",
            "MM_LITE_TERMS_SIGNED",
        ],
    )
    def test_the_entry_is_the_partner(self, event: str) -> None:
        assert read_one(change({"event": event, "waba_info": SHARED})).waba_id == WABA
        # Meta's page on the tokens of onboarded businesses shows PARTNER_APP_UNINSTALLED like this.
        for nameless in ({"event": event}, {"event": event, "waba_info": {}}, {"event": event, "waba_info": None}):
            found = read_one(change(nameless))
            assert (found.waba_id, found.owner_business_id) == (None, None)
            assert RUN_ID.fullmatch(found.key)

    @pytest.mark.parametrize("more", [{"phone_number": "15550783881"}, {"disconnection_info": {"reason": "X"}}])
    def test_a_client_of_the_app_is_removed(self, more: dict[str, Any]) -> None:
        """Meta's page on clients of the WhatsApp Business app, where the entry is the account, and the reference."""
        removed = {"event": "PARTNER_REMOVED", **more}
        assert read_one(change(removed), entry_id=WABA).waba_id == WABA
        assert read_one(change({**removed, "waba_info": SHARED})).waba_id == WABA
        assert read_one(change({"event": "PARTNER_ADDED", **more})).waba_id is None

    @pytest.mark.parametrize(
        "value",
        [
            {"event": "ACCOUNT_DELETED"},
            {"event": "ACCOUNT_OFFBOARDED"},
            {"event": "ACCOUNT_RESTRICTION", "restriction_info": [{"restriction_type": "X", "expiration": 1641330498}]},
            {
                "event": "DISABLED_UPDATE",
                "ban_info": {"waba_ban_state": "REINSTATE", "waba_ban_date": "April 17, 2025"},
            },
            {
                "event": "PARTNER_CLIENT_CERTIFICATION_STATUS_UPDATE",
                "partner_client_certification_info": {"status": "APPROVED"},
            },
            {"event": "AN_EVENT_OF_TOMORROW", "with": [1.5, None, True]},
            # What the test button of the app's dashboard sends.
            {"event": "VERIFIED_ACCOUNT", "phone_number": "16505551111"},
        ],
        ids=lambda value: value["event"],
    )
    def test_the_entry_is_the_account(self, value: dict[str, Any]) -> None:
        found = read_one(change(value), entry_id="102290129340398")
        assert (found.waba_id, found.event, found.owner_business_id) == ("102290129340398", value["event"], None)
        assert found.value == value
        # The samples of the dashboard, and Meta's page on calls, name no account.
        assert read_one(change(value), entry_id="0").waba_id is None

    @pytest.mark.parametrize(("field", "value", "event"), TOPIC_EXAMPLES, ids=[it[0] for it in TOPIC_EXAMPLES])
    def test_topics(self, field: str, value: dict[str, Any], event: str) -> None:
        found = read_one(change(value, field), entry_id="102290129340398")
        of_business = field in {"business_status_update", "partner_solutions"}
        assert found.waba_id == (None if of_business else "102290129340398")
        assert (found.field, found.event, found.value) == (field, event, value)
        assert RUN_ID.fullmatch(found.key)

    def test_every_topic_has_an_example_and_a_source(self) -> None:
        assert {field for field, _, _ in TOPIC_EXAMPLES} == {topic.field for topic in TOPICS}
        assert {topic.source for topic in TOPICS if not topic.page} >= {
            "https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/security"
        }
        assert all(topic.source.startswith("https://developers.facebook.com/doc") for topic in TOPICS)

    def test_ids_may_be_numbers_and_the_time_may_be_missing(self) -> None:
        info = {"waba_id": int(WABA), "owner_business_id": int(OWNER)}
        found = read_one(change({"event": "PARTNER_ADDED", "waba_info": info}), entry_id=int(PORTFOLIO), sent=None)
        assert (found.waba_id, found.owner_business_id, found.sent_at) == (WABA, OWNER, None)


class TestWhatIsRead:
    def test_a_full_delivery_in_order(self) -> None:
        ids = [str(10**15 + number) for number in range(1000)]
        body = delivery(*(change({"event": "PARTNER_ADDED", "waba_info": {"waba_id": waba_id}}) for waba_id in ids))
        found = account_changes(body)
        assert [one.waba_id for one in found] == ids
        assert len({one.key for one in found}) == 1000

    def test_other_fields_and_objects_are_ignored(self) -> None:
        other = [change({"anything": []}, "messages"), change(None, "smb_message_echoes")]
        assert [one.waba_id for one in account_changes(delivery(other[0], added(), other[1]))] == [WABA]
        assert account_changes(delivery(*other)) == account_changes(delivery()) == []
        assert account_changes(b'{"object": "page", "entry": [{"id": "1", "messaging": []}]}') == []

    def test_each_change_once(self) -> None:
        assert len(account_changes(delivery(added(), added()))) == 1

    def test_many_entries(self) -> None:
        one, other = json.loads(delivery(added())), json.loads(delivery(change({"event": "A"}), entry_id="7"))
        body = json.dumps({**one, "entry": one["entry"] + other["entry"]}).encode()
        assert [(found.waba_id, found.event) for found in account_changes(body)] == [
            (WABA, "PARTNER_ADDED"),
            ("7", "A"),
        ]

    def test_what_no_database_takes(self) -> None:
        found = read_one(change({"event": "A\ud800B\x00", "\x00": ["\ud800"]}), entry_id="7")
        assert found.event == "A\ufffdB\ufffd"
        assert found.value == {"event": found.event, "\ufffd": ["\ufffd"]}

    @pytest.mark.parametrize("sent", [1744823932, "1744823932", 1744823932000, "1744823932000"])
    def test_times(self, sent: Any) -> None:
        assert read_one(added(), sent=sent).sent_at == datetime(2025, 4, 16, 17, 18, 52, tzinfo=timezone.utc)

    @pytest.mark.parametrize("wrong", [None, True, -1, 1.5, "", "now", "-5", "٣", 10**39, 10**14, []])
    def test_a_time_that_is_not_understood(self, wrong: Any) -> None:
        assert read_one(added(), sent=wrong).sent_at is None


class TestOddChanges:
    """A change that is not understood is reported, and never loses the other changes of its delivery."""

    def left_out(self, caplog: pytest.LogCaptureFixture, body: bytes, why: str) -> None:
        """Check that the change is left out of the delivery, between and beside good ones."""
        both = json.loads(delivery(added()))["entry"]
        caplog.clear()
        odd = body.partition(b'"entry": [')[2].rpartition(b"]}")[0]
        whole = b'{"object": "whatsapp_business_account", "entry": [%s, %s, %s]}' % (
            json.dumps(both[0]).encode(),
            odd,
            delivery(change({"event": "A"}), entry_id="7").partition(b'"entry": [')[2].rpartition(b"]}")[0],
        )
        assert [one.waba_id for one in account_changes(whole)] == [WABA, "7"]
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("airflow_provider_whatsapp.webhooks", logging.WARNING)
        assert re.fullmatch(f"1 of 3 changes of a delivery were left out: .*({why}).*\\.", record.getMessage())
        assert "SECRET" not in caplog.text
        assert record.exc_info is None

    @pytest.mark.parametrize("place", ["entry", "changes", "field", "value", "event", "waba_info"])
    @pytest.mark.parametrize("wrong", [None, True, 5.5, [[]], ["SECRET"], "", {"SECRET": "SECRET"}])
    def test_a_wrong_type(self, caplog: pytest.LogCaptureFixture, place: str, wrong: Any) -> None:
        if place == "entry":
            self.left_out(caplog, b'{"entry": [%s]}' % json.dumps(wrong).encode(), "an object with a `field`")
        elif (place, wrong) not in [("field", ""), ("waba_info", None), ("waba_info", {"SECRET": "SECRET"})]:
            self.left_out(caplog, with_value(place, wrong), f"`{place}`|`field`|`event`")

    @pytest.mark.parametrize("wrong", [True, -1, 1.5, "", "SECRET", "5 ", "٣", "1" * 33, ["5"], {}])
    def test_a_wrong_id(self, caplog: pytest.LogCaptureFixture, wrong: Any) -> None:
        self.left_out(caplog, delivery(change({"event": "B"}), entry_id=wrong), "`id`")
        for name in ("waba_id", "owner_business_id"):
            value = {"event": "PARTNER_REMOVED", "waba_info": {**SHARED, name: wrong}}
            self.left_out(caplog, delivery(change(value)), f"`{name}`")

    @pytest.mark.parametrize(
        ("odd", "why"),
        [
            (b'{"SECRET": 1, "SECRET": 2}', "twice"),
            (b"1" * 41, "too long"),
            (b"-1.%s" % (b"1" * 38), "too long"),
            (b"1e400", "not finite"),
            (b"NaN", "not finite"),
            (b"-Infinity", "not finite"),
            (b"[" * 40 + b"]" * 40, "too deeply"),
        ],
    )
    def test_what_meta_would_not_write(self, caplog: pytest.LogCaptureFixture, odd: bytes, why: str) -> None:
        self.left_out(caplog, delivery(added(padding="ODD")).replace(b'"ODD"', odd), why)
        # It does not matter in a topic about messages.
        ignored = delivery(change({"padding": "ODD"}, "messages"), added()).replace(b'"ODD"', odd)
        assert [one.waba_id for one in account_changes(ignored)] == [WABA]

    @pytest.mark.parametrize("number", [b"1" * 40, b"-%s" % (b"1" * 39), b"1.%s" % (b"1" * 38), b"0"])
    def test_the_longest_number(self, number: bytes) -> None:
        (found,) = account_changes(delivery(added(padding="N")).replace(b'"N"', number))
        assert found.value["padding"] == json.loads(number)


class TestKey:
    def test_is_the_same_when_meta_sends_again(self) -> None:
        first = read_one(added())
        later = read_one(added(), sent=1744824000)
        turned = {"waba_info": dict(reversed(SHARED.items())), "event": "PARTNER_ADDED"}
        assert first.sent_at != later.sent_at
        assert first.key == later.key == read_one(change(turned)).key
        # Runs of before an upgrade must be recognized after it, so the key never changes.
        assert first.key == "waba-980198427658004-PARTNER_ADDED-b8cf5d7290c0514b882f350e33911429"

    def test_differs_for_another_change(self) -> None:
        keys = [
            read_one(added()).key,
            read_one(added(), entry_id="5").key,
            read_one(added(more=1)).key,
            read_one(added(more=2)).key,
            read_one(change({"event": "PARTNER_REMOVED", "waba_info": SHARED})).key,
            read_one(change({"event": "PARTNER_ADDED", "waba_info": {**SHARED, "waba_id": "5"}})).key,
            read_one(change({"event": "APPROVED"}), entry_id="5").key,
            read_one(change({"decision": "APPROVED"}, "account_review_update"), entry_id="5").key,
        ]
        assert len(set(keys)) == len(keys)

    @given(texts.filter(bool), st.dictionaries(texts, json_values))
    def test_fits_a_run_id(self, event: str, value: dict[str, Any]) -> None:
        found = read_one(change({**value, "event": event, "waba_info": None}), entry_id="9" * 32)
        assert RUN_ID.fullmatch(found.key)
        assert len(found.key) <= 150

    def test_airflow_takes_it_for_a_manual_run(self) -> None:
        from airflow.configuration import conf
        from airflow.utils.types import DagRunType

        key = read_one(added()).key
        assert re.match(conf.get("scheduler", "allowed_run_id_pattern"), key)
        assert not key.startswith(tuple(f"{kind.value}_" for kind in DagRunType))


class TestRefused:
    """Nothing of the body is in the error, because it may hold what a log must not."""

    def refuse(self, body: bytes, why: str = "") -> None:
        with pytest.raises(ValueError, match=f"^This is not a delivery from Meta's webhooks: .*{why}.*\\.$") as raised:
            account_changes(body)
        assert type(raised.value) is ValueError
        assert raised.value.__context__ is raised.value.__cause__ is None
        assert "SECRET" not in repr(raised.value)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"SECRET",
            b'{"SECRET"',
            b"\xff\xfeSECRET",
            '{"object": "SECRET"}'.encode("utf-16"),
            b'\xef\xbb\xbf{"object": "page"}',
        ],
    )
    def test_no_json(self, body: bytes) -> None:
        self.refuse(body, "not JSON")

    @pytest.mark.parametrize(
        "body",
        [
            b"null",
            b"[]",
            b"{}",
            b"NaN",
            b"1" * 3_000_000,
            b'{"object": ["SECRET"]}',
            b'{"object": "page", "object": "whatsapp_business_account"}',
            b'{"object": "whatsapp_business_account"}',
            b'{"object": "whatsapp_business_account", "entry": {"SECRET": 1}}',
        ],
    )
    def test_no_delivery(self, body: bytes) -> None:
        self.refuse(body, "`object`|`entry`")

    def test_too_many_changes(self) -> None:
        assert len(account_changes(delivery(added(), *[change({}, "messages")] * 999))) == 1
        self.refuse(delivery(added(), *[change({}, "messages")] * 1000), "1000 changes")

    def test_too_large(self) -> None:
        padded = delivery(added(padding="x" * 2_900_000))
        assert len(account_changes(padded + b" " * (3 * 1024 * 1024 - len(padded)))) == 1
        self.refuse(padded + b" " * (3 * 1024 * 1024 - len(padded) + 1), "3145728 bytes")

    def test_too_many_values(self) -> None:
        self.refuse(delivery(added(padding=[1] * 500_000)), "too many values")

    def test_too_deep(self) -> None:
        body = delivery(added(padding="DEEP")).replace(b'"DEEP"', b"[" * 400_000 + b"]" * 400_000)
        self.refuse(body, "too deeply")

    @given(st.binary())
    def test_any_bytes(self, body: bytes) -> None:
        self.refuse(body)

    @given(st.sampled_from(PLACES), json_values)
    def test_any_json(self, place: str, value: Any) -> None:
        for body in (with_value(place, value), json.dumps(value).encode()):
            found: list[AccountChange] = []
            with suppress(ValueError):
                found = account_changes(body)
            for one in found:
                assert one.waba_id is None or re.fullmatch("[0-9]{1,32}", one.waba_id)
                assert RUN_ID.fullmatch(one.key)
                assert json.dumps(one.value, allow_nan=False).encode().find(b"\\u0000") == -1
