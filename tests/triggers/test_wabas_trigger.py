from __future__ import annotations

import asyncio
import importlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from virtual_time import run_virtually

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger


def trigger_for(sandbox: GraphSandbox, *, timeout: float = 3600, **changes: Any) -> WhatsAppWabasTrigger:
    """A trigger on all client accounts; each change replaces the value of that name in its group."""
    now = time.time()
    groups: dict[str, dict[str, Any]] = {
        "query": {
            "path": f"{sandbox.business_id}/client_whatsapp_business_accounts",
            "fields": "id",
            "params": {},
            "page_size": 100,
            "max_items": None,
        },
        "pace": {"poke_interval": 60.0, "exponential_backoff": False, "max_wait": None},
        "clock": {"started": now, "looked": now, "deadline": now + timeout, "not_before": 0.0},
    }
    condition = changes.pop("condition", None)
    for group in groups.values():
        group.update({name: changes.pop(name) for name in list(changes) if name in group})
    assert not changes
    arguments: dict[str, Any] = {**groups, "condition": condition}
    return WhatsAppWabasTrigger(whatsapp_conn_id="whatsapp_default", **arguments)


def nothing_left() -> bool:
    return all(shared.is_idle for shared in SharedReadings.of_all_loops())


def fired(trigger: WhatsAppWabasTrigger) -> tuple[dict[str, Any], float]:
    async def run() -> dict[str, Any]:
        events = [event async for event in trigger.run()]
        assert len(events) == 1
        payload: dict[str, Any] = events[0].payload
        return payload

    return run_virtually(run())


def test_it_round_trips_through_json(sandbox: GraphSandbox) -> None:
    trigger = trigger_for(
        sandbox, params={"sort": "x"}, condition={"waba_ids": ["1"], "min_count": 1, "where": {"a": ["b"]}}
    )
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == trigger.serialize()


def stored_triggers() -> list[Path]:
    """An example of what each release stored in Airflow's database while a task waited."""
    return sorted(Path(__file__).with_name("stored").glob("*.json"))


@pytest.mark.parametrize("stored", stored_triggers(), ids=lambda path: path.stem)
def test_a_trigger_that_an_earlier_release_stored_still_works(
    stored: Path, sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = json.loads(stored.read_text())
    module, _, name = example["classpath"].rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**example["kwargs"])
    for group, values in example["kwargs"].items():
        assert trigger.serialize()[1][group] == values
    business_id, _, edge = trigger.query["path"].partition("/")
    sandbox.businesses.append({"id": business_id, "name": "Waiting"})
    sandbox.client_accounts_of(business_id).extend(
        {"id": id_, "ownership_type": "CLIENT_OWNED", "owner_business_info": {"name": "Acme"}}
        for id_ in trigger.condition["waba_ids"]
    )
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
    trigger.clock["deadline"] = time.time() + 3600
    event, _ = fired(trigger)
    assert event["status"] == "met"
    (request,) = sandbox.requests
    assert (request.path.rpartition("/")[2], request.params["limit"]) == (edge, "50")
    assert (request.params["sort"], request.params["fields"]) == (
        "creation_time_descending",
        "id,owner_business_info.as(owner){name}",
    )


def test_arguments_that_are_missing_take_their_defaults(connected: GraphSandbox) -> None:
    path = f"{connected.business_id}/client_whatsapp_business_accounts"
    trigger = WhatsAppWabasTrigger(query={"path": path}, pace={"poke_interval": 5.0, "of_a_later_release": 1})
    _, arguments = trigger.serialize()
    started = arguments["clock"]["started"]
    assert arguments == {
        "whatsapp_conn_id": "whatsapp_default",
        "query": {"path": path},
        "condition": {},
        "pace": {"poke_interval": 5.0, "of_a_later_release": 1},
        "clock": {"started": started, "looked": started},
        "max_usage": 80.0,
    }
    assert started == pytest.approx(time.time(), abs=60)
    event, seconds = fired(trigger)
    assert event == {"status": "met", "started": started, "deadline": None, "not_before": 0.0}
    assert 5 <= seconds < 10
    assert connected.requests[0].params == {"limit": "100"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"path": "../me/accounts"}, "path: "),
        ({"path": "1"}, "path: "),
        ({}, "path: "),
        ({"path": "1/x", "params": {"a": float("nan")}}, "params: "),
        ({"path": "1/x", "params": "a"}, "params: "),
        ({"path": "1/x", "params": {" Method": "delete"}}, "params: "),
        ({"path": "1/x", "params": {"access_token": "EAAtheirs"}}, "params: "),
        ({"path": "1/x", "page_size": 0}, "page_size: "),
        ({"path": "1/x", "max_items": -1}, "max_items: "),
        ({"path": "1/x", "fields": "id,"}, "fields: "),
    ],
)
def test_a_query_that_no_release_stored_is_an_error(
    connected: GraphSandbox, query: dict[str, Any], message: str
) -> None:
    event, _ = fired(WhatsAppWabasTrigger(query=query))
    assert (event["status"], event["error"]) == ("error", "ValueError")
    assert event["message"].startswith(message)
    assert connected.requests == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poke_interval": -1}, "poke_interval: "),
        ({"poke_interval": "soon"}, "poke_interval: "),
        ({"poke_interval": float("nan")}, "poke_interval: "),
        ({"exponential_backoff": "yes"}, "exponential_backoff: "),
        ({"max_wait": -1}, "max_wait: "),
        ({"max_wait": float("inf")}, "max_wait: "),
        ({"started": None}, "started: "),
        ({"looked": "now"}, "looked: "),
        ({"deadline": float("nan")}, "deadline: "),
        ({"deadline": "2026-11-24"}, "deadline: "),
        ({"not_before": 1e300}, "not_before: "),
        ({"condition": {"min_count": -1}}, "min_count: "),
        ({"path": "1/x", "fields": 5}, "fields: "),
    ],
)
def test_a_value_that_no_release_stored_is_an_error(
    connected: GraphSandbox, changes: dict[str, Any], message: str
) -> None:
    event, _ = fired(trigger_for(connected, **changes))
    assert (event["status"], event["error"]) == ("error", "ValueError")
    assert event["message"].startswith(message)
    assert json.loads(json.dumps(event, allow_nan=False)) == event
    assert connected.requests == []


