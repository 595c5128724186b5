"""Operators that list WhatsApp Business Accounts (WABAs), and what hangs on them, into XCom or object storage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.arguments import given
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.graph.query import WABA_ONLY_ARGUMENTS
from airflow_provider_whatsapp.operators._kept_pages import read_pages
from airflow_provider_whatsapp.operators._lineage import Sources
from airflow_provider_whatsapp.operators._listing import EDGE_ARGUMENTS, WabaTask
from airflow_provider_whatsapp.operators._listing_operator import ListingOperator
from airflow_provider_whatsapp.operators._progress import AccountsProgress, LoggedRows

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.query import EdgeQuery
    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.hooks._waba_edge import AccountEdgeReader, WabaEdgeQuery
    from airflow_provider_whatsapp.operators._checkpoint import Checkpoint
    from airflow_provider_whatsapp.transport.sync import GraphClient

__all__ = ["WhatsAppListWabaEdgeOperator", "WhatsAppListWabasOperator"]


class WhatsAppListWabasOperator(WabaTask, ListingOperator["EdgeQuery", LoggedRows]):
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
    :param output_format: ``"ndjson"``, ``"jsonl"``, ``"json"``, ``"csv"`` or ``"parquet"``; by default the suffix of
        ``output_path`` decides, which may be followed by ``.gz`` except for Parquet
    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``
    :param if_exists: what to do when the object exists already: ``"overwrite"`` it, ``"fail"`` the task, or ``"skip"``
        the task. The latter two are decided before the API is called
    :param if_empty: what to do when there are no accounts: ``"succeed"``, ``"skip"`` the task or ``"fail"`` it. After
        the latter two, an object that existed before is unchanged
    :param compare_with: address of an earlier object, which may be ``output_path`` itself. The manifest then has
        ``added``, ``removed`` and ``changed``, each with the ``count`` and at most 1,000 ``ids``; all three are null
        when there is no such object. ``changed`` compares the fields that both listings asked for
    :param deferrable: whether to wait for a rate limit without a worker slot. The rows read so far are kept beside the
        object; a list that goes to XCom is read again from the start, once
    :param max_wait_in_place: seconds that a try may wait in its worker slot, in all: for faults, rate limits and
        ``max_usage``. With ``deferrable``, the task defers for every rate limit of more than a minute at once
    :param max_usage: percentage of the app's rate limit. When it is used, the task waits before the next page, so that
        other users of the app are not throttled
    """

    template_fields: Sequence[str] = tuple(dict.fromkeys((*WabaTask.template_fields, *ListingOperator.template_fields)))
    ui_color = "#d8f5e3"

    def _identify(self, query: EdgeQuery) -> Any:
        return query.to_json()

    def _open_listing(self, query: EdgeQuery, client: GraphClient, checkpoint: Checkpoint) -> LoggedRows:
        pages = read_pages(checkpoint, lambda position, ids: client.pages(query, position=position, ids=ids), self.log)
        return self._start_listing(query, pages)


