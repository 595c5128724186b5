"""What the functions of ``webhooks`` make of deliveries: Meta's own examples, known vectors, and anything else."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.webhooks import AccountChange, account_changes, answer_handshake, verify_signature

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
        )

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

    def test_review(self) -> None:
        found = read_one(change({"decision": "APPROVED"}, "account_review_update"), entry_id="102290129340398")
        assert (found.waba_id, found.event, found.field) == ("102290129340398", "APPROVED", "account_review_update")

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
        other = [change({"anything": []}, "messages"), change(None, "phone_number_name_update")]
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
        found = read_one(change({"event": "A\ud800B\x00"}), entry_id="7")
        assert found.event == "A\ufffdB\ufffd"


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
            b'{"object": NaN}',
            b'{"object": "page", "object": "whatsapp_business_account"}',
            b'{"object": %s}' % (b"1" * 41),
            b"1" * 3_000_000,
            b'{"object": 1.%s}' % (b"1" * 41),
        ],
    )
    def test_no_json(self, body: bytes) -> None:
        self.refuse(body, "not JSON")

    @pytest.mark.parametrize("place", [*PLACES, "whole"])
    @pytest.mark.parametrize("wrong", [None, True, 5.5, [], [[]], ["SECRET"], "", {"SECRET": "SECRET"}])
    def test_a_wrong_type(self, place: str, wrong: Any) -> None:
        body = json.dumps(wrong).encode() if place == "whole" else with_value(place, wrong)
        if (place, wrong) in [("entry", []), ("changes", [])]:
            assert account_changes(body) == []
        elif place == "waba_info" and wrong in (None, {"SECRET": "SECRET"}):
            assert [one.waba_id for one in account_changes(body)] == [None]
        elif place in {"waba_id", "owner_business_id", "time"} and wrong is None:
            assert len(account_changes(body)) == 1
        else:
            self.refuse(body, "" if place == "whole" else f"`{place}`|`event`")

    @pytest.mark.parametrize("wrong", [True, -1, 1.5, "", "SECRET", "5 ", "٣", "1" * 33, ["5"], {}])
    def test_a_wrong_id(self, wrong: Any) -> None:
        self.refuse(delivery(change({"event": "A"}), entry_id=wrong), "`id`")
        for name in ("waba_id", "owner_business_id"):
            value = {"event": "PARTNER_ADDED", "waba_info": {**SHARED, name: wrong}}
            self.refuse(delivery(change(value)), f"`{name}`")

    @pytest.mark.parametrize("wrong", [True, -1, 1.5, "1744823932", 1744823932000, 10**39, []])
    def test_a_wrong_time(self, wrong: Any) -> None:
        self.refuse(delivery(added(), sent=wrong), "`time`")

    def test_a_wrong_waba_info(self) -> None:
        self.refuse(delivery(change({"event": "PARTNER_ADDED", "waba_info": ["SECRET"]})), "`waba_info`")

    def test_an_empty_event(self) -> None:
        self.refuse(delivery(change({"event": ""})), "`event`")

    def test_too_many_changes(self) -> None:
        assert len(account_changes(delivery(added(), *[change({}, "messages")] * 999))) == 1
        self.refuse(delivery(added(), *[change({}, "messages")] * 1000), "1000 changes")

    def test_too_large(self) -> None:
        padded = delivery(added(padding="x" * 2_900_000))
        assert len(account_changes(padded + b" " * (3 * 1024 * 1024 - len(padded)))) == 1
        self.refuse(padded + b" " * (3 * 1024 * 1024 - len(padded) + 1), "3145728 bytes")

    def test_too_many_values(self) -> None:
        self.refuse(delivery(added(padding=[1] * 500_000)), "too many values")

    @pytest.mark.parametrize("levels", [40, 400_000])
    def test_too_deep(self, levels: int) -> None:
        body = delivery(added(padding="DEEP")).replace(b'"DEEP"', b"[" * levels + b"]" * levels)
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
            if not found and value != [] and place not in {"object", "field"}:
                self.refuse(body)
            for one in found:
                assert one.waba_id is None or re.fullmatch("[0-9]{1,32}", one.waba_id)
                assert RUN_ID.fullmatch(one.key)
