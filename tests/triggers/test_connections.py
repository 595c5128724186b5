"""A connection that changes while triggers wait on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from virtual_time import run_virtually

from airflow_provider_whatsapp.hooks._connection import aload_connection
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.triggers import _connections
from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

CONNECTION = "AIRFLOW_CONN_WHATSAPP_DEFAULT"
ROTATED = "EAA" + "rotated" * 12


def trigger_of(sandbox: GraphSandbox, *, timeout: float = 7200, **condition: Any) -> WhatsAppWabasTrigger:
    path = f"{sandbox.business_id}/client_whatsapp_business_accounts"
    return WhatsAppWabasTrigger(
        query={"path": path, "fields": "id"}, condition=condition, clock={"deadline": time.time() + timeout}
    )


def fired(trigger: WhatsAppWabasTrigger, after: float, change: Callable[[], None]) -> tuple[dict[str, Any], float]:
    """The event of the trigger, and when it came, if something changes after some seconds."""

    async def run() -> dict[str, Any]:
        asyncio.get_running_loop().call_later(after, change)
        async for event in trigger.run():
            return dict(event.payload)
        raise AssertionError

    event, seconds = run_virtually(run())
    assert all(shared.is_idle for shared in SharedReadings.of_all_loops())
    return event, seconds


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the connections that were read."""
    read: list[str] = []

    async def load(hook: Any, conn_id: str) -> Any:
        read.append(conn_id)
        return await aload_connection(hook, conn_id)

    monkeypatch.setattr(_connections, "aload_connection", load)
    return read


@pytest.mark.parametrize("rotated", ["token", "app_secret"])
def test_rotated_credentials_do_not_end_a_wait(monkeypatch: pytest.MonkeyPatch, rotated: str) -> None:
    with GraphSandbox(accounts=5, app_secret="s3cr3t" * 5) as sandbox:
        monkeypatch.setenv(CONNECTION, sandbox.connection)

        def change() -> None:
            setattr(sandbox, rotated, ROTATED)
            sandbox.accounts.append({"id": "4242"})
            monkeypatch.setenv(CONNECTION, sandbox.connection)

        event, seconds = fired(trigger_of(sandbox, waba_ids=["4242"]), 600, change)
    assert event["status"] == "met"
    assert seconds < 700


def test_credentials_that_were_revoked_end_it(monkeypatch: pytest.MonkeyPatch, connected: GraphSandbox) -> None:
    event, seconds = fired(trigger_of(connected, waba_ids=["4242"]), 600, lambda: setattr(connected, "token", ROTATED))
    assert (event["status"], event["error"]) == ("error", "GraphTokenError")
    assert seconds < 700


def test_two_dead_tokens_in_turns_end_it(monkeypatch: pytest.MonkeyPatch, connected: GraphSandbox) -> None:
    good, old = connected.connection, connected.token
    dead = [ROTATED.lower(), ROTATED.upper()] * 20

    async def load(hook: Any, conn_id: str) -> Any:
        monkeypatch.setenv(CONNECTION, good.replace(old, dead.pop()))
        return await aload_connection(hook, conn_id)

    monkeypatch.setattr(_connections, "aload_connection", load)
    event, _ = fired(trigger_of(connected, waba_ids=["4242"]), 600, lambda: None)
    assert (event["status"], event["error"]) == ("error", "GraphTokenError")
    assert len(dead) > 30


def test_a_host_that_moved_is_called_after_a_look_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with GraphSandbox(accounts=5) as old, GraphSandbox(accounts=5) as new:
        new.accounts.append({"id": "4242"})
        monkeypatch.setenv(CONNECTION, old.connection)

        def change() -> None:
            old.stop()
            monkeypatch.setenv(CONNECTION, new.connection)

        event, seconds = fired(trigger_of(old, waba_ids=["4242"]), 600, change)
    assert event["status"] == "met"
    assert seconds < 900


def test_a_change_is_noticed_within_minutes_though_no_look_fails(
    monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    with GraphSandbox(accounts=5) as old, GraphSandbox(accounts=5) as new:
        new.accounts.append({"id": "4242"})
        monkeypatch.setenv(CONNECTION, old.connection)
        change = lambda: monkeypatch.setenv(CONNECTION, new.connection)  # noqa: E731
        event, seconds = fired(trigger_of(old, waba_ids=["4242"]), 601, change)
    assert event["status"] == "met"
    assert 601 < seconds < 1000
    assert len(reads) < 8


def test_a_connection_that_is_deleted_ends_the_wait(monkeypatch: pytest.MonkeyPatch, connected: GraphSandbox) -> None:
    event, seconds = fired(trigger_of(connected, waba_ids=["4242"]), 601, lambda: monkeypatch.delenv(CONNECTION))
    assert (event["status"], event["error"]) == ("error", "MissingConnectionError")
    assert seconds < 1000


def test_a_secrets_backend_that_is_away_does_not_end_the_wait(
    monkeypatch: pytest.MonkeyPatch, connected: GraphSandbox
) -> None:
    async def load(hook: Any, conn_id: str) -> Any:
        raise OSError("vault is sealed")

    change = lambda: monkeypatch.setattr(_connections, "aload_connection", load)  # noqa: E731
    event, _ = fired(trigger_of(connected, timeout=3000, waba_ids=["4242"]), 601, change)
    assert event["status"] == "timeout"


def test_hundreds_of_triggers_share_the_reads(connected: GraphSandbox, reads: list[str]) -> None:
    async def run() -> None:
        async def wait() -> None:
            async for _ in trigger_of(connected, timeout=3000, waba_ids=["4242"]).run():
                return

        await asyncio.gather(*(wait() for _ in range(200)))

    run_virtually(run())
    assert len(reads) < 30
