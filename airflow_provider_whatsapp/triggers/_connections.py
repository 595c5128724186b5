"""Follows an Airflow connection that may change while a trigger waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphTokenError
from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection, aload_connection
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.triggers._wait_log import Look, WaitLog

# A connection is read again after this many seconds, or immediately after a look has failed.
_SECONDS_BETWEEN_READS = 300.0
# The same failure can affect hundreds of triggers at once. They share one read of the connection.
_SECONDS_SHARED = 1.0

_Result = TypeVar("_Result")
_Read = tuple[float, "asyncio.Future[WhatsAppConnection]"]
_BY_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Read]] = WeakKeyDictionary()


async def read_connection(conn_id: str, *, max_age: float = _SECONDS_SHARED) -> WhatsAppConnection:
    """Return the checked connection; triggers of the same event loop share a read.

    :param conn_id: id of the connection
    :param max_age: seconds that may have passed since the read began
    :raises ValueError: if there is no such connection, or a field of it is wrong
    """
    loop = asyncio.get_running_loop()
    reads = _BY_LOOP.setdefault(loop, {})
    began, read = reads.get(conn_id, (0.0, None))
    if read is None or loop.time() - began > max_age or (read.done() and (read.cancelled() or read.exception())):
        hook = WhatsAppHook(conn_id)
        reads[conn_id] = loop.time(), (read := asyncio.ensure_future(aload_connection(hook, hook.whatsapp_conn_id)))
    # Shielded, because a trigger that is cancelled must not cancel it for the others.
    return await asyncio.shield(read)


class Follower:
    """Runs a wait with the settings of a connection, and restarts it whenever the settings change.

    :param conn_id: id of the connection
    :param wait_log: reports the looks of the wait, and that the settings have changed
    """

    def __init__(self, conn_id: str, wait_log: WaitLog) -> None:
        self._conn_id = conn_id
        self._wait_log = wait_log
        self._look_failed = asyncio.Event()
        #: The settings of the last wait.
        self.config: GraphConfig | None = None

    def note_look(self, look: Look) -> None:
        """Log a look. If it failed, read the connection now, because a change of it may be the reason."""
        self._wait_log.add(look)
        if look.error is not None:
            self._look_failed.set()

    async def run(self, wait: Callable[[GraphConfig], Coroutine[Any, Any, _Result]]) -> _Result:
        """Return the result of the wait.

        :param wait: waits over the connection with the given settings
        :raises ValueError: if the connection is gone, or no longer usable
        """
        self.config = config = (await read_connection(self._conn_id)).config
        # Settings whose token was refused. Without this set, a connection that alternates between two dead tokens would
        # keep the wait calling the API.
        refused: set[GraphConfig] = set()
        while True:
            waiting = asyncio.ensure_future(wait(config))
            try:
                changed = await self._until_changed(config, waiting)
                if changed is None:
                    return waiting.result()
            except GraphTokenError:
                # The token or the app secret may have been rotated.
                refused.add(config)
                changed = (await read_connection(self._conn_id)).config
                if changed in refused:
                    raise
            finally:
                waiting.cancel()
                await asyncio.wait({waiting})
            self.config = config = changed
            self._wait_log.add_new_settings()

    async def _until_changed(self, config: GraphConfig, waiting: asyncio.Future[Any]) -> GraphConfig | None:
        """Return the new settings once the connection has changed, or None when the wait is over."""
        while not waiting.done():
            failed = asyncio.ensure_future(self._look_failed.wait())
            try:
                await asyncio.wait(
                    {waiting, failed}, timeout=_SECONDS_BETWEEN_READS, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                failed.cancel()
            if not waiting.done():
                max_age = _SECONDS_SHARED if self._look_failed.is_set() else _SECONDS_BETWEEN_READS / 2
                self._look_failed.clear()
                current = await self._read_if_possible(config, max_age)
                if current != config:
                    return current
        return None

    async def _read_if_possible(self, config: GraphConfig, max_age: float) -> GraphConfig:
        try:
            return (await read_connection(self._conn_id, max_age=max_age)).config
        except ValueError:
            raise
        except Exception:
            # The secrets backend is unavailable, which must not end a wait that can last days.
            return config
