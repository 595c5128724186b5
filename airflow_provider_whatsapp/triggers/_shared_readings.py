"""Shares API calls among all triggers that wait on the same event loop.

All waits for accounts of the same listing over the same connection share one *reading* of it, which is repeated as
often as the shortest interval among them requires. All readings over the same connection share one client.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

from airflow_provider_whatsapp.graph.changes import AnyChange, ChangeTally
from airflow_provider_whatsapp.graph.condition import Condition, Tally
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT, Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery
from airflow_provider_whatsapp.hooks._metrics import count_calls
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient, load_trusted_cas
from airflow_provider_whatsapp.transport.shared import find_trusted_cas
from airflow_provider_whatsapp.triggers._pace import Pace
from airflow_provider_whatsapp.triggers._reading import Reading
from airflow_provider_whatsapp.triggers._wait_log import Look

# A look is not given up for a rate limit, however long it lasts, and continues after its last page. Otherwise, it
# would never end if the listing needs more calls than the limit allows in a row. The reading itself compares the usage
# with `max_usage`, because the other readings over the connection must also wait.
_PATIENCE_OF_A_LOOK = Patience(
    longest_named_wait=math.inf, budget=math.inf, unnamed_wait=UNNAMED_WAIT, max_usage=math.inf
)
# The connection, and the query as JSON text.
_ReadingKey: TypeAlias = tuple[GraphConfig, str]


class SharedReadings:
    """The readings, clients and rate limits that the waits of one event loop share."""

    def __init__(self) -> None:
        self._readings: dict[_ReadingKey, Reading] = {}
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
        max_usage: float = 80.0,
        waited: float = 0.0,
        first_look_in: float | None = None,
    ) -> Tally | ChangeTally:
        """Wait until a reading of the listing meets the condition, and return the tally of that reading.

        Temporary faults and rate limits are waited out, for as long as they last.

        :param config: where the API is and which credentials to use
        :param query: the listing to read
        :param condition: what to wait for: accounts, or any change
        :param pace: how often to look
        :param on_look: called after each look, and when one is interrupted, in the caller's context
        :param max_usage: percentage of the app's rate limit from which looks wait before the next page
        :param waited: seconds that the wait has already lasted in another process
        :param first_look_in: seconds until the first look; one interval by default
        :raises GraphError: if waiting cannot fix the error
        """
        key = (config, json.dumps(query.to_json(), sort_keys=True))
        reading = self._readings.get(key)
        if reading is None or reading.has_ended:
            reading = self._readings[key] = Reading(self, config, query)
        waiter = reading.add(condition, pace, on_look, max_usage, waited, first_look_in)
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
