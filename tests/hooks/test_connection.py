from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_whatsapp.hooks._connection import (
    aload_connection,
    load_connection,
    parse_base_url,
    parse_connection,
)
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook

TOKEN = "EAAJtoken0123456789abcdefghij"


def connection(**fields: Any) -> Connection:
    extra = fields.pop("extra", None)
    return Connection(
        **{
            "conn_id": "whatsapp_default",
            "conn_type": "whatsapp",
            "password": TOKEN,
            "extra": json.dumps(extra) if isinstance(extra, dict) else extra,
            **fields,
        }
    )


def test_a_token_is_enough() -> None:
    read = parse_connection(connection())
    assert read.business_id is None
    assert read.config.base_url == "https://graph.facebook.com"
    assert read.config.version == "v26.0"
    assert read.config.timeout == 30
    assert read.config.credentials.token == TOKEN
    assert read.config.credentials.app_secret is None
    assert (read.config.proxy, read.config.ca_bundle) == (None, None)


def test_every_field(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    extra = {
        "business_id": "1906385232743451",
        "api_version": "v25.0",
        "app_secret": "5ecret",
        "timeout": 12.5,
        "proxy": "http://user:password@proxy:3128",
        "ca_bundle": str(bundle),
    }
    read = parse_connection(connection(extra=extra, host="https://gateway.example/graph/"))
    assert read.business_id == "1906385232743451"
    assert read.config.base_url == "https://gateway.example/graph"
    assert read.config.version == "v25.0"
    assert read.config.timeout == 12.5
    assert read.config.credentials.app_secret == "5ecret"
    assert read.config.proxy == "http://user:password@proxy:3128"
    assert read.config.ca_bundle == str(bundle)
    assert not [secret for secret in (TOKEN, "5ecret", "user:password") if secret in repr(read)]


def test_the_version_of_the_hook_beats_that_of_the_connection() -> None:
    assert parse_connection(connection(extra={"api_version": "v24.0"}), api_version="v25.0").config.version == "v25.0"


def test_extras_may_be_strings_and_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_WHATSAPP_URI",
        f"whatsapp://:{TOKEN}@/?business_id=123&timeout=20&app_secret=&api_version=&proxy=&ca_bundle=",
    )
    read = parse_connection(Connection.get("whatsapp_uri"))
    assert (read.business_id, read.config.timeout, read.config.credentials.app_secret) == ("123", 20, None)
    assert (
        parse_connection(connection(extra={"business_id": 123, "timeout": None, "app_secret": None})).business_id
        == "123"
    )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("appSecret", "did you mean 'app_secret'"), ("appsecret", "did you mean 'app_secret'"), ("bussiness_id", "did you mean 'business_id'"),
        ("extra__whatsapp__appSecret", "'appSecret' is not .* did you mean 'app_secret'"), ("apiVersion", "did you mean 'api_version'"),
        ("verify", "the keys are business_id, api_version, app_secret, proof, timeout, proxy, ca_bundle"), ("extra", "the keys are"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_uri", [False, True])
def test_an_unknown_key_is_a_warning(key: str, hint: str, as_uri: bool, caplog: pytest.LogCaptureFixture) -> None:
    read = connection(extra={key: "5ecret"})
    if as_uri:
        read = Connection.from_uri(read.get_uri(), conn_id="x")
    (warning,) = parse_connection(read).warnings
    assert re.fullmatch("extra: '.*' is not a known key and is ignored; .*", warning)
    assert re.search(hint, warning)
    assert "5ecret" not in warning


def test_what_has_no_meaning_is_a_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_X", f"whatsapp://5ecret:{TOKEN}@graph.facebook.com/v26.0?verify=5ecret&{TOKEN}=1&timeout="
    )
    load_connection(WhatsAppHook("x"), "x")
    asyncio.run(aload_connection(WhatsAppHook("x"), "x"))
    lines = [record.getMessage() for record in caplog.records if "connection 'x', " in record.getMessage()]
    assert len(lines) == 8
    assert lines[:4] == lines[4:]
    assert [line.split(", ")[1].split(":")[0] for line in lines[:4]] == ["extra", "extra", "login", "schema"]
    assert not [line for line in lines if "5ecret" in line or TOKEN in line]


def test_the_names_that_airflow_2_saved_are_understood() -> None:
    read = parse_connection(
        connection(extra={"business_id": "2", "extra__whatsapp__business_id": "1", "extra__whatsapp__app_secret": "s"})
    )
    assert (read.business_id, read.config.credentials.app_secret, read.warnings) == ("2", "s", ())


def test_the_id_of_an_ad_account_is_no_business() -> None:
    with pytest.raises(ValueError, match="business_id: 'act_12' .* this is the id of an ad account; Business Settings"):
        parse_connection(connection(extra={"business_id": "act_12"}))


