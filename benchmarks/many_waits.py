"""Measures what a thousand triggers on one event loop cost, with and without shared readings.

* A: All triggers wait on the same listing, each for a different account.
* B: Each trigger waits on a different listing. Ten requests run at once, so reading all listings takes longer than the
  interval.
* C: As A and as B, but each trigger polls with its own client, which is the obvious design. There are fewer triggers,
  and the costs are compared per trigger.

The accounts appear after about three readings. Each case runs in a new process with one event loop, and its sandbox
runs in another process. Airflow's objects are excluded from garbage collection first, because a full collection stalls
any triggerer for 0.2 s. The command exits with 1 if a wait does not end as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from airflow_provider_whatsapp.sandbox import GraphSandbox

INTERVAL = 2.0
APPEAR_AFTER = 3.5 * INTERVAL
LONGEST_CASE = 40.0
TICK = 0.005
# Counting tasks takes a millisecond, which would distort the measurement if it were done at each tick.
TICKS_BETWEEN_COUNTS = 50
ACCOUNTS_BEFORE = 25
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Case:
    """One case to measure.

    :param waits: number of triggers
    :param latency: seconds that each answer takes
    :param one_listing: whether all triggers wait on the same listing
    :param own_clients: whether each trigger polls with its own client instead of the shared readings
    """

    name: str
    waits: int
    latency: float
    one_listing: bool
    own_clients: bool


@dataclass
class Loop:
    """How late the ticks of an event loop were in seconds, and the largest number of its tasks."""

    lateness: list[float] = field(default_factory=list)
    tasks: int = 0

    @property
    def worst(self) -> float:
        """The worst stall in milliseconds."""
        return max(self.lateness) * 1e3


@dataclass(frozen=True)
class Result:
    """The costs of a case; ``memory`` in MiB, ``first`` the event loop during the first trigger of the process."""

    case: Case
    met: int
    seconds: float
    calls: int
    connections: int
    first: Loop
    loop: Loop
    memory: float

    @property
    def calls_per_wait(self) -> float:
        """Calls of the API per wait and interval."""
        return self.calls / self.case.waits / (self.seconds / INTERVAL)

    def as_parts_of(self, other: Result) -> list[str]:
        """Calls, connections and memory per wait, and the worst stall, each divided by that of another result."""
        ours, theirs = (
            (r.calls_per_wait, r.connections / r.case.waits, r.memory / r.case.waits, r.loop.worst)
            for r in (self, other)
        )
        return [f"{a / b:.4f}" if b else "-" for a, b in zip(ours, theirs, strict=True)]


def main() -> None:
    """Run the cases one after the other and print their costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triggers", type=int, default=1000, help="waits in A and B (default: %(default)s)")
    parser.add_argument("--alone", type=int, default=100, help="waits in each C (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds an answer takes (default: %(default)s)")
    given = parser.parse_args()
    many, few, latency = given.triggers, given.alone, given.latency
    cases = [
        Case("A", many, latency, one_listing=True, own_clients=False),
        Case("B", many, latency, one_listing=False, own_clients=False),
        Case("C as A", few, latency, one_listing=True, own_clients=True),
        Case("C as B", few, latency, one_listing=False, own_clients=True),
    ]
    with tempfile.TemporaryDirectory(prefix="airflow-whatsapp-benchmark-") as home:
        # Airflow reads its settings when it is first imported. Only the processes of the cases import it.
        os.environ.update(AIRFLOW_HOME=home, AIRFLOW__CORE__LOAD_EXAMPLES="False")
        results = [in_a_process_of_its_own(case) for case in cases]
    show(results)
    if any(result.met < result.case.waits for result in results):
        sys.exit("Some waits did not end as they should.")


def in_a_process_of_its_own(case: Case) -> Result:
    """Measure one case in a new process, so that the memory and imports of an earlier case do not count for it."""
    print(f"{case.name}: {case.waits} waits ...", file=sys.stderr, flush=True)
    with ProcessPoolExecutor(1, mp_context=SPAWN) as executor:
        return executor.submit(run, case).result()


def run(case: Case) -> Result:
    """Start a sandbox and measure the case against it."""
    control, theirs = SPAWN.Pipe()
    sandbox = SPAWN.Process(target=serve, args=(case, theirs), daemon=True)
    sandbox.start()
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"], ids = control.recv()
    result = asyncio.run(measure(case, control, ids))
    control.send(None)
    sandbox.join()
    return result


def serve(case: Case, control: Connection) -> None:
    """Serve accounts that appear on order, and answer each order with the number of calls and connections so far."""
    with GraphSandbox(accounts=ACCOUNTS_BEFORE + case.waits, latency=case.latency) as sandbox:
        accounts = sandbox.accounts
        late = accounts[ACCOUNTS_BEFORE:]
        for account in late:
            account["phone_numbers"] = []
        if case.one_listing:
            sandbox.accounts = accounts[:ACCOUNTS_BEFORE]

        def appear() -> None:
            sandbox.accounts = accounts
            for account in late:
                account["phone_numbers"] = [{"id": f"{account['id']}00"}]

        control.send((sandbox.connection, [sandbox.business_id, *(account["id"] for account in late)]))
        for order in iter(control.recv, None):
            if order == "appear":
                threading.Timer(APPEAR_AFTER, appear).start()
            control.send((len(sandbox.requests), sandbox.connections))


