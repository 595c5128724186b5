from __future__ import annotations

import pickle
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp import graph
from airflow_provider_whatsapp.graph import (
    GraphApiError,
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
)
from airflow_provider_whatsapp.graph.answer_errors import find_error
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.error_codes import CODES, concerns_one_account, is_limit_of_one_account
from airflow_provider_whatsapp.graph.errors import shorten


def judged(
    status: int, payload: Any, *, retry_after: timedelta | None = None, token: str = "EAAtoken"
) -> GraphError | None:
    return find_error(status, payload, retry_after=retry_after, redact=partial(Credentials(token).redact, now=0))


def envelope(code: object = 100, **more: object) -> dict[str, Any]:
    return {"error": {"message": "what happened", "type": "OAuthException", "code": code, **more}}


# Codes, their class, what the message advises, and whether the error concerns one account only.
CASES: list[tuple[list[int], type[GraphApiError], str, bool]] = [
    ([0], GraphTokenError, "check the one in the connection's password", False),
    ([102, 190], GraphTokenError, "is not valid", False),
    ([104], GraphTokenError, "app_secret", False),
    ([2500], GraphTokenError, "a field's syntax", False),
    ([3], GraphPermissionError, "lacks a capability", False),
    ([10], GraphPermissionError, "lacks a permission", False),
    ([200], GraphPermissionError, "Advanced access", True),
    ([201, *range(202, 300)], GraphPermissionError, "check the permissions", True),
    ([368], GraphPermissionError, "has restricted or disabled this account", True),
    ([131005], GraphPermissionError, "accepted the terms of WhatsApp Payments", True),
    ([131031], GraphPermissionError, "locked this account", True),
    ([4, 17, 32, 341, 613, 130429, 131064], GraphRateLimitError, "calls during a throttle lengthen it", False),
    ([*range(80000, 80007), *range(80009, 80015)], GraphRateLimitError, "calls during a throttle lengthen it", False),
    ([80007, 80008], GraphRateLimitError, "calls during a throttle lengthen it", True),
    ([-3], GraphServerError, "cannot collect so much data at once", False),
    ([-2, -1, 1, 2, 99, 960, 131000, 131016, 131057], GraphServerError, "passes by itself", False),
    ([12], GraphRequestError, "no longer has a field or an edge that was requested: leave it out", False),
    ([2635], GraphRequestError, "has ended: set a newer api_version", False),
    ([33, 100, 506], GraphRequestError, "check the id, the fields, the filters", False),
    ([803], GraphRequestError, "check the id, the fields, the filters", True),
    ([200005, 200006, 200007], GraphRequestError, "enable them in WhatsApp Manager", True),
    ([200008], GraphRequestError, "has no phone number", True),
]
UNKNOWN = ([300, 79999, 80015, 131008], GraphRequestError, "check the id, the fields, the filters", False)


def test_every_code_has_a_case() -> None:
    known = [code for row in CODES for code in row.codes]
    assert len(known) == len(set(known))
    assert set(known) == {code for codes, *_ in CASES for code in codes}


@pytest.mark.parametrize(
    ("code", "kind", "advice", "is_of_one_account"),
    [(code, *expected) for codes, *expected in [*CASES, UNKNOWN] for code in codes],
)
@pytest.mark.parametrize("status", [200, 400, 403])
def test_the_code_decides_whatever_the_status(
    code: int, kind: type[GraphApiError], advice: str, is_of_one_account: bool, status: int
) -> None:
    error = judged(status, envelope(code))
    assert type(error) is kind
    assert error.code == code
    assert error.http_status == status
    assert error.retryable is (kind in (GraphRateLimitError, GraphServerError) and code != -3)
    assert advice in str(error)
    assert is_limit_of_one_account(error) is (is_of_one_account and kind is GraphRateLimitError)
    assert concerns_one_account(error) is (is_of_one_account and kind is not GraphRateLimitError)


