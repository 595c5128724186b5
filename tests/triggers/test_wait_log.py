"""What the log of a task says while the task waits in the triggerer."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import itertools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from virtual_time import run_virtually

from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection, aload_connection
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.aio import load_trusted_cas
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

#: The task in whose log a line is written. Airflow finds it by the context of the trigger, too.
task = contextvars.ContextVar("task", default="none")


class Lines(logging.Handler):
    """The lines of each task: the seconds since the start, the level and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.by_task: dict[str, list[tuple[float, str, str]]] = {}
        self.started = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        since = asyncio.get_running_loop().time() - self.started
        self.by_task.setdefault(task.get(), []).append((since, record.levelname, record.getMessage()))

    def of(self, name: str) -> list[str]:
        return [line for _, _, line in self.by_task.get(name, [])]


@contextmanager
def captured() -> Iterator[Lines]:
    lines, logger = Lines(), logging.Logger("wait")
    logger.addHandler(lines)
    # Airflow's own logger of a trigger writes to the triggerer's channel, not to handlers.
    with patch.object(WhatsAppWabasTrigger, "log", logger):
        yield lines


async def wait(sandbox: GraphSandbox, name: str, *, timeout: float, **condition: Any) -> dict[str, Any]:
    now = time.time()
    trigger = WhatsAppWabasTrigger(
        query={"path": f"{sandbox.business_id}/client_whatsapp_business_accounts", "fields": "id"},
        condition=condition,
        pace={"poke_interval": 300},
        clock={"started": now, "looked": now, "deadline": now + timeout},
    )
    task.set(name)
    (event,) = [event.payload async for event in trigger.run()]
    payload: dict[str, Any] = event
    return payload


def run_logged(*coroutines: Any) -> Lines:
    # Loaded before, because the clock of the loop would skip the hours while a thread loads them.
    importlib.import_module("airflow_provider_whatsapp.triggers._shared_readings")
    load_trusted_cas(None)
    with captured() as lines, no_waits():

        async def run() -> None:
            lines.started = asyncio.get_running_loop().time()
            await asyncio.gather(*coroutines)

        run_virtually(run())
    return lines


def test_three_hours_with_a_throttle_and_two_faults(connected: GraphSandbox) -> None:
    # A look makes three calls if all is well, and six attempts at a call that fails.
    connected.fail_next(
        Fault.server_error().after(3 * 3).times(6),
        Fault.throttle(minutes=20).after(4 * 3),
        Fault.account_added().after(2 * 3),
        Fault.closed().after(2 + 2 * 3).times(6),
    )
    lines = run_logged(wait(connected, "wait", timeout=3 * 3600, min_count=252)).by_task["wait"]
    for since, level, line in lines:
        print(f"{time.strftime('%H:%M:%S', time.gmtime(since))} {level:7} {line}")
    texts = [line for _, _, line in lines]
    assert "250 accounts match; condition not met yet: 252 are needed - looking again in 0:05:" in texts[0]
    assert texts[1].startswith("The response is HTTP 503 without an error envelope. The API failed, ")
    assert texts[2].startswith("The API said: (#80008) ")
    assert texts[2].endswith(" - looking again in 0:20:00")
    assert texts[3].startswith("251 accounts match; condition not met yet: 252 are needed - ")
    assert texts[4].startswith("no complete response from ")
    assert texts[5].startswith("Still waiting after 2:")
    assert texts[5].endswith("; 251 accounts match: 252 are needed")
    assert len(texts) == 6
    assert [level for _, level, _ in lines] == ["INFO", "WARNING", "WARNING", "INFO", "WARNING", "INFO"]
    moments = [0.0, *(since for since, _, _ in lines), 3 * 3600.0]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) <= 3601


def test_each_wait_writes_to_the_log_of_its_own_task(connected: GraphSandbox) -> None:
    lines = run_logged(
        wait(connected, "there", timeout=3600, min_count=250),
        wait(connected, "in vain", timeout=2000, waba_ids=["4242"]),
    )
    assert lines.of("there") == ["250 accounts match; condition met"]
    (line,) = lines.of("in vain")
    assert line.startswith("0 accounts match; condition not met yet: 4242 is not shared - ")
    assert set(lines.by_task) == {"there", "in vain"}


def test_a_wait_without_any_look_shows_a_sign_of_life(connected: GraphSandbox) -> None:
    connected.fail_next(Fault.throttle(minutes=600))
    lines = run_logged(wait(connected, "wait", timeout=5 * 3600))
    texts = lines.of("wait")
    assert len(texts) == 5
    assert texts[0].endswith(" - looking again in 10:00:00")
    for hour, text in enumerate(texts[1:], start=1):
        assert text.startswith(f"Still waiting after {hour}:05:")
        assert text.endswith(" in this triggerer and 1 looks; no look has succeeded yet")


def test_a_new_token_is_reported(connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    right = connected.connection
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", right.replace(connected.token, "EAAold"))

    async def load_and_replace(hook: WhatsAppHook, conn_id: str) -> WhatsAppConnection:
        loaded = await aload_connection(hook, conn_id)
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", right)
        return loaded

    monkeypatch.setattr("airflow_provider_whatsapp.triggers._connections.aload_connection", load_and_replace)
    refused, met = run_logged(wait(connected, "wait", timeout=3600)).of("wait")
    assert refused == "The connection has changed - continuing with its new settings"
    assert met.endswith("; condition met")


def test_nothing_is_written_after_the_end(connected: GraphSandbox) -> None:
    lines = run_logged(wait(connected, "wait", timeout=1000), asyncio.sleep(3 * 3600))
    assert len(lines.of("wait")) == 1


def test_the_event_says_how_long_the_api_asked_for_no_call(connected: GraphSandbox) -> None:
    connected.fail_next(Fault.throttle(minutes=60))
    with no_waits():
        event, _ = run_virtually(wait(connected, "wait", timeout=1800))
    assert event["status"] == "timeout"
    assert event["not_before"] == pytest.approx(time.time() + 3600 - 1500, abs=100)
    assert len(connected.requests) == 1
