"""Waits until the WhatsApp Business Accounts (WABAs) of a business are as they should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_whatsapp import graph
from airflow_provider_whatsapp._compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    conf,
)
from airflow_provider_whatsapp.graph.condition import Tally, condition_from
from airflow_provider_whatsapp.graph.errors import GraphApiError, GraphError
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.graph.retry import RetryPolicy
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators._listing import WabaListing, failing_fast
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppClientWabasTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.graph.condition import Condition
    from airflow_provider_whatsapp.graph.query import EdgeRead

# How much later than the trigger Airflow itself ends the wait, should the trigger be unable to.
_BACKSTOP = timedelta(minutes=5)
# What lasts longer than a moment is waited for between two looks, where no worker slot is held.
_ONE_LOOK = RetryPolicy(longest_named_wait=5.0, budget=30.0)


class WhatsAppClientWabasSensor(WabaListing, BaseSensorOperator):
    """Waits for WABAs, and gives those it waited for to XCom as the operator does.

    Poke, reschedule and deferrable mode give the same answer for the same accounts. Passing faults and throttles do
    not end the wait; an error that a retry cannot mend does at once.

    All parameters of :class:`~airflow_provider_whatsapp.operators._listing.WabaListing` and of every sensor
    (``timeout``, ``poke_interval``, ``mode``, ``soft_fail``, ``exponential_backoff``, ...), and the condition;
    without one, that at least one account is there:

    :param waba_ids: all of these accounts are there (a sequence or comma string of ids); only they are given
    :param min_count: at least so many accounts are there
    :param where: value or list of values by field, ``{"account_review_status": "APPROVED"}``; dots lead into objects,
        and only accounts that have these values count and are given
    :param deferrable: wait in the triggerer, without a worker slot; default ``[operators] default_deferrable``
    """

    template_fields: Sequence[str] = (*WabaListing.template_fields, "waba_ids", "min_count", "where")
    template_fields_renderers = {**WabaListing.template_fields_renderers, "where": "json"}  # noqa: RUF012  # as Airflow has it
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
        #: The account that is waited for, when it is a single one.
        self.awaited_waba_id: str | None = None
        # When the API asked not to be called before, unix seconds.
        self._not_before = 0.0

    def execute(self, context: Context) -> Any:
        """The rows that were waited for, or the manifest of the object that holds them.

        :raises AirflowFailException: what waiting cannot mend: bad input, token, permission
        :raises AirflowSensorTimeout: the condition was not met in time
        """
        if not self.deferrable:
            return super().execute(context)
        started = time.time()
        return self._look_or_defer(context, started, started + self.timeout)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """The same, after the trigger: the rows are read afresh, and waited for again if they are gone.

        :param event: of :class:`~airflow_provider_whatsapp.triggers.whatsapp.WhatsAppClientWabasTrigger`
        """
        status = event.get("status") if isinstance(event, dict) else None
        if status == "timeout":
            # A last look, as the modes on a worker take it.
            return self._look_or_defer(context, event["started"], deadline=0.0)
        if status == "error":
            error = _error_of(event)
            raise AirflowFailException(str(error)) from error
        if status != "met":
            raise AirflowFailException(f"the trigger fired an event without a known status: {status!r}")
        return self._look_or_defer(context, event["started"], event["deadline"])

    def poke(self, context: Context) -> PokeReturnValue:
        """Whether the condition is met, with the rows or the manifest if it is."""
        if time.time() < self._not_before:
            return PokeReturnValue(False)
        hook, read, condition = self._checked()
        with failing_fast(ValueError):
            target = self._target()
            client = hook.get_conn(policy=_ONE_LOOK)
        tally = Tally(condition)
        try:
            with failing_fast((GraphError, ValueError)), client:
                progress = self._progress(client, read)
                rows = tally.matching(progress)
                if target is None:
                    found = list(rows)
                    self._tell(tally)
                    if not tally.met:
                        return PokeReturnValue(False)
                    self._warn_if_too_long_to_map_over(found)
                    return PokeReturnValue(True, found)

                def before_publish(count: int) -> None:
                    self._tell(tally)
                    if not tally.met:
                        raise _NotMetError

                manifest = self._to_object(context, rows, progress, read, target, before_publish=before_publish)
                return PokeReturnValue(True, manifest)
        except _NotMetError:
            return PokeReturnValue(False)
        except GraphError as error:
            wait = error.retry_after if isinstance(error, GraphApiError) else None
            self._not_before = time.time() + (wait.total_seconds() if wait else 0.0)
            self.log.warning("%s - looking again later", error)
            return PokeReturnValue(False)

    def _checked(self) -> tuple[WhatsAppHook, EdgeRead, Condition]:
        with failing_fast(ValueError):
            hook = WhatsAppHook(self.whatsapp_conn_id)
            read = self._read(hook)
            condition = condition_from(waba_ids=self.waba_ids, min_count=self.min_count, where=self.where)
            condition.needed(read.fields)
            awaited = max(condition.min_count, len(condition.waba_ids))
            if read.max_items is not None and read.max_items < awaited:
                raise ValueError(f"max_items: {read.max_items} accounts can never be the {awaited} that are waited for")
            if len(condition.waba_ids) == 1:
                (self.awaited_waba_id,) = condition.waba_ids
            return hook, read, condition

    def _tell(self, tally: Tally) -> None:
        self.log.info("%d accounts count; the condition is %s", tally.count, "met" if tally.met else "not met yet")

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        # The one place in which every mode of a sensor on a worker decides how long to wait.
        interval = float(super()._get_next_poke_interval(started_at, run_duration, poke_count))
        throttled_for = min(self._not_before - time.time(), self.timeout - run_duration())
        return max(interval, throttled_for)

    def _look_or_defer(self, context: Context, started: float, deadline: float) -> Any:
        with self._as_a_sensor_fails():
            result = self.poke(context)
            if result:
                return result.xcom_value
        if time.time() >= deadline:
            self._time_out()
        self._defer(started, deadline)

    def _defer(self, started: float, deadline: float) -> NoReturn:
        _, read, condition = self._checked()
        self.defer(
            trigger=WhatsAppClientWabasTrigger(
                whatsapp_conn_id=self.whatsapp_conn_id,
                path=read.path,
                # The trigger reads what the condition has to see, the worker the rest when it is met.
                fields=join_fields(condition.needed(read.fields)),
                params=dict(read.params),
                page_size=read.page_size,
                max_items=read.max_items,
                condition=condition.to_json(),
                poke_interval=self.poke_interval,
                exponential_backoff=self.exponential_backoff,
                max_wait=self.max_wait.total_seconds() if self.max_wait else None,
                started=started,
                looked=time.time(),
                deadline=deadline,
                not_before=self._not_before,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - time.time())) + _BACKSTOP,
        )
        raise AssertionError("defer() raises")

    def _time_out(self) -> NoReturn:
        message = f"Sensor has timed out; the condition was not met within {self.timeout} seconds."
        raise AirflowSkipException(message) if self.soft_fail else AirflowSensorTimeout(message)

    @contextmanager
    def _as_a_sensor_fails(self) -> Iterator[None]:
        """Let a failed look end as it does in the modes that wait on a worker."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowFailException, AirflowTaskTimeout) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("Skipping, since soft_fail or never_fail is set.") from error
            raise
        except Exception as error:
            if self.silent_fail:
                self.log.exception("Looking failed; silent_fail is set, so the wait goes on.")
            elif self.never_fail:
                raise AirflowSkipException("Skipping, since never_fail is set.") from error
            else:
                raise


class _NotMetError(Exception):
    """The listing was read to its end without meeting the condition."""


def _error_of(event: dict[str, Any]) -> Exception:
    name, message = str(event.get("error")), str(event.get("message"))
    if name == "ValueError":
        return ValueError(message)
    kind: type[GraphError] = getattr(graph, name) if name in graph.__all__ else GraphError
    return kind(message)