def test_a_known_code_beats_a_server_status() -> None:
    assert type(judged(500, envelope(100))) is GraphRequestError
    assert type(judged(500, envelope(190))) is GraphTokenError
    assert type(judged(500, envelope(4))) is GraphRateLimitError


def test_an_unknown_code_goes_by_the_status() -> None:
    assert type(judged(503, envelope(99999))) is GraphServerError
    assert type(judged(400, envelope(99999))) is GraphRequestError
    assert type(judged(429, envelope(99999))) is GraphRateLimitError
    for status, kind in ((429, GraphRateLimitError), (500, GraphServerError)):
        assert type(judged(status, {"error": {"type": "OAuthException"}})) is kind


def test_what_the_api_calls_transient_may_be_tried_again() -> None:
    assert type(judged(400, envelope(99999, is_transient=True))) is GraphServerError
    for code in (190, 200, 4, 100):
        error = judged(400, envelope(code, is_transient=True))
        assert error is not None
        assert error.retryable
    assert type(judged(400, envelope(190, is_transient=True))) is GraphTokenError
    assert type(judged(400, envelope(100, is_transient="false"))) is GraphRequestError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, GraphTokenError),
        (403, GraphPermissionError),
        (404, GraphRequestError),
        (408, GraphServerError),
        (429, GraphRateLimitError),
        (500, GraphServerError),
        (503, GraphServerError),
        (302, GraphProtocolError),
        (304, GraphProtocolError),
    ],
)
@pytest.mark.parametrize("payload", [None, [], "text", {"data": []}, {"error": None}])
def test_without_an_envelope_the_status_decides(status: int, kind: type[GraphError], payload: object) -> None:
    assert type(judged(status, payload)) is kind


@pytest.mark.parametrize("payload", [{"data": []}, {"error": None, "data": []}, None, []])
def test_an_answer_without_an_error_is_none(payload: object) -> None:
    assert judged(200, payload) is None


@given(st.integers(200, 299), st.booleans(), st.sampled_from([{"data": []}, {"error": None, "id": "1"}, None, []]))
def test_only_a_whole_answer_with_status_200_is_the_answer(status: int, is_partial: bool, payload: object) -> None:
    error = find_error(status, payload, retry_after=None, redact=str, is_partial=is_partial)
    assert (error is None) is (status == 200 and not is_partial)
    assert error is None or (type(error) is GraphProtocolError and f"HTTP {status} " in str(error))


@pytest.mark.parametrize("value", ["text", [], 0, False])
def test_an_error_that_is_no_envelope_is_a_protocol_error(value: object) -> None:
    error = judged(200, {"error": value, "data": []})
    assert type(error) is GraphProtocolError
    assert error.retryable


def test_an_envelope_without_a_code() -> None:
    assert type(judged(400, {"error": {"type": "OAuthException"}})) is GraphTokenError
    assert type(judged(400, {"error": {"type": "GraphMethodException"}})) is GraphRequestError
    assert type(judged(500, {"error": {}})) is GraphServerError
    assert "no code" in str(judged(400, {"error": {}}))
    assert "no message" in str(judged(400, {"error": {}}))


@pytest.mark.parametrize(
    ("code", "read"),
    [("190", 190), ("1234567890", None), ("-1", -1), ("--1", None), ("²", None), (True, None), (1.5, None)],
)
def test_a_code_is_a_whole_number_or_none(code: object, read: int | None) -> None:
    error = judged(400, envelope(code))
    assert isinstance(error, GraphApiError)
    assert error.code == read


