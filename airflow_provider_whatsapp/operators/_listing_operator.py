"""What the operators share: what to do with an object or an empty list, and how to wait for a rate limit and go on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException, conf
from airflow_provider_whatsapp.graph import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.arguments import given, parse_percentage, parse_seconds, shown
from airflow_provider_whatsapp.graph.pages import ListingMovedError
from airflow_provider_whatsapp.graph.retry import UNNAMED_WAIT, Patience
from airflow_provider_whatsapp.hooks._waba_ids import StoredIdsError
from airflow_provider_whatsapp.operators._checkpoint import Checkpoint
from airflow_provider_whatsapp.operators._failures import STORE_ERRORS, failing_fast
from airflow_provider_whatsapp.operators._lineage import Lineage, Sources
from airflow_provider_whatsapp.operators._listing import ListingTask
from airflow_provider_whatsapp.operators._published import (
    Tries,
    find_published,
    is_of_another_mapped_task,
    record_published,
)
from airflow_provider_whatsapp.storage.columns import FORMATS_WITH_COLUMNS
from airflow_provider_whatsapp.storage.errors import ObjectExistsError
from airflow_provider_whatsapp.storage.parts import PartsLostError
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.triggers._rate_limit import RateLimitTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.operators._comparison import Comparison
    from airflow_provider_whatsapp.storage.target import Target
    from airflow_provider_whatsapp.transport.sync import GraphClient

# The defaults, in seconds and in percent.
_MAX_WAIT_IN_PLACE = 60
_MAX_USAGE = 95
# How often a listing whose rows are not kept may begin anew after it waited for a rate limit.
_MAX_RESTARTS = 1
# Tasks that wait for the same rate limit are spread over at least this many seconds.
_SHORTEST_SPREAD = 10.0
# The first choice is the default.
_CHOICES = {"if_exists": ("overwrite", "fail", "skip"), "if_empty": ("succeed", "skip", "fail")}


_Query = TypeVar("_Query")
# Its rows are read from the API while they are iterated over, which is possible only once.
_Listing = TypeVar("_Listing", bound=Iterable[dict[str, Any]])


class ListingOperator(ListingTask, Generic[_Query, _Listing]):
    """Lists something: a complete list, or an error.

    The parameters are described in
    :class:`~airflow_provider_whatsapp.operators.whatsapp.WhatsAppListWabasOperator`. A subclass says what is listed, in
    the methods of the first group below ``execute_complete``.
    """

    template_fields: Sequence[str] = (
        *ListingTask.template_fields,
        "if_exists",
        "if_empty",
        "compare_with",
        "max_wait_in_place",
        "max_usage",
    )

    def __init__(
        self,
        *,
        if_exists: str = "overwrite",
        if_empty: str = "succeed",
        compare_with: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_wait_in_place: float | str = _MAX_WAIT_IN_PLACE,
        max_usage: float | str = _MAX_USAGE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.if_exists = if_exists
        self.if_empty = if_empty
        self.compare_with = compare_with
        self.deferrable = deferrable
        self.max_wait_in_place = max_wait_in_place
        self.max_usage = max_usage

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """The rows, or the manifest of the object that holds them.

        :raises AirflowFailException: if a retry cannot help: bad input, a bad token, a missing permission, an object
            that exists with ``if_exists="fail"``, or a list in XCom that is too long for the task mapped over it
        :raises AirflowException: if there are no accounts with ``if_empty="fail"``; Airflow retries
        :raises AirflowSkipException: if ``if_exists`` or ``if_empty`` says to skip
        :raises GraphError: if the fault may pass; Airflow then retries as the task's ``retries`` say
        """
        return self._list(context)

    def execute_complete(
        self, context: Context, event: Any = None, *, restarts: int = 0, is_kept: bool = False
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """The rows, or the manifest of the object that holds them, after the task waited for a rate limit.

        :param event: event of the trigger, which holds nothing that is needed
        :param restarts: how often the listing has begun anew because its rows were not kept
        :param is_kept: whether the rows read so far were kept before the wait
        """
        return self._list(context, is_resumed=True, restarts=restarts, is_kept=is_kept)

    # What is listed

    def _build_query(self, connection: WhatsAppConnection) -> _Query:
        """The checked query."""
        raise NotImplementedError

    def _identify(self, query: _Query) -> Any:
        """All of the query on which the rows depend, as JSON."""
        raise NotImplementedError

    def _columns(self, query: _Query) -> list[str]:
        """The columns of a CSV or of Parquet."""
        raise NotImplementedError

    def _sources(self, query: _Query) -> Sources:
        """What the rows are read from."""
        raise NotImplementedError

    def _open_listing(self, query: _Query, client: GraphClient, checkpoint: Checkpoint) -> _Listing:
        """The listing, those rows included that an earlier try has kept.

        :param query: what to list
        :param client: reads the API
        :param checkpoint: has the rows of an earlier try, and keeps those that are read
        """
        raise NotImplementedError

    def _describe(self, query: _Query, listing: _Listing) -> dict[str, Any]:
        """The part of the manifest that says what was listed."""
        raise NotImplementedError

    # How it is listed

    def _list(
        self, context: Context, *, is_resumed: bool = False, restarts: int = 0, is_kept: bool = False
    ) -> list[dict[str, Any]] | dict[str, Any]:
        with failing_fast((ValueError, *STORE_ERRORS)):
            self._check_choices()
            connection = self._load_connection()
            query = self._build_query(connection)
            target = self._open_target()
            columns = self._columns(query)
            comparison = self._open_comparison(target, columns)
            if target is not None and not columns and (what := FORMATS_WITH_COLUMNS.get(target.format)):
                raise ValueError(
                    f"fields: {what} needs the names of its columns; give fields, or another output_format"
                )
            patience = self._build_patience(keeps_rows=target is not None)
        tries = Tries.of(
            context,
            listing=[
                connection.config.base_url,
                connection.config.version,
                self._identify(query),
                self.output_format,
                self.compare_with,
            ],
            is_deferrable=self.deferrable,
        )
        # The checkpoint is opened before the object is looked for, so that kept rows are removed also if an earlier try
        # has published the object, or if it exists and must not be replaced.
        with (
            Checkpoint(target, tries, self.log) as checkpoint,
            failing_fast((GraphError, StoredIdsError, *STORE_ERRORS)),
        ):
            if target is not None:
                manifest = checkpoint.attempt(lambda: find_published(target, tries))
                if manifest is not None:
                    self.log.info("An earlier try of this task has published %s already", target.uri)
                    return self._announce(context, manifest, lineage=Lineage(self._sources(query), manifest, columns))
                self._check_exists(target)
                self._check_is_own(target, tries, checkpoint)
            if not checkpoint.find_rows(counts_waits=is_resumed) and is_kept:
                restarts += 1
            with self._open_client(connection, patience) as client:
                return self._read(context, query, target, client, checkpoint, tries, comparison, restarts=restarts)

    def _read(
        self,
        context: Context,
        query: _Query,
        target: Target | None,
        client: GraphClient,
        checkpoint: Checkpoint,
        tries: Tries,
        comparison: Comparison | None,
        *,
        restarts: int,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        def describe() -> dict[str, Any]:
            described = self._describe(query, listing)
            changes = {} if comparison is None else comparison.describe(truncated=described["truncated"])
            return {**described, **changes}

        def before_publish(target: Target, manifest: dict[str, Any]) -> None:
            self._check_exists(target)
            self._check_is_own(target, tries, checkpoint)
            if tries.owner:
                checkpoint.attempt(lambda: record_published(target, tries, manifest))

        while True:
            listing = self._open_listing(query, client, checkpoint)
            try:
                return self._deliver(
                    context,
                    listing if comparison is None else comparison.watch(listing),
                    target,
                    columns=self._columns(query),
                    sources=self._sources(query),
                    describe=describe,
                    check=self._check_empty,
                    before_publish=before_publish,
                    owner=tries.owner,
                    replace=self.if_exists == "overwrite",
                )
            except ObjectExistsError as error:
                self._refuse_to_replace(str(error))
            except (ListingMovedError, PartsLostError) as problem:
                checkpoint.forget()
                self.log.warning("%s; the listing begins anew", problem)
            except GraphRateLimitError as error:
                if not self.deferrable:
                    raise
                is_kept = checkpoint.keep_for_wait(error)
                self._defer(error, restarts=restarts + (not is_kept), is_kept=is_kept)

    def _open_comparison(self, target: Target | None, columns: list[str]) -> Comparison | None:
        address = given(self.compare_with, None)
        if address is None:
            return None
        if target is None:
            raise ValueError("compare_with: what is different is told in the manifest, which needs output_path")
        # Imported here, because it loads fsspec, which parsing a DAG file must not wait for.
        from airflow_provider_whatsapp.operators._comparison import Comparison
        from airflow_provider_whatsapp.storage.reader import ObjectReader

        earlier = ObjectReader("compare_with", address, conn_id=given(self.output_conn_id, None))
        if not earlier.exists():
            self.log.info("There is no %s to compare with", earlier.uri)
            return Comparison(None, columns)
        return Comparison(earlier, columns)

    def _build_patience(self, *, keeps_rows: bool) -> Patience:
        longest = parse_seconds("max_wait_in_place", given(self.max_wait_in_place, _MAX_WAIT_IN_PLACE))
        return Patience(
            longest_named_wait=longest,
            budget=10 * longest,
            max_usage=parse_percentage("max_usage", given(self.max_usage, _MAX_USAGE)),
            # A listing that goes to XCom would begin anew after the wait, so it waits only when it must.
            raises_when_used_up=self.deferrable and keeps_rows,
        )

    def _defer(self, error: GraphRateLimitError, *, restarts: int, is_kept: bool) -> NoReturn:
        if restarts > _MAX_RESTARTS:
            raise GraphRateLimitError(
                f"{error} - the rows read so far were lost again; give output_path, in a store that every worker can "
                "list, read and write, so that they are kept while the task waits",
                code=error.code,
                retry_after=error.retry_after,
            ) from error
        seconds = UNNAMED_WAIT if error.retry_after is None else error.retry_after.total_seconds()
        # Otherwise all tasks that are throttled together would come back together, and be throttled again.
        seconds += random.uniform(0, max(_SHORTEST_SPREAD, seconds / 10))  # noqa: S311  # not for cryptography
        moment = clock.moment_in(seconds)
        self.log.warning(
            "Waiting without a worker slot until %s: %s",
            f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d %H:%M:%S} UTC",
            error,
        )
        self.defer(
            trigger=RateLimitTrigger(moment=moment),
            method_name="execute_complete",
            kwargs={"restarts": restarts, "is_kept": is_kept},
        )
        raise AssertionError("defer() raises")

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            choice = given(getattr(self, name), choices[0])
            if choice not in choices:
                raise ValueError(f"{name}: {shown(choice)} is not one of {', '.join(map(repr, choices))}")
            setattr(self, name, choice)

    def _check_exists(self, target: Target) -> None:
        if self.if_exists == "overwrite" or not target.exists():
            return
        self._refuse_to_replace(f"{target.uri} exists already")

    def _refuse_to_replace(self, reason: str) -> NoReturn:
        message = f"{reason}, and if_exists is {self.if_exists!r}"
        raise AirflowSkipException(message) if self.if_exists == "skip" else AirflowFailException(message)

    def _check_is_own(self, target: Target, tries: Tries, checkpoint: Checkpoint) -> None:
        if checkpoint.attempt(lambda: is_of_another_mapped_task(target, tries)):
            raise AirflowFailException(
                f"output_path: another mapped task of this DAG run has written {target.uri}; put what differs between "
                "the tasks into the address, e.g. {{ task.business_id }}"
            )

    def _check_empty(self, count: int) -> None:
        if self.if_empty == "succeed" or count:
            return
        message = f"the listing is empty, and if_empty is {self.if_empty!r}"
        raise AirflowSkipException(message) if self.if_empty == "skip" else AirflowException(message)
