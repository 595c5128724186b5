"""Runs the receiver of ``docs/webhooks.md``, and the function for a queue, over real HTTP.

Airflow is a small server here that answers as its REST API does. ``e2e/webhooks.py`` runs the receiver against a real one.
"""

from __future__ import annotations

import configparser
import hashlib
import hmac
import http.client
import json
import logging
import re
import runpy
import shlex
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import trustme
import uvicorn
from documentation import PROJECT, section, snippet

from airflow_provider_whatsapp import webhooks
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox

FILE = PROJECT / "docs" / "webhook_receiver.py"
USER = {"username": "receiver", "password": "made up"}
SECRET, VERIFY_TOKEN = "5ecre7" * 5, "meatyhamhock"
LARGEST = 3 * 1024 * 1024
DAGS = "account_update/PARTNER_ADDED=welcome_shared_waba phone_number_quality_update=watch_quality"
PATHS = {f"/api/v2/dags/{dag}/dagRuns": dag for dag in ("welcome_shared_waba", "watch_quality")}
DAY = 1_800_000_000 // 86400 * 86400


class Airflow(ThreadingHTTPServer):
    """Answers a login and a new run as Airflow does, and remembers the runs."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.logins = 0
        self.token = "first"
        self.expired: set[str] = set()
        self.refuses_with: int | None = None
        self.refuses: set[str] = set()
        self.lock = threading.Lock()
        self.company = threading.Condition()
        self.now = self.most_at_once = 0
        self.seconds_to_wait_for_company = 0.0
        super().__init__(("127.0.0.1", 0), _Exchange)

    def answer(self, path: str, authorization: str | None, body: Any) -> tuple[int, Any]:
        with self.lock:
            if path == "/auth/token":
                self.logins += 1
                return (201, {"access_token": self.token}) if body == USER else (401, {})
            if authorization in self.expired:
                return 401, {}
            if authorization != f"Bearer {self.token}":
                return 403, {}
            if self.refuses_with and (not self.refuses or body["conf"]["waba_id"] in self.refuses):
                return self.refuses_with, {}
            if body["dag_run_id"] in self.runs:
                return 409, {}
            self.runs[body["dag_run_id"]] = {**body, "dag": PATHS[path]}
            return 200, body


class _Exchange(BaseHTTPRequestHandler):
    server: Airflow

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.company:
            self.server.now += 1
            self.server.most_at_once = max(self.server.now, self.server.most_at_once)
            self.server.company.notify_all()
            self.server.company.wait_for(lambda: self.server.most_at_once > 1, self.server.seconds_to_wait_for_company)
        status, answer = self.server.answer(self.path, self.headers["Authorization"], body)
        with self.server.company:
            self.server.now -= 1
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    with Airflow() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def receiving(airflow_url: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[str]:
    """Run the receiver; gives its address."""
    for name, value in {
        "AIRFLOW_URL": airflow_url,
        "AIRFLOW_USER": USER["username"],
        "AIRFLOW_PASSWORD": USER["password"],
        "AIRFLOW_DAGS": DAGS,
        "META_APP_SECRET": SECRET,
        "META_VERIFY_TOKEN": VERIFY_TOKEN,
        **environment,
    }.items():
        monkeypatch.setenv(name, value)
    config = uvicorn.Config(runpy.run_path(str(FILE))["app"], log_config=None, lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/whatsapp"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def receiver(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with receiving(f"http://127.0.0.1:{airflow.server_address[1]}", monkeypatch) as url:
        yield url


class Log:
    """What the receiver logs, without what uvicorn says about its start and end."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "uvicorn.error")
        self._caplog = caplog

    def take(self, count: int) -> list[str]:
        """Wait for so many records, and return their texts, each with its traceback, and forget them."""
        patience = time.monotonic() + 30
        while len(found := self._records()) < count and time.monotonic() < patience:
            time.sleep(0.01)
        assert len(found) == count, found
        self._caplog.clear()
        return [f"{record.levelname} {logging.Formatter().format(record)}" for record in found]

    def _records(self) -> list[logging.LogRecord]:
        own = {str(FILE), webhooks.__file__}
        return [it for it in self._caplog.records if it.pathname in own or it.levelno > logging.INFO]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=2, app_secret=SECRET) as sandbox:
        yield sandbox