def test_the_envelope_is_at_hand() -> None:
    error = judged(
        400,
        envelope(
            190,
            error_subcode=463,
            fbtrace_id="Abc",
            error_user_title="Titel",
            error_user_msg="Hinweis",
            is_transient=False,
        ),
    )
    assert isinstance(error, GraphTokenError)
    assert (error.code, error.subcode, error.type, error.http_status) == (190, 463, "OAuthException", 400)
    assert (error.fbtrace_id, error.user_title, error.user_message) == ("Abc", "Titel", "Hinweis")
    assert error.is_transient is False
    assert str(error) == (
        "The API said: what happened. The token has expired: create a new one and put it in the connection's password. "
        "[code 190/463, HTTP 400, fbtrace_id Abc]"
    )


@pytest.mark.parametrize(
    ("payload", "advice"),
    [
        (envelope(100, error_subcode=33), "or the token's system user may not see it"),
        (envelope(100, error_subcode=999), "check the id, the fields, the filters"),
        (
            envelope(100, message="API calls from the server require an appsecret_proof argument"),
            "app_secret must be set",
        ),
        (envelope(190, message="appsecret_proof"), "create a new system user token"),
        (envelope(190, error_subcode=458), "was removed from the business"),
        (envelope(190, error_subcode=460), "The password changed"),
        (envelope(190, error_subcode=467), "was revoked"),
        (
            envelope(4),
            "wait before calling again, as calls during a throttle lengthen it. The API named no time to wait.",
        ),
    ],
)
def test_the_subcode_and_the_message_count_too(payload: dict[str, Any], advice: str) -> None:
    assert advice in str(judged(400, payload))


@pytest.mark.parametrize(
    ("path", "payload", "advice"),
    [
        (
            "1/client_whatsapp_business_accounts",
            envelope(100, error_subcode=33),
            "by the id of a business portfolio (see",
        ),
        (
            "1/phone_numbers",
            envelope(100, error_subcode=33),
            "phone_numbers are listed by the id of a WABA, not of a business portfolio",
        ),
        ("1/phonenumbers", envelope(2500), "phonenumbers is not a known edge: did you mean phone_numbers? Either"),
        (
            "1/message_template",
            envelope(100),
            "message_template is not a known edge: did you mean message_templates? The",
        ),
        ("1/client_whatsapp_accounts", envelope(100), "did you mean client_whatsapp_business_accounts? The"),
    ],
)
def test_the_advice_fits_the_path(path: str, payload: dict[str, Any], advice: str) -> None:
    assert advice in str(find_error(400, payload, retry_after=None, redact=str, path=path))


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("1/phonenumbers", envelope(190)),
        ("1/phonenumbers", envelope(2)),
        ("1/phone_numbers", envelope(100)),
        ("1/phone_numbers", envelope(2500)),
        ("1/hologram", envelope(100, error_subcode=33)),
        ("1", envelope(100, error_subcode=33)),
        ("debug_token", envelope(100)),
    ],
)
def test_a_path_that_says_nothing_changes_no_advice(path: str, payload: dict[str, Any]) -> None:
    assert str(find_error(400, payload, retry_after=None, redact=str, path=path)) == str(judged(400, payload))


def test_a_rate_limit_has_the_wait_that_the_api_named() -> None:
    error = judged(400, envelope(80008), retry_after=timedelta(minutes=5))
    assert isinstance(error, GraphRateLimitError)
    assert error.retry_after == timedelta(minutes=5)
    assert "asks to wait 0:05:00." in str(error)
    assert "asks to wait 0:00:09." in str(judged(429, None, retry_after=timedelta(seconds=9)))
    assert "wait" not in str(judged(503, None, retry_after=timedelta(seconds=9)))
    assert judged(503, None, retry_after=timedelta(seconds=9)).retry_after == timedelta(seconds=9)


def test_too_much_data_is_its_own_error_and_the_same_request_is_not_retried() -> None:
    payload = {"error": {"code": 1, "message": "Please reduce the amount of data you're asking for, then retry"}}
    error = judged(500, payload)
    assert isinstance(error, GraphServerError)
    assert error.too_much_data
    assert not error.retryable
    assert judged(500, envelope(1, message="REDUCE the amount of DATA")).too_much_data
    other = judged(500, envelope(1))
    assert isinstance(other, GraphServerError)
    assert not other.too_much_data
    assert other.retryable
    for code in (2, 100, 99999, None):
        assert type(judged(400, envelope(code, message="Please reduce the amount of data"))) is GraphServerError
    for code in (1, 2):
        assert judged(500, envelope(code, error_subcode=1504018)).too_much_data


