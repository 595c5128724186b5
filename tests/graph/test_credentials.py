from __future__ import annotations

import hashlib
import hmac
import json
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.credentials import Credentials, redact
from airflow_provider_whatsapp.graph.messages import Request, Response

TOKEN = "EAAJsecretTOKEN0123456789abcdef"
SECRET = "0123456789abcdef0123456789abcdef"
DATE = "Tue, 01 Dec 2026 02:57:05 GMT"
NOW = 1790000040


def test_the_token_travels_in_the_header_only() -> None:
    params, headers = Credentials(TOKEN).sign(Request("1/x", {"fields": "id"}), now=1790000000)
    assert params == {"fields": "id"}
    assert headers == {"Authorization": f"Bearer {TOKEN}"}


def test_every_request_carries_the_proof_when_there_is_an_app_secret() -> None:
    plain = hmac.new(SECRET.encode(), TOKEN.encode(), hashlib.sha256).hexdigest()
    params, _ = Credentials(TOKEN, SECRET, timed_proof=False).sign(Request("1/x"), now=1790000000)
    assert params == {"appsecret_proof": plain}
    for now in (NOW, NOW + 0.5, NOW + 59, NOW + 300):
        minute = NOW if now < NOW + 60 else NOW + 300
        timed = hmac.new(SECRET.encode(), f"{TOKEN}|{minute}".encode(), hashlib.sha256).hexdigest()
        params, _ = Credentials(TOKEN, SECRET).sign(Request("1/x"), now=now)
        assert params == {"appsecret_time": str(minute), "appsecret_proof": timed}


@pytest.mark.parametrize("age", [-1, 0, 59, 299, 599])
def test_a_timed_proof_is_masked_as_long_as_it_is_valid_and_longer(age: int) -> None:
    credentials = Credentials(TOKEN, SECRET)
    proof = credentials.sign(Request("1/x"), now=NOW)[0]["appsecret_proof"]
    assert credentials.redact(f"<{proof}>", now=NOW + age) == "<***>"
    mask = credentials.mask_for(f'{{"name":"{proof}"}}'.encode(), now=NOW + age)
    assert mask is not None
    assert mask(proof) == "***"
    assert proof not in credentials.secrets


def test_a_short_secret_does_not_mangle_rows() -> None:
    assert Credentials("1", "id").mask_for(b'{"id":"1"}', now=NOW) is None
    mask = Credentials("1").mask_for(b'{"id":"\\u0031"}', now=NOW)
    assert mask is not None
    assert mask("1") == "1"


@pytest.mark.parametrize("token", ["abcdefgh/1234", 'quote"backslash\\tail', "1234567|abcdefgh"])
def test_no_spelling_of_a_secret_passes(token: str) -> None:
    spellings = [
        json.dumps(token),
        json.dumps(token).replace("/", "\\/"),
        '"' + "".join(f"\\u{ord(char):04x}" for char in token) + '"',
        '"' + "".join(f"\\u{ord(char):04X}" for char in token[:1]) + json.dumps(token[1:])[1:],
        json.dumps(quote(token, safe="")),
    ]
    for spelling in spellings:
        for encoding in ("utf-8", "utf-16", "utf-32-le"):
            body = spelling.encode(encoding)
            mask = Credentials(token).mask_for(body, now=NOW)
            assert mask is not None
            assert mask(json.loads(body)) == "***"


def test_letters_beyond_ascii_cost_nothing() -> None:
    assert Credentials(TOKEN, SECRET).mask_for(json.dumps({"name": "Ünïcode 東京 a/b"}).encode(), now=NOW) is None


def test_only_a_request_about_the_token_names_it() -> None:
    params, _ = Credentials(TOKEN).sign(Request("debug_token", inspects_own_token=True), now=1790000000)
    assert params == {"input_token": TOKEN}


def test_secrets_are_in_no_repr() -> None:
    credentials = Credentials(TOKEN, SECRET)
    shown = repr(credentials) + repr(Response(200, {}, TOKEN.encode()))
    assert not any(secret in shown for secret in credentials.secrets)
    assert len(credentials.secrets) == 3
    assert Credentials("1|a").secrets == ("1|a", "1%7Ca")


@given(st.text("abcXYZ019|_-.", min_size=8), st.text(), st.text())
def test_no_token_survives_redaction(token: str, before: str, after: str) -> None:
    credentials = Credentials(token, SECRET)
    for secret in credentials.secrets:
        assert secret not in credentials.redact(before + secret + after, now=NOW).replace("***", "")
        mask = credentials.mask_for((before + secret + after).encode("utf-8", "replace"), now=NOW)
        assert mask is not None
        assert secret not in mask(before + secret + after).replace("***", "")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/v26.0/1?access_token=abc&limit=5", "/v26.0/1?access_token=***&limit=5"),
        ("?appsecret_proof=0a&x=1", "?appsecret_proof=***&x=1"),
        ("?INPUT_TOKEN=abc", "?INPUT_TOKEN=***"),
        ("next%3Faccess_token%3Dabc", "next%3Faccess_token%3D***"),
        ("Malformed access token EAAJabcdefghijklmnopqrstuvwxyz", "Malformed access token ***"),
        ("fields=id&limit=25", "fields=id&limit=25"),
    ],
)
def test_redact(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    ("seconds", "problem"),
    [(600, "is 10 minutes ahead of the API's"), (-7200, "is 120 minutes behind the API's"), (119, ""), (-119, "")],
)
def test_a_wrong_clock_is_a_problem_of_timed_proofs(seconds: int, problem: str) -> None:
    now = parsedate_to_datetime(DATE).timestamp() + seconds
    described = Credentials(TOKEN, SECRET).describe_clock_problem(DATE, now=now)
    assert problem in described
    assert bool(described) is bool(problem)
    for other in (Credentials(TOKEN), Credentials(TOKEN, SECRET, timed_proof=False)):
        assert other.describe_clock_problem(DATE, now=now) == ""


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Tue, 40 Dec 2026 02:57:05 GMT", "Tue, 01 Dec 99999999999999999999 00:00:00 GMT"]
)
def test_a_date_that_cannot_be_read_says_nothing_about_the_clock(date: str) -> None:
    assert Credentials(TOKEN, SECRET).describe_clock_problem(date, now=NOW) == ""