def send(url: str, method: str, body: bytes | Iterator[bytes] = b"", **headers: str) -> tuple[int, str, str]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, url.partition(str(address.port))[2], body, named)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"] or "", answer.read().decode()
    finally:
        connection.close()


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_the_page_has_the_text_of_the_file() -> None:
    assert snippet("receiver", "webhooks.md") == FILE.read_text()


def test_the_service() -> None:
    code = FILE.read_text()
    read = set(re.findall(r'os\.environ(?:\[|\.get\()"(\w+)"', code))
    settings = dict(re.findall(r"^(\w+)=(.*)$", snippet("environment", "webhooks.md"), re.MULTILINE))
    assert read == settings.keys()
    (pairs,) = shlex.split(settings["AIRFLOW_DAGS"])
    known = {topic.field for topic in webhooks.TOPICS}
    assert {pair.partition("=")[0].partition("/")[0] for pair in pairs.split()} <= known

    unit = configparser.ConfigParser(delimiters=["="])
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(snippet("unit", "webhooks.md"))
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert program.startswith(unit["Service"]["WorkingDirectory"])
    # Fails if uvicorn has no such argument.
    options = uvicorn.main.make_context("uvicorn", arguments).params
    assert (options["app"], options["host"], options["access_log"]) == (f"{FILE.stem}:app", "127.0.0.1", False)


def test_a_dag_for_any_topic() -> None:
    namespace: dict[str, Any] = {}
    exec(snippet("any topic", "webhooks.md"), namespace)  # noqa: S102  # the project's own text
    report = namespace["report_change"]().get_task("report").python_callable
    run = SimpleNamespace(conf={"field": "security", "event": "PIN_CHANGED", "waba_id": "7", "value": {}})
    assert report(run) == "security: PIN_CHANGED of 7, {}"


def test_the_fallback(connected: GraphSandbox) -> None:
    names = {"WhatsAppListWabasOperator": WhatsAppListWabasOperator}
    operator = eval(snippet("partners", "webhooks.md"), names)  # noqa: S307  # the project's own text
    connected.accounts[:] = [{"id": "1"}, {"id": "2", "partners": ["7", "520744086200222"]}]
    assert [row["id"] for row in operator.execute({})] == ["2"]


def test_handshake(receiver: str) -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": VERIFY_TOKEN}
    status, kind, text = send(f"{receiver}?{urlencode(query)}", "GET")
    assert (status, kind.partition(";")[0], text) == (200, "text/plain", "1158201444")
    assert send(f"{receiver}?{urlencode({**query, 'hub.verify_token': 'x'})}", "GET")[0] == 403
    assert send(receiver, "GET")[0] == 403


def post(url: str, *changes: tuple[str, Any], sent: Any = DAY, secret: str = SECRET) -> int:
    """Deliver changes, each of a field and with a value, of the account 7; gives the status of the answer."""
    listed = [{"field": field, "value": value} for field, value in changes]
    entry = {"id": "7", "time": sent, "changes": listed}
    body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
    return send(url, "POST", body, X_Hub_Signature_256=sign(body, secret))[0]


def shared(waba_id: str) -> tuple[str, Any]:
    return "account_update", {"event": "PARTNER_ADDED", "waba_info": {"waba_id": waba_id}}


def test_health(receiver: str) -> None:
    assert send(receiver.replace("/whatsapp", "/health"), "GET")[::2] == (200, "ok")


def test_one_run_for_each_account(receiver: str, airflow: Airflow, sandbox: GraphSandbox, log: Log) -> None:
    delivery = sandbox.share_account(receiver, count=3)
    assert delivery.status == 200
    assert [run["conf"]["waba_id"] for run in airflow.runs.values()] == delivery.waba_ids
    assert {run["logical_date"] for run in airflow.runs.values()} == {None}
    assert airflow.logins == 1
    assert log.take(1) == ["INFO Answered a delivery with 200: {'welcome_shared_waba started': 3}"]


