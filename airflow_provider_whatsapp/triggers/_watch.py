"""Compares a listing that an asset's watcher watches with its stored snapshot."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_whatsapp.graph.changes import AnyChange, ChangeTally, Snapshot
from airflow_provider_whatsapp.triggers._connections import Follower
from airflow_provider_whatsapp.triggers._pace import SECONDS_TO_SPREAD, Pace
from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings
from airflow_provider_whatsapp.triggers._wait_log import WaitLog

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.graph.query import EdgeQuery


class Watch:
    """A listing and its last snapshot. Call :meth:`load` first and :meth:`close` at the end.

    :param conn_id: id of the Airflow connection
    :param query: the listing to watch
    :param relationship: ``"client"`` or ``"owned"``, for the events
    :param pace: how often to look
    :param max_usage: percentage of the app's rate limit from which looks wait before the next page
    :param stores: state stores of the assets for which the listing is watched, with ``aget`` and ``aset``
    :param log: logger of the trigger
    """

    def __init__(
        self,
        conn_id: str,
        query: EdgeQuery,
        *,
        relationship: str,
        pace: Pace,
        max_usage: float,
        stores: Sequence[Any],
        log: Any,
    ) -> None:
        self._query = query
        self._relationship = relationship
        self._pace = pace
        self._max_usage = max_usage
        self._stores = stores
        self._log = log
        self._fields = tuple(field.key for field in query.fields if field.key != "id")
        self._wait_log = WaitLog(log)
        self._follower = Follower(conn_id, self._wait_log)
        self._first_look_in: float | None = SECONDS_TO_SPREAD * random.random()  # noqa: S311  # not for cryptography
        self._seen: Snapshot | None = None
        #: Number of changes so far. With it, the same change gets a new id when it occurs again.
        self._version = 0

    async def load(self) -> None:
        """Load what an earlier triggerer has stored.

        :raises ValueError: if there is no asset, or its state was stored by something else
        """
        if not self._stores:
            raise ValueError("there is no asset to store the state with: use the trigger in an AssetWatcher")
        states = [state for store in self._stores if (state := await store.aget(self._key)) is not None]
        try:
            # If the watcher was added to an asset later than to others, that asset has no state yet, or an older one.
            state = max(states, key=lambda state: int(state["version"]), default=None)
            if state is not None:
                self._seen = await asyncio.to_thread(Snapshot.from_json, state["snapshot"])
                self._version = int(state["version"])
        except (KeyError, TypeError, ValueError) as error:
            # Starting again silently would lose the changes since the state was stored.
            raise ValueError(
                f"the state {self._key!r} of the asset was not stored by this trigger; delete it, and the next reading "
                "is a new baseline"
            ) from error

    async def wait_for_change(self) -> dict[str, Any] | None:
        """Return the event of the next change, or None if there is only something new to store.

        :raises GraphError: if waiting cannot fix the error
        """
        tally = await self._follower.run(self._wait)
        is_first, self._seen, self._first_look_in = self._seen is None, tally.after, None
        self._version += 1
        if is_first:
            self._log.info("Baseline recorded: %d accounts. Changes are reported from now on", tally.count)
        if not tally.changes:
            return None
        changes = tally.changes.to_json()
        digest = hashlib.sha256(json.dumps(changes).encode()).hexdigest()[:16]
        return {
            "change_id": f"{self._query.node_id}-{self._version}-{digest}",
            "business_id": self._query.node_id,
            "relationship": self._relationship,
            **changes,
        }

    async def _wait(self, config: GraphConfig) -> ChangeTally:
        tally = await SharedReadings.of_running_loop().wait_until_met(
            config,
            self._query,
            AnyChange(self._seen, self._fields),
            self._pace,
            on_look=self._follower.note_look,
            max_usage=self._max_usage,
            first_look_in=self._first_look_in,
        )
        return cast("ChangeTally", tally)

    async def store(self) -> None:
        """Store the snapshot, for use after a restart of the triggerer."""
        snapshot = await asyncio.to_thread(cast("Snapshot", self._seen).to_json)
        for store in self._stores:
            await store.aset(self._key, {"version": self._version, "snapshot": snapshot})

    def close(self) -> None:
        """Stop logging."""
        self._wait_log.close()

    @property
    def _key(self) -> str:
        # An asset can have watchers of several listings.
        return f"whatsapp_accounts/{self._query.path}"
