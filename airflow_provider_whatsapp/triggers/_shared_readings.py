"""Shares API calls among all triggers that wait on the same event loop.

All waits for accounts of the same listing over the same connection share one *reading* of it, which is repeated as
often as the shortest interval among them requires. All readings over the same connection share one client.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import json
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakKeyDictionary

from airflow_provider_whatsapp.graph.changes import AnyChange, ChangeTally
from airflow_provider_whatsapp.graph.condition import Condition, Tally
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery
from airflow_provider_whatsapp.hooks._metrics import count_calls
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient, load_trusted_cas
from airflow_provider_whatsapp.transport.shared import find_trusted_cas
from airflow_provider_whatsapp.triggers._pace import Pace, pause_after
from airflow_provider_whatsapp.triggers._wait_log import Look

# A client does not wait for a rate limit itself, because the other readings over the connection must also wait.
_PATIENCE_OF_A_LOOK = Patience(longest_named_wait=0.0, max_usage=math.inf)
# After this many comparisons of an account with a condition, other tasks of the event loop may run.
_COMPARISONS_IN_A_ROW = 2000

# The connection, and the query as JSON text.
_ReadingKey: TypeAlias = tuple[GraphConfig, str]


class SharedReadings:
    """The readings, clients and rate limits that the waits of one event loop share."""

    def __init__(self) -> None:
        self._readings: dict[_ReadingKey, _Reading] = {}
        self._clients: dict[GraphConfig, _SharedClient] = {}
        self._throttled_until: dict[GraphConfig, float] = {}
        self._loading_cas: dict[str | None, asyncio.Future[object]] = {}

    @classmethod
    def of_running_loop(cls) -> SharedReadings:
        """Return the instance of the running event loop; connections cannot be used on another loop."""
        loop = asyncio.get_running_loop()
        if loop not in _BY_LOOP:
            _BY_LOOP[loop] = cls()
        return _BY_LOOP[loop]

    @classmethod
    def of_all_loops(cls) -> list[SharedReadings]:
        """Return the instances of all existing event loops, so that tests can check for leftovers of a wait."""
        return list(_BY_LOOP.values())

    @property
    def is_idle(self) -> bool:
        """Whether there are no waits, and so no readings and no open connections."""
        return not self._readings and not self._clients

    async def wait_until_met(
        self,
        config: GraphConfig,
        query: EdgeQuery,
        condition: Condition | AnyChange,
        pace: Pace,
        *,
        on_look: Callable[[Look], None],
        waited: float = 0.0,
        first_look_in: float | None = None,
    ) -> Tally | ChangeTally:
        """Wait until a reading of the listing meets the condition, and return the tally of that reading.

        Temporary faults and rate limits are waited out, for as long as they last.

        :param config: where the API is and which credentials to use
        :param query: the listing to read
        :param condition: what to wait for: accounts, or any change
        :param pace: how often to look
        :param on_look: called after each look, in the caller's context
        :param waited: seconds that the wait has already lasted in another process
        :param first_look_in: seconds until the first look; one interval by default
        :raises GraphError: if waiting cannot fix the error
        """
        key = (config, json.dumps(query.to_json(), sort_keys=True))
        reading = self._readings.get(key)
        if reading is None or reading.has_ended:
            reading = self._readings[key] = _Reading(self, config, query)
        waiter = reading.add(condition, pace, on_look, waited, first_look_in)
        try:
            await waiter.finished
            return waiter.tally
        finally:
            if reading.remove(waiter):
                if self._readings.get(key) is reading:
                    del self._readings[key]
                await reading.stop()

    def throttled_until(self, config: GraphConfig) -> float:
        """Return the time on the loop's clock before which no call may be made over the connection; 0 for no limit."""
        return self._throttled_until.get(config, 0.0)

    def throttle(self, config: GraphConfig, seconds: float) -> None:
        """Pause all calls that use this Airflow connection, because Meta applies a rate limit to the whole app.

        :param config: the connection
        :param seconds: length of the pause
        """
        loop = asyncio.get_running_loop()
        until = self._throttled_until[config] = max(self.throttled_until(config), loop.time() + seconds)
        # Forget it when it is over, so that a triggerer that runs for months does not keep one for each token that it
        # saw.
        loop.call_at(until, self._forget_throttle, config, until)

    def _forget_throttle(self, config: GraphConfig, until: float) -> None:
        if self._throttled_until.get(config) == until:
            del self._throttled_until[config]

    @asynccontextmanager
    async def client(self, config: GraphConfig) -> AsyncIterator[AsyncGraphClient]:
        """Provide the client for the connection; it is closed when its last user leaves the block."""
        if config not in self._clients:
            await self._load_cas(find_trusted_cas(config))
        shared = self._clients.get(config)
        if shared is None:
            client = AsyncGraphClient(config, patience=_PATIENCE_OF_A_LOOK, on_call=count_calls(config))
            shared = self._clients[config] = _SharedClient(client)
        shared.users += 1
        try:
            yield shared.client
        finally:
            shared.users -= 1
            if not shared.users:
                del self._clients[config]
                await shared.client.aclose()

    async def _load_cas(self, path: str | None) -> None:
        # In a thread, because reading all CAs would delay the other triggers noticeably; and in one thread for all
        # readings that start at the same time, because they share the result.
        loading = self._loading_cas.get(path)
        if loading is None:
            loading = self._loading_cas[path] = asyncio.ensure_future(asyncio.to_thread(load_trusted_cas, path))
            loading.add_done_callback(lambda done: self._loading_cas.pop(path, None))
        # Shielded, because a reading that is cancelled must not cancel it for the others.
        await asyncio.shield(loading)


