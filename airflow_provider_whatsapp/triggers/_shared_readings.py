"""Many waits on one event loop, few calls of the API.

All who wait on the same listing over the same connection share one reading of it, made as often as the most impatient
of them asks. All readings over the same connection share one client.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias
from weakref import WeakKeyDictionary

from airflow_provider_whatsapp.graph.condition import Condition, Tally
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphApiError, GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.query import EdgeRead
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient, load_trusted_cas
from airflow_provider_whatsapp.transport.shared import trusted_cas

log = logging.getLogger(__name__)

# So many comparisons of an account with a condition are made before others get their turn on the loop.
_COMPARISONS_IN_A_ROW = 2000
# A throttle that names no time lasts longer than an impatient interval.
_UNNAMED_THROTTLE = timedelta(minutes=1)

_Key: TypeAlias = tuple[GraphConfig, str, str, tuple[tuple[str, str], ...], int, int | None]
MakeClient: TypeAlias = Callable[[GraphConfig], AsyncGraphClient]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look. All times in seconds.

    :param interval: between two looks
    :param exponential: double the interval with each look
    :param longest: the longest interval while they double, or None
    :param waited: how long the wait has lasted already
    """

    interval: float
    exponential: bool = False
    longest: float | None = None
    waited: float = 0.0

    def next_wait(self, waited: float, chance: float) -> float:
        """Seconds until the next look.

        :param waited: since this wait began here
        :param chance: random, from 0 to 1: waits that began together shall not stay together
        """
        # As long again as it has lasted so far: a wait that doubles, also across restarts.
        interval = max(self.interval, self.waited + waited) if self.exponential else self.interval
        interval *= 1 + chance / 10
        # As in every sensor, the longest interval says nothing where intervals do not grow.
        return min(interval, self.longest) if self.exponential and self.longest is not None else interval


async def until_met(
    config: GraphConfig,
    read: EdgeRead,
    condition: Condition,
    pace: Pace,
    *,
    first_look_in: float | None = None,
    make_client: MakeClient = AsyncGraphClient,
) -> None:
    """Return when a reading of the listing meets the condition.

    Passing faults and throttles are waited out for as long as it takes.

    :param config: where the API is and who asks
    :param read: the listing
    :param condition: what to wait for
    :param pace: how often to look
    :param first_look_in: seconds until the first look; default as the pace says
    :param make_client: makes the client that the readings go through
    :raises GraphError: one that waiting cannot mend
    """
    watches = _WATCHES.setdefault(asyncio.get_running_loop(), {})
    key = _key(config, read)
    watch = watches.get(key)
    if watch is None or watch.ended:
        watch = watches[key] = _Watch(config, read, make_client)
    waiter = watch.add(condition, pace, first_look_in)
    try:
        await waiter.met
    finally:
        if watch.remove(waiter):
            if watches.get(key) is watch:
                del watches[key]
            await watch.stop()


@dataclass(eq=False, slots=True)
class _Waiter:
    condition: Condition
    pace: Pace
    since: float
    due: float
    met: asyncio.Future[None]
    tally: Tally = field(init=False)

    def look_again(self, now: float) -> None:
        self.due = now + self.pace.next_wait(now - self.since, random.random())


