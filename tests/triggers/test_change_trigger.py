from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from virtual_time import run_virtually

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasChangeTrigger

needs_state = pytest.mark.skipif(
    importlib.util.find_spec("airflow.models.asset_state_store") is None,
    reason="needs the asset state store of Airflow 3.3",
)


class Store:
    """The state store of one asset, which Airflow keeps in its database."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.writes = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        assert len(key) <= 512
        self.writes += 1
        self.values[key] = json.dumps(value)


def watcher(*stores: Store, **arguments: Any) -> WhatsAppWabasChangeTrigger:
    trigger = WhatsAppWabasChangeTrigger(poke_interval=60, **arguments)
    by_name = {f"asset {number}": store for number, store in enumerate(stores)}
    trigger.asset_state_store = SimpleNamespace(_by_name=by_name, _by_uri={}) if stores else None  # type: ignore[assignment]
    return trigger


class Watching:
    """A triggerer that runs one trigger."""

    def __init__(self, trigger: WhatsAppWabasChangeTrigger) -> None:
        self.events: list[TriggerEvent] = []
        self._trigger = trigger

    async def __aenter__(self) -> Watching:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        async for event in self._trigger.run():
            self.events.append(event)

    async def event(self, number: int = 1) -> TriggerEvent:
        """The event with this number, beginning with 1."""
        await until(lambda: len(self.events) >= number)
        return self.events[number - 1]


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if is_so():
            return
        await asyncio.sleep(20)
    raise AssertionError("it did not come to that")


def ids(event: TriggerEvent) -> tuple[list[str], list[str], list[str]]:
    payload = event.payload
    return tuple(payload[kind]["ids"] for kind in ("added", "removed", "changed"))


def account(sandbox: GraphSandbox, id_: str) -> dict[str, Any]:
    return {**sandbox.accounts[0], "id": id_}


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WhatsAppWabasChangeTrigger, "log", logging.getLogger("trigger"))


async def store_baseline(store: Store) -> None:
    async with Watching(watcher(store)):
        await until(lambda: store.writes > 0)


async def first_event(*stores: Store, **arguments: Any) -> TriggerEvent:
    async with Watching(watcher(*stores, **arguments)) as watching:
        return await watching.event()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


@needs_state
class TestChanges:
    def test_each_change_is_reported_once(self, connected: GraphSandbox) -> None:
        store = Store()

        async def run() -> None:
            async with Watching(watcher(store, watch_fields="name")) as watching:
                await until(lambda: store.writes == 1)
                # The first reading is no change, and neither is one of a field that is not watched.
                connected.accounts[1]["currency"] = "XXX"
                await asyncio.sleep(200)
                assert (watching.events, store.writes) == ([], 1)
                connected.accounts.append(account(connected, "71"))
                event = await watching.event()
                assert ids(event) == (["71"], [], [])
                assert (event.payload["business_id"], event.payload["relationship"]) == (
                    connected.business_id,
                    "client",
                )
                # It is stored only when the triggerer has had time to store the event.
                assert store.writes == 1
                await until(lambda: store.writes == 2)
                gone = connected.accounts.pop(3)
                connected.accounts[5]["name"] = "Another name"
                assert ids(await watching.event(2)) == ([], [gone["id"]], [connected.accounts[5]["id"]])
                await asyncio.sleep(2000)
                assert (len(watching.events), store.writes) == (2, 3)

        run_virtually(run())

    def test_the_same_change_again_has_another_id(self, connected: GraphSandbox) -> None:
        async def run() -> list[TriggerEvent]:
            store = Store()
            async with Watching(watcher(store)) as watching:
                for number in range(4):
                    await until(lambda: store.writes > len(watching.events))
                    if number % 2 == 0:
                        connected.accounts.append(account(connected, "71"))
                    else:
                        connected.accounts.pop()
                    await watching.event(number + 1)
                return watching.events

        told, _ = run_virtually(run())
        assert [ids(event) for event in told] == [(["71"], [], []), ([], ["71"], [])] * 2
        assert len({event.payload["change_id"] for event in told}) == 4

    def test_a_change_during_downtime(self, connected: GraphSandbox) -> None:
        store = Store()
        run_virtually(store_baseline(store))
        connected.accounts.append(account(connected, "71"))
        assert ids(run_virtually(first_event(store))[0]) == (["71"], [], [])

    def test_a_change_that_was_not_stored_is_reported_again_with_the_same_id(self, connected: GraphSandbox) -> None:
        store = Store()
        run_virtually(store_baseline(store))
        connected.accounts.append(account(connected, "71"))
        told = [run_virtually(first_event(store))[0].payload for _ in range(2)]
        assert told[0] == told[1]

    def test_a_listing_that_fails_removes_nothing(
        self, connected: GraphSandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = Store()
        run_virtually(store_baseline(store))
        connected.fail_next(Fault.server_error().after(1).times(20), Fault.expired_token(), Fault.throttle(minutes=2))

        async def run() -> TriggerEvent:
            async with Watching(watcher(store)) as watching:
                await asyncio.sleep(5000)
                assert watching.events == []
                connected.accounts.append(account(connected, "71"))
                return await watching.event()

        assert ids(run_virtually(run())[0]) == (["71"], [], [])
        (line,) = errors(caplog)
        assert line.startswith("Change detection is paused; retrying in 300 s: The API said: ")
        assert " The token has expired: create a new one" in line
        assert connected.token not in caplog.text

    def test_a_new_token_is_used(self, connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        right = connected.connection
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", right.replace(connected.token, "EAAwrong"))

        async def run() -> None:
            store = Store()
            async with Watching(watcher(store)):
                await until(lambda: bool(connected.requests))
                await asyncio.sleep(10)
                monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", right)
                await until(lambda: store.writes > 0)

        run_virtually(run())

    def test_watchers_of_one_business_share_one_reading(self, connected: GraphSandbox) -> None:
        stores = [Store() for _ in range(5)]

        async def run() -> int:
            async with AsyncExitStack() as stack:
                watching = [await stack.enter_async_context(Watching(watcher(store))) for store in stores]
                await until(lambda: all(store.writes for store in stores))
                connected.requests.clear()
                connected.accounts.append(account(connected, "71"))
                assert [ids(await one.event()) for one in watching] == [(["71"], [], [])] * 5
                return len(connected.requests)

        pages = -(-len(connected.accounts) // 100)
        assert run_virtually(run())[0] <= 2 * pages
        assert all(shared.is_idle for shared in SharedReadings.of_all_loops())

    def test_one_trigger_for_several_assets(self, connected: GraphSandbox) -> None:
        old, new = Store(), Store()
        run_virtually(store_baseline(old))
        connected.accounts.append(account(connected, "71"))

        async def run() -> TriggerEvent:
            async with Watching(watcher(new, old)) as watching:
                await until(lambda: new.writes > 0)
                return await watching.event()

        assert ids(run_virtually(run())[0]) == (["71"], [], [])
        assert new.values == old.values

    def test_other_watched_fields(self, connected: GraphSandbox) -> None:
        store = Store()
        run_virtually(store_baseline(store))

        async def run() -> TriggerEvent:
            async with Watching(watcher(store, watch_fields=["currency"])) as watching:
                await until(lambda: store.writes == 2)
                connected.accounts[2]["currency"] = "XXX"
                return await watching.event()

        assert ids(run_virtually(run())[0]) == ([], [], [connected.accounts[2]["id"]])

    def test_the_owned_accounts_of_another_business(self, connected: GraphSandbox) -> None:
        store = Store()
        watched = {"business_id": "4242", "relationship": "owned"}
        connected.businesses.append({"id": "4242", "name": "Another"})

        async def run() -> TriggerEvent:
            async with Watching(watcher(store, **watched)) as watching:
                await until(lambda: store.writes == 1)
                connected.owned_accounts_of("4242").append(account(connected, "71"))
                return await watching.event()

        event, _ = run_virtually(run())
        assert {name: event.payload[name] for name in watched} == watched
        assert event.payload["change_id"].startswith("4242-2-")


@needs_state
@pytest.mark.parametrize("relationship", [None, " "])
def test_the_event_names_the_relationship_by_default(connected: GraphSandbox, relationship: Any) -> None:
    store = Store()
    run_virtually(store_baseline(store))
    connected.accounts.append(account(connected, "71"))
    assert run_virtually(first_event(store, relationship=relationship))[0].payload["relationship"] == "client"


@needs_state
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relationship": "theirs"}, "relationship: 'theirs' is not one of"),
        ({"business_id": "x"}, "business_id: 'x' is not the id"),
        ({"watch_fields": "a,,b"}, "fields: "),
        ({"whatsapp_conn_id": "nowhere"}, "whatsapp_conn_id: there is no connection 'nowhere'; create it"),
    ],
)
def test_bad_input_is_an_error_in_the_log(
    connected: GraphSandbox, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], message: str
) -> None:
    async def run() -> None:
        async with Watching(watcher(Store(), **arguments)):
            await asyncio.sleep(10)

    run_virtually(run())
    (line,) = errors(caplog)
    assert line.startswith(f"Change detection is paused; retrying in 300 s: {message}")
    assert connected.requests == []


@needs_state
def test_it_needs_an_asset(connected: GraphSandbox, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with Watching(watcher()):
            await asyncio.sleep(10)

    run_virtually(run())
    assert "use the trigger in an AssetWatcher" in errors(caplog)[0]


@needs_state
@pytest.mark.parametrize(
    "state", ["text", [], {}, {"version": "x", "snapshot": {}}, {"version": 1, "snapshot": {"ids": "AAAA"}}]
)
def test_a_state_that_is_not_its_own_is_reported_and_kept(
    connected: GraphSandbox, caplog: pytest.LogCaptureFixture, state: Any
) -> None:
    store = Store()

    async def run() -> None:
        await store_baseline(store)
        (key,) = store.values
        store.values[key] = json.dumps(state)
        async with Watching(watcher(store)) as watching:
            await asyncio.sleep(400)
            assert watching.events == []
            assert "was not stored by this trigger; delete it" in errors(caplog)[0]
            assert json.loads(store.values[key]) == state
            del store.values[key]
            await until(lambda: key in store.values)

    run_virtually(run())


@needs_state
def test_a_start_that_fails_leaves_no_wait_behind(connected: GraphSandbox, caplog: pytest.LogCaptureFixture) -> None:
    class Unreachable(Store):
        async def aget(self, key: str, default: Any = None) -> Any:
            raise ConnectionError

    async def run() -> None:
        async with Watching(watcher(Unreachable())):
            await asyncio.sleep(3600)
        # A wait that was left behind would say each hour that it still waits, for as long as the triggerer runs.
        await asyncio.sleep(5 * 3600)

    caplog.set_level(logging.INFO)
    run_virtually(run())
    assert len(errors(caplog)) > 5
    assert "Still waiting" not in caplog.text


@needs_state
def test_a_module_that_cannot_be_loaded_does_not_end_the_watch(
    connected: GraphSandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many_open_files(name: str) -> None:
        raise OSError(24, "Too many open files")

    async def run() -> None:
        store = Store()
        with monkeypatch.context() as patch:
            patch.setattr(importlib, "import_module", too_many_open_files)
            async with Watching(watcher(store)):
                await until(lambda: bool(errors(caplog)))
                patch.undo()
                await until(lambda: store.writes > 0)

    run_virtually(run())
    assert errors(caplog) == ["Change detection is paused; retrying in 300 s: OSError"]


@needs_state
def test_it_round_trips_through_json() -> None:
    trigger = watcher(business_id=5, relationship="owned", watch_fields=["a", "b"], whatsapp_conn_id="other")
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == trigger.serialize()
    assert BaseEventTrigger.hash(path, arguments) == BaseEventTrigger.hash(*again.serialize())


def test_an_airflow_without_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseEventTrigger, "__init__", lambda self: None)
    with pytest.raises(RuntimeError, match="needs Airflow 3.3"):
        WhatsAppWabasChangeTrigger()