class WhatsAppListWabaEdgeOperator(ListingOperator["WabaEdgeQuery", "AccountEdgeReader"]):
    """Lists one edge of many WABAs, such as the phone numbers of all clients: a complete list, or an error.

    The rows have the order of the accounts, and each begins with its ``waba_id``. Several accounts are read at once.
    Meta limits the calls for each account: one that is throttled waits while the others are read.

    XCom ``return_value`` is the list of rows or, with ``output_path``, a small manifest: ``uri``, ``conn_id``,
    ``format``, ``count``, ``bytes``, ``sha256``, ``pages``, ``accounts``, ``skipped``, ``skipped_count``, ``edge``,
    ``fields``, ``truncated``. An ``Asset`` among the task's outlets gets the manifest as the ``extra`` of its event.

    https://developers.facebook.com/docs/graph-api/reference/whats-app-business-account

    The other parameters, from ``fields`` to ``max_usage``, are those of :class:`WhatsAppListWabasOperator`;
    ``max_items`` counts the rows of all accounts, and ``page_size`` is that of each account.

    :param waba_ids: ids, rows with an ``id``, the manifest that :class:`WhatsAppListWabasOperator` gave, a list of
        these, or the address of an object with such rows, in any format that the package writes. An account that comes
        twice is read once
    :param edge: name of the edge, e.g. ``"phone_numbers"``
    :param edge_params: further query parameters of the edge, e.g. ``{"business": "1906385232743451"}``; values that are
        not ``str`` are sent as JSON, and times as unix seconds
    :param on_account_error: ``"fail"``, or ``"skip"`` to leave out accounts that are gone or that the token is not
        allowed to read; they are named in the manifest and in the log. If all accounts are left out, the task fails
    :param max_concurrency: number of accounts to read at once, at most 50
    """

    template_fields: Sequence[str] = (
        "waba_ids",
        "edge",
        "edge_params",
        "on_account_error",
        "max_concurrency",
        *ListingOperator.template_fields,
    )
    template_fields_renderers = {**ListingOperator.template_fields_renderers, "edge_params": "json"}  # noqa: RUF012  # as Airflow has it
    ui_color = "#d8f5e3"

    def __init__(
        self,
        *,
        waba_ids: Any,
        edge: str,
        edge_params: Mapping[str, Any] | str | None = None,
        on_account_error: str = "fail",
        max_concurrency: int | str = 10,
        **kwargs: Any,
    ) -> None:
        for name in WABA_ONLY_ARGUMENTS:
            if name in kwargs:
                raise ValueError(f"{name}: what hangs on an account has no such field; filter the list of accounts")
        super().__init__(**kwargs)
        self.waba_ids = waba_ids
        self.edge = edge
        self.edge_params = edge_params
        self.on_account_error = on_account_error
        self.max_concurrency = max_concurrency

    def _build_query(self, connection: WhatsAppConnection) -> WabaEdgeQuery:
        # Imported here, because parsing a DAG file must not wait for SQLite.
        from airflow_provider_whatsapp.hooks._waba_edge import WabaEdgeQuery

        try:
            return WabaEdgeQuery.build(
                self.waba_ids,
                self.edge,
                conn_id=given(self.output_conn_id, None),
                params=self.edge_params,
                max_concurrency=self.max_concurrency,
                on_account_error=self.on_account_error,
                **self._query_arguments(EDGE_ARGUMENTS),
            )
        except ValueError as error:
            # `params` has another meaning in Airflow, so the operator has another name for this argument than the hook.
            raise ValueError(re.sub("^params:", "edge_params:", str(error))) from None

    def _identify(self, query: WabaEdgeQuery) -> Any:
        return [query.example.to_json(), query.skips_accounts, query.waba_ids.to_json()]

    def _columns(self, query: WabaEdgeQuery) -> list[str]:
        fields = [field.key for field in query.example.fields]
        # A field of that name is not in the rows: the id of the account takes its place.
        return ["waba_id", *(field for field in fields if field != "waba_id")] if fields else []

    def _sources(self, query: WabaEdgeQuery) -> Sources:
        # Thousands of accounts would be thousands of datasets, so the edge stands for that of all of them.
        return Sources([f"whatsapp_business_accounts/{query.edge}"], query.waba_ids.uris)

    def _open_listing(self, query: WabaEdgeQuery, client: GraphClient, checkpoint: Checkpoint) -> AccountEdgeReader:
        from airflow_provider_whatsapp.hooks._waba_edge import AccountEdgeReader, ReadAccount
        from airflow_provider_whatsapp.operators._kept_accounts import find_accounts, keep_account

        def keep(account: ReadAccount, rows: Iterator[dict[str, Any]]) -> None:
            keep_account(checkpoint, account, rows)

        example = query.example
        self.log.info(
            "Listing the %s of %s accounts, fields %s%s",
            query.edge,
            "many" if query.waba_ids.count is None else f"{query.waba_ids.count:,}",
            join_fields(example.fields) or "as the API gives them",
            "".join(f", {name} {value}" for name, value in example.params.items()),
        )
        if checkpoint.has_rows:
            self.log.info("Going on after %s accounts, which an earlier try has kept", f"{checkpoint.progress:,}")
        return AccountEdgeReader(
            client,
            query,
            kept=find_accounts(checkpoint),
            keep=keep,
            on_answer=AccountsProgress(self.log, query.waba_ids.count),
        )

    def _describe(self, query: WabaEdgeQuery, listing: AccountEdgeReader) -> dict[str, Any]:
        progress = listing.progress
        return {
            "pages": progress.pages,
            "accounts": progress.accounts,
            "skipped": progress.skipped,
            "skipped_count": progress.skipped_count,
            "edge": query.edge,
            "fields": [str(field) for field in query.example.fields],
            "truncated": progress.truncated,
        }
