"""What ``share_account`` adds and sends."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from raw_server import listening
from sandbox_http import get, ids

from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.sandbox.webhook_examples import EXAMPLES
from airflow_provider_whatsapp.webhooks import ENTRY_IS_A_BUSINESS, TOPICS, account_changes

SECRET = "5ecre7" * 5


@dataclass
class Receiver:
    """A receiver that answers each delivery with the next status, or with 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def act(self, connection: socket.socket) -> None:
        received = connection.makefile("rb")
        self.paths.append(received.readline().split()[1].decode())
        headers = {}
        while line := received.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        self.signatures.append(headers["x-hub-signature-256"])
        self.bodies.append(received.read(int(headers["content-length"])))
        status = self.statuses.pop(0) if self.statuses else 200
        connection.sendall(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)

    def is_signed(self, number: int) -> bool:
        digest = hmac.new(SECRET.encode(), self.bodies[number], hashlib.sha256).hexdigest()
        return self.signatures[number] == f"sha256={digest}"

    def changes(self, number: int) -> list[Any]:
        (entry,) = json.loads(self.bodies[number])["entry"]
        return list(entry["changes"])


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    with listening(receiver.act) as port:
        receiver.url = f"http://127.0.0.1:{port}/whatsapp"
        yield receiver


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=5, app_secret=SECRET) as sandbox:
        yield sandbox


def test_the_account_is_there_and_the_delivery_names_it(sandbox: GraphSandbox) -> None:
    with receiving() as receiver:
        delivery = sandbox.share_account(f"{receiver.url}?a=b")
        assert delivery.status == 200
        assert receiver.paths == ["/whatsapp?a=b"]
        assert receiver.is_signed(0)
        new = sandbox.accounts[-1]
        assert delivery.waba_ids == [new["id"]]
        body = json.loads(receiver.bodies[0])
        assert body["object"] == "whatsapp_business_account"
        assert body["entry"][0]["id"] == sandbox.business_id
        (change,) = receiver.changes(0)
        assert (change["field"], change["value"]["event"]) == ("account_update", "PARTNER_ADDED")
        info = change["value"]["waba_info"]
        assert info["waba_id"] == new["id"]
        assert info["owner_business_id"] == new["owner_business_info"]["id"]
        assert sandbox.business_id in info["solution_partner_business_ids"]


@pytest.mark.parametrize("topic", EXAMPLES)
def test_every_topic_is_read(sandbox: GraphSandbox, topic: str) -> None:
    with receiving() as receiver:
        account = sandbox.accounts[1]
        delivery = sandbox.deliver(receiver.url, topic, waba_id=account["id"])
        assert (delivery.status, delivery.waba_ids) == (200, [account["id"]])
        assert receiver.is_signed(0)
        (entry,) = json.loads(receiver.bodies[0])["entry"]
        (change,) = account_changes(receiver.bodies[0])
        assert change.value == entry["changes"][0]["value"]
        assert change.field == topic.partition("/")[0]
        assert change.waba_id == (account["id"] if change.field not in ENTRY_IS_A_BUSINESS else None)
        assert (change.sent_at is None) == ("time" not in entry) == (topic == "account_settings_update")
        if "waba_info" in change.value:
            assert entry["id"] == sandbox.business_id
            assert change.owner_business_id == account["owner_business_info"]["id"]
    assert len(sandbox.accounts) == 5


def test_the_topics_are_those_that_are_read() -> None:
    assert {topic.partition("/")[0] for topic in EXAMPLES} == {topic.field for topic in TOPICS}


def test_the_new_account_can_be_read(sandbox: GraphSandbox) -> None:
    with receiving() as receiver:
        (waba_id,) = sandbox.share_account(receiver.url).waba_ids
    plain = GraphSandbox(accounts=5)
    with plain, receiving() as receiver:
        plain.accounts = sandbox.accounts
        assert get(plain, waba_id).json["id"] == waba_id
        assert waba_id in ids(get(plain, f"{plain.business_id}/client_whatsapp_business_accounts"))


def test_a_repeated_delivery_has_another_time(sandbox: GraphSandbox) -> None:
    with receiving() as receiver:
        receiver.statuses = [503, 200]
        delivery = sandbox.share_account(receiver.url)
        assert delivery.repeat() == 200
        assert delivery.statuses == [503, 200]
        assert len(sandbox.accounts) == 6
        assert receiver.changes(0) == receiver.changes(1)
        first, second = (json.loads(body)["entry"][0]["time"] for body in receiver.bodies)
        assert second > first
        assert receiver.is_signed(1)


def test_a_thousand_at_once(sandbox: GraphSandbox) -> None:
    with receiving() as receiver:
        delivery = sandbox.share_account(receiver.url, count=1000)
        assert len(set(delivery.waba_ids)) == len(receiver.changes(0)) == 1000
        assert [account["id"] for account in sandbox.accounts[5:]] == delivery.waba_ids
        assert len(receiver.bodies) == 1
        assert len({account["id"] for account in sandbox.accounts}) == 1005


def test_a_forged_delivery_shares_nothing(sandbox: GraphSandbox) -> None:
    with receiving() as receiver:
        receiver.statuses = [403]
        assert sandbox.share_account(receiver.url, forged=True).status == 403
        assert sandbox.deliver(receiver.url, "security", forged=True).status == 200
        assert not receiver.is_signed(0)
        assert not receiver.is_signed(1)
        assert len(sandbox.accounts) == 5


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/whatsapp", "https://127.0.0.1/whatsapp", "http://127.0.0.1.example/", "whatsapp", ""]
)
def test_only_to_this_machine(sandbox: GraphSandbox, url: str) -> None:
    with pytest.raises(ValueError, match="only to this machine"):
        sandbox.share_account(url)
    assert len(sandbox.accounts) == 5


def test_wrong_arguments(sandbox: GraphSandbox) -> None:
    for count in (0, 1001):
        with pytest.raises(ValueError, match="from 1 to 1000"):
            sandbox.share_account("http://127.0.0.1:1/", count=count)
    with pytest.raises(ValueError, match="app_secret"):
        GraphSandbox().share_account("http://127.0.0.1:1/")
    with pytest.raises(ValueError, match=r"topic must be one of account_alerts, .*, not 'messages'"):
        sandbox.deliver("http://127.0.0.1:1/", "messages")
    with pytest.raises(ValueError, match="no account 5"):
        sandbox.deliver("http://127.0.0.1:1/", "security", waba_id="5")


def test_no_receiver(sandbox: GraphSandbox) -> None:
    with receiving() as receiver:
        pass
    with pytest.raises(ConnectionRefusedError):
        sandbox.share_account(receiver.url)