@given(st.text("abcXYZ019|_-").map("tok~{}".format), st.text(max_size=50))
def test_a_token_that_the_server_echoes_does_not_show(token: str, noise: str) -> None:
    text = f"{noise} Malformed access token {token} {noise}"
    envelope = {"code": 99190, "message": text, "type": text, "error_user_msg": text, "error_user_title": text}
    error = judged(400, {"error": envelope}, token=token)
    assert token not in repr(vars(error)) + str(error)


def test_a_token_where_the_text_is_cut_does_not_show_in_part() -> None:
    token = "EAA" + "t" * 60
    error = judged(400, envelope(100, message="x" * 470 + token), token=token)
    assert "EAAttt" not in str(error)


def test_server_text_is_one_short_printable_line() -> None:
    error = judged(400, envelope(100, message="a\nb\x1b[31m" + "c" * 2000))
    assert error is not None
    assert str(error).isprintable()
    assert len(str(error)) < 700


def test_the_trace_id_is_short_too() -> None:
    error = judged(400, envelope(100, fbtrace_id="t" * 2000))
    assert isinstance(error, GraphApiError)
    assert error.fbtrace_id == "t" * 100
    assert len(str(error)) < 300


@pytest.mark.parametrize("payload", [envelope(100, message="nonexisting field"), envelope(12), envelope(2635), None])
def test_the_advice_begins_with_a_version_that_has_ended(payload: Any) -> None:
    def find(status: int, payload: Any) -> str:
        return str(find_error(status, payload, retry_after=None, redact=str, version_problem="v20.0 ended."))

    assert ". v20.0 ended. Th" in find(404, payload)
    # What has another cause is not blamed on the version.
    for other in (envelope(190), envelope(4), envelope(2), envelope(200)):
        assert "v20.0" not in find(400, other)
    assert "v20.0" not in find(503, None)


def test_attempts_are_reported_when_there_were_several() -> None:
    error = GraphTransportError("reset")
    assert str(error) == "reset"
    error.attempts = 6
    assert str(error) == "reset (after 6 attempts)"


def test_errors_survive_pickling() -> None:
    error = judged(400, envelope(190, error_subcode=463))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


def test_the_tree_is_the_documented_one() -> None:
    assert graph.__all__ == sorted(graph.__all__)
    bases = {name: getattr(graph, name).__bases__[0].__name__ for name in graph.__all__}
    assert bases == {
        "GraphError": "Exception",
        "GraphTransportError": "GraphError",
        "GraphProtocolError": "GraphError",
        "GraphApiError": "GraphError",
        "GraphTokenError": "GraphApiError",
        "GraphPermissionError": "GraphApiError",
        "GraphRateLimitError": "GraphApiError",
        "GraphServerError": "GraphApiError",
        "GraphRequestError": "GraphApiError",
    }
    retryable = {kind for kind in GraphError.__subclasses__() + GraphApiError.__subclasses__() if kind("x").retryable}
    assert retryable == {GraphTransportError, GraphRateLimitError, GraphServerError}


@pytest.mark.parametrize("at", [0, 391, 19_890, 19_992, 29_988])
def test_no_half_of_a_secret_is_left_at_the_end_of_a_long_message(at: int) -> None:
    token = "lowercase-token-0123456789" * 8
    message = "access_token=abc " * 2_000
    error = judged(400, envelope(100, message=message[:at] + token + message[at:]), token=token)
    assert error is not None
    assert token[:12] not in str(error)
    assert "abc" not in str(error)
    shrinking = judged(400, envelope(100, message=token * 200), token=token)
    assert "token" not in str(shrinking).partition(" [code")[0]


