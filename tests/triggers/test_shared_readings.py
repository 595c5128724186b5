"""Many waits on one event loop whose clock skips all waits, against the sandbox."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from virtual_time import run_virtually

from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphRateLimitError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
)
from airflow_provider_whatsapp.graph.condition import Condition, Tally, build_condition
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.pages import Page, Position
from airflow_provider_whatsapp.graph.query import EdgeQuery, build_edge_query
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
from airflow_provider_whatsapp.triggers import _reading, _shared_readings
from airflow_provider_whatsapp.triggers._pace import Pace
from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings
from airflow_provider_whatsapp.triggers._wait_log import Look

NEW = {"id": "4242", "name": "new"}
QUERIES: list[Any] = [
    {},
    {"ownership_types": "CLIENT_OWNED"},
    {"max_items": 5},
    {"page_size": 50},
    {"sort": "creation_time_ascending"},
]

FIRST_PAGE = Position(page=1, after=None, limit=100, digest="", count=0)


def config_of(sandbox: GraphSandbox, timeout: float = 30) -> GraphConfig:
    return GraphConfig(credentials=Credentials(sandbox.token), base_url=sandbox.url, version="v26.0", timeout=timeout)


def clients_of(sandbox: GraphSandbox, fields: str = "id") -> EdgeQuery:
    return build_edge_query(f"{sandbox.business_id}/client_whatsapp_business_accounts", fields=fields)


def say_nothing(look: Look) -> None:
    pass


async def wait_until_met(
    config: GraphConfig,
    query: EdgeQuery,
    condition: Condition,
    pace: Pace,
    tell: Callable[[Look], None] = say_nothing,
) -> None:
    await SharedReadings.of_running_loop().wait_until_met(config, query, condition, pace, on_look=tell)


async def wait_for(sandbox: GraphSandbox, pace: Pace | None = None, *, fields: str = "id", **condition: Any) -> None:
    await wait_until_met(
        config_of(sandbox), clients_of(sandbox, fields), build_condition(**condition), pace or Pace(60)
    )


async def later(seconds: float, act: Callable[[], object]) -> None:
    await asyncio.sleep(seconds)
    act()


def nothing_left() -> bool:
    return all(shared.is_idle for shared in SharedReadings.of_all_loops())


def test_the_first_look_comes_after_one_interval(sandbox: GraphSandbox) -> None:
    _, seconds = run_virtually(wait_for(sandbox, min_count=250))
    assert 60 <= seconds <= 70
    assert len(sandbox.requests) == 3
    assert nothing_left()


@pytest.mark.parametrize(("percent", "longest"), [(79, 70), (80, 700)])
def test_a_look_waits_before_it_uses_up_the_limit(sandbox: GraphSandbox, percent: int, longest: int) -> None:
    sandbox.fail_next(Fault.high_usage(percent).times(3))
    _, seconds = run_virtually(wait_for(sandbox, min_count=250))
    # After the first page and the second, not after the last.
    assert longest - 100 < seconds <= longest


def test_a_look_that_is_over_is_reported_before_the_limit_is_waited_for(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.high_usage(90).after(2))
    looks: list[Look] = []

    async def run() -> None:
        wait = wait_until_met(
            config_of(sandbox), clients_of(sandbox), build_condition(min_count=251), Pace(1), looks.append
        )
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait, 60)

    run_virtually(run())
    assert [(look.count, look.is_interrupted) for look in looks] == [(250, False)]


@pytest.mark.parametrize("most", [80.0, 1000.0])
def test_a_look_that_needs_more_calls_than_the_limit_allows_gets_to_its_end(most: float) -> None:
    with GraphSandbox(accounts=3000, calls_per_hour=20, hour=timedelta(minutes=1)) as sandbox:
        looks: list[Look] = []

        async def run() -> None:
            query, condition = clients_of(sandbox), build_condition(min_count=3000)
            shared = SharedReadings.of_running_loop()
            await shared.wait_until_met(
                config_of(sandbox), query, condition, Pace(60), on_look=looks.append, max_usage=most, first_look_in=0
            )

        with no_waits():
            asyncio.run(run())
        answers = [request.status for request in sandbox.requests]
    refused = len(answers) - answers.count(200)
    assert (answers.count(200), refused == 0) == (30, most == 80.0)
    assert [look.is_met for look in looks] == [False] * (len(looks) - 1) + [True]
    assert all(look.is_interrupted and 0 < look.pages < 30 for look in looks[:-1])


def test_it_stops_reading_when_it_knows(sandbox: GraphSandbox) -> None:
    run_virtually(wait_for(sandbox, min_count=100))
    assert len(sandbox.requests) == 1


def test_it_looks_again_until_it_is_met(sandbox: GraphSandbox) -> None:
    async def run() -> None:
        await asyncio.gather(wait_for(sandbox, waba_ids=["4242"]), later(310, lambda: sandbox.accounts.append(NEW)))

    _, seconds = run_virtually(run())
    assert 310 < seconds < 400
    assert 4 * 3 <= len(sandbox.requests) <= 6 * 3
    assert nothing_left()


def test_a_hundred_waits_cost_as_much_as_one(sandbox: GraphSandbox) -> None:
    async def one_after_another() -> None:
        async def wait(number: int) -> None:
            await asyncio.sleep(number * 0.7)  # so that no two begin at the same time
            await wait_for(sandbox, waba_ids=["4242"])

        await asyncio.gather(*(wait(number) for number in range(100)), later(500, lambda: sandbox.accounts.append(NEW)))

    run_virtually(one_after_another())
    # One reading of three pages a minute, for up to ten minutes.
    assert len(sandbox.requests) <= 10 * 3
    assert sandbox.connections <= 2
    assert nothing_left()


def test_each_wait_has_its_own_condition(sandbox: GraphSandbox) -> None:
    async def run() -> list[str]:
        met: list[str] = []

        async def wait(name: str, **condition: Any) -> None:
            await wait_for(sandbox, **condition)
            met.append(name)

        await asyncio.gather(
            wait("there", waba_ids=[sandbox.accounts[120]["id"]]),
            wait("new", waba_ids=["4242"]),
            wait("many", min_count=251),
            later(100, lambda: sandbox.accounts.append(NEW)),
        )
        return met

    met, _ = run_virtually(run())
    assert met[0] == "there"
    assert set(met[1:]) == {"new", "many"}


def test_other_listings_are_read_apart_over_the_same_client(sandbox: GraphSandbox) -> None:
    async def run() -> None:
        await asyncio.gather(wait_for(sandbox), wait_for(sandbox, fields="id,name"))

    run_virtually(run())
    assert {request.params["fields"] for request in sandbox.requests} == {"id", "id,name"}
    assert len(sandbox.requests) == 2
    assert sandbox.connections <= 2


def test_a_wait_that_is_cancelled_does_not_take_the_others_with_it(sandbox: GraphSandbox) -> None:
    async def run() -> None:
        waits = [asyncio.create_task(wait_for(sandbox, waba_ids=["4242"])) for _ in range(3)]
        await asyncio.sleep(90)
        waits[0].cancel()
        await asyncio.sleep(90)
        sandbox.accounts.append(NEW)
        done = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert done[1:] == [None, None]

    run_virtually(run())
    assert nothing_left()


def test_the_last_one_to_be_cancelled_leaves_nothing(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.slow_reply(seconds=30))

    async def run() -> None:
        wait = asyncio.create_task(wait_for(sandbox, Pace(0.01), waba_ids=["4242"]))
        await asyncio.sleep(0.5)  # in the middle of a request
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(run())
    assert nothing_left()


def test_a_failure_is_seen_by_all_who_share_the_reading(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.expired_token().after(1).times(100))

    async def run() -> list[Any]:
        return await asyncio.gather(*(wait_for(sandbox, waba_ids=["4242"]) for _ in range(3)), return_exceptions=True)

    errors, _ = run_virtually(run())
    assert [type(error) for error in errors] == [GraphTokenError] * 3
    assert len({id(error) for error in errors}) == 3
    assert len(sandbox.requests) == 2
    assert nothing_left()


def test_a_condition_that_cannot_be_checked_fails_alone(sandbox: GraphSandbox) -> None:
    async def run() -> Any:
        query = build_edge_query(clients_of(sandbox).path, fields="id,phone_numbers{id}")
        wrong = build_condition(where={"phone_numbers.id": "1"})
        waits = (wait_until_met(config_of(sandbox), query, it, Pace(60)) for it in (wrong, build_condition()))
        return await asyncio.gather(*waits, return_exceptions=True)

    (wrong, right), _ = run_virtually(run())
    assert "leads through an edge" in str(wrong)
    assert right is None


def test_a_log_that_cannot_be_written_fails_alone(sandbox: GraphSandbox) -> None:
    def disk_full(look: Look) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> Any:
        query = clients_of(sandbox)
        waits = (
            wait_until_met(config_of(sandbox), query, build_condition(), Pace(60), on_look)
            for on_look in (disk_full, say_nothing)
        )
        return await asyncio.gather(*waits, return_exceptions=True)

    (failed, met), _ = run_virtually(run())
    assert str(failed) == "OSError"
    assert met is None


def test_passing_faults_do_not_end_the_wait(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.server_error().times(20))
    run_virtually(wait_for(sandbox, min_count=250))
    assert len(sandbox.requests) == 20 + 3


def test_a_throttle_is_waited_out_for_as_long_as_the_api_asked(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.throttle(minutes=7))
    _, seconds = run_virtually(wait_for(sandbox, min_count=250))
    assert 60 + 7 * 60 <= seconds <= 60 + 7 * 60 + 20
    assert len(sandbox.requests) == 1 + 3


def test_a_throttle_holds_for_those_who_come_meanwhile(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.throttle(minutes=7))

    async def run() -> None:
        first = asyncio.create_task(wait_for(sandbox, waba_ids=["4242"]))
        await asyncio.sleep(100)
        await wait_for(sandbox, Pace(1), min_count=250)
        first.cancel()

    _, seconds = run_virtually(run())
    assert seconds >= 60 + 7 * 60
    assert len(sandbox.requests) == 1 + 3


def test_a_throttle_holds_for_all_listings_of_the_app(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.throttle(minutes=7))

    async def run() -> None:
        first = asyncio.create_task(wait_for(sandbox, waba_ids=["4242"]))
        await asyncio.sleep(100)
        first.cancel()
        await wait_for(sandbox, Pace(1), fields="id,name")

    _, seconds = run_virtually(run())
    assert seconds >= 60 + 7 * 60


def test_a_throttle_is_forgotten_when_it_has_passed(sandbox: GraphSandbox) -> None:
    # What is kept of it holds the token, which must not stay in memory after it was rotated.
    sandbox.fail_next(Fault.throttle(minutes=7))

    async def run() -> tuple[int, int]:
        first = asyncio.create_task(wait_for(sandbox, waba_ids=["4242"]))
        await asyncio.sleep(100)
        first.cancel()
        shared = SharedReadings.of_running_loop()
        before = len(shared._throttled_until)
        await asyncio.sleep(7 * 60)
        return before, len(shared._throttled_until)

    assert run_virtually(run())[0] == (1, 0)


def test_a_throttle_that_names_no_time_is_not_hammered(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.too_many_requests().times(3))
    _, seconds = run_virtually(wait_for(sandbox, Pace(0)))
    assert seconds >= 3 * 5 * 60
    assert len(sandbox.requests) == 4


def test_listings_with_other_filters_are_read_apart(sandbox: GraphSandbox) -> None:
    async def run() -> None:
        reads = [
            build_edge_query(f"{sandbox.business_id}/client_whatsapp_business_accounts", fields="id", **query)
            for query in QUERIES
        ]
        await asyncio.gather(*(wait_until_met(config_of(sandbox), read, build_condition(), Pace(60)) for read in reads))

    run_virtually(run())
    assert len({json.dumps(request.params) for request in sandbox.requests}) == len(QUERIES)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_cancelling_right_after_subscribing_leaves_nothing(sandbox: GraphSandbox, turns: int) -> None:
    async def run() -> None:
        first = asyncio.create_task(wait_for(sandbox, waba_ids=["4242"]))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(wait_for(sandbox, waba_ids=["4242"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), 60)

    asyncio.run(run())
    assert nothing_left()


def test_who_comes_when_a_reading_has_died_gets_another(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[GraphConfig] = []

    def unusable_once(config: GraphConfig, **options: Any) -> AsyncGraphClient:
        made.append(config)
        if len(made) == 1:
            raise ValueError("unusable")
        return AsyncGraphClient(config, **options)

    monkeypatch.setattr(_shared_readings, "AsyncGraphClient", unusable_once)

    async def run() -> None:
        first = asyncio.create_task(wait_for(sandbox, Pace(0.01)))
        shared = SharedReadings.of_running_loop()
        while not [reading for reading in shared._readings.values() if reading.has_ended]:
            await asyncio.sleep(0)
        await asyncio.wait_for(wait_for(sandbox, Pace(0.01)), 60)
        with pytest.raises(ValueError, match="unusable"):
            await first

    asyncio.run(run())
    assert nothing_left()


def test_an_impatient_wait_sets_the_pace(sandbox: GraphSandbox) -> None:
    async def run() -> None:
        patient = asyncio.create_task(wait_for(sandbox, Pace(1000), waba_ids=["4242"]))
        await asyncio.sleep(1)
        await wait_for(sandbox, Pace(10))
        patient.cancel()

    _, seconds = run_virtually(run())
    assert seconds < 30


def test_another_loop_has_its_own_readings(sandbox: GraphSandbox) -> None:
    for _ in range(2):
        run_virtually(wait_for(sandbox))
    assert len(sandbox.requests) == 2


def test_a_client_that_cannot_be_made_is_reported(sandbox: GraphSandbox) -> None:
    config = replace(config_of(sandbox), base_url="https://127.0.0.1:9", proxy="ftp://127.0.0.1:9")
    with pytest.raises(ValueError, match="^proxy: "):
        run_virtually(wait_until_met(config, clients_of(sandbox), build_condition(), Pace(60)))
    assert nothing_left()


def test_no_more_than_ten_requests_at_once(sandbox: GraphSandbox) -> None:
    sandbox.latency = 0.02

    async def run() -> None:
        reads = [build_edge_query(f"{account['id']}/phone_numbers", fields="id") for account in sandbox.accounts[:60]]
        waits = [
            asyncio.create_task(wait_until_met(config_of(sandbox), read, build_condition(min_count=99), Pace(0.01)))
            for read in reads
        ]
        while len(sandbox.requests) <= 2 * len(reads):
            await asyncio.sleep(0.01)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(run())
    assert sandbox.connections <= 10
    assert nothing_left()


class FailingClient:
    """A client whose listings end in an error for a number of times, and are empty after that."""

    def __init__(self, error: GraphError, times: int = 1) -> None:
        self.looks: list[float] = []
        self._error = error
        self._times = times

    def __call__(self, config: GraphConfig, **options: Any) -> FailingClient:
        return self

    async def pages(self, query: EdgeQuery, **options: Any) -> AsyncIterator[Page]:
        self.looks.append(asyncio.get_running_loop().time())
        if len(self.looks) <= self._times:
            raise self._error
        yield Page([{"id": "1"}], FIRST_PAGE)

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("kind", [GraphServerError, GraphRateLimitError, GraphTransportError])
def test_no_call_is_made_before_the_time_that_any_error_named(
    sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch, kind: type[GraphError]
) -> None:
    client = FailingClient(kind("later", retry_after=timedelta(minutes=7)))
    monkeypatch.setattr(_shared_readings, "AsyncGraphClient", client)
    run_virtually(wait_for(sandbox, Pace(10)))
    first, second = client.looks
    assert second - first >= 7 * 60


def test_each_wait_is_reported_in_its_own_context(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # Airflow finds the log of a task by the context of its trigger.
    task = contextvars.ContextVar("task", default="none")
    monkeypatch.setattr(_shared_readings, "AsyncGraphClient", FailingClient(GraphServerError("down")))
    told: list[tuple[str, str, Look]] = []

    async def wait(name: str) -> None:
        task.set(name)
        query = clients_of(sandbox)
        await wait_until_met(
            config_of(sandbox), query, build_condition(), Pace(60), lambda look: told.append((name, task.get(), look))
        )

    async def run() -> None:
        await asyncio.gather(wait("first"), wait("second"))

    run_virtually(run())
    for name in ("first", "second"):
        contexts = [context for told_to, context, _ in told if told_to == name]
        failed, met = [look for told_to, _, look in told if told_to == name]
        assert contexts == [name, name]
        assert (str(failed.error), failed.count, failed.is_met) == ("down", None, False)
        assert 59 < failed.next_look_in <= 66
        assert (met.error, met.count, met.is_met) == (None, 1, True)


def test_a_short_throttle_holds_for_all_listings_of_the_app_too(sandbox: GraphSandbox) -> None:
    # A client that waited for it in place would let the other readings call meanwhile.
    sandbox.fail_next(Fault.throttle(minutes=None, retry_after=50))

    async def run() -> None:
        first = asyncio.create_task(wait_for(sandbox, waba_ids=["4242"]))
        await asyncio.sleep(70)
        assert len(sandbox.requests) == 1
        await wait_for(sandbox, Pace(1), fields="id,name")
        first.cancel()

    _, seconds = run_virtually(run())
    assert seconds >= 60 + 50


def test_a_throttle_is_not_ended_early_by_a_shorter_one(sandbox: GraphSandbox) -> None:
    async def run() -> float:
        shared, config = SharedReadings.of_running_loop(), config_of(sandbox)
        shared.throttle(config, 600)
        shared.throttle(config, 60)
        await asyncio.sleep(100)
        return shared.throttled_until(config) - asyncio.get_running_loop().time()

    assert run_virtually(run())[0] > 400


def test_a_reading_ends_even_if_a_cancellation_is_lost(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before Python 3.12, asyncio.wait_for loses one that comes at the same moment as its result.
    lost: list[asyncio.CancelledError] = []

    async def lose_one(self: object) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError as cancelled:
            lost.append(cancelled)
        await asyncio.sleep(1000)
        raise AssertionError("it was not cancelled again")

    monkeypatch.setattr(_reading.Reading, "wait_until_due", lose_one)

    async def run() -> None:
        wait = asyncio.create_task(wait_for(sandbox))
        await asyncio.sleep(1)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait

    _, seconds = run_virtually(run())
    assert len(lost) == 1
    assert seconds < 100
    assert nothing_left()


def test_a_reading_that_died_does_not_take_its_successor_with_it(
    sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[asyncio.Task[None]] = []

    def unusable_once(config: GraphConfig, **options: Any) -> AsyncGraphClient:
        if waits:
            return AsyncGraphClient(config, **options)
        # This wait begins after the reading has died, and before those who wait for that reading have noticed.
        waits.append(asyncio.create_task(wait_for(sandbox, waba_ids=["4242"])))
        raise ValueError("unusable")

    monkeypatch.setattr(_shared_readings, "AsyncGraphClient", unusable_once)

    async def run() -> None:
        with pytest.raises(ValueError, match="unusable"):
            await wait_for(sandbox, waba_ids=["4242"])
        waits.append(asyncio.create_task(wait_for(sandbox, waba_ids=["4242"])))
        await asyncio.sleep(200)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    run_virtually(run())
    assert len(waits) == 2
    # One reading of three pages a minute, for both together.
    assert 6 <= len(sandbox.requests) <= 9
    assert nothing_left()


class SlowCas:
    """Stands for the reading of the CAs, which goes on until it is told to end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self.may_end = threading.Event()
        monkeypatch.setattr(_shared_readings, "load_trusted_cas", self._load)

    def _load(self, path: str | None) -> None:
        self.threads.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert self.may_end.wait(60)


