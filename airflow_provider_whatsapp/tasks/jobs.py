"""Defines what a task lists: its query, its columns, its inputs, and its part of the manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_whatsapp.graph.arguments import given
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.graph.query import parse_relationship
from airflow_provider_whatsapp.resume.pages import read_pages
from airflow_provider_whatsapp.tasks.arguments import (
    EDGE_QUERY_ARGUMENTS,
    QUERY_ARGUMENTS,
    load_task_connection,
    rendered,
)
from airflow_provider_whatsapp.tasks.lineage import LineageInputs
from airflow_provider_whatsapp.tasks.progress import AccountsProgress, LoggedRows

if TYPE_CHECKING:
    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.hooks._waba_edge import AccountEdgeReader, ReadAccount
    from airflow_provider_whatsapp.resume.checkpoint import Checkpoint
    from airflow_provider_whatsapp.transport.sync import GraphClient

Row = dict[str, Any]
_Rows = TypeVar("_Rows", bound=Iterable[Row])


class Job(Protocol[_Rows]):
    """A listing that a task can run."""

    @property
    def noun(self) -> str:
        """What the log calls the rows, e.g. ``accounts``."""

    @property
    def connection(self) -> WhatsAppConnection:
        """The checked connection to the API."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of CSV and Parquet objects; empty if the API chooses the fields."""

    @property
    def inputs(self) -> LineageInputs:
        """The sources of the rows."""

    @property
    def depends_on(self) -> Any:
        """All that the rows depend on, as JSON. A later try continues only a listing that depends on the same."""

    def read(self, client: GraphClient, checkpoint: Checkpoint) -> _Rows:
        """Return the rows of the listing; they are read from the API lazily, and can be iterated over only once.

        :param client: client for the API
        :param checkpoint: provides the rows of an earlier try, and stores those that are read
        """

    def facts(self, rows: _Rows) -> dict[str, Any]:
        """Return the job's part of the manifest; call it after the last row.

        :param rows: result of :meth:`read`
        """


class AccountsJob:
    """Lists the accounts of a business.

    :param task: operator or sensor, with rendered templates
    :raises ValueError: if an argument or a field of the connection is wrong
    """

    noun = "accounts"

    def __init__(self, task: Any) -> None:
        self.connection = load_task_connection(task)
        self.relationship = parse_relationship(task.relationship)
        self.query = self.connection.waba_query(
            task.business_id, relationship=self.relationship, **rendered(task, QUERY_ARGUMENTS)
        )
        self.columns = [field.key for field in self.query.fields]
        self.inputs = LineageInputs([self.query.path])
        self.depends_on = self.query.to_json()
        self._log = task.log

    def read(self, client: GraphClient, checkpoint: Checkpoint | None = None) -> LoggedRows:
        """See :meth:`Job.read`. Without a checkpoint, the listing starts with its first page."""
        filters = "".join(f", {name} {value}" for name, value in self.query.params.items())
        self._log.info(
            "Listing the %s accounts of business %s, fields %s%s",
            self.relationship,
            self.query.node_id,
            join_fields(self.query.fields),
            filters,
        )
        if checkpoint is None:
            return LoggedRows(client.pages(self.query), self._log)
        return LoggedRows(read_pages(client, self.query, checkpoint, self._log), self._log)

    def facts(self, rows: LoggedRows) -> dict[str, Any]:
        """See :meth:`Job.facts`."""
        return {
            "pages": rows.pages,
            "business_id": self.query.node_id,
            "relationship": self.relationship,
            "fields": [str(field) for field in self.query.fields],
            "truncated": rows.truncated,
        }


class AccountEdgesJob:
    """Lists one edge of many accounts.

    :param task: operator, with rendered templates
    :raises ValueError: if an argument or a field of the connection is wrong
    """

    noun = "rows"

    def __init__(self, task: Any) -> None:
        # lazy: SQLite
        from airflow_provider_whatsapp.hooks._waba_edge import WabaEdgeQuery

        self.connection = load_task_connection(task)
        try:
            self.query = WabaEdgeQuery.build(
                task.waba_ids,
                task.edge,
                conn_id=given(task.output_conn_id, None),
                params=task.edge_params,
                max_concurrency=task.max_concurrency,
                on_account_error=task.on_account_error,
                **rendered(task, EDGE_QUERY_ARGUMENTS),
            )
        except ValueError as error:
            # Airflow uses `params` for something else, so the operator calls this argument `edge_params`.
            raise ValueError(re.sub("^params:", "edge_params:", str(error))) from None
        fields = [field.key for field in self.query.example.fields]
        # The id of the account replaces a field of that name.
        self.columns = ["waba_id", *(field for field in fields if field != "waba_id")] if fields else []
        # One dataset for the edge of all accounts, instead of thousands.
        self.inputs = LineageInputs([f"whatsapp_business_accounts/{self.query.edge}"], self.query.waba_ids.uris)
        self.depends_on = [self.query.example.to_json(), self.query.skips_accounts, self.query.waba_ids.to_json()]
        self._log = task.log

    def read(self, client: GraphClient, checkpoint: Checkpoint) -> AccountEdgeReader:
        """See :meth:`Job.read`."""
        from airflow_provider_whatsapp.hooks._waba_edge import AccountEdgeReader
        from airflow_provider_whatsapp.resume.accounts import find_accounts, keep_account

        def keep(account: ReadAccount, rows: Iterator[Row]) -> None:
            keep_account(checkpoint, account, rows)

        example, total = self.query.example, self.query.waba_ids.count
        self._log.info(
            "Listing the %s of %s accounts, fields %s%s",
            self.query.edge,
            "many" if total is None else f"{total:,}",
            join_fields(example.fields) or "chosen by the API",
            "".join(f", {name} {value}" for name, value in example.params.items()),
        )
        if checkpoint.has_rows:
            self._log.info("Resuming after %s accounts that an earlier try has read", f"{checkpoint.progress:,}")
        return AccountEdgeReader(
            client,
            self.query,
            kept=find_accounts(checkpoint),
            keep=keep,
            on_answer=AccountsProgress(self._log, total),
        )

    def facts(self, rows: AccountEdgeReader) -> dict[str, Any]:
        """See :meth:`Job.facts`."""
        progress = rows.progress
        return {
            "pages": progress.pages,
            "accounts": progress.accounts,
            "skipped": progress.skipped,
            "skipped_count": progress.skipped_count,
            "edge": self.query.edge,
            "fields": [str(field) for field in self.query.example.fields],
            "truncated": progress.truncated,
        }
