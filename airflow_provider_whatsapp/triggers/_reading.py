"""Reads one listing repeatedly, for all waits on it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

from airflow_provider_whatsapp.graph.changes import AnyChange, ChangeTally
from airflow_provider_whatsapp.graph.condition import Condition, Tally
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.edges import RELATIONSHIPS
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.flow import Wait
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient, wait_in_place
from airflow_provider_whatsapp.triggers._pace import Pace, pause_after
from airflow_provider_whatsapp.triggers._wait_log import Look

if TYPE_CHECKING:
    from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings

# After this many comparisons of an account with a condition, other tasks of the event loop may run.
COMPARISONS_IN_A_ROW = 2000


@dataclass(eq=False, slots=True)
class Waiter:
    """One wait on a reading; ``since`` is when it started and ``due`` when it looks next, on the loop's clock."""

    condition: Condition | AnyChange
    pace: Pace
    on_look: Callable[[Look], None]
    max_usage: float
    since: float
    due: float
    finished: asyncio.Future[None]
    tally: Tally | ChangeTally = field(init=False)
    # The context of the waiting trigger, through which Airflow finds the log of its task. The reading itself runs in an
    # empty context.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def report(self, look: Look) -> None:
        try:
            self.context.run(self.on_look, look)
        except Exception as error:
            # A log that cannot be written, for example, must not end the waits of other tasks.
            self.fail(error)

    def finish(self) -> None:
        self.report(Look(count=self.tally.count, is_met=True))
        if not self.finished.done():
            self.finished.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.finished.done():
            self.finished.set_exception(_copy_of(error))

    def schedule_next_look(self, now: float) -> None:
        self.due = now + self.pace.next_interval(now - self.since, random.random())


class Reading:
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
        self._listed = "shared" if query.path.endswith(f"/{RELATIONSHIPS['client']}") else "owned"
        #: Pages of the current look, and when it began.
        self._pages, self._began = 0, 0.0
        self._waiters: set[Waiter] = set()
        # Set when a waiter was added, or when a waiter is due.
        self._wake_up = asyncio.Event()
        # In an empty context: in the context of the first trigger, the log lines of all waits would go to its task.
        self._task: asyncio.Task[None] = contextvars.Context().run(self._loop.create_task, self._run())

    def add(
        self,
        condition: Condition | AnyChange,
        pace: Pace,
        on_look: Callable[[Look], None],
        max_usage: float,
        waited: float,
        first_look_in: float | None,
    ) -> Waiter:
        """Add a wait."""
        now = self._loop.time()
        waiter = Waiter(condition, pace, on_look, max_usage, now - waited, now, self._loop.create_future())
        if first_look_in is None:
            waiter.schedule_next_look(now)
        else:
            waiter.due = now + first_look_in
        self._waiters.add(waiter)
        self._wake_up.set()
        return waiter

    def remove(self, waiter: Waiter) -> bool:
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
                    await self.wait_until_due()
                    await self._look(client)
        except Exception as error:
            # Pass the error to every waiter: nothing reads for them now, so they would never be resumed.
            self._fail(list(self._waiters), error)

    async def wait_until_due(self) -> None:
        """Return as soon as the listing is to be read again."""
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
        self._pages, self._began = 0, self._loop.time()
        try:
            async with aclosing(client.pages(self._query, wait=partial(self._interrupt, looking))) as pages:
                async for page in pages:
                    self._pages += 1
                    needs_more = await show_page(page, looking)
                    await self._pace(page, looking, needs_more=needs_more)
                    if not needs_more:
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
                reason = "" if failure else waiter.tally.reason(listed=self._listed)
                waiter.report(Look(count=count, reason=reason, error=failure, next_look_in=next_look_in))

    async def _pace(self, page: Page, looking: list[Waiter], *, needs_more: bool) -> None:
        """Pause all readings over the connection if the app has used up more of its rate limit than looks may."""
        most = min(waiter.max_usage for waiter in looking)
        if page.usage is None or not (pause := Patience(max_usage=most).needed_pause(page.usage)):
            return
        self._shared.throttle(self._config, pause)
        if needs_more and not page.is_last:
            await self._wait_for_limit(looking, None)

    async def _interrupt(self, looking: list[Waiter], wait: Wait) -> None:
        """Wait for a look, which then continues after its last page.

        :raises GraphError: if the look has no page yet, so that it can begin again
        """
        error = cast("GraphError", wait.error)
        if not (pause := pause_after(error)):
            await wait_in_place(wait)
            return
        if not self._pages:
            raise error
        self._shared.throttle(self._config, pause)
        await self._wait_for_limit(looking, error)

    async def _wait_for_limit(self, looking: list[Waiter], error: GraphError | None) -> None:
        left = self._shared.throttled_until(self._config) - self._loop.time()
        look = Look(
            error=error,
            pages=self._pages,
            seconds=self._loop.time() - self._began,
            is_interrupted=True,
            next_look_in=left,
        )
        for waiter in looking:
            if not waiter.finished.done():
                waiter.report(look)
        waited_until = None
        # Another reading may be throttled in the meantime.
        while (until := self._shared.throttled_until(self._config)) not in (0.0, waited_until):
            waited_until = until
            await clock.async_wait(until - self._loop.time())

    @staticmethod
    def _fail(waiters: list[Waiter], error: Exception) -> None:
        for waiter in waiters:
            waiter.fail(error)


def _copy_of(error: Exception) -> Exception:
    # Each wait gets its own exception, because raising one in several places makes its traceback grow.
    if isinstance(error, GraphError):
        return copy.copy(error)
    return ValueError(str(error)) if isinstance(error, ValueError) else RuntimeError(type(error).__name__)


async def show_page(page: Page, waiters: list[Waiter]) -> bool:
    """Count the accounts of a page for all waits. Returns whether any of them needs the next page."""
    comparisons = 0
    for waiter in waiters:
        for start in range(0, len(page.rows), COMPARISONS_IN_A_ROW):
            if waiter.finished.done():
                break
            rows = page.rows[start : start + COMPARISONS_IN_A_ROW]
            try:
                for row in rows:
                    waiter.tally.add(row)
            except ValueError as error:
                # Only the condition of this wait cannot be checked.
                waiter.fail(error)
            comparisons += len(rows)
            if comparisons >= COMPARISONS_IN_A_ROW:
                comparisons = 0
                await asyncio.sleep(0)
        if not waiter.finished.done() and waiter.tally.is_met:
            waiter.finish()
    return any(not waiter.finished.done() for waiter in waiters)


async def _show_end(waiters: list[Waiter]) -> None:
    """Notify the waits that need the whole listing that it was read completely."""
    for waiter in waiters:
        tally = waiter.tally
        # In a thread, because the comparison of 100,000 accounts would block the other triggers for a tenth of a
        # second. The wait may have been cancelled in the meantime.
        is_met = tally.needs_whole_listing and await asyncio.to_thread(tally.is_met_at_end)  # type: ignore[union-attr]  # only those have it
        if is_met and not waiter.finished.done():
            waiter.finish()
