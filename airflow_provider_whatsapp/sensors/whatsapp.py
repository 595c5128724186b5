"""Sensors that wait for WhatsApp Business Accounts (WABAs)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_whatsapp import graph
from airflow_provider_whatsapp._compat import AirflowFailException, AirflowSensorTimeout, conf
from airflow_provider_whatsapp.graph import GraphError
from airflow_provider_whatsapp.graph.arguments import parse_moment, shown
from airflow_provider_whatsapp.graph.condition import Tally, build_condition
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.operators._failures import STORE_ERRORS, failing_fast
from airflow_provider_whatsapp.operators._listing import WabaTask
from airflow_provider_whatsapp.triggers._pace import pause_after
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.graph.condition import Condition
    from airflow_provider_whatsapp.graph.query import EdgeQuery
    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection

__all__ = ["WhatsAppWabasSensor"]

# A trigger ends the wait at its deadline. Airflow ends it this much later if the trigger does not run at all.
_GRACE_AFTER_DEADLINE = timedelta(minutes=5)
# One look holds a worker slot, so it waits only for short faults; longer ones are waited for between two looks.
_PATIENCE_OF_A_LOOK = Patience(longest_named_wait=5.0, budget=30.0, max_usage=math.inf)


class WhatsAppWabasSensor(WabaTask, BaseSensorOperator):
    """Waits for WABAs, and gives those that it waited for to XCom or object storage as the list operator does.

    The modes poke, reschedule and deferrable give the same result for the same accounts. Faults that pass and rate
    limits do not end the wait. An error that a retry cannot mend ends it at once.

    The query and output parameters are those of
    :class:`~airflow_provider_whatsapp.operators.whatsapp.WhatsAppListWabasOperator` (``business_id`` to
    ``whatsapp_conn_id``); ``timeout``, ``poke_interval``, ``mode``, ``soft_fail``, ``exponential_backoff`` and the rest
    are those of every Airflow sensor. The condition, by default that there is at least one account:

    :param waba_ids: ids of accounts that must all be there, as a sequence or a comma string; only these are delivered
    :param min_count: number of accounts that must be there
    :param where: value or list of values by field, e.g. ``{"account_review_status": "APPROVED"}``; only accounts with
        these values count and are delivered. A dot in the name of a field leads into an object
    :param deferrable: whether to wait in the triggerer, without a worker slot; Airflow's
        ``[operators] default_deferrable`` by default
    """

    template_fields: Sequence[str] = (*WabaTask.template_fields, "waba_ids", "min_count", "where")
    template_fields_renderers = {**WabaTask.template_fields_renderers, "where": "json"}  # noqa: RUF012  # as Airflow has it
    ui_color = "#e6f1f2"

    def __init__(
        self,
        *,
        waba_ids: str | int | Sequence[str | int] | None = None,
        min_count: int | str | None = None,
        where: Mapping[str, Any] | str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.waba_ids = waba_ids
        self.min_count = min_count
        self.where = where
        self.deferrable = deferrable
        #: Id of the account that is waited for, when it is a single one.
        self.awaited_waba_id: str | None = None
        #: When the wait began, in unix seconds.
        self._started = 0.0
        #: When the wait ends, in unix seconds.
        self._deadline = 0.0
        #: Before this moment, in unix seconds, the API must not be called, because it has reported a rate limit.
        self._not_before = 0.0

    def execute(self, context: Context) -> Any:
        """The rows that were waited for, or the manifest of the object that holds them.

        :raises AirflowFailException: if waiting cannot help: bad input, a bad token, a missing permission
        :raises AirflowSensorTimeout: if the condition was not met in time
        """
        now = time.time()
        return self._look_until_met(context, started=now, deadline=now + self.timeout)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """The rows that were waited for, or the manifest of the object that holds them, after a trigger fired.

        The rows are read again, and waited for again if the condition is no longer met.

        :param event: event of :class:`~airflow_provider_whatsapp.triggers.whatsapp.WhatsAppWabasTrigger`
        """
        status = event.get("status") if isinstance(event, dict) else None
        if status == "error":
            with failing_fast((GraphError, ValueError)):
                raise _error_of(event)
        if status not in ("met", "timeout"):
            raise AirflowFailException(f"the trigger fired an event without a known status: {shown(status)}")
        try:
            started, deadline = (parse_moment(name, event.get(name)) for name in ("started", "deadline"))
            # Triggers of version 0.1.0 do not tell it.
            self._not_before = parse_moment("not_before", event.get("not_before", 0.0))
        except ValueError as error:
            raise AirflowFailException(
                f"the trigger fired an event that does not say how long to wait: {error}; clear the task to wait anew"
            ) from error
        if status == "timeout":
            # The triggerer's clock says that the wait is over; this worker's may be behind.
            deadline = min(deadline, time.time())
        return self._look_until_met(context, started=started, deadline=deadline)

    def poke(self, context: Context) -> PokeReturnValue:
        """Whether the condition is met, with the rows or the manifest if it is."""
        if time.time() < self._not_before:
            return PokeReturnValue(False)
        connection, query, condition = self._prepare()
        with failing_fast((ValueError, *STORE_ERRORS)):
            target = self._open_target()
        tally = Tally(condition)

        def check(count: int) -> None:
            self.log.info(
                "%d accounts count; the condition is %s", tally.count, "met" if tally.is_met else "not met yet"
            )
            if not tally.is_met:
                raise _NotMetError

        with failing_fast((GraphError, ValueError, *STORE_ERRORS)):
            try:
                with self._open_client(connection, _PATIENCE_OF_A_LOOK) as client:
                    listing = self._start_listing(query, client.pages(query))
                    found = self._deliver(
                        context,
                        tally.matching(listing),
                        target,
                        columns=self._columns(query),
                        sources=self._sources(query),
                        describe=partial(self._describe, query, listing),
                        check=check,
                    )
                    return PokeReturnValue(True, found)
            except _NotMetError:
                return PokeReturnValue(False)
            except GraphError as error:
                if not error.retryable:
                    raise
                pause = pause_after(error)
                self._not_before = time.time() + pause
                when = f"in {timedelta(seconds=pause)} at the earliest" if pause else "later"
                self.log.warning("%s - looking again %s", error, when)
        return PokeReturnValue(False)

    def _look_until_met(self, context: Context, *, started: float, deadline: float) -> Any:
        self._started, self._deadline = started, deadline
        if self.deferrable:
            # In mode "reschedule" the base class would ask Airflow for earlier reschedules, of which there are none.
            self.mode = "poke"
        return super().execute(context)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        # The base class calls this after a look that did not meet the condition, in every mode: it is the one place
        # to wait for a rate limit, and to defer instead of waiting.
        if self.deferrable:
            self._defer()
        interval = float(super()._get_next_poke_interval(started_at, run_duration, poke_count))
        throttled_for = self._not_before - time.time()
        if not self.reschedule:
            throttled_for = min(throttled_for, self.timeout - run_duration())
        # A rescheduled task forgets the rate limit. Coming back at its timeout, it would call while throttled; so it
        # comes back when the limit has lifted, even if that is later.
        return max(interval, throttled_for)

    def _prepare(self) -> tuple[WhatsAppConnection, EdgeQuery, Condition]:
        with failing_fast(ValueError):
            connection = self._load_connection()
            query = self._build_query(connection)
            condition = build_condition(waba_ids=self.waba_ids, min_count=self.min_count, where=self.where)
            condition.needed_fields(query.fields)
            if query.max_items is not None and query.max_items < condition.matches_needed:
                raise ValueError(
                    f"max_items: {query.max_items} accounts can never be the {condition.matches_needed} that are "
                    "waited for"
                )
            if len(condition.waba_ids) == 1:
                (self.awaited_waba_id,) = condition.waba_ids
            return connection, query, condition

    def _defer(self) -> NoReturn:
        now = time.time()
        if now >= self._deadline:
            raise AirflowSensorTimeout(
                f"Sensor has timed out; the condition was not met within {self.timeout:g} seconds."
            )
        _, query, condition = self._prepare()
        # The trigger reads only the fields that the condition needs; the worker reads the others when it is met.
        watched = replace(query, fields=condition.needed_fields(query.fields))
        self.defer(
            trigger=WhatsAppWabasTrigger(
                whatsapp_conn_id=self.whatsapp_conn_id,
                query=watched.to_json(),
                condition=condition.to_json(),
                pace={
                    "poke_interval": self.poke_interval,
                    "exponential_backoff": self.exponential_backoff,
                    "max_wait": self.max_wait.total_seconds() if self.max_wait else None,
                },
                clock={
                    "started": self._started,
                    "looked": now,
                    "deadline": self._deadline,
                    "not_before": self._not_before,
                },
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self._deadline - now) + _GRACE_AFTER_DEADLINE,
        )
        raise AssertionError("defer() raises")


class _NotMetError(Exception):
    """The listing was read to its end without meeting the condition."""


def _error_of(event: dict[str, Any]) -> Exception:
    name, message = event.get("error"), event.get("message")
    if not isinstance(message, str) or not message:
        message = "the trigger fired the event of an error without a message; the log of the triggerer may have it"
    if name == "ValueError":
        return ValueError(message)
    kind: type[GraphError] = getattr(graph, name) if isinstance(name, str) and name in graph.__all__ else GraphError
    # Only an error that waiting cannot mend ends a trigger, also if its class can often be retried.
    return kind(message, retryable=False)