@pytest.mark.parametrize(
    ("error_data", "said"),
    [
        ({"messaging_product": "whatsapp", "details": "Accept the terms."}, "no (Accept the terms.). "),
        ({"details": "see token-0123456789"}, "no (see ***). "),
        ({"details": "n"}, "no. "),
        ({"details": "d" * 600}, f"no ({'d' * 500}). "),
        ({"details": ""}, "no. "),
        ({"details": {"blame": 1}}, "no. "),
        ("details", "no. "),
        (None, "no. "),
    ],
)
def test_the_details_of_an_error_are_reported(error_data: object, said: str) -> None:
    error = judged(403, envelope(131005, message="no", error_data=error_data), token="token-0123456789")
    assert f"The API said: {said}" in str(error)


def test_only_the_beginning_of_a_long_message_is_searched() -> None:
    searched: list[int] = []

    def redact(text: str) -> str:
        searched.append(len(text))
        return text

    find_error(400, envelope(100, message="x" * 1_000_000), retry_after=None, redact=redact)
    assert max(searched) <= 20_000


@pytest.mark.parametrize(
    ("status", "payload", "concerns"),
    [
        (400, envelope(100, error_subcode=33), True),
        (400, envelope(100, error_subcode="33"), True),
        (400, envelope(100, error_subcode=34), False),
        (400, envelope(100), False),
        (400, envelope(33), False),
        (404, envelope(803), True),
        (400, envelope(803, error_subcode=33), False),
        (400, envelope(200006, error_subcode=5), True),
        (403, envelope(200, error_subcode=5), True),
        (403, envelope(10, error_subcode=33), False),
        # Without a code, the answer can come from a proxy that refuses everything.
        (403, None, False),
        (403, envelope(None, type="odd"), False),
        (404, None, False),
        (401, None, False),
        (403, envelope(190), False),
        (400, envelope(200, is_transient=True), True),
        (400, envelope(99999, is_transient=True), False),
        (403, envelope(99999), False),
        (500, None, False),
        (200, {"error": "odd"}, False),
        (302, None, False),
    ],
)
def test_what_concerns_one_account(status: int, payload: Any, concerns: bool) -> None:
    error = judged(status, payload)
    assert error is not None
    assert concerns_one_account(error) is concerns
    assert not is_limit_of_one_account(error)


def test_what_has_no_code_is_the_limit_of_all() -> None:
    for error in (
        judged(429, None),
        GraphRateLimitError("x"),
        GraphTransportError("x"),
        GraphServerError("x", code=80008),
    ):
        assert error is not None
        assert not is_limit_of_one_account(error)
        assert not concerns_one_account(error)


def test_the_account_is_named_first() -> None:
    error = GraphTransportError("reset")
    error.waba_id = "102290129340398"
    assert str(error) == "Account 102290129340398: reset"
    error.attempts = 6
    assert str(error) == "Account 102290129340398: reset (after 6 attempts)"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert str(copy) == str(error)


@pytest.mark.parametrize(("said", "shown"), [("No", "No. "), ("No.", "No. "), ("No! ", "No! "), ("Is it?", "Is it? ")])
def test_what_the_api_said_ends_as_a_sentence(said: str, shown: str) -> None:
    assert f"The API said: {shown}Too many calls" in str(judged(400, envelope(4, message=said)))


@pytest.mark.parametrize(
    ("message", "longest", "short"),
    [
        ("a b", 3, "a b"),
        ("a\n b\tc", 10, "a b c"),
        ("It broke. " + "z" * 90 + " Fix it.", 30, "It broke. zzzzzzz … zz Fix it."),
    ],
)
def test_a_long_message_is_cut_in_the_middle(message: str, longest: int, short: str) -> None:
    assert shorten(message, longest) == short
