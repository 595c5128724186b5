"""One listing that a watcher of an asset watches: what was seen last, and what is different now."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_whatsapp import _compat
from airflow_provider_whatsapp.graph.arguments import given, parse_seconds
from airflow_provider_whatsapp.graph.changes import AnyChange, ChangeTally, Snapshot
from airflow_provider_whatsapp.graph.fields import parse_fields
from airflow_provider_whatsapp.graph.query import parse_relationship
from airflow_provider_whatsapp.hooks._connection import aload_connection
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.triggers._pace import SECONDS_TO_SPREAD, SHORTEST_INTERVAL, Pace
from airflow_provider_whatsapp.triggers._shared_readings import SharedReadings
from airflow_provider_whatsapp.triggers._wait_log import WaitLog

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.graph.query import EdgeQuery
    from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasChangeTrigger


class Watch:
    """A listing, and what was seen of it last.

    :param trigger: the trigger that watches it
    :param config: where the API is and which credentials to use
    :param query: what is listed
    """

    def __init__(self, trigger: WhatsAppWabasChangeTrigger, config: GraphConfig, query: EdgeQuery) -> None:
        self._trigger = trigger
        self._config = config
        self._query = query
        self._fields = tuple(field.key for field in query.fields if field.key != "id")
        self._pace = Pace(max(SHORTEST_INTERVAL, parse_seconds("poke_interval", trigger.poke_interval)))
        self._wait_log = WaitLog(trigger.log)
        self._first_look_in: float | None = SECONDS_TO_SPREAD * random.random()  # noqa: S311  # not for cryptography
        self._seen: Snapshot | None = None
        #: How often something else was seen. With it, a change that comes a second time has another id.
        self._version = 0

    @classmethod
    async def open(cls, trigger: WhatsAppWabasChangeTrigger) -> Watch:
        """The listing that the trigger watches. :meth:`load` must come next, and :meth:`close` in the end.

        :param trigger: the trigger that watches it
        :raises ValueError: if an argument of the trigger or a field of the connection is wrong
        """
        hook = WhatsAppHook(trigger.whatsapp_conn_id)
        connection = await aload_connection(hook, hook.whatsapp_conn_id)
        names = given(trigger.watch_fields, None)
        watched = () if names is None else tuple(map(str, parse_fields(names)))
        fields = list(dict.fromkeys(("id", *watched)))
        query = connection.waba_query(trigger.business_id, relationship=trigger.relationship, fields=fields)
        return cls(trigger, connection.config, query)

    async def load(self) -> None:
        """Take over what an earlier triggerer has stored.

        :raises ValueError: if there is no asset, or its state was stored by something else
        """
        states = [state for store in self._stores() if (state := await store.aget(self._key)) is not None]
        try:
            # An asset that was given the watcher later has no state yet, or an older one.
            state = max(states, key=lambda state: int(state["version"]), default=None)
            if state is not None:
                self._seen = await asyncio.to_thread(Snapshot.from_json, state["snapshot"])
                self._version = int(state["version"])
        except (KeyError, TypeError, ValueError) as error:
            # To begin anew without being told to would lose the changes since the state was stored.
            raise ValueError(
                f"the state {self._key!r} of the asset was not stored by this trigger; delete it, and the next reading "
                "is a new baseline"
            ) from error

    async def wait_for_change(self) -> dict[str, Any] | None:
        """The event of the next change, or None if there is only something new to store.

        :raises GraphError: if waiting cannot mend the error
        """
        tally = cast(
            "ChangeTally",
            await SharedReadings.of_running_loop().wait_until_met(
                self._config,
                self._query,
                AnyChange(self._seen, self._fields),
                self._pace,
                tell=self._wait_log.add,
                first_look_in=self._first_look_in,
            ),
        )
        is_first, self._seen, self._first_look_in = self._seen is None, tally.after, None
        self._version += 1
        if is_first:
            self._trigger.log.info("Changes are told from now on; there are %d accounts", tally.count)
        if not tally.changes:
            return None
        changes = tally.changes.to_json()
        digest = hashlib.sha256(json.dumps(changes).encode()).hexdigest()[:16]
        return {
            "change_id": f"{self._query.node_id}-{self._version}-{digest}",
            "business_id": self._query.node_id,
            "relationship": parse_relationship(self._trigger.relationship),
            **changes,
        }

    async def store(self) -> None:
        """Store what was seen last, for the time after a restart of the triggerer."""
        snapshot = await asyncio.to_thread(cast("Snapshot", self._seen).to_json)
        for store in self._stores():
            await store.aset(self._key, {"version": self._version, "snapshot": snapshot})

    def close(self) -> None:
        """Write no more lines into the log."""
        self._wait_log.close()

    @property
    def _key(self) -> str:
        # An asset can have watchers of several listings.
        return f"whatsapp_accounts/{self._query.path}"

    def _stores(self) -> list[Any]:
        stores = _compat.stores_of_watched_assets(self._trigger.asset_state_store)
        if not stores:
            raise ValueError("there is no asset whose state could be kept: use the trigger in an AssetWatcher")
        return stores
