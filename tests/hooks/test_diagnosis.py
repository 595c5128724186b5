"""What "Test connection" says, for each thing that can be right or wrong with a connection."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_whatsapp.hooks import _diagnosis
from airflow_provider_whatsapp.hooks._diagnosis import Diagnosis, diagnose
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.sync import GraphClient

SECRET = "5ecre7" * 5
Tested = Callable[..., tuple[bool, str]]


@pytest.fixture
def guarded() -> Any:
    with GraphSandbox(accounts=5, app_secret=SECRET) as sandbox:
        yield sandbox


@pytest.fixture
def tested(guarded: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> Tested:
    def run(*, password: str | None = None, **extra: Any) -> tuple[bool, str]:
        connection = json.loads(guarded.connection)
        connection["password"] = password or connection["password"]
        connection["extra"] = {**connection["extra"], **extra}
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", json.dumps(connection))
        with no_waits():
            ok, message = WhatsAppHook().test_connection()
        for secret in (guarded.token, SECRET, *extra.values(), password):
            assert not secret or len(str(secret)) < 12 or str(secret) not in message
        return ok, message

    return run


def test_all_is_well(guarded: GraphSandbox, tested: Tested) -> None:
    ok, message = tested()
    assert ok
    business = guarded.businesses[0]
    token = WhatsAppHook().debug_token()
    owner = f"system user {token['user_id']} of the app {token['application']} ({token['app_id']})"
    assert message.startswith(f"Token: valid, {owner}. ")
    assert "It does not expire. Permissions: complete for the client edge." in message
    assert f"Business: {business['name']} ({business['id']}). App secret: its proof is accepted." in message
    assert message.endswith("Client accounts: readable. API version: v26.0, until 2028-11-04.")
    described, _, listed, _ = guarded.requests
    assert described.path.endswith("/debug_token")
    assert listed.params["limit"] == "1"


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (3, "WARNING: It expires on"),
        (13.9, "WARNING: It expires on"),
        (30, "It expires on"),
        (-1, "WARNING: It expired on"),
    ],
)
def test_when_the_token_expires(guarded: GraphSandbox, tested: Tested, days: float, told: str) -> None:
    for key, what in (("expires_at", "It "), ("data_access_expires_at", "Its access to data ")):
        guarded.token_info = {key: int(time.time() + days * 86400)}
        ok, message = tested()
        assert ok
        assert told.replace("It ", what) in message
        assert ("WARNING" in message) is (days < 14)
        assert "does not expire" not in message


@pytest.mark.parametrize("expires_at", [10**30, "soon", None])
def test_an_expiry_that_cannot_be_read(guarded: GraphSandbox, tested: Tested, expires_at: object) -> None:
    guarded.token_info = {"expires_at": expires_at}
    ok, message = tested()
    assert ok
    assert "WARNING: Its expiry cannot be read" in message
    assert "does not expire" not in message


def test_a_dead_token(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.token_info = {"is_valid": False, "error": {"message": f"Session has expired {guarded.token}"}}
    ok, message = tested()
    assert not ok
    assert "PROBLEM: Token: not valid (Session has expired ***). Create a new one" in message
    assert "Business" not in message


def test_a_wrong_token(tested: Tested) -> None:
    ok, message = tested(password="EAAwrong0123456789abcdefghijkl", app_secret=None)
    assert not ok
    assert "create a new system user token" in message


def test_missing_permissions(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.token_info = {"scopes": ["whatsapp_business_messaging"]}
    ok, message = tested()
    assert not ok
    assert "PROBLEM: Permissions: the token lacks whatsapp_business_management." in message
    assert "The owned edge would also need business_management." in message
    guarded.token_info = {"scopes": "odd"}
    assert "lacks whatsapp_business_management and whatsapp_business_messaging" in tested()[1]


@pytest.mark.parametrize("proof", ["timed", "plain"])
def test_both_forms_of_the_proof(guarded: GraphSandbox, tested: Tested, proof: str) -> None:
    assert tested(proof=proof)[0]
    assert ("appsecret_time" in guarded.requests[-1].params) is (proof == "timed")


@pytest.mark.parametrize("secret", ["another secret of another app".replace(" ", "-"), None])
def test_an_app_secret_that_does_not_fit(tested: Tested, secret: str | None) -> None:
    ok, message = tested(app_secret=secret)
    assert not ok
    assert message.count("app_secret must be set") == 1
    assert "app_secret must be set, and be the secret of the app that the token belongs to" in message


def test_an_unknown_business(tested: Tested) -> None:
    ok, message = tested(business_id="4242")
    assert not ok
    assert "PROBLEM: Business 4242: cannot be read." in message
    assert message.count("Accounts are listed by the id of a business portfolio") == 1
    assert message.startswith("PROBLEM: ")


def test_no_business(tested: Tested) -> None:
    ok, message = tested(business_id=None)
    assert ok
    assert "Business: none in the connection, each task names its own." in message


def test_no_advanced_access(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.fail_next(Fault.no_advanced_access().after(2))
    ok, message = tested()
    assert not ok
    assert "PROBLEM: Client accounts: cannot be listed." in message
    assert "lacks Advanced access" in message


def test_no_accounts(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.accounts.clear()
    ok, message = tested()
    assert ok
    assert "readable, but the first page has none; is the system user an admin of the right business?" in message


def test_empty_pages_make_no_further_calls(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.fail_next(Fault.empty_page().times(50))
    ok, message = tested()
    assert ok
    assert "Client accounts: readable, but the first page has none;" in message
    assert len(guarded.requests) == 3


def test_a_token_that_may_not_ask_about_itself(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.fail_next(Fault.no_permission())
    ok, message = tested()
    assert ok
    assert "WARNING: Token: the API refused to describe it" in message
    assert "Client accounts: readable." in message


def test_a_version_that_has_ended(tested: Tested) -> None:
    ok, message = tested(api_version="v20.0")
    assert not ok
    assert "PROBLEM: API version: v20.0 was requested, v21.0 answered; set api_version to that." in message


def test_a_version_whose_end_is_known(tested: Tested) -> None:
    ok, message = tested(api_version="v25.0")
    assert ok
    assert "API version: v25.0, until 2028-07-29." in message


def test_an_old_version_that_still_answers(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.fail_next(Fault.version_upgrade(version="v19.0").times(9))
    ok, message = tested(api_version="v19.0")
    assert not ok
    assert message.startswith("PROBLEM: API version: v19.0 ended on 2026-05-21; set a newer api_version.")


@pytest.mark.parametrize("fault", [Fault.closed().times(99), Fault.html_on_200().times(99), Fault.throttle().times(99)])
def test_it_never_raises(guarded: GraphSandbox, tested: Tested, fault: Fault) -> None:
    guarded.fail_next(fault)
    ok, message = tested()
    assert not ok
    assert "PROBLEM" in message


def test_an_unusable_connection(tested: Tested) -> None:
    assert tested(timeout="soon") == (
        False,
        "timeout: 'soon' is not a number of seconds above 0 and up to 600; for example 30",
    )


def test_no_proof_is_praised_without_an_app_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    with GraphSandbox(accounts=1) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        ok, message = WhatsAppHook().test_connection()
    assert ok
    assert "App secret" not in message


def test_nothing_more_is_asked_when_no_answer_comes(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.fail_next(Fault.closed().times(99))
    ok, message = tested()
    assert not ok
    assert message.startswith("PROBLEM: Token: ")
    assert message.count("PROBLEM") == 1
    assert "Business" not in message
    assert {request.path.rpartition("/")[2] for request in guarded.requests} <= {"debug_token"}


def test_problems_come_first_and_warnings_before_what_works(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.token_info = {"expires_at": int(time.time() + 3 * 86400)}
    guarded.fail_next(Fault.no_advanced_access().after(2))
    _, message = tested()
    problem, warning, works = (message.index(word) for word in ("PROBLEM", "WARNING", "Token: valid"))
    assert 0 == problem < warning < works


@pytest.mark.parametrize(
    ("version", "today", "told"),
    [
        ("v21.0", datetime(2027, 1, 20, tzinfo=timezone.utc), "API version: v21.0, until 2027-01-21."),
        ("v21.0", datetime(2027, 1, 21, tzinfo=timezone.utc), "PROBLEM: API version: v21.0 ended on 2027-01-21;"),
        ("v12.0", datetime(2027, 1, 21, tzinfo=timezone.utc), "PROBLEM: API version: v12.0 ended; set a newer"),
        ("v27.0", datetime(2027, 1, 21, tzinfo=timezone.utc), "API version: v27.0."),
        (
            "v28.0",
            datetime(2027, 1, 21, tzinfo=timezone.utc),
            "WARNING: API version: v28.0 is newer than this provider",
        ),
    ],
)
def test_how_long_a_version_lasts(
    guarded: GraphSandbox, monkeypatch: pytest.MonkeyPatch, version: str, today: datetime, told: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", guarded.connection)
    guarded.fail_next(Fault.version_upgrade(version=version).times(9))
    hook = WhatsAppHook(api_version=version)
    message = str(diagnose(hook._connection, now=today))
    assert told in message
    assert ("WARNING: API version" in message) is ("WARNING" in told)


@pytest.mark.parametrize(("own", "given"), [(None, 4.0), (20, 4.0), (2.5, 2.5)])
def test_an_answer_comes_within_fifteen_seconds(
    guarded: GraphSandbox, tested: Tested, monkeypatch: pytest.MonkeyPatch, own: float | None, given: float
) -> None:
    made: list[GraphClient] = []
    carry_out = GraphClient._carry_out
    monkeypatch.setattr(GraphClient, "_carry_out", lambda self, flow: made.append(self) or carry_out(self, flow))
    assert tested(timeout=own)[0]
    assert [(client._config.timeout, client._patience.attempts) for client in made] == [(given, 1)] * 3
    assert 3 * given <= 15


def test_a_silent_host_is_asked_once(guarded: GraphSandbox, tested: Tested, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_diagnosis, "LONGEST_CALL", 0.2)
    guarded.latency = 1.0
    ok, message = tested()
    assert not ok
    assert re.search(
        r"PROBLEM: Token: no complete response from 127.0.0.1:\d+ within 0.2 s; check the network", message
    )
    assert guarded.connections == 1


def test_warnings_are_lines_of_the_log(guarded: GraphSandbox, tested: Tested, caplog: pytest.LogCaptureFixture) -> None:
    guarded.token_info = {"expires_at": int(time.time() + 3.5 * 86400)}
    ok, message = tested()
    assert ok
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("It expires on ")
    assert record.getMessage().endswith("in 3 days: create a new token in time")
    assert f"WARNING: {record.getMessage()}." in message


def test_names_of_the_api_are_short_and_printable(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.token_info = {"application": "App\x1b[31m\n" + "a" * 5000, "type": "b" * 5000, "user_id": ["c" * 5000]}
    guarded.businesses[0]["name"] = "Name\u202e\n" + "d" * 5000
    _, message = tested()
    assert message.isprintable()
    assert len(message) <= 1000
    assert "Business: Name" in message
    assert "App (31m" in message


def test_the_error_of_a_token_is_short_and_printable(guarded: GraphSandbox, tested: Tested) -> None:
    guarded.token_info = {"is_valid": False, "error": {"message": "Session\n has expired " + "e" * 5000}}
    ok, message = tested()
    assert not ok
    assert message.isprintable()
    assert len(message) < 300
    assert message.endswith(
        "Create a new one and put it in the connection's password. API version: v26.0, until 2028-11-04."
    )


def test_a_long_message_is_cut_after_the_problems() -> None:
    diagnosis = Diagnosis()
    for number in range(40):
        diagnosis.confirm(f"Finding {number} works as it should")
    diagnosis.report_problem("the last")
    message = str(diagnosis)
    assert message.startswith("PROBLEM: the last. Finding 0 works as it should. ")
    assert message.endswith("Finding 39 works as it should.")
    assert len(message) == 1000


def test_the_error_of_an_unusable_connection_is_short_too(
    guarded: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable(self: WhatsAppHook) -> None:
        raise ValueError("x " * 5000)

    monkeypatch.setattr(WhatsAppHook, "get_connection", lambda self, conn_id: unusable(self))
    ok, message = WhatsAppHook().test_connection()
    assert not ok
    assert len(message) <= 1000


def test_a_connection_that_is_not_there() -> None:
    ok, message = WhatsAppHook("nowhere").test_connection()
    assert not ok
    assert message.startswith("whatsapp_conn_id: there is no connection 'nowhere'; create it")


def test_a_key_that_is_not_known(tested: Tested) -> None:
    ok, message = tested(appSecret="x", verify=False)
    assert ok
    assert "WARNING: extra: 'appSecret' is not a known key and is ignored; did you mean 'app_secret'?" in message
    assert "WARNING: extra: 'verify' is not a known key and is ignored; the keys are business_id," in message


def test_the_command_line_prints_the_whole_message(guarded: GraphSandbox, tested: Tested) -> None:
    # `airflow connections test` prints it with rich, which takes [text] for markup.
    from rich.text import Text

    guarded.fail_next(Fault.expired_token())
    guarded.businesses[0]["name"] = "[bold red]all is well[/bold red] [a[b]c]"
    for ok, message in (tested(), tested(), tested(timeout="[30]")):
        assert Text.from_markup(message).plain == message
        assert ok or "code 190" in message or "timeout: '(30)'" in message


def test_it_survives_what_the_form_and_a_uri_make_of_it(guarded: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    fields = json.loads(guarded.connection)
    uri = Connection(
        conn_id="x", **{**fields, "port": 0, "extra": json.dumps({**fields["extra"], "timeout": "", "proof": ""})}
    ).get_uri()
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", uri)
    assert WhatsAppHook().test_connection()[0]
