"""The triggers that deferred tasks and asset watchers wait on."""

from __future__ import annotations

import asyncio
import importlib
import math
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_whatsapp._compat import stores_of_watched_assets
from airflow_provider_whatsapp.graph import GraphError
from airflow_provider_whatsapp.graph.arguments import given, parse_percentage, parse_seconds, shown
from airflow_provider_whatsapp.graph.condition import build_condition
from airflow_provider_whatsapp.graph.fields import parse_fields
from airflow_provider_whatsapp.graph.query import EdgeQuery, parse_relationship
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.triggers._pace import MAX_USAGE_OF_LOOKS, SECONDS_TO_SPREAD, SHORTEST_INTERVAL, Pace
from airflow_provider_whatsapp.triggers._stored import StoredClock, StoredCondition, StoredPace, read_stored
from airflow_provider_whatsapp.triggers._wait_log import WaitLog

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.triggers._watch import Watch

__all__ = ["WhatsAppWabasChangeTrigger", "WhatsAppWabasTrigger"]

_SHARED_READINGS = "airflow_provider_whatsapp.triggers._shared_readings"
_SECONDS_UNTIL_STORED = 30.0
_SECONDS_AFTER_AN_ERROR = 300


class WhatsAppWabasTrigger(BaseTrigger):
    """Waits until the accounts of a listing meet a condition.

    Fires one small event without rows: ``{"status", "started", "deadline", "not_before"}``. The status is ``"met"``,
    ``"timeout"`` or ``"error"``, and the other keys are as in ``clock``. An error also has its class as ``error``, and
    its ``message``.

    Airflow stores the arguments in its database while a task waits, so a later release must be able to read them: each
    is JSON, and missing keys of a group take their defaults.

    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``, as the triggerer sees it
    :param query: the listing: ``path`` (node and edge, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``),
        ``fields`` (comma string of the fields that the condition needs), ``params`` (the other query parameters),
        ``page_size``, ``max_items``
    :param condition: what to wait for: ``waba_ids``, ``min_count``, ``where``; by default, that there is an account
    :param pace: how often to look: ``poke_interval`` (seconds between two looks, 60 by default, at least 1),
        ``exponential_backoff`` (whether to double that with each look), ``max_wait`` (the longest interval in seconds)
    :param clock: times in unix seconds: ``started`` (when the wait started), ``looked`` (when a worker last looked),
        ``deadline`` (when the wait ends, never by default; a restart of the triggerer does not move it), ``not_before``
        (the API must not be called before this time)
    :param max_usage: percentage of the app's rate limit from which looks wait before the next page
    """

    def __init__(
        self,
        *,
        query: Mapping[str, Any],
        whatsapp_conn_id: str = WhatsAppHook.default_conn_name,
        condition: Mapping[str, Any] | None = None,
        pace: Mapping[str, Any] | None = None,
        clock: Mapping[str, Any] | None = None,
        max_usage: float = MAX_USAGE_OF_LOOKS,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
        # Nothing is checked here, because an exception would end the whole triggerer; run() reports errors.
        self.whatsapp_conn_id = whatsapp_conn_id
        self.query: Any = query
        self.condition: Any = {} if condition is None else condition
        self.pace: Any = {} if pace is None else pace
        self.clock: Any = {} if clock is None else clock
        self.max_usage: Any = max_usage
        if isinstance(self.clock, Mapping):
            # Stored with the other arguments, so that a restart of the triggerer does not restart the wait.
            now = time.time()
            self.clock = {"started": now, "looked": now, **self.clock}
        # The time before which the API must not be called, for the event.
        self._not_before = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments to recreate the trigger in another process."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "whatsapp_conn_id": self.whatsapp_conn_id,
            "query": self.query,
            "condition": self.condition,
            "pace": self.pace,
            "clock": self.clock,
            "max_usage": self.max_usage,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire the event when the condition is met or can never be met, or when the deadline has passed."""
        loop = asyncio.get_running_loop()
        started = deadline = None
        end = math.inf
        try:
            clock = read_stored("clock", self.clock, StoredClock)
            started, deadline, self._not_before = clock.started, clock.deadline, clock.not_before
            time_left = None if deadline is None else max(0.0, deadline - time.time())
            if time_left is not None:
                end = loop.time() + time_left
            await asyncio.wait_for(self._wait_until_met(clock), time_left)
            outcome = {"status": "met"}
        except asyncio.TimeoutError:
            if loop.time() < end - 1:
                # The timeout came from the secrets backend that provides the connection, not from the end of the wait.
                raise
            outcome = {"status": "timeout"}
        except (GraphError, ValueError) as error:
            outcome = {"status": "error", "error": type(error).__name__, "message": str(error)}
        event = {**outcome, "started": started, "deadline": deadline, "not_before": self._not_before}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow leaves it untyped

    async def _wait_until_met(self, clock: StoredClock) -> None:
        await _load_shared_readings()
        from airflow_provider_whatsapp.triggers._connections import Follower
        from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings

        if not isinstance(self.whatsapp_conn_id, str) or not self.whatsapp_conn_id:
            raise ValueError(f"whatsapp_conn_id: {shown(self.whatsapp_conn_id)} is not the id of a connection")
        query = EdgeQuery.from_json(read_stored("query", self.query, dict[str, Any]))
        wanted = read_stored("condition", self.condition, StoredCondition)
        condition = build_condition(waba_ids=wanted.waba_ids, min_count=wanted.min_count, where=wanted.where)
        pace = _build_pace(read_stored("pace", self.pace, StoredPace))
        max_usage = parse_percentage("max_usage", self.max_usage)
        shared = SharedReadings.of_running_loop()
        wait_log = WaitLog(self.log)
        follower = Follower(self.whatsapp_conn_id, wait_log)

        async def wait(config: GraphConfig) -> None:
            now = time.time()
            if clock.not_before > now:
                # The worker was throttled, so all waits over this connection must pause.
                shared.throttle(config, clock.not_before - now)
            due = clock.looked + pace.next_interval(max(0.0, clock.looked - clock.started), random.random())
            await shared.wait_until_met(
                config,
                query,
                condition,
                pace,
                on_look=follower.note_look,
                max_usage=max_usage,
                waited=max(0.0, now - clock.started),
                first_look_in=max(due - now, SECONDS_TO_SPREAD * random.random()),
            )

        try:
            await follower.run(wait)
        finally:
            wait_log.close()
            # The worker looks once more after the event, unless the app is still throttled.
            if follower.config is not None:
                throttled_for = shared.throttled_until(follower.config) - asyncio.get_running_loop().time()
                self._not_before = time.time() + throttled_for if throttled_for > 0 else 0.0


class WhatsAppWabasChangeTrigger(BaseEventTrigger):
    """Watches a listing for an ``AssetWatcher``: updates the asset when accounts are added, removed or changed.

    The event has ``change_id``, ``business_id``, ``relationship`` and, for each of ``added``, ``removed`` and
    ``changed``, the ``count`` and at most 1,000 ``ids``. The first reading is the baseline and fires no event. An
    account counts as removed only if a completely read listing does not contain it.

    The last snapshot is stored in the asset state store, in 16 characters per account, after the event. If the
    triggerer dies between the two, the same change is reported twice with the same ``change_id``.

    Needs Airflow 3.3.

    :param business_id: id of the business portfolio; by default the one in the connection
    :param relationship: ``"client"`` for accounts that clients share with the business, ``"owned"`` for its own
    :param watch_fields: fields of an account that count as a change, as a sequence of names or a comma string; none by
        default, so that only added and removed accounts are reported
    :param poke_interval: seconds between two readings, at least 1
    :param max_usage: percentage of the app's rate limit from which readings wait before the next page
    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``, as the triggerer sees it
    :raises RuntimeError: on Airflow before 3.3
    """

    def __init__(
        self,
        *,
        business_id: str | int | None = None,
        relationship: str = "client",
        watch_fields: str | Sequence[str] | None = None,
        poke_interval: float = 300.0,
        max_usage: float = MAX_USAGE_OF_LOOKS,
        whatsapp_conn_id: str = WhatsAppHook.default_conn_name,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
        if not hasattr(self, "asset_state_store"):
            raise RuntimeError("WhatsAppWabasChangeTrigger needs Airflow 3.3, which can store the state of an asset")
        # Nothing else is checked here, because an exception would end the whole triggerer.
        self.business_id = business_id
        self.relationship = relationship
        self.watch_fields = watch_fields
        self.poke_interval = poke_interval
        self.max_usage = max_usage
        self.whatsapp_conn_id = whatsapp_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments to recreate the trigger in another process."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "business_id": self.business_id,
            "relationship": self.relationship,
            "watch_fields": self.watch_fields,
            "poke_interval": self.poke_interval,
            "max_usage": self.max_usage,
            "whatsapp_conn_id": self.whatsapp_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire an event at each change, for as long as the asset is watched."""
        while True:
            try:
                await _load_shared_readings()
                with closing(await self._open_watch()) as watch:
                    await watch.load()
                    while True:
                        event = await watch.wait_for_change()
                        if event is not None:
                            yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
                            # The triggerer stores events about once a second. If the snapshot was stored before the
                            # event, a change would be lost if the triggerer died in between.
                            await asyncio.sleep(_SECONDS_UNTIL_STORED)
                        await watch.store()
            except Exception as error:
                # If the trigger ended, changes would go unnoticed. The connection is read again, because the token may
                # have been replaced in the meantime.
                is_ours = isinstance(error, (GraphError, ValueError))
                # The message of another library's error may contain a secret.
                reason = str(error) if is_ours else type(error).__name__
                self.log.error("Change detection is paused; retrying in %d s: %s", _SECONDS_AFTER_AN_ERROR, reason)
                await asyncio.sleep(_SECONDS_AFTER_AN_ERROR)

    async def _open_watch(self) -> Watch:
        from airflow_provider_whatsapp.triggers._connections import read_connection
        from airflow_provider_whatsapp.triggers._watch import Watch

        connection = await read_connection(self.whatsapp_conn_id)
        names = given(self.watch_fields, None)
        watched = () if names is None else tuple(map(str, parse_fields(names)))
        return Watch(
            connection.conn_id,
            connection.waba_query(
                self.business_id, relationship=self.relationship, fields=list(dict.fromkeys(("id", *watched)))
            ),
            relationship=parse_relationship(self.relationship),
            pace=Pace(max(SHORTEST_INTERVAL, parse_seconds("poke_interval", self.poke_interval))),
            max_usage=parse_percentage("max_usage", self.max_usage),
            stores=stores_of_watched_assets(self.asset_state_store),
            log=self.log,
        )


def _build_pace(stored: StoredPace) -> Pace:
    return Pace(
        interval=max(SHORTEST_INTERVAL, stored.poke_interval),
        exponential=stored.exponential_backoff,
        longest=None if stored.max_wait is None else max(SHORTEST_INTERVAL, stored.max_wait),
    )


_loading: asyncio.Future[Any] | None = None


async def _load_shared_readings() -> None:
    """Import the HTTP library lazily, see :mod:`~airflow_provider_whatsapp._compat`.

    It is imported in a thread, because that takes a fifth of a second and would block the other triggers; and in one
    thread for all triggers, because more threads would only cost time.
    """
    global _loading
    if _loading is None or _loading.get_loop() is not asyncio.get_running_loop() or _has_failed(_loading):
        _loading = asyncio.ensure_future(asyncio.to_thread(importlib.import_module, _SHARED_READINGS))
    # Shielded, because a cancelled trigger must not cancel it for the others.
    await asyncio.shield(_loading)


def _has_failed(future: asyncio.Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