@pytest.mark.parametrize("value", ["text", 5, ["a"], None])
@pytest.mark.parametrize("group", ["query", "condition", "pace", "clock", "whatsapp_conn_id"])
def test_a_group_of_another_type_is_an_error_and_does_not_end_the_triggerer(
    connected: GraphSandbox, group: str, value: Any
) -> None:
    if (value is None and group in ("condition", "pace", "clock")) or (group, value) == ("whatsapp_conn_id", "text"):
        return  # those are right values
    _, arguments = trigger_for(connected).serialize()
    event, _ = fired(WhatsAppWabasTrigger(**{**arguments, group: value}))
    assert (event["status"], event["error"]) == ("error", "ValueError")
    assert event["message"].startswith(f"{group}: ")
    assert connected.requests == []


def test_a_token_in_the_wrong_group_is_not_shown(connected: GraphSandbox) -> None:
    _, arguments = trigger_for(connected).serialize()
    for group in ("query", "condition", "pace", "clock"):
        event, _ = fired(WhatsAppWabasTrigger(**{**arguments, group: connected.token}))
        assert connected.token not in json.dumps(event)


@pytest.mark.parametrize("pace", [{"poke_interval": 0.0}, {"exponential_backoff": True, "max_wait": 0.0}])
def test_it_never_looks_without_a_pause(connected: GraphSandbox, pace: dict[str, Any]) -> None:
    del connected.accounts[100:]
    event, _ = fired(trigger_for(connected, condition={"waba_ids": ["4242"]}, timeout=30, **pace))
    assert event["status"] == "timeout"
    assert (20 if "poke_interval" in pace else 1) <= len(connected.requests) <= 31


def test_no_secret_in_it(connected: GraphSandbox) -> None:
    trigger = trigger_for(connected)
    event, _ = fired(trigger)
    assert connected.token not in repr(trigger) + json.dumps(trigger.serialize()) + json.dumps(event)


def test_it_fires_one_small_event(connected: GraphSandbox) -> None:
    trigger = trigger_for(connected)
    event, seconds = fired(trigger)
    moments = {name: trigger.clock[name] for name in ("started", "deadline", "not_before")}
    assert event == {"status": "met", **moments}
    assert 60 <= seconds < 70


def test_the_deadline_ends_it(connected: GraphSandbox) -> None:
    event, seconds = fired(trigger_for(connected, timeout=200, condition={"waba_ids": ["4242"]}))
    assert event["status"] == "timeout"
    assert 199 <= seconds <= 202
    assert nothing_left()


def test_a_wait_that_ended_while_no_triggerer_ran_still_reports_the_rate_limit(connected: GraphSandbox) -> None:
    throttled_until = time.time() + 600
    event, _ = fired(trigger_for(connected, timeout=-10, not_before=throttled_until))
    assert (event["status"], event["not_before"]) == ("timeout", throttled_until)
    assert connected.requests == []