def test_a_blank_around_the_token_is_not_part_of_it() -> None:
    assert parse_connection(connection(password=f" {TOKEN}\n")).config.credentials.token == TOKEN


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        (None, None, "https://graph.facebook.com"),
        ("", 0, "https://graph.facebook.com"),
        ("graph.facebook.com", None, "https://graph.facebook.com"),
        ("https://graph.facebook.com/", None, "https://graph.facebook.com"),
        ("HTTPS://Graph.Facebook.com", 443, "https://graph.facebook.com:443"),
        ("graph.facebook.com:8443", 0, "https://graph.facebook.com:8443"),
        ("graph.facebook.com:8443", 9, "https://graph.facebook.com:8443"),
        ("https://gateway.example/a/b-c/", None, "https://gateway.example/a/b-c"),
        ("http://127.0.0.1:8099", None, "http://127.0.0.1:8099"),
        ("http://127.1.2.3", 8099, "http://127.1.2.3:8099"),
        ("http://localhost:8099/", None, "http://localhost:8099"),
        ("http://[::1]:8099", None, "http://[::1]:8099"),
        ("127.0.0.1:8099", None, "https://127.0.0.1:8099"),
    ],
)
def test_where_the_api_is(host: str | None, port: int | None, url: str) -> None:
    assert parse_base_url(host, port) == url


@pytest.mark.parametrize(
    "host",
    [
        "http://graph.facebook.com", "ftp://graph.facebook.com", "file:///etc/passwd", "http://127.0.0.1.evil.example",
        "http://localhost.evil.example", "http://localhost.", "http://127.1", "http://2130706433", "http://0x7f000001", "http://0177.0.0.1",
        "http://0.0.0.0", "http://[::]", "http://[::ffff:8.8.8.8]", "http://10.0.0.1", "http://169.254.169.254", "http://ｌocalhost",
        "http://127.0.0.1\\.evil.example", "http://127.0.0.1#.evil.example", "http://127.0.0.1?x", "https://graph.facebook.com/../x",
        "https://graph.facebook.com/%2e%2e", "https://", "https://a b", "https://a\n.com", "https://[bad", "https://[bad]", "https://x/./y", "graph.facebook.com:99999",
        "graph.facebook.com:0", "graph.facebook.com:x", "javascript:alert(1)", "https:sandbox.facebook.com", "//graph.facebook.com",
        "https://x/..", "https://graph.facebook.com/v26.0", "http://127.0.0.1:8099/v26.0/", "https://.", "-", "https://a..b",
    ],
)  # fmt: skip
def test_where_it_cannot_be(host: str) -> None:
    with pytest.raises(ValueError, match=r"^host: "):
        parse_base_url(host)


