"""Operators that list WhatsApp Business Accounts (WABAs) into XCom or object storage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException, conf
from airflow_provider_whatsapp.graph import GraphRateLimitError
from airflow_provider_whatsapp.graph.arguments import given, parse_percentage, parse_seconds, shown
from airflow_provider_whatsapp.graph.pages import ListingMovedError
from airflow_provider_whatsapp.graph.retry import UNNAMED_WAIT, Patience
from airflow_provider_whatsapp.operators._checkpoint import Checkpoint
from airflow_provider_whatsapp.operators._failures import failing_fast
from airflow_provider_whatsapp.operators._listing import WabaTask
from airflow_provider_whatsapp.operators._published import Published, Tries, find_published, record_published
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.triggers._rate_limit import RateLimitTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.graph.query import EdgeQuery
    from airflow_provider_whatsapp.storage.target import Target
    from airflow_provider_whatsapp.transport.sync import GraphClient

__all__ = ["WhatsAppListWabasOperator"]

# The defaults, in seconds and in percent.
_MAX_WAIT_IN_PLACE = 60
_MAX_USAGE = 95
# How often a listing whose rows are not kept may begin anew after it waited for a rate limit.
_MAX_RESTARTS = 1
# Tasks that wait for the same rate limit are spread over at least this many seconds.
_SHORTEST_SPREAD = 10.0
# The first choice is the default.
_CHOICES = {"if_exists": ("overwrite", "fail", "skip"), "if_empty": ("succeed", "skip", "fail")}


class WhatsAppListWabasOperator(WabaTask):
    """Lists the WABAs of a business: a complete list, or an error.

    XCom ``return_value`` is the list of rows or, with ``output_path``, a small manifest: ``uri``, ``conn_id``,
    ``format``, ``count``, ``bytes``, ``sha256``, ``pages``, ``business_id``, ``edge``, ``fields``, ``truncated``. An
    ``Asset`` among the task's outlets gets the manifest as the ``extra`` of its event.

    https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/client_whatsapp_business_accounts

    :param business_id: id of the business portfolio; that of the connection by default
    :param edge: ``"client"`` for accounts that clients share with the business, ``"owned"`` for its own
    :param fields: sequence of names or comma string, nested ``{}`` allowed; id, name and ten more by default
    :param ownership_types: sequence or comma string of ``SELF``, ``CLIENT_OWNED``, ``ON_BEHALF_OF``; all by default
    :param created_after: datetime, ISO 8601 string or unix seconds; UTC where no zone is given
    :param created_before: datetime, ISO 8601 string or unix seconds; UTC where no zone is given
    :param filtering: list of ``{"field", "operator", "value"}``, added to the filters above
    :param sort: ``"creation_time_ascending"`` or ``"creation_time_descending"``; the API's own order by default
    :param page_size: number of accounts to ask for in one request
    :param max_items: number of accounts after which to stop; unlimited by default
    :param output_path: address of the object to write, any ``ObjectStoragePath`` URL; the rows go to XCom by default.
        The object appears whole or not at all. Each mapped task needs an object of its own:
        ``"s3://bucket/{{ task.business_id }}.ndjson"``
    :param output_conn_id: Airflow connection of the store; by default the one in the URL (``"s3://conn_id@bucket/key"``),
        else the store's own default
    :param output_format: ``"ndjson"``, ``"jsonl"``, ``"json"`` or ``"csv"``; by default the suffix of ``output_path``
        decides, which may be followed by ``.gz``
    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``
    :param if_exists: what to do when the object exists already: ``"overwrite"`` it, ``"fail"`` the task, or ``"skip"``
        the task. The latter two are decided before the API is called
    :param if_empty: what to do when there are no accounts: ``"succeed"``, ``"skip"`` the task or ``"fail"`` it. After
        the latter two, an object that existed before is unchanged
    :param deferrable: whether to wait for a rate limit without a worker slot. The rows read so far are kept beside the
        object; a list that goes to XCom is read again from the start, once
    :param max_wait_in_place: longest wait, in seconds, during which the task keeps its worker slot; ten times that in
        all
    :param max_usage: percentage of the app's rate limit. When it is used, the task waits before the next page, so that
        other users of the app are not throttled
    """

    template_fields: Sequence[str] = (
        *WabaTask.template_fields,
        "if_exists",
        "if_empty",
        "max_wait_in_place",
        "max_usage",
    )
    ui_color = "#d8f5e3"

    def __init__(
        self,
        *,
        if_exists: str = "overwrite",
        if_empty: str = "succeed",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_wait_in_place: float | str = _MAX_WAIT_IN_PLACE,
        max_usage: float | str = _MAX_USAGE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.if_exists = if_exists
        self.if_empty = if_empty
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

    def _list(
        self, context: Context, *, is_resumed: bool = False, restarts: int = 0, is_kept: bool = False
    ) -> list[dict[str, Any]] | dict[str, Any]:
        with failing_fast(ValueError):
            self._check_choices()
            connection = self._load_connection()
            query = self._build_query(connection)
            target = self._open_target()
            patience = self._build_patience(keeps_rows=target is not None)
        tries = Tries.of(
            context,
            listing=[connection.config.base_url, connection.config.version, query.to_json(), self.output_format],
            is_deferrable=self.deferrable,
        )
        # What is kept is also removed when the object turns out to be there already.
        with Checkpoint(target, tries, self.log) as checkpoint:
            if target is not None:
                published = checkpoint.attempt(lambda: find_published(target, tries))
                if published is not None:
                    self.log.info("An earlier try of this task has published %s already", target.uri)
                    return self._announce(context, self._build_manifest(query, target, published))
                self._check_exists(target)
            if not checkpoint.find_rows(counts_waits=is_resumed) and is_kept:
                restarts += 1
            with failing_fast(), self._open_client(connection, patience) as client:
                return self._read(context, query, target, client, checkpoint, tries, restarts=restarts)

    def _read(
        self,
        context: Context,
        query: EdgeQuery,
        target: Target | None,
        client: GraphClient,
        checkpoint: Checkpoint,
        tries: Tries,
        *,
        restarts: int,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        def before_publish(target: Target, published: Published) -> None:
            self._check_exists(target)
            if tries.owner:
                checkpoint.attempt(lambda: record_published(target, tries, published))

        while True:
            pages = checkpoint.pages(lambda position, ids: client.pages(query, position=position, ids=ids))
            listing = self._start_listing(query, pages)
            try:
                return self._deliver(
                    context,
                    listing,
                    listing,
                    query,
                    target,
                    check=self._check_empty,
                    before_publish=before_publish,
                    owner=tries.owner,
                )
            except ListingMovedError as problem:
                self.log.warning("%s; the listing begins anew", problem)
            except GraphRateLimitError as error:
                if not self.deferrable:
                    raise
                is_kept = checkpoint.keep_for_wait(error)
                self._defer(error, restarts=restarts + (not is_kept), is_kept=is_kept)

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
        message = f"{target.uri} exists already, and if_exists is {self.if_exists!r}"
        raise AirflowSkipException(message) if self.if_exists == "skip" else AirflowFailException(message)

    def _check_empty(self, count: int) -> None:
        if self.if_empty == "succeed" or count:
            return
        message = f"the listing is empty, and if_empty is {self.if_empty!r}"
        raise AirflowSkipException(message) if self.if_empty == "skip" else AirflowException(message)