def test_a_module_that_could_not_be_loaded_is_loaded_by_the_next_wait(
    connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many_open_files(name: str) -> None:
        raise OSError(24, "Too many open files")

    async def run() -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(importlib, "import_module", too_many_open_files)
            with pytest.raises(OSError, match="Too many open files"):
                await anext(aiter(trigger_for(connected).run()))
        return await anext(aiter(trigger_for(connected).run()))

    event, _ = run_virtually(run())
    assert event.payload["status"] == "met"


def test_a_restart_does_not_move_the_deadline(connected: GraphSandbox) -> None:
    trigger = trigger_for(connected, timeout=-1, condition={"waba_ids": ["4242"]})
    event, seconds = fired(trigger)
    assert event["status"] == "timeout"
    assert seconds < 1


def test_a_connection_that_is_not_there_is_in_the_event(
    connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_WHATSAPP_DEFAULT")
    event, _ = fired(trigger_for(connected))
    assert event["status"] == "error"
    assert event["message"].startswith("whatsapp_conn_id: there is no connection 'whatsapp_default'; create it ")


def test_an_error_that_waiting_cannot_mend_is_in_the_event(connected: GraphSandbox) -> None:
    connected.fail_next(Fault.no_advanced_access().times(100))
    event, _ = fired(trigger_for(connected))
    assert (event["status"], event["error"]) == ("error", "GraphPermissionError")
    assert "Advanced access" in event["message"]


def test_an_unusable_connection_is_in_the_event(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", '{"conn_type": "whatsapp"}')
    event, _ = fired(trigger_for(sandbox))
    assert event["error"] == "ValueError"
    assert "password: empty" in event["message"]


def test_a_token_that_expires_during_the_wait(connected: GraphSandbox) -> None:
    connected.fail_next(Fault.expired_token().after(9).times(100))
    event, seconds = fired(trigger_for(connected, condition={"waba_ids": ["4242"]}))
    assert (event["status"], event["error"]) == ("error", "GraphTokenError")
    assert "The token has expired" in event["message"]
    assert 4 * 60 <= seconds < 5 * 60
    assert len(connected.requests) == 10


def test_a_token_that_was_rotated_is_picked_up(connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connected.connection
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", connection.replace(connected.token, "EAAold"))

    async def run() -> Any:
        waiting: asyncio.Task[Any] = asyncio.create_task(trigger_for(connected).run().__anext__())  # type: ignore[arg-type]
        await asyncio.sleep(1)
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", connection)
        return await waiting

    event, _ = run_virtually(run())
    assert event.payload["status"] == "met"
    assert [request.status for request in connected.requests] == [401, 200]


def test_a_throttle_of_several_minutes_during_the_wait(connected: GraphSandbox) -> None:
    connected.fail_next(Fault.throttle(minutes=9))
    event, seconds = fired(trigger_for(connected))
    assert event["status"] == "met"
    assert 60 + 540 <= seconds < 60 + 560
    assert len(connected.requests) == 2


def test_a_throttle_that_the_worker_met_is_not_hammered(connected: GraphSandbox) -> None:
    event, seconds = fired(trigger_for(connected, not_before=time.time() + 300))
    assert event["status"] == "met"
    assert 299 <= seconds < 310


def test_exponential_backoff(connected: GraphSandbox) -> None:
    fired(trigger_for(connected, exponential_backoff=True, condition={"waba_ids": ["4242"]}, timeout=3600))
    readings = len(connected.requests) // 3
    assert 4 <= readings <= 7  # 1, 2, 4, 8, 16 and 32 minutes after the start


@pytest.mark.parametrize("exponential", [True, False])
def test_after_a_restart_it_looks_soon(connected: GraphSandbox, exponential: bool) -> None:
    now = time.time()
    event, seconds = fired(
        trigger_for(
            connected, started=now - 90_000, looked=now - 50_000, deadline=now + 90_000, exponential_backoff=exponential
        )
    )
    assert event["status"] == "met"
    assert seconds < 10


def test_looks_that_are_overdue_after_a_restart_are_spread(
    connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After a restart of the triggerer, hundreds of triggers start at the same moment.
    now = time.time()
    seconds = []
    for chance in (0.1, 0.9):
        monkeypatch.setattr(random, "random", lambda chance=chance: chance)
        seconds.append(fired(trigger_for(connected, started=now - 90_000, looked=now - 50_000))[1])
    assert seconds[0] >= 0.5
    assert 4.5 <= seconds[1] < 10


def test_the_longest_interval(connected: GraphSandbox) -> None:
    fired(
        trigger_for(connected, exponential_backoff=True, max_wait=120, condition={"waba_ids": ["4242"]}, timeout=3600)
    )
    assert 25 <= len(connected.requests) // 3 <= 32


def test_a_time_out_of_the_secrets_backend_is_not_that_of_the_sensor(
    connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(hook: object, conn_id: str) -> None:
        raise asyncio.TimeoutError

    monkeypatch.setattr("airflow_provider_whatsapp.triggers._connections.aload_connection", slow)
    with pytest.raises(asyncio.TimeoutError):
        fired(trigger_for(connected))


def test_a_cancelled_trigger_leaves_nothing(connected: GraphSandbox) -> None:
    async def run() -> None:
        waiting: asyncio.Task[Any] = asyncio.create_task(
            trigger_for(connected, condition={"waba_ids": ["4242"]}).run().__anext__()  # type: ignore[arg-type]
        )
        await asyncio.sleep(100)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    run_virtually(run())
    assert nothing_left()
