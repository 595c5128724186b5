"""The operator that lists one edge of many accounts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_whatsapp._compat import conf
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.tasks.arguments import (
    EDGE_QUERY_ARGUMENTS,
    LIST_ARGUMENTS,
    MAX_USAGE,
    MAX_WAIT_IN_PLACE,
    OUTPUT_ARGUMENTS,
    ListArguments,
)
from airflow_provider_whatsapp.tasks.failures import failing_fast
from airflow_provider_whatsapp.tasks.jobs import AccountEdgesJob
from airflow_provider_whatsapp.tasks.run import run
from airflow_provider_whatsapp.tasks.waiting import Resumption

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from typing_extensions import Unpack

    from airflow_provider_whatsapp.rows import Manifest
    from airflow_provider_whatsapp.tasks.airflow_arguments import OperatorArguments
    from airflow_provider_whatsapp.tasks.lineage import Lineage


class WhatsAppListWabaEdgeOperator(BaseOperator):
    """Lists one edge of many WABAs, such as the phone numbers of all clients: a complete list, or an error.

    The rows are in the order of the accounts, and each begins with its ``waba_id``. Several accounts are read
    concurrently. Meta limits the calls for each account: while one is throttled, the others are read.

    XCom ``return_value`` is the list of rows or, with ``output_path``, a
    :class:`~airflow_provider_whatsapp.rows.Manifest` of the object that holds them. An ``Asset`` among the task's
    outlets gets the manifest as the ``extra`` of its event.

    https://developers.facebook.com/docs/graph-api/reference/whats-app-business-account

    :param waba_ids: ids, rows with an ``id``, the manifest of a list of accounts, a list of these, or the address of an
        object with such rows, in any format that the package writes. A repeated account is read once
    :param edge: name of the edge, e.g. ``"phone_numbers"``
    :param edge_params: further query parameters of the edge, e.g. ``{"business": "1906385232743451"}``; values that are
        not ``str`` are sent as JSON, and times (also ISO 8601 text in ``start``, ``end``, ``since`` and ``until``) as
        unix seconds
    :param on_account_error: ``"fail"``, or ``"skip"`` to leave out accounts that are gone or that the token is not
        allowed to read; they are named in the manifest and in the log. If all accounts are left out, the task fails
    :param max_concurrency: number of accounts to read at once, at most 50
    :param fields: fields of each row, as a sequence of names or a comma string; nested ``{}`` is allowed; by default
        those that the package knows for the edge, or otherwise the API's choice
    :param filtering: list of ``{"field", "operator", "value"}``
    :param sort: name of an order that the edge supports; by default the API's own order
    :param page_size: number of rows of one account to request at a time
    :param max_items: number of rows of all accounts after which to stop; unlimited by default
    :param output_path: address of the object to write, any ``ObjectStoragePath`` URL; by default, the rows go to XCom.
        The object appears whole or not at all. Each mapped task needs its own object:
        ``"s3://bucket/{{ task.edge }}.ndjson"``
    :param output_conn_id: Airflow connection of the store; by default the one in the URL
        (``"s3://conn_id@bucket/key"``), or otherwise the store's own default
    :param output_format: ``"ndjson"``, ``"jsonl"``, ``"json"``, ``"csv"`` or ``"parquet"``; by default, the
        suffix of ``output_path`` decides, which may be followed by ``.gz`` except for Parquet
    :param if_exists: what to do if the object already exists: ``"overwrite"`` it, ``"fail"`` the task, or ``"skip"``
        the task. The latter two are decided before the API is called
    :param if_empty: what to do if there are no rows: ``"succeed"``, ``"skip"`` the task or ``"fail"`` it. After the
        latter two, an object that existed before is unchanged
    :param compare_with: address of an earlier object, which may be ``output_path`` itself. The manifest then has
        ``added``, ``removed`` and ``changed``, each with the ``count`` and at most 1,000 ``ids``; all three are null if
        there is no such object. ``changed`` compares the fields that both listings requested
    :param deferrable: whether to wait for rate limits of more than a minute without a worker slot. The rows read so far
        are stored beside the object; a list that goes to XCom is read again from the start, but only once
    :param max_wait_in_place: total seconds that a try may wait in its worker slot, for faults, rate limits and
        ``max_usage``
    :param max_usage: percentage of the app's rate limit from which the task waits before the next page, so that other
        users of the app are not throttled
    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``
    """

    template_fields: Sequence[str] = (
        "waba_ids",
        "edge",
        "edge_params",
        "on_account_error",
        "max_concurrency",
        *EDGE_QUERY_ARGUMENTS,
        *OUTPUT_ARGUMENTS,
        *LIST_ARGUMENTS,
        "whatsapp_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"edge_params": "json", "filtering": "json"}
    ui_color = "#d8f5e3"
    #: Seconds between two checkpoints of the rows that were read.
    checkpoint_interval: ClassVar[float] = 60.0

    def __init__(
        self,
        *,
        waba_ids: str | int | Mapping[str, Any] | Iterable[Any] | XComArg,
        edge: str | XComArg,
        edge_params: Mapping[str, Any] | str | XComArg | None = None,
        on_account_error: str | XComArg | None = "fail",
        max_concurrency: int | str | XComArg | None = 10,
        fields: str | Sequence[str] | XComArg | None = None,
        filtering: Sequence[Mapping[str, Any]] | str | XComArg | None = None,
        sort: str | XComArg | None = None,
        page_size: int | str | XComArg | None = 100,
        max_items: int | str | XComArg | None = None,
        output_path: str | XComArg | None = None,
        output_conn_id: str | XComArg | None = None,
        output_format: str | XComArg | None = None,
        if_exists: str | XComArg | None = "overwrite",
        if_empty: str | XComArg | None = "succeed",
        compare_with: str | XComArg | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_wait_in_place: float | str | XComArg | None = MAX_WAIT_IN_PLACE,
        max_usage: float | str | XComArg | None = MAX_USAGE,
        whatsapp_conn_id: str | XComArg | None = WhatsAppHook.default_conn_name,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.waba_ids = waba_ids
        self.edge = edge
        self.edge_params = edge_params
        self.on_account_error = on_account_error
        self.max_concurrency = max_concurrency
        self.fields = fields
        self.filtering = filtering
        self.sort = sort
        self.page_size = page_size
        self.max_items = max_items
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.output_format = output_format
        self.if_exists = if_exists
        self.if_empty = if_empty
        self.compare_with = compare_with
        self.deferrable = deferrable
        self.max_wait_in_place = max_wait_in_place
        self.max_usage = max_usage
        self.whatsapp_conn_id = whatsapp_conn_id
        self._lineage: Lineage | None = None

    def execute(self, context: Context) -> list[dict[str, Any]] | Manifest:
        """Return the rows, or the manifest of the object that holds them.

        :raises AirflowFailException: if a retry cannot help: bad input, a bad token, a missing permission, an object
            that exists with ``if_exists="fail"``, or a list in XCom that is too long for the task mapped over it
        :raises AirflowException: if there are no rows with ``if_empty="fail"``; Airflow retries
        :raises AirflowSkipException: if ``if_exists`` or ``if_empty`` says to skip
        :raises GraphError: if the fault may be temporary; Airflow then retries according to the task's ``retries``
        """
        job, arguments = self._prepare()
        outcome = run(self, context, job, arguments)
        self._lineage = outcome.lineage
        return outcome.result

    def execute_complete(
        self, context: Context, event: Any = None, *, restarts: int = 0, is_kept: bool = False
    ) -> list[dict[str, Any]] | Manifest:
        """Return the rows, or the manifest of the object that holds them, after the task waited for a rate limit.

        :param event: event of the trigger; not used
        :param restarts: number of times that the listing has started again because its rows were lost
        :param is_kept: whether the rows read so far were stored before the wait
        """
        job, arguments = self._prepare()
        outcome = run(self, context, job, arguments, Resumption(restarts, is_kept))
        self._lineage = outcome.lineage
        return outcome.result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the datasets that were read and written, for OpenLineage; None if no object was written.

        :param task_instance: the task instance that has ended
        """
        return None if self._lineage is None else self._lineage.to_openlineage()

    def _prepare(self) -> tuple[AccountEdgesJob, ListArguments]:
        with failing_fast(ValueError):
            job, arguments = AccountEdgesJob(self), ListArguments.of(self)
        return job, arguments
