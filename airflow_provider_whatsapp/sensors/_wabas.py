"""The sensor that waits for accounts of a business."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_whatsapp import graph
from airflow_provider_whatsapp._compat import AirflowFailException, AirflowSensorTimeout, AirflowSkipException, conf
from airflow_provider_whatsapp.graph import GraphError
from airflow_provider_whatsapp.graph.arguments import given, parse_moment, parse_percentage, shown
from airflow_provider_whatsapp.graph.condition import Tally, build_condition
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.hooks._metrics import count
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.links.whatsapp import WhatsAppManagerLink
from airflow_provider_whatsapp.resume.published import TaskIdentity
from airflow_provider_whatsapp.tasks.arguments import OUTPUT_ARGUMENTS, QUERY_ARGUMENTS, OutputArguments, rendered
from airflow_provider_whatsapp.tasks.failures import STORE_ERRORS, failing_fast
from airflow_provider_whatsapp.tasks.jobs import AccountsJob
from airflow_provider_whatsapp.tasks.lineage import Lineage, announce
from airflow_provider_whatsapp.tasks.mapping import record_unless_of_another_task, short_enough_to_map_over
from airflow_provider_whatsapp.tasks.run import log_published, open_client, what_it_reads
from airflow_provider_whatsapp.triggers._pace import MAX_USAGE_OF_LOOKS, pause_after
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from typing_extensions import Unpack

    from airflow_provider_whatsapp.graph.condition import Condition
    from airflow_provider_whatsapp.rows import Manifest
    from airflow_provider_whatsapp.storage.target import Target
    from airflow_provider_whatsapp.tasks.airflow_arguments import SensorArguments

log = logging.getLogger(__name__)
# A trigger ends the wait at its deadline. If the trigger does not run at all, Airflow ends it this much later.
_GRACE_AFTER_DEADLINE = timedelta(minutes=5)
# One look holds a worker slot, so it waits only for short faults; longer ones are waited out between two looks.
_PATIENCE_OF_A_LOOK = Patience(longest_named_wait=5.0, budget=30.0)
# The look after a trigger begins at the first page, so it must be able to wait for a rate limit: otherwise, a listing
# that needs more calls than are left would be deferred again and again.
_PATIENCE_OF_THE_LAST_LOOK = Patience(longest_named_wait=60.0, budget=300.0)


class WhatsAppWabasSensor(BaseSensorOperator):
    """Waits for WABAs, and writes them to XCom or object storage like the list operator.

    The modes poke, reschedule and deferrable give the same result for the same accounts. Temporary faults and rate
    limits do not end the wait. An error that a retry cannot fix ends it immediately. ``timeout``, ``poke_interval``,
    ``mode``, ``soft_fail`` and ``exponential_backoff`` work as in every Airflow sensor.

    ``waba_ids``, ``min_count`` and ``where`` define the condition; by default, that there is at least one account.

    :param waba_ids: ids of accounts that must all exist, as a sequence or a comma string; only these accounts match
    :param min_count: number of accounts that must match; by default the number of ``waba_ids``, or otherwise 1
    :param where: value or list of values by field, e.g. ``{"account_review_status": "APPROVED"}``; only accounts with
        these values match. A dot in the name of a field selects a value of a nested object
    :param deferrable: whether to wait in the triggerer, without a worker slot; by default
        Airflow's ``[operators] default_deferrable``
    :param business_id: id of the business portfolio; by default the one in the connection
    :param relationship: ``"client"`` for accounts that clients share with the business, ``"owned"`` for its own
    :param fields: fields of each account, as a sequence of names or a comma string; nested ``{}`` is allowed; by
        default id, name and ten more
    :param ownership_types: only accounts of these types: ``SELF``, ``CLIENT_OWNED``, ``AGENCY_OWNED``,
        ``ON_BEHALF_OF``, as a sequence or a comma string; by default all
    :param created_after: only accounts created after this time: a datetime, ISO 8601 string or unix seconds; UTC if
        no time zone is given
    :param created_before: only accounts created before this time: a datetime, ISO 8601 string or unix seconds; UTC if
        no time zone is given
    :param filtering: further filters of the Graph API: a list of ``{"field", "operator", "value"}``, or the same as
        JSON text
    :param sort: ``"creation_time_ascending"`` or ``"creation_time_descending"``; by default the API's own order
    :param page_size: number of accounts to request at a time
    :param max_items: number of accounts after which to stop; unlimited by default
    :param output_path: address of the object to write, any ``ObjectStoragePath`` URL; by default, the rows go to XCom.
        The object appears whole or not at all
    :param output_conn_id: Airflow connection of the store; by default the one in the URL
        (``"s3://conn_id@bucket/key"``), or otherwise the store's own default
    :param output_format: ``"ndjson"``, ``"jsonl"``, ``"json"``, ``"csv"`` or ``"parquet"``; by default, the
        suffix of ``output_path`` decides, which may be followed by ``.gz`` except for Parquet
    :param max_usage: percentage of the app's rate limit from which a look waits before the next page, so that other
        tasks of the same app can still make calls
    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``
    """

    template_fields: Sequence[str] = (
        "waba_ids",
        "min_count",
        "where",
        "business_id",
        "relationship",
        *QUERY_ARGUMENTS,
        *OUTPUT_ARGUMENTS,
        "max_usage",
        "whatsapp_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"filtering": "json", "where": "json"}
    operator_extra_links = (WhatsAppManagerLink(),)
    ui_color = "#e6f1f2"

    def __init__(
        self,
        *,
        waba_ids: str | int | Sequence[str | int] | XComArg | None = None,
        min_count: int | str | XComArg | None = None,
        where: Mapping[str, Any] | str | XComArg | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        business_id: str | int | XComArg | None = None,
        relationship: str | XComArg | None = "client",
        fields: str | Sequence[str] | XComArg | None = None,
        ownership_types: str | Sequence[str] | XComArg | None = None,
        created_after: datetime | date | str | float | XComArg | None = None,
        created_before: datetime | date | str | float | XComArg | None = None,
        filtering: Sequence[Mapping[str, Any]] | str | XComArg | None = None,
        sort: str | XComArg | None = None,
        page_size: int | str | XComArg | None = 100,
        max_items: int | str | XComArg | None = None,
        output_path: str | XComArg | None = None,
        output_conn_id: str | XComArg | None = None,
        output_format: str | XComArg | None = None,
        max_usage: float | str | XComArg | None = MAX_USAGE_OF_LOOKS,
        whatsapp_conn_id: str | XComArg | None = WhatsAppHook.default_conn_name,
        **kwargs: Unpack[SensorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.waba_ids = waba_ids
        self.min_count = min_count
        self.where = where
        self.deferrable = deferrable
        self.business_id = business_id
        self.relationship = relationship
        self.fields = fields
        self.ownership_types = ownership_types
        self.created_after = created_after
        self.created_before = created_before
        self.filtering = filtering
        self.sort = sort
        self.page_size = page_size
        self.max_items = max_items
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.output_format = output_format
        self.max_usage = max_usage
        self.whatsapp_conn_id = whatsapp_conn_id
        #: Id of the business that was listed, even if it came from the connection.
        self.listed_business_id: str | None = None
        #: Id of the account that the sensor waits for, if it is a single one.
        self.awaited_waba_id: str | None = None
        self._lineage: Lineage | None = None
        #: When the wait started, and when it ends, in unix seconds.
        self._started, self._deadline = 0.0, 0.0
        #: The API must not be called before this time, in unix seconds, because it has throttled the app.
        self._not_before = 0.0
        self._patience = _PATIENCE_OF_A_LOOK
        self._reason = ""  # why the last look did not meet the condition

    def execute(self, context: Context) -> Any:
        """Return the matching rows, or the manifest of the object that holds them.

        :raises AirflowFailException: if waiting cannot help: bad input, a bad token, a missing permission
        :raises AirflowSensorTimeout: if the condition was not met in time
        """
        now = time.time()
        return self._look_until_met(context, started=now, deadline=now + self.timeout)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Return the matching rows, or the manifest of their object, after a trigger fired.

        The rows are read again; if the condition is no longer met, the wait continues.

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
            self._not_before = parse_moment("not_before", event.get("not_before", 0.0))
        except ValueError as error:
            raise AirflowFailException(
                f"the trigger fired an event that does not say how long to wait: {error}; clear the task to wait again"
            ) from error
        if status == "met":
            self._patience = _PATIENCE_OF_THE_LAST_LOOK
        if status == "timeout":
            # The wait is over by the triggerer's clock; this worker's clock may be slow.
            deadline = min(deadline, time.time())
        return self._look_until_met(context, started=started, deadline=deadline)

    def poke(self, context: Context) -> PokeReturnValue:
        """Return whether the condition is met, and if so, the rows or the manifest."""
        if time.time() < self._not_before:
            self._reason = "the API has asked for no calls until after the end of the wait"
            return PokeReturnValue(False)
        with failing_fast((ValueError, *STORE_ERRORS)):
            job, condition = self._prepare()
            target = OutputArguments.of(self).open_target()
        with failing_fast((GraphError, ValueError, *STORE_ERRORS)):
            try:
                return self._look(context, job, condition, target)
            except GraphError as error:
                if not error.retryable:
                    raise
                self._reason = f"the last look failed: {error}"
                pause = pause_after(error)
                self._not_before = time.time() + pause
                when = f"in {timedelta(seconds=pause)} at the earliest" if pause else "later"
                self.log.warning("%s - looking again %s", error, when)
        return PokeReturnValue(False)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the datasets that were read and written, for OpenLineage; None if no object was written.

        :param task_instance: the task instance that has ended
        """
        return None if self._lineage is None else self._lineage.to_openlineage()

    @property
    def reschedule(self) -> bool:
        """Whether the task is rescheduled between two looks; a deferrable one always defers instead."""
        return self.mode == "reschedule" and not self.deferrable

    def _prepare(self) -> tuple[AccountsJob, Condition]:
        job = AccountsJob(self)
        condition = build_condition(**rendered(self, ("waba_ids", "min_count", "where")))
        condition.needed_fields(job.query.fields)
        most = job.query.max_items
        if most is not None and most < condition.matches_needed:
            raise ValueError(
                f"max_items: {most} accounts can never meet the condition, which needs {condition.matches_needed}"
            )
        self.listed_business_id = job.query.node_id
        if len(condition.waba_ids) == 1:
            (self.awaited_waba_id,) = condition.waba_ids
        return job, condition

    def _look(self, context: Context, job: AccountsJob, condition: Condition, target: Target | None) -> PokeReturnValue:
        """Read the listing once, and write its matching rows to XCom or an object if they meet the condition."""
        tally = Tally(condition)
        max_usage = parse_percentage("max_usage", given(self.max_usage, MAX_USAGE_OF_LOOKS))
        with open_client(job.connection, replace(self._patience, max_usage=max_usage)) as client:
            listed = job.read(client)
            rows = tally.matching(listed)
            if target is None:
                found = list(short_enough_to_map_over(self, context, rows, job.noun))
                self._log_outcome(job, tally)
                if tally.is_met:
                    count("whatsapp.rows", len(found), job.connection.config)
                return PokeReturnValue(tally.is_met, found if tally.is_met else None)
            with target.stage(rows, job.columns) as staged:
                self._log_outcome(job, tally)
                if not tally.is_met:
                    return PokeReturnValue(False)
                manifest = cast("Manifest", {**asdict(staged.stored), **job.facts(listed)})
                listing = [*what_it_reads(job), condition.to_json(), target.format]
                identity = TaskIdentity.of(context, listing=listing, is_deferrable=False)
                record_unless_of_another_task(target, identity, manifest, self.log)
                staged.publish()
        log_published(self, job, staged.stored)
        self._lineage = Lineage(job.inputs, manifest, job.columns)
        announce(self, context, job.connection, self._lineage)
        return PokeReturnValue(True, manifest)

    def _log_outcome(self, job: AccountsJob, tally: Tally) -> None:
        if tally.is_met:
            self.log.info("%d accounts match; condition met", tally.count)
            return
        reason = tally.reason(listed="owned" if job.relationship == "owned" else "shared")
        self._reason = f"{tally.count} accounts match" + (f": {reason}" if reason else "")
        self.log.info("%s; condition not met yet", self._reason)

    def _look_until_met(self, context: Context, *, started: float, deadline: float) -> Any:
        self._started, self._deadline = started, deadline
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException) as end:
            if end.__cause__ is not None:
                raise  # The task is skipped because it failed, which the log says already.
            # With `soft_fail`, Airflow skips the task, and the log would not say why.
            log.error("The wait has timed out: %s", self._reason)
            raise type(end)(f"{end} {self._reason}") from end

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        # In every mode, the base class calls this after a look that did not meet the condition, so this is the place to
        # wait for a rate limit, and to defer instead of waiting.
        if self.deferrable:
            self._defer()
        interval = float(super()._get_next_poke_interval(started_at, run_duration, poke_count))
        throttled_for = self._not_before - time.time()
        if not self.reschedule:
            throttled_for = min(throttled_for, self.timeout - run_duration())
        # A rescheduled task forgets the rate limit. If it resumed at its timeout, it would call the API while
        # throttled; so it resumes when the limit has lifted, even if that is later.
        return max(interval, throttled_for)

    def _defer(self) -> NoReturn:
        now = time.time()
        if now >= self._deadline:
            raise AirflowSensorTimeout(
                f"Sensor has timed out; the condition was not met within {self.timeout:g} seconds."
            )
        with failing_fast(ValueError):
            job, condition = self._prepare()
        # The trigger reads only the fields that the condition needs; the worker reads the others once it is met.
        watched = replace(job.query, fields=condition.needed_fields(job.query.fields))
        self.defer(
            trigger=WhatsAppWabasTrigger(
                whatsapp_conn_id=job.connection.conn_id,
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
                max_usage=parse_percentage("max_usage", given(self.max_usage, MAX_USAGE_OF_LOOKS)),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self._deadline - now) + _GRACE_AFTER_DEADLINE,
        )
        raise AssertionError("defer() raises")


def _error_of(event: dict[str, Any]) -> Exception:
    name, message = event.get("error"), event.get("message")
    if not isinstance(message, str) or not message:
        message = "the trigger fired an error event without a message; the triggerer's log may have it"
    if name == "ValueError":
        return ValueError(message)
    kind: type[GraphError] = getattr(graph, name) if isinstance(name, str) and name in graph.__all__ else GraphError
    # Only an error that waiting cannot fix ends a trigger, even if its class is usually retryable.
    return kind(message, retryable=False)
