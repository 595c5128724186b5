"""What deferred tasks wait on."""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_whatsapp.graph.condition import condition_from
from airflow_provider_whatsapp.graph.errors import GraphError, GraphTokenError
from airflow_provider_whatsapp.graph.fields import parse_fields
from airflow_provider_whatsapp.graph.query import EdgeRead
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook


class WhatsAppClientWabasTrigger(BaseTrigger):
    """Waits until the accounts of a listing meet a condition.

    Yields one small event, without rows: ``{"status": "met" | "timeout" | "error", "started", "deadline"}`` and, for
    an error, its class as ``error`` and its ``message``.

    :param whatsapp_conn_id: connection of type ``whatsapp``, as the triggerer sees it
    :param path: node and edge, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param fields: comma string of what the condition has to see
    :param params: the other query parameters (filtering, sort)
    :param page_size: rows a request
    :param max_items: rows after which to stop, or None for all
    :param condition: ``waba_ids``, ``min_count`` and ``where``
    :param poke_interval: seconds between two looks
    :param exponential_backoff: double that with each look
    :param max_wait: longest interval in seconds, or None
    :param started: when the wait began, unix seconds
    :param looked: when a worker last looked, unix seconds
    :param deadline: when it ends, unix seconds; a restart of the triggerer does not move it
    :param not_before: no look before that, unix seconds: the API asked for it
    """

    _libraries_loaded: ClassVar[bool] = False

    def __init__(
        self,
        *,
        whatsapp_conn_id: str,
        path: str,
        fields: str,
        params: Mapping[str, str],
        page_size: int,
        max_items: int | None,
        condition: Mapping[str, Any],
        poke_interval: float,
        exponential_backoff: bool,
        max_wait: float | None,
        started: float,
        looked: float,
        deadline: float,
        not_before: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
        self.whatsapp_conn_id = whatsapp_conn_id
        self.path = path
        self.fields = fields
        self.params = dict(params)
        self.page_size = page_size
        self.max_items = max_items
        self.condition = dict(condition)
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.started = started
        self.looked = looked
        self.deadline = deadline
        self.not_before = not_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and the arguments that make the same trigger elsewhere."""
        names: Sequence[str] = (
            "whatsapp_conn_id",
            "path",
            "fields",
            "params",
            "page_size",
            "max_items",
            "condition",
            "poke_interval",
            "exponential_backoff",
            "max_wait",
            "started",
            "looked",
            "deadline",
            "not_before",
        )
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the event when the condition is met, cannot be met, or the deadline has passed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + max(0.0, self.deadline - time.time())
        try:
            await asyncio.wait_for(self._until_met(), end - loop.time())
            outcome = {"status": "met"}
        except asyncio.TimeoutError:
            if loop.time() < end - 1:
                raise  # of whatever read the connection, not of the wait
            outcome = {"status": "timeout"}
        except (GraphError, ValueError) as error:
            outcome = {"status": "error", "error": type(error).__name__, "message": str(error)}
        event = {**outcome, "started": self.started, "deadline": self.deadline}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow leaves it untyped

    async def _until_met(self) -> None:
        # Here, since it loads HTTP libraries, which a DAG file that names the trigger shall not; and in a thread,
        # since that takes a fifth of a second the first time, which the other triggers would be kept waiting.
        if not WhatsAppClientWabasTrigger._libraries_loaded:
            await asyncio.to_thread(importlib.import_module, "airflow_provider_whatsapp.triggers._shared_readings")
            WhatsAppClientWabasTrigger._libraries_loaded = True
        from airflow_provider_whatsapp.triggers._shared_readings import Pace, until_met

        read = EdgeRead(self.path, parse_fields(self.fields), self.params, self.page_size, self.max_items)
        condition = condition_from(**self.condition)
        config = await WhatsAppHook(self.whatsapp_conn_id).aget_config()
        while True:
            now = time.time()
            pace = Pace(self.poke_interval, self.exponential_backoff, self.max_wait, max(0.0, now - self.started))
            due = self.looked + pace.next_wait(self.looked - now, random.random())
            # Overdue after a restart: soon then, but not all triggers at once.
            first_look_in = max(due - now, self.not_before - now, 5 * random.random())
            try:
                await until_met(config, read, condition, pace, first_look_in=first_look_in)
            except GraphTokenError:
                rotated = await WhatsAppHook(self.whatsapp_conn_id).aget_config()
                if rotated == config:
                    raise
                config = rotated
            else:
                return