@pytest.mark.parametrize(
    "host", ["https://user:5ecret@sandbox.facebook.com", "http://5ecret@127.0.0.1", "5ecret@sandbox.facebook.com"]
)
def test_userinfo_is_refused_and_not_shown(host: str) -> None:
    with pytest.raises(ValueError, match=r"^host: .*user name or password") as caught:
        parse_base_url(host)
    assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"password": None}, "password"),
        ({"password": "  "}, "password"),
        ({"password": "EAA 5ecret"}, "password"),
        ({"password": "'EAA5ecret'"}, "password"),
        ({"password": '"EAA5ecret"'}, "password"),
        ({"password": "EAA\r\nX-Evil: 5ecret"}, "password"),
        ({"password": "EAAs5ecretä"}, "password"),
        ({"extra": "{5ecret"}, "extra"),
        ({"extra": '["5ecret"]'}, "extra"),
        ({"extra": {"business_id": "abc"}}, "business_id"),
        ({"extra": {"business_id": ["1"]}}, "business_id"),
        ({"extra": {"api_version": "26"}}, "api_version"),
        ({"extra": {"api_version": 26}}, "api_version"),
        ({"extra": {"app_secret": 12345}}, "app_secret"),
        ({"extra": {"app_secret": "5ecret with blank"}}, "app_secret"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"timeout": 0}}, "timeout"),
        ({"extra": {"timeout": -1}}, "timeout"),
        ({"extra": {"timeout": "nan"}}, "timeout"),
        ({"extra": {"timeout": 601}}, "timeout"),
        ({"extra": {"timeout": True}}, "timeout"),
        ({"extra": {"timeout": [30]}}, "timeout"),
        ({"extra": {"timeout": 10**400}}, "timeout"),
        ({"extra": "[" * 100_000}, "extra"),
        ({"port": -5}, "host"),
        ({"port": 65536}, "host"),
        ({"extra": {"proxy": "socks5://5ecret@proxy"}}, "proxy"),
        ({"extra": {"proxy": "proxy:3128"}}, "proxy"),
        ({"extra": {"proxy": 5}}, "proxy"),
        ({"extra": {"ca_bundle": "/no/such/file"}}, "ca_bundle"),
        ({"extra": {"ca_bundle": True}}, "ca_bundle"),
        ({"host": "http://graph.facebook.com"}, "host"),
    ],
)
def test_an_unusable_connection_says_which_field_is_wrong(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^connection 'whatsapp_default', {field}: ") as caught:
        parse_connection(connection(**fields))
    assert "5ecret" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


PASTED = {
    "token": "EAAJ" + "abC9" * 50,
    "app secret": "5ecre7ab" * 4,
    "proof": "0123456789abcdef" * 4,
    "token of an app": "123456789012345|abcdEFGH123-9xY_8abcdefghijk",
    "address with a token": "https://graph.facebook.com/me?access_token=EAAJabcdefghijklmnopqrstuvw123",
    "proxy with a password": "http://user:hunter2@proxy:3128",
}


@pytest.mark.parametrize("secret", PASTED.values(), ids=PASTED)
@pytest.mark.parametrize("field", ["host", "business_id", "api_version", "proof", "timeout", "proxy", "ca_bundle"])
def test_a_secret_in_the_wrong_field_is_not_shown(field: str, secret: str) -> None:
    if (field, secret) == ("proxy", PASTED["proxy with a password"]):
        return
    fields: dict[str, Any] = {"host": secret} if field == "host" else {"extra": {field: secret}}
    with pytest.raises(ValueError, match=f"{field}: ") as caught:
        parse_connection(connection(**fields))
    assert_not_shown(secret, str(caught.value))


@pytest.mark.parametrize("secret", PASTED.values(), ids=PASTED)
def test_a_secret_as_the_version_of_the_hook_is_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="api_version: ") as caught:
        parse_connection(connection(), api_version=secret)
    assert_not_shown(secret, str(caught.value))


def assert_not_shown(secret: str, text: str) -> None:
    # "https://gra" is the beginning of a pasted address and also of the right one that the error shows.
    parts = [part for part in (secret, secret[:12], secret[-12:], "hunter2") if not part.startswith("https://gra")]
    assert [part for part in (*parts, "EAA") if part in text] == []


def test_what_can_be_no_secret_is_shown() -> None:
    for extra, shown in (
        ({"proof": "Timed"}, "proof: 'Timed' is not one of"),
        ({"timeout": "30 s"}, "timeout: '30 s' is not a number"),
        ({"api_version": "26"}, "api_version: '26' is not a version"),
        ({"business_id": "my business"}, "business_id: 'my business' is not"),
        ({"ca_bundle": "/etc/ssl/company_ca_2026.pem"}, "ca_bundle: '/etc/ssl/company_ca_2026.pem' is not a file"),
    ):
        with pytest.raises(ValueError, match=shown):
            parse_connection(connection(extra=extra))
    with pytest.raises(ValueError, match="host: 'http://gateway-2.example:8080' would send the token unencrypted"):
        parse_connection(connection(host="http://gateway-2.example:8080"))


def test_a_proxy_is_an_address_without_a_path() -> None:
    assert parse_connection(connection(extra={"proxy": " HTTP://proxy:3128/ "})).config.proxy == "HTTP://proxy:3128/"
    for proxy in ("http://proxy:3128/path", "http://proxy?x", "http://proxy#x", "http://pro xy"):
        with pytest.raises(ValueError, match="proxy: not the address"):
            parse_connection(connection(extra={"proxy": proxy}))


def test_the_longest_timeout_and_blanks_around_an_app_secret() -> None:
    read = parse_connection(connection(extra={"timeout": 600, "app_secret": " 5ecret\n"})).config
    assert (read.timeout, read.credentials.app_secret) == (600, "5ecret")


# Airflow reads a quoted variable as a URI without a password. `docker run --env-file` keeps such quotes.
@pytest.mark.parametrize("quote", ["'", '"'])
def test_an_environment_variable_in_quotes(quote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"conn_type": "whatsapp", "password": TOKEN, "extra": {"business_id": "12"}})
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", f"{quote}{text}{quote}")
    with pytest.raises(ValueError, match="must be JSON or a URI, without quotes around it") as caught:
        load_connection(WhatsAppHook(), "whatsapp_default")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("password", [None, "", "  \n"])
def test_an_empty_token_is_distinguished_from_a_wrong_one(password: str | None) -> None:
    with pytest.raises(ValueError, match="password: empty; enter the access token"):
        parse_connection(connection(password=password))