def test_the_mapping_names_the_dag(receiver: str, airflow: Airflow, log: Log) -> None:
    flagged = {"event": "FLAGGED", "display_phone_number": "15550783881"}
    others = [("account_update", {"event": "ACCOUNT_DELETED"}), ("messages", {"a": 1})]
    assert post(receiver, shared("5"), ("phone_number_quality_update", flagged), *others) == 200
    welcome, quality = airflow.runs.values()
    assert (welcome["dag"], quality["dag"]) == ("welcome_shared_waba", "watch_quality")
    assert quality["conf"] == {
        "waba_id": "7",
        "field": "phone_number_quality_update",
        "event": "FLAGGED",
        "value": flagged,
    }
    assert log.take(1) == [
        "INFO Answered a delivery with 200: {'welcome_shared_waba started': 1, 'watch_quality started': 1, "
        "'no DAG for account_update/ACCOUNT_DELETED': 1}"
    ]


def test_a_delivery_that_is_repeated(receiver: str, airflow: Airflow, log: Log) -> None:
    assert post(receiver, shared("5")) == post(receiver, shared("5"), sent=DAY + 86399) == 200
    assert len(airflow.runs) == 1
    assert log.take(2)[1] == "INFO Answered a delivery with 200: {'welcome_shared_waba was started before': 1}"
    # An account that is unshared and shared again.
    assert post(receiver, shared("5"), sent=DAY + 86400) == post(receiver, shared("5"), sent=None) == 200
    assert len(airflow.runs) == 3


def test_many_deliveries_at_once(receiver: str, airflow: Airflow, sandbox: GraphSandbox) -> None:
    airflow.refuses_with = 503
    deliveries = [sandbox.share_account(receiver, count=2) for _ in range(3)]
    airflow.refuses_with, airflow.seconds_to_wait_for_company = None, 0.1
    with ThreadPoolExecutor(6) as senders:
        assert list(senders.map(lambda delivery: delivery.repeat(), deliveries * 2)) == [200] * 6
    assert len(airflow.runs) == 6
    assert airflow.most_at_once == 1


def test_a_forged_delivery(receiver: str, airflow: Airflow, sandbox: GraphSandbox, log: Log) -> None:
    assert sandbox.share_account(receiver, forged=True).status == 403
    assert send(receiver, "POST", b"{}")[0] == 403
    assert (airflow.runs, airflow.logins) == ({}, 0)
    assert log.take(2) == ["WARNING Refused a delivery from 127.0.0.1: Meta did not sign it"] * 2


def test_two_app_secrets(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{airflow.server_address[1]}"
    with receiving(url, monkeypatch, META_APP_SECRET=f"new {SECRET}") as receiver:
        assert [post(receiver, shared("5"), secret=secret) for secret in ("new", SECRET, "", "older")] == [
            200,
            200,
            403,
            403,
        ]
    with receiving(url, monkeypatch, META_APP_SECRET=" ") as receiver:
        assert post(receiver, shared("6"), secret="") == 403


@pytest.mark.parametrize("trusted", [True, False])
def test_a_private_authority(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trusted: bool, log: Log
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    airflow.socket = context.wrap_socket(airflow.socket, server_side=True)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trust = {"AIRFLOW_CA_FILE": str(tmp_path / "ca.pem")} if trusted else {}
    with receiving(f"https://127.0.0.1:{airflow.server_address[1]}", monkeypatch, **trust) as receiver:
        assert post(receiver, shared("5")) == (200 if trusted else 503)
    (line,) = log.take(1)
    assert trusted or "CERTIFICATE_VERIFY_FAILED" in line


@pytest.mark.parametrize("sent", [b"", b'{"object": '])
def test_a_request_that_is_cut_off(receiver: str, log: Log, sent: bytes) -> None:
    port = urlsplit(receiver).port or 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /whatsapp HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + sent)
    (line,) = log.take(1)
    assert line == "INFO A request was cut off"


@pytest.mark.parametrize("expired", [{"Bearer first"}, set()])
def test_a_login_that_is_no_longer_valid(
    receiver: str, airflow: Airflow, sandbox: GraphSandbox, expired: set[str]
) -> None:
    sandbox.share_account(receiver)
    airflow.token, airflow.expired = "second", expired
    assert sandbox.share_account(receiver).status == 200
    assert (len(airflow.runs), airflow.logins) == (2, 2)


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 503])
def test_airflow_refuses(receiver: str, airflow: Airflow, log: Log, status: int) -> None:
    airflow.refuses_with, airflow.refuses = status, {"5"}
    assert post(receiver, shared("5"), shared("6")) == 503
    # A run that Airflow refuses does not hold up the others. If Airflow is away, all others would fail, too.
    assert len(airflow.runs) == (0 if status >= 500 else 1)
    (line,) = log.take(1)
    path = "/api/v2/dags/welcome_shared_waba/dagRuns"
    assert line.startswith(f"ERROR Answered a delivery with 503: {{'Airflow answered {status} for {path}': 1")
    airflow.refuses_with = None
    assert post(receiver, shared("5"), shared("6")) == 200
    assert len(airflow.runs) == 2