_BY_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedReadings] = WeakKeyDictionary()


@dataclass(slots=True)
class _SharedClient:
    client: AsyncGraphClient
    users: int = 0


@dataclass(eq=False, slots=True)
class _Waiter:
    """One wait on a reading; ``since`` is when it started and ``due`` when it looks next, on the loop's clock."""

    condition: Condition | AnyChange
    pace: Pace
    on_look: Callable[[Look], None]
    since: float
    due: float
    finished: asyncio.Future[None]
    tally: Tally | ChangeTally = field(init=False)
    # The context of the waiting trigger, through which Airflow finds the log of its task. The reading has an empty one.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def report(self, look: Look) -> None:
        self.context.run(self.on_look, look)

    def finish(self) -> None:
        self.report(Look(count=self.tally.count, is_met=True))
        self.finished.set_result(None)

    def schedule_next_look(self, now: float) -> None:
        self.due = now + self.pace.next_interval(now - self.since, random.random())


class _Reading:
    """Reads one listing repeatedly, for all waits on it.

    :param shared: the readings of the event loop
    :param config: where the API is and which credentials to use
    :param query: the listing to read
    """

    def __init__(self, shared: SharedReadings, config: GraphConfig, query: EdgeQuery) -> None:
        self._shared = shared
        self._config = config
        self._query = query
        self._loop = asyncio.get_running_loop()
        self._waiters: set[_Waiter] = set()
        # Set when a waiter was added, or when a waiter is due.
        self._wake_up = asyncio.Event()
        # In an empty context: that of the first trigger would send the log lines of all to its task.
        self._task: asyncio.Task[None] = contextvars.Context().run(self._loop.create_task, self._run())

    def add(
        self,
        condition: Condition | AnyChange,
        pace: Pace,
        on_look: Callable[[Look], None],
        waited: float,
        first_look_in: float | None,
    ) -> _Waiter:
        """Add a wait."""
        now = self._loop.time()
        waiter = _Waiter(condition, pace, on_look, now - waited, now, self._loop.create_future())
        if first_look_in is None:
            waiter.schedule_next_look(now)
        else:
            waiter.due = now + first_look_in
        self._waiters.add(waiter)
        self._wake_up.set()
        return waiter

    def remove(self, waiter: _Waiter) -> bool:
        """Remove a wait. Returns whether it was the last one."""
        self._waiters.discard(waiter)
        return not self._waiters

    @property
    def has_ended(self) -> bool:
        """Whether this reading has stopped, so that a new wait needs a new reading."""
        return self._task.done()

    async def stop(self) -> None:
        """End the reading and release its resources."""
        # Cancel repeatedly, because before Python 3.12, wait_for can swallow a cancellation that arrives at the same
        # time as its result.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    async def _run(self) -> None:
        try:
            async with self._shared.client(self._config) as client:
                while True:
                    await self._wait_until_due()
                    await self._look(client)
        except Exception as error:
            # Pass the error to every waiter: nothing reads for them now, so they would never be resumed.
            self._fail(list(self._waiters), error)

    async def _wait_until_due(self) -> None:
        while True:
            self._wake_up.clear()
            due = self._next_look()
            if due is not None and due <= self._loop.time():
                return
            alarm = None if due is None else self._loop.call_at(due, self._wake_up.set)
            try:
                await self._wake_up.wait()
            finally:
                if alarm is not None:
                    alarm.cancel()

    def _next_look(self) -> float | None:
        """Return when to read the listing next, on the loop's clock; None if there are no waits."""
        waiting = [waiter.due for waiter in self._waiters if not waiter.finished.done()]
        return max(min(waiting), self._shared.throttled_until(self._config)) if waiting else None

    async def _look(self, client: AsyncGraphClient) -> None:
        """Read the listing once, for all current waits."""
        looking = [waiter for waiter in self._waiters if not waiter.finished.done()]
        for waiter in looking:
            waiter.tally = waiter.condition.new_tally()
        failure = None
        try:
            async with aclosing(client.pages(self._query)) as pages:
                async for page in pages:
                    if not await _show_page(page, looking):
                        break
            await _show_end(looking)
        except GraphError as error:
            if not error.retryable:
                self._fail(looking, error)
                return
            failure = error
            if pause := pause_after(error):
                self._shared.throttle(self._config, pause)
        now = self._loop.time()
        for waiter in looking:
            waiter.schedule_next_look(now)
        next_look_in = (self._next_look() or now) - now
        for waiter in looking:
            if not waiter.finished.done():
                count = None if failure else waiter.tally.count
                waiter.report(Look(count=count, error=failure, next_look_in=next_look_in))

    @staticmethod
    def _fail(waiters: list[_Waiter], error: Exception) -> None:
        for waiter in waiters:
            if not waiter.finished.done():
                waiter.finished.set_exception(_copy_of(error))