class _Watch:
    """One listing, read for all who wait on it.

    :param config: where the API is and who asks
    :param read: the listing
    :param make_client: makes the client that the readings go through
    """

    def __init__(self, config: GraphConfig, read: EdgeRead, make_client: MakeClient) -> None:
        self._config = config
        self._read = read
        self._make_client = make_client
        self._loop = asyncio.get_running_loop()
        self._throttles = _THROTTLES.setdefault(self._loop, {})
        self._waiters: set[_Waiter] = set()
        self._came = asyncio.Event()
        # Without the context of whoever came first: its log is not that of the others.
        self._task: asyncio.Task[None] = contextvars.Context().run(self._loop.create_task, self._run())

    def add(self, condition: Condition, pace: Pace, first_look_in: float | None) -> _Waiter:
        now = self._loop.time()
        waiter = _Waiter(condition, pace, now, now, self._loop.create_future())
        if first_look_in is None:
            waiter.look_again(now)
        else:
            waiter.due = now + first_look_in
        self._waiters.add(waiter)
        self._came.set()
        return waiter

    def remove(self, waiter: _Waiter) -> bool:
        """Forget the waiter; whether it was the last one."""
        self._waiters.discard(waiter)
        return not self._waiters

    @property
    def ended(self) -> bool:
        """Whether it reads no more."""
        return self._task.done()

    async def stop(self) -> None:
        """End the readings and what belongs to them."""
        # More than once: before Python 3.12 wait_for can swallow a cancellation that comes with its result.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    async def _run(self) -> None:
        try:
            async with _shared_client(self._config, self._make_client) as client:
                while True:
                    await self._until_due()
                    await self._look(client)
        except Exception as error:
            # Whatever it is, nobody shall wait for a reading that will not come.
            self._fail(list(self._waiters), error)

    async def _until_due(self) -> None:
        while True:
            self._came.clear()
            waiting = [waiter.due for waiter in self._waiters if not waiter.met.done()]
            due = max(min(waiting), self._throttles.get(self._config, 0.0)) if waiting else None
            if due is not None and due <= self._loop.time():
                return
            alarm = None if due is None else self._loop.call_at(due, self._came.set)
            try:
                await self._came.wait()
            finally:
                if alarm is not None:
                    alarm.cancel()

    async def _look(self, client: AsyncGraphClient) -> None:
        looking = [waiter for waiter in self._waiters if not waiter.met.done()]
        for waiter in looking:
            waiter.tally = Tally(waiter.condition)
        try:
            async with aclosing(client.pages(self._read)) as pages:
                async for page in pages:
                    if not await _tell(page, looking):
                        break
        except GraphError as error:
            self._after(error, looking)
        now = self._loop.time()
        for waiter in looking:
            waiter.look_again(now)

    def _after(self, error: GraphError, looking: list[_Waiter]) -> None:
        if not error.retryable:
            self._fail(looking, error)
            return
        wait = error.retry_after if isinstance(error, GraphApiError) else None
        if wait is None and isinstance(error, GraphRateLimitError):
            wait = _UNNAMED_THROTTLE
        if wait is not None:
            # For all listings over the connection: the API counts the calls of the app.
            self._throttles[self._config] = self._loop.time() + wait.total_seconds()
        log.warning("%s - looking again later", error)

    @staticmethod
    def _fail(waiters: list[_Waiter], error: Exception) -> None:
        for waiter in waiters:
            if not waiter.met.done():
                waiter.met.set_exception(_own(error))


def _own(error: Exception) -> Exception:
    # To each its own: a traceback grows with each place an error is raised in.
    if isinstance(error, GraphError):
        return copy.copy(error)
    return ValueError(str(error)) if isinstance(error, ValueError) else RuntimeError(f"{type(error).__name__}: {error}")


async def _tell(page: Page, looking: list[_Waiter]) -> bool:
    """Show the page to all who wait; whether any of them has to see more."""
    compared = 0
    open_ = False
    for waiter in looking:
        if waiter.met.done():
            continue
        for row in page.rows:
            waiter.tally.add(row)
        if waiter.tally.met:
            waiter.met.set_result(None)
        else:
            open_ = True
        compared += len(page.rows)
        if compared >= _COMPARISONS_IN_A_ROW:
            compared = 0
            await asyncio.sleep(0)
    return open_


@dataclass(slots=True)
class _Shared:
    client: AsyncGraphClient
    users: int = 0


@asynccontextmanager
async def _shared_client(config: GraphConfig, make_client: MakeClient) -> AsyncIterator[AsyncGraphClient]:
    clients = _CLIENTS.setdefault(asyncio.get_running_loop(), {})
    if config not in clients:
        await _load_trusted_cas_once(trusted_cas(config))
    shared = clients.get(config)
    if shared is None:
        shared = clients[config] = _Shared(make_client(config))
    shared.users += 1
    try:
        yield shared.client
    finally:
        shared.users -= 1
        if not shared.users:
            del clients[config]
            await shared.client.aclose()


async def _load_trusted_cas_once(path: str | None) -> None:
    # In a thread, since reading all CAs takes a while; in one for all, since it would take each as long.
    loading = _LOADING.setdefault(asyncio.get_running_loop(), {})
    task = loading.get(path)
    if task is None:
        task = loading[path] = asyncio.ensure_future(asyncio.to_thread(load_trusted_cas, path))
        task.add_done_callback(lambda done: loading.pop(path, None))
    await asyncio.shield(task)


def _key(config: GraphConfig, read: EdgeRead) -> _Key:
    params = tuple(sorted(read.params.items()))
    return (config, read.path, join_fields(read.fields), params, read.page_size, read.max_items)


# By loop, since nothing of one loop can be used on another.
_WATCHES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, _Watch]] = WeakKeyDictionary()
_THROTTLES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[GraphConfig, float]] = WeakKeyDictionary()
_LOADING: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str | None, asyncio.Future[object]]] = WeakKeyDictionary()
_CLIENTS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[GraphConfig, _Shared]] = WeakKeyDictionary()