def test_a_wrong_password(
    receiver: str, airflow: Airflow, sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(USER, "password", "another one")
    assert sandbox.share_account(receiver, count=5).status == 503
    assert (airflow.runs, airflow.logins) == ({}, 1)


def test_airflow_is_away(monkeypatch: pytest.MonkeyPatch, sandbox: GraphSandbox, log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with receiving(f"http://127.0.0.1:{port}", monkeypatch) as receiver:
        assert sandbox.share_account(receiver, count=5).status == 503
    (line,) = log.take(1)
    assert re.fullmatch(r"ERROR Answered a delivery with 503: \{\"ConnectError\('.*'\)\": 1\}", line)


def test_what_it_does_not_understand_or_need(receiver: str, airflow: Airflow, log: Log) -> None:
    def post_body(body: bytes) -> int:
        return send(receiver, "POST", body, X_Hub_Signature_256=sign(body))[0]

    assert post_body(b"not JSON") == 400
    assert log.take(1)[0].startswith("ERROR Refused a delivery: This is not a delivery from Meta's webhooks: ")
    assert post_body(b'{"object": "page", "entry": []}') == 200
    assert log.take(1) == ["INFO Answered a delivery with 200: {}"]
    # A change that is not understood does not hold up the others.
    assert post(receiver, shared("no id"), shared("5")) == 200
    assert log.take(2)[0] == (
        "WARNING 1 of 2 changes of a delivery were left out: `waba_id` must be an id, which is digits only."
    )
    assert len(airflow.runs) == 1


def test_a_body_is_limited(receiver: str) -> None:
    body = b" " * LARGEST
    assert send(receiver, "POST", body, X_Hub_Signature_256=sign(body))[0] == 400
    # Without Content-Length, too.
    assert send(receiver, "POST", iter([body, b" "]))[0] == 413


def test_no_other_path(receiver: str) -> None:
    root = receiver.removesuffix("/whatsapp")
    assert {send(f"{root}{path}", "GET")[0] for path in ("/", "/docs", "/redoc", "/openapi.json")} == {404}


def test_behind_a_queue(sandbox: GraphSandbox) -> None:
    namespace: dict[str, Any] = {}
    exec(snippet("queue", "webhooks.md"), namespace)  # noqa: S102  # the project's own text
    queue: list[str] = []

    def handle(method: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> tuple[int, str]:
        keywords = {"app_secret": SECRET, "verify_token": VERIFY_TOKEN, "put": queue.append}
        answer: tuple[int, str] = namespace["handle"](method, query, headers, body, **keywords)
        return answer

    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": VERIFY_TOKEN}
    assert handle("GET", query, {}, b"") == (200, "1158201444")
    assert handle("GET", {}, {}, b"") == (403, "")
    value = {"event": "PARTNER_ADDED", "waba_info": {"waba_id": "4242"}}
    entry = {"id": "1", "time": 1, "changes": [{"field": "account_update", "value": value}]}
    body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
    assert handle("POST", {}, {}, body) == (403, "")
    assert queue == []
    assert handle("POST", {}, {"x-hub-signature-256": sign(body)}, body) == (200, "")
    assert [namespace["shared_accounts"](message) for message in queue] == [["4242"]]


def test_the_page_names_every_function() -> None:
    text = section("### The functions", "webhooks.md")
    for name in webhooks.__all__:
        if name != "AccountChange":
            assert f"| `{name}(" in text
    for name in webhooks.AccountChange.__dataclass_fields__:
        assert f"| `{name}` |" in text