def _copy_of(error: Exception) -> Exception:
    # Each wait gets its own exception, because raising one in several places makes its traceback grow.
    if isinstance(error, GraphError):
        return copy.copy(error)
    return ValueError(str(error)) if isinstance(error, ValueError) else RuntimeError(type(error).__name__)


async def _show_page(page: Page, waiters: list[_Waiter]) -> bool:
    """Count the accounts of a page for all waits. Returns whether any of them needs the next page."""
    comparisons = 0
    needs_more = False
    for waiter in waiters:
        if waiter.finished.done():
            continue
        for row in page.rows:
            waiter.tally.add(row)
        if waiter.tally.is_met:
            waiter.finish()
        else:
            needs_more = True
        comparisons += len(page.rows)
        if comparisons >= _COMPARISONS_IN_A_ROW:
            comparisons = 0
            await asyncio.sleep(0)
    return needs_more


async def _show_end(waiters: list[_Waiter]) -> None:
    """Notify the waits that need the whole listing that it was read completely."""
    for waiter in waiters:
        tally = waiter.tally
        # In a thread, because the comparison of 100,000 accounts would block the other triggers for a tenth of a
        # second. The wait may have been cancelled in the meantime.
        is_met = tally.needs_whole_listing and await asyncio.to_thread(tally.is_met_at_end)  # type: ignore[union-attr]  # only those have it
        if is_met and not waiter.finished.done():
            waiter.finish()
