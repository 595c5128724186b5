"""Runs the receiver of ``docs/webhooks.md``, and the function for a queue, over real HTTP.

Airflow is a small server here that answers as its REST API does. ``e2e/webhooks.py`` runs the receiver against a real one.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import runpy
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import uvicorn
from documentation import PROJECT, section, snippet

from airflow_provider_whatsapp import webhooks
from airflow_provider_whatsapp.sandbox import GraphSandbox

FILE = PROJECT / "docs" / "webhook_receiver.py"
USER = {"username": "receiver", "password": "made up"}
SECRET, VERIFY_TOKEN = "5ecre7" * 5, "meatyhamhock"
LARGEST = 3 * 1024 * 1024


class Airflow(ThreadingHTTPServer):
    """Answers a login and a new run as Airflow does, and remembers the runs."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.logins = 0
        self.token = "first"
        self.expired: set[str] = set()
        self.refuses_with: int | None = None
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
            if self.refuses_with:
                return self.refuses_with, {}
            assert path == "/api/v2/dags/welcome_shared_waba/dagRuns"
            if body["dag_run_id"] in self.runs:
                return 409, {}
            self.runs[body["dag_run_id"]] = body
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
def receiving(airflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the receiver; gives its address."""
    for name, value in {
        "AIRFLOW_URL": airflow_url,
        "AIRFLOW_USER": USER["username"],
        "AIRFLOW_PASSWORD": USER["password"],
        "META_APP_SECRET": SECRET,
        "META_VERIFY_TOKEN": VERIFY_TOKEN,
    }.items():
        monkeypatch.setenv(name, value)
    server = uvicorn.Server(uvicorn.Config(runpy.run_path(str(FILE))["app"], log_level="critical", lifespan="off"))
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


def sign(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


def test_the_page_has_the_text_of_the_file() -> None:
    assert snippet("receiver", "webhooks.md") == FILE.read_text()


def test_handshake(receiver: str) -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": VERIFY_TOKEN}
    status, kind, text = send(f"{receiver}?{urlencode(query)}", "GET")
    assert (status, kind.partition(";")[0], text) == (200, "text/plain", "1158201444")
    assert send(f"{receiver}?{urlencode({**query, 'hub.verify_token': 'x'})}", "GET")[0] == 403
    assert send(receiver, "GET")[0] == 403


def test_one_run_for_each_account(receiver: str, airflow: Airflow, sandbox: GraphSandbox) -> None:
    delivery = sandbox.share_account(receiver, count=3)
    assert delivery.status == 200
    assert [run["conf"] for run in airflow.runs.values()] == [{"waba_id": waba_id} for waba_id in delivery.waba_ids]
    assert {run["logical_date"] for run in airflow.runs.values()} == {None}
    # A delivery that Meta repeats is done already.
    assert delivery.repeat() == 200
    assert len(airflow.runs) == 3
    assert airflow.logins == 1


def test_many_deliveries_at_once(receiver: str, airflow: Airflow, sandbox: GraphSandbox) -> None:
    airflow.refuses_with = 503
    deliveries = [sandbox.share_account(receiver, count=2) for _ in range(3)]
    airflow.refuses_with, airflow.seconds_to_wait_for_company = None, 0.1
    with ThreadPoolExecutor(6) as senders:
        assert list(senders.map(lambda delivery: delivery.repeat(), deliveries * 2)) == [200] * 6
    assert len(airflow.runs) == 6
    assert airflow.most_at_once == 1


def test_a_forged_delivery(receiver: str, airflow: Airflow, sandbox: GraphSandbox) -> None:
    assert sandbox.share_account(receiver, forged=True).status == 403
    assert send(receiver, "POST", b"{}")[0] == 403
    assert (airflow.runs, airflow.logins) == ({}, 0)


@pytest.mark.parametrize("expired", [{"Bearer first"}, set()])
def test_a_login_that_is_no_longer_valid(
    receiver: str, airflow: Airflow, sandbox: GraphSandbox, expired: set[str]
) -> None:
    sandbox.share_account(receiver)
    airflow.token, airflow.expired = "second", expired
    assert sandbox.share_account(receiver).status == 200
    assert (len(airflow.runs), airflow.logins) == (2, 2)


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_airflow_refuses(receiver: str, airflow: Airflow, sandbox: GraphSandbox, status: int) -> None:
    airflow.refuses_with = status
    delivery = sandbox.share_account(receiver, count=2)
    assert delivery.status == 503
    airflow.refuses_with = None
    assert delivery.repeat() == 200
    assert len(airflow.runs) == 2


def test_a_wrong_password(
    receiver: str, airflow: Airflow, sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(USER, "password", "another one")
    assert sandbox.share_account(receiver).status == 503
    assert airflow.runs == {}


def test_airflow_is_away(monkeypatch: pytest.MonkeyPatch, sandbox: GraphSandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with receiving(f"http://127.0.0.1:{port}", monkeypatch) as receiver:
        assert sandbox.share_account(receiver).status == 503


def test_what_it_does_not_understand_or_need(receiver: str, airflow: Airflow) -> None:
    def post(body: bytes) -> int:
        return send(receiver, "POST", body, X_Hub_Signature_256=sign(body))[0]

    assert post(b"not JSON") == 503
    assert post(b'{"object": "page", "entry": []}') == 200
    removed = {"event": "PARTNER_REMOVED", "waba_info": {"waba_id": "5"}}
    nameless = {"event": "PARTNER_ADDED"}
    for value in (removed, nameless):
        change = {"field": "account_update", "value": value}
        entry = {"id": "1", "time": 1, "changes": [change]}
        assert post(json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()) == 200
    assert airflow.runs == {}


def test_a_body_is_limited(receiver: str) -> None:
    body = b" " * LARGEST
    assert send(receiver, "POST", body, X_Hub_Signature_256=sign(body))[0] == 503
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


def test_the_page_names_every_function_and_attribute() -> None:
    text = section("## The functions", "webhooks.md")
    for name in webhooks.__all__:
        if name != "AccountChange":
            assert f"| `{name}(" in text
    for name in webhooks.AccountChange.__dataclass_fields__:
        assert f"| `{name}` |" in text
