"""Many waits on one loop, in virtual time, against the sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from virtual_time import run_virtually

from airflow_provider_whatsapp import watch
from airflow_provider_whatsapp.client import AsyncGraphClient, GraphConfig
from airflow_provider_whatsapp.graph import GraphTokenError
from airflow_provider_whatsapp.graph.condition import condition_from
from airflow_provider_whatsapp.graph.messages import Credentials
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.query import EdgeRead, edge_read
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.watch import Pace, until_met

NEW = {"id": "4242", "name": "new"}
QUERIES: list[Any] = [{}, {"ownership_types": "CLIENT_OWNED"}, {"max_items": 5}, {"sort": "creation_time_ascending"}]


def config_of(graph: GraphSandbox, timeout: float = 30) -> GraphConfig:
    return GraphConfig(credentials=Credentials(graph.token), base_url=graph.url, version="v26.0", timeout=timeout)


def clients_of(graph: GraphSandbox, fields: str = "id") -> EdgeRead:
    return edge_read(f"{graph.business_id}/client_whatsapp_business_accounts", fields=fields)


def wait_for(
    graph: GraphSandbox, pace: Pace | None = None, *, fields: str = "id", **condition: Any
) -> Coroutine[Any, Any, None]:
    return until_met(config_of(graph), clients_of(graph, fields), condition_from(**condition), pace or Pace(60))


async def later(seconds: float, act: Callable[[], object]) -> None:
    await asyncio.sleep(seconds)
    act()


def nothing_left() -> bool:
    return not [x for by_loop in (watch._WATCHES, watch._CLIENTS) for x in by_loop.values() if x]


def test_the_first_look_comes_after_one_interval(graph: GraphSandbox) -> None:
    _, seconds = run_virtually(wait_for(graph, min_count=250))
    assert 60 <= seconds <= 70
    assert len(graph.requests) == 3
    assert nothing_left()


def test_it_stops_reading_when_it_knows(graph: GraphSandbox) -> None:
    run_virtually(wait_for(graph, min_count=100))
    assert len(graph.requests) == 1


def test_it_looks_again_until_it_is_met(graph: GraphSandbox) -> None:
    async def run() -> None:
        await asyncio.gather(wait_for(graph, waba_ids=["4242"]), later(310, lambda: graph.accounts.append(NEW)))

    _, seconds = run_virtually(run())
    assert 310 < seconds < 400
    assert 4 * 3 <= len(graph.requests) <= 6 * 3
    assert nothing_left()


def test_a_hundred_waits_cost_as_much_as_one(graph: GraphSandbox) -> None:
    async def one_after_another() -> None:
        async def wait(number: int) -> None:
            await asyncio.sleep(number * 0.7)  # each begins at another time
            await wait_for(graph, waba_ids=["4242"])

        await asyncio.gather(*(wait(number) for number in range(100)), later(500, lambda: graph.accounts.append(NEW)))

    run_virtually(one_after_another())
    # One reading of three pages a minute, for nine minutes.
    assert len(graph.requests) <= 10 * 3
    assert graph.connections <= 2
    assert nothing_left()


def test_each_wait_has_its_own_condition(graph: GraphSandbox) -> None:
    async def run() -> list[str]:
        met: list[str] = []

        async def wait(name: str, **condition: Any) -> None:
            await wait_for(graph, **condition)
            met.append(name)

        await asyncio.gather(
            wait("there", waba_ids=[graph.accounts[120]["id"]]),
            wait("new", waba_ids=["4242"]),
            wait("many", min_count=251),
            later(100, lambda: graph.accounts.append(NEW)),
        )
        return met

    met, _ = run_virtually(run())
    assert met[0] == "there"
    assert set(met[1:]) == {"new", "many"}


def test_other_listings_are_read_apart_over_the_same_client(graph: GraphSandbox) -> None:
    async def run() -> None:
        await asyncio.gather(wait_for(graph), wait_for(graph, fields="id,name"))

    run_virtually(run())
    assert {request.params["fields"] for request in graph.requests} == {"id", "id,name"}
    assert len(graph.requests) == 2
    assert graph.connections <= 2


def test_a_wait_that_is_cancelled_does_not_take_the_others_with_it(graph: GraphSandbox) -> None:
    async def run() -> None:
        waits = [asyncio.create_task(wait_for(graph, waba_ids=["4242"])) for _ in range(3)]
        await asyncio.sleep(90)
        waits[0].cancel()
        await asyncio.sleep(90)
        graph.accounts.append(NEW)
        done = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert done[1:] == [None, None]

    run_virtually(run())
    assert nothing_left()


def test_the_last_one_to_be_cancelled_leaves_nothing(graph: GraphSandbox) -> None:
    graph.fail_next(Fault.slow_reply(seconds=30))

    async def run() -> None:
        wait = asyncio.create_task(wait_for(graph, Pace(0.01), waba_ids=["4242"]))
        await asyncio.sleep(0.5)  # in the middle of a request
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(run())
    assert nothing_left()


def test_a_failure_is_seen_by_all_who_share_the_reading(graph: GraphSandbox) -> None:
    graph.fail_next(Fault.expired_token().after(1).times(100))

    async def run() -> list[Any]:
        return await asyncio.gather(*(wait_for(graph, waba_ids=["4242"]) for _ in range(3)), return_exceptions=True)

    errors, _ = run_virtually(run())
    assert [type(error) for error in errors] == [GraphTokenError] * 3
    assert len({id(error) for error in errors}) == 3
    assert len(graph.requests) == 2
    assert nothing_left()


def test_passing_faults_do_not_end_the_wait(graph: GraphSandbox) -> None:
    graph.fail_next(Fault.server_error().times(20))
    run_virtually(wait_for(graph, min_count=250))
    assert len(graph.requests) == 20 + 3


def test_a_throttle_is_waited_out_for_as_long_as_the_api_asked(graph: GraphSandbox) -> None:
    graph.fail_next(Fault.throttle(minutes=7))
    _, seconds = run_virtually(wait_for(graph, min_count=250))
    assert 60 + 7 * 60 <= seconds <= 60 + 7 * 60 + 20
    assert len(graph.requests) == 1 + 3


def test_a_throttle_holds_for_those_who_come_meanwhile(graph: GraphSandbox) -> None:
    graph.fail_next(Fault.throttle(minutes=7))

    async def run() -> None:
        first = asyncio.create_task(wait_for(graph, waba_ids=["4242"]))
        await asyncio.sleep(100)
        await wait_for(graph, Pace(1), min_count=250)
        first.cancel()

    _, seconds = run_virtually(run())
    assert seconds >= 60 + 7 * 60
    assert len(graph.requests) == 1 + 3


def test_a_throttle_holds_for_all_listings_of_the_app(graph: GraphSandbox) -> None:
    graph.fail_next(Fault.throttle(minutes=7))

    async def run() -> None:
        first = asyncio.create_task(wait_for(graph, waba_ids=["4242"]))
        await asyncio.sleep(100)
        first.cancel()
        await wait_for(graph, Pace(1), fields="id,name")

    _, seconds = run_virtually(run())
    assert seconds >= 60 + 7 * 60


def test_a_throttle_that_names_no_time_is_not_hammered(graph: GraphSandbox) -> None:
    graph.fail_next(Fault.too_many_requests().times(3))
    _, seconds = run_virtually(wait_for(graph, Pace(0)))
    assert seconds >= 3 * 60
    assert len(graph.requests) == 4


def test_listings_with_other_filters_are_read_apart(graph: GraphSandbox) -> None:
    async def run() -> None:
        reads = [
            edge_read(f"{graph.business_id}/client_whatsapp_business_accounts", fields="id", **query)
            for query in QUERIES
        ]
        await asyncio.gather(*(until_met(config_of(graph), read, condition_from(), Pace(60)) for read in reads))

    run_virtually(run())
    assert len({json.dumps(request.params) for request in graph.requests}) == len(QUERIES)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_cancelling_right_after_subscribing_leaves_nothing(graph: GraphSandbox, turns: int) -> None:
    async def run() -> None:
        first = asyncio.create_task(wait_for(graph, waba_ids=["4242"]))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(wait_for(graph, waba_ids=["4242"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), 5)

    asyncio.run(run())
    assert nothing_left()


def test_who_comes_when_a_reading_has_died_gets_another(graph: GraphSandbox) -> None:
    made: list[AsyncGraphClient] = []

    def make(config: GraphConfig) -> AsyncGraphClient:
        if not made:
            made.append(AsyncGraphClient(config))
            raise ValueError("unusable")
        return AsyncGraphClient(config)

    async def run() -> None:
        async def wait() -> None:
            await until_met(config_of(graph), clients_of(graph), condition_from(), Pace(0.01), make_client=make)

        first = asyncio.create_task(wait())
        while not [one for by_loop in watch._WATCHES.values() for one in by_loop.values() if one.ended]:
            await asyncio.sleep(0)
        await asyncio.wait_for(wait(), 5)
        with pytest.raises(ValueError, match="unusable"):
            await first
        await made[0].aclose()

    asyncio.run(run())
    assert nothing_left()


def test_an_impatient_wait_sets_the_pace(graph: GraphSandbox) -> None:
    async def run() -> None:
        patient = asyncio.create_task(wait_for(graph, Pace(1000), waba_ids=["4242"]))
        await asyncio.sleep(1)
        await wait_for(graph, Pace(10))
        patient.cancel()

    _, seconds = run_virtually(run())
    assert seconds < 30


def test_another_loop_has_its_own_readings(graph: GraphSandbox) -> None:
    for _ in range(2):
        run_virtually(wait_for(graph))
    assert len(graph.requests) == 2


def test_a_client_that_cannot_be_made_is_told(graph: GraphSandbox) -> None:
    def broken(config: GraphConfig) -> AsyncGraphClient:
        raise ValueError("unusable")

    coroutine = until_met(config_of(graph), clients_of(graph), condition_from(), Pace(60), make_client=broken)
    with pytest.raises(ValueError, match="unusable"):
        run_virtually(coroutine)
    assert nothing_left()


def test_no_more_than_ten_requests_at_once(graph: GraphSandbox) -> None:
    graph.latency = 0.02

    async def run() -> None:
        reads = [edge_read(f"{account['id']}/phone_numbers", fields="id") for account in graph.accounts[:60]]
        waits = [until_met(config_of(graph), read, condition_from(min_count=99), Pace(0.01)) for read in reads]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waits), 1)

    asyncio.run(run())
    assert len(graph.requests) > 60
    assert graph.connections <= 10
    assert nothing_left()


@pytest.mark.parametrize(
    ("pace", "waited", "shortest"),
    [
        (Pace(60), 1000, 60),
        (Pace(60, exponential=True), 0, 60),
        (Pace(60, exponential=True), 60, 60),
        (Pace(60, exponential=True), 130, 130),
        (Pace(60, exponential=True, waited=1000), 130, 1130),
        (Pace(60, exponential=True, longest=300), 1000, 300),
        (Pace(60, longest=30), 0, 60),
    ],
)
def test_pace(pace: Pace, waited: float, shortest: float) -> None:
    assert pace.next_wait(waited, 0) == shortest
    longest = pace.longest if pace.longest and pace.exponential else shortest * 1.1
    assert pace.next_wait(waited, 1) == pytest.approx(longest)


def test_many_conditions_do_not_hold_the_loop() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        waiters = []
        for _ in range(500):
            condition = condition_from(waba_ids=["4242"])
            waiter = watch._Waiter(condition, Pace(60), 0, 0, loop.create_future())
            waiter.tally = watch.Tally(condition)
            waiters.append(waiter)
        telling = asyncio.create_task(watch._tell(Page([{"id": str(number)} for number in range(100)], 1), waiters))
        turns = 0
        while not telling.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(run()) >= 500 * 100 / watch._COMPARISONS_IN_A_ROW


def test_the_example_of_a_condition_is_json(graph: GraphSandbox) -> None:
    condition = condition_from(waba_ids=["1"], where={"owner.name": "A"})
    assert json.loads(json.dumps(condition.to_json())) == condition.to_json()