def test_the_cas_are_loaded_once_and_not_by_the_event_loop(
    sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    cas = SlowCas(monkeypatch)

    async def run() -> None:
        waits = [asyncio.create_task(wait_for(sandbox, Pace(0.01), fields=fields)) for fields in ("id", "id,name")]
        while not cas.threads and not all(wait.done() for wait in waits):
            await asyncio.sleep(0.01)
        cas.may_end.set()
        await asyncio.gather(*waits)

    asyncio.run(run())
    (thread,) = cas.threads
    assert thread is not threading.main_thread()


def test_a_wait_that_is_cancelled_leaves_the_loading_of_the_cas_to_the_others(
    sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    cas = SlowCas(monkeypatch)

    async def run() -> None:
        first, second = (
            asyncio.create_task(wait_for(sandbox, Pace(0.01), fields=fields)) for fields in ("id", "id,name")
        )
        while not cas.threads and not first.done():
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        cas.may_end.set()
        await asyncio.wait_for(second, 60)

    asyncio.run(run())
    assert nothing_left()


@pytest.mark.parametrize(
    ("pace", "waited", "shortest"),
    [
        (Pace(60), 1000, 60),
        (Pace(60, exponential=True), 0, 60),
        (Pace(60, exponential=True), 60, 60),
        (Pace(60, exponential=True), 130, 130),
        (Pace(60, exponential=True), 1130, 1130),
        (Pace(60, exponential=True, longest=300), 1000, 300),
        (Pace(60, longest=30), 0, 60),
    ],
)
def test_pace(pace: Pace, waited: float, shortest: float) -> None:
    assert pace.next_interval(waited, 0) == shortest
    longest = pace.longest if pace.longest and pace.exponential else shortest * 1.1
    assert pace.next_interval(waited, 1) == pytest.approx(longest)


@pytest.mark.parametrize(("many", "rows"), [(500, 100), (1, 50_000)])
def test_many_comparisons_do_not_hold_the_loop(many: int, rows: int) -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        waiters = []
        for _ in range(many):
            condition = build_condition(waba_ids=["4242"])
            waiter = _reading.Waiter(condition, Pace(60), say_nothing, 80, 0, 0, loop.create_future())
            waiter.tally = Tally(condition)
            waiters.append(waiter)
        page = Page([{"id": str(number)} for number in range(rows)], FIRST_PAGE)
        telling = asyncio.create_task(_reading.show_page(page, waiters))
        turns = 0
        while not telling.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(run()) >= 50_000 / _reading.COMPARISONS_IN_A_ROW


def test_the_example_of_a_condition_is_json(sandbox: GraphSandbox) -> None:
    condition = build_condition(waba_ids=["1"], where={"owner.name": "A"})
    assert json.loads(json.dumps(condition.to_json())) == condition.to_json()