async def measure(case: Case, control: Connection, ids: list[str]) -> Result:
    """Start the waits as the triggerer does, one per turn of the event loop, and wait for all of them."""
    # A triggerer has imported Airflow already, so only the imports of the first trigger are to be measured.
    importlib.import_module("airflow_provider_whatsapp.triggers.whatsapp")
    take_out_of_collection()
    async with watched_loop() as first:
        await fires(f"{ids[0]}/owned_whatsapp_business_accounts", None, interval=0.01)
    take_out_of_collection()
    memory = peak_memory()
    before = asked(control, "appear")
    started = time.monotonic()
    async with watched_loop() as loop:
        waits = []
        for waba_id in ids[1:]:
            waits.append(asyncio.create_task(wait_for(case, ids[0], waba_id)))
            await asyncio.sleep(0)
        met = sum(await asyncio.gather(*waits))
        seconds = time.monotonic() - started
    calls, connections = (after - before for after, before in zip(asked(control, "count"), before, strict=True))
    return Result(case, met, seconds, calls, connections, first, loop, (peak_memory() - memory) / 2**20)


def take_out_of_collection() -> None:
    """Exclude all present objects from garbage collection."""
    gc.collect()
    gc.freeze()


def wait_for(case: Case, business_id: str, waba_id: str) -> Coroutine[Any, Any, bool]:
    """One wait of the case, which returns whether its condition was met."""
    path = f"{business_id}/client_whatsapp_business_accounts" if case.one_listing else f"{waba_id}/phone_numbers"
    wanted = [waba_id] if case.one_listing else None
    return polls_alone(path, wanted) if case.own_clients else fires(path, wanted, interval=INTERVAL)


async def fires(path: str, waba_ids: list[str] | None, interval: float) -> bool:
    """Whether a trigger fires because its condition is met."""
    from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

    trigger = WhatsAppWabasTrigger(
        query={"path": path, "fields": "id"},
        condition={"waba_ids": waba_ids},
        pace={"poke_interval": interval},
        clock={"deadline": time.time() + LONGEST_CASE},
    )
    return [event.payload["status"] async for event in trigger.run()] == ["met"]


async def polls_alone(path: str, waba_ids: list[str] | None) -> bool:
    """Whether the condition is met in time, polled with a separate client."""
    from airflow_provider_whatsapp.graph.condition import Tally, build_condition
    from airflow_provider_whatsapp.graph.query import build_edge_query
    from airflow_provider_whatsapp.hooks._connection import aload_connection
    from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
    from airflow_provider_whatsapp.transport.aio import AsyncGraphClient

    query, condition = build_edge_query(path, fields="id"), build_condition(waba_ids=waba_ids)
    end = time.monotonic() + LONGEST_CASE
    connection = await aload_connection(WhatsAppHook(), "whatsapp_default")
    async with AsyncGraphClient(connection.config) as client:
        while time.monotonic() < end:
            await asyncio.sleep(INTERVAL)
            tally = Tally(condition)
            async with aclosing(client.pages(query)) as pages:
                async for page in pages:
                    if sum(map(tally.add, page.rows)) and tally.is_met:
                        return True
    return False


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Loop]:
    """Record how late the ticks of the event loop are during the block, and its largest number of tasks."""
    seen = Loop()
    ticker = asyncio.create_task(tick(seen))
    await asyncio.sleep(4 * TICK)
    yield seen
    await asyncio.sleep(4 * TICK)
    ticker.cancel()


async def tick(seen: Loop) -> None:
    """Record how late each tick is and, at some of them, the number of tasks."""
    while True:
        if len(seen.lateness) % TICKS_BETWEEN_COUNTS == 0:
            seen.tasks = max(seen.tasks, len(asyncio.all_tasks()))
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        seen.lateness.append(max(0.0, time.perf_counter() - due))


def asked(control: Connection, order: str) -> tuple[int, int]:
    """Number of calls and connections of the sandbox at the time of the order."""
    control.send(order)
    calls, connections = control.recv()
    return calls, connections


def peak_memory() -> int:
    """The largest memory size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def show(results: list[Result]) -> None:
    """Print the cases side by side, and the costs of A and B divided by those of their C."""
    line("", [r.case.name for r in results])
    line("waits", [f"{r.case.waits}" for r in results])
    line("of these met", [f"{r.met}" for r in results])
    line("seconds to the last event", [f"{r.seconds:.1f}" for r in results])
    line("calls of the API", [f"{r.calls}" for r in results])
    line("calls per wait, interval", [f"{r.calls_per_wait:.4f}" for r in results])
    line("TCP connections", [f"{r.connections}" for r in results])
    line("worst stall, ms", [f"{r.loop.worst:.1f}" for r in results])
    line("99th percentile, ms", [f"{statistics.quantiles(r.loop.lateness, n=100)[98] * 1e3:.1f}" for r in results])
    line("first trigger's stall, ms", [f"{r.first.worst:.1f}" for r in results])
    line("most tasks", [f"{r.loop.tasks}" for r in results])
    line("memory growth, MiB", [f"{r.memory:.1f}" for r in results])
    print(f"\nAn interval is {INTERVAL:g} s. Costs per wait (the stall: of the loop) divided by those of C:")
    line("", ["calls", "conn.", "memory", "stall"])
    line("A/C", results[0].as_parts_of(results[2]))
    line("B/C", results[1].as_parts_of(results[3]))


def line(name: str, values: list[str]) -> None:
    """Print one line of a table."""
    print(f"{name:<26}", *(f"{value:>8}" for value in values))


if __name__ == "__main__":
    main()
