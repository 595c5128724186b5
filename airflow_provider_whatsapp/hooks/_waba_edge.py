"""Lists one edge of many accounts: reads them concurrently, and yields their rows in the order of the accounts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.accounts_flow import AccountPage
from airflow_provider_whatsapp.graph.arguments import given, parse_concurrency, shown
from airflow_provider_whatsapp.graph.errors import GraphError, shorten
from airflow_provider_whatsapp.graph.query import EdgeQuery, Query, build_waba_edge_query
from airflow_provider_whatsapp.hooks._waba_ids import WabaIds
from airflow_provider_whatsapp.storage.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Unpack

    from airflow_provider_whatsapp.graph.pages import Page
    from airflow_provider_whatsapp.graph.usage import Usage
    from airflow_provider_whatsapp.transport.sync import GraphClient

log = logging.getLogger(__name__)

Row = dict[str, Any]
_DEFAULT_CONCURRENCY = 10
_CHOICES = ("fail", "skip")
# Bounded, because a manifest is stored in XCom and in the record beside the object.
_MOST_SKIPPED = 100
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class WabaEdgeQuery:
    """A checked query for one edge of many accounts.

    :param waba_ids: ids of the accounts
    :param of_account: returns the query for an account, given its id
    :param max_concurrency: maximum number of requests in flight
    :param skips_accounts: whether to leave out an account that the API refuses, instead of raising the error
    """

    waba_ids: WabaIds
    of_account: Callable[[str], EdgeQuery]
    max_concurrency: int
    skips_accounts: bool

    @classmethod
    def build(
        cls,
        waba_ids: Any,
        edge: str,
        *,
        conn_id: str | None = None,
        params: Mapping[str, Any] | str | None = None,
        max_concurrency: int | str | None = None,
        on_account_error: str | None = None,
        **query: Unpack[Query],
    ) -> WabaEdgeQuery:
        """Return the query built from the arguments that a user gave.

        :param waba_ids: see :class:`~airflow_provider_whatsapp.hooks._waba_ids.WabaIds`
        :param edge: name of the edge, e.g. ``"phone_numbers"``
        :param conn_id: Airflow connection of the store, if ``waba_ids`` is an address that names none
        :param params: further query parameters of the edge
        :param max_concurrency: number of accounts to read at once
        :param on_account_error: ``"fail"`` or ``"skip"``
        :raises ValueError: if an argument is wrong; the message names it and shows an example
        """
        on_error = given(on_account_error, _CHOICES[0])
        if on_error not in _CHOICES:
            raise ValueError(f"on_account_error: {shown(on_error)} is not one of {', '.join(map(repr, _CHOICES))}")
        return cls(
            of_account=build_waba_edge_query(edge, params=params, **query),
            max_concurrency=parse_concurrency(given(max_concurrency, _DEFAULT_CONCURRENCY)),
            skips_accounts=on_error == "skip",
            waba_ids=WabaIds(waba_ids, conn_id=conn_id),
        )

    @property
    def edge(self) -> str:
        """The name of the edge."""
        return self.example.path.rpartition("/")[2]

    @property
    def example(self) -> EdgeQuery:
        """The query for a placeholder account, to read the fields and parameters from."""
        return self.of_account("0")


@dataclass(frozen=True, slots=True)
class ReadAccount:
    """An account of which all rows were read, or as many as ``max_items`` allows.

    :param waba_id: id of the account
    :param pages: number of pages that were read
    :param count: number of rows
    :param is_cut: whether ``max_items`` ended the reading although the API has more rows
    """

    waba_id: str
    pages: int = 0
    count: int = 0
    is_cut: bool = False


@dataclass(slots=True)
class EdgeProgress:
    """The progress of a listing of one edge of many accounts, and the accounts that it left out.

    :param pages: number of pages of the accounts whose rows were yielded
    :param count: number of rows that were yielded
    :param accounts: number of accounts that were read completely and whose rows were yielded
    :param skipped: ids of the first hundred accounts that were left out, each with the reason
    :param skipped_count: number of accounts that were left out
    :param truncated: whether ``max_items`` ended the listing although there are more rows or accounts
    :param accounts_read: number of accounts read so far, including those whose rows were not yet yielded
    :param rows_read: number of rows read so far
    :param usage: rate-limit usage reported by the last response
    """

    pages: int = 0
    count: int = 0
    accounts: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    skipped_count: int = 0
    truncated: bool = False
    accounts_read: int = 0
    rows_read: int = 0
    usage: Usage | None = None


class AccountEdgeReader:
    """Iterates over the rows of one edge of many accounts, in the order of the accounts.

    ``waba_id`` is the first key of each row.

    :param client: client to read the accounts with
    :param query: the accounts and the edge to read
    :param kept: accounts in the checkpoint of an earlier process, with their rows
    :param keep: called with each account that was read completely, and its rows
    :param on_answer: called with the progress after each response of the API
    """

    def __init__(
        self,
        client: GraphClient,
        query: WabaEdgeQuery,
        *,
        kept: Iterable[tuple[ReadAccount, Iterable[Row]]] = (),
        keep: Callable[[ReadAccount, Iterator[Row]], object] = lambda account, rows: None,
        on_answer: Callable[[EdgeProgress], object] = lambda progress: None,
    ) -> None:
        #: The progress of the listing, and the accounts that it left out.
        self.progress = EdgeProgress()
        self._client = client
        self._query = query
        self._max_items = query.example.max_items
        self._ids = iter(query.waba_ids)
        self._kept = kept
        self._keep = keep
        self._on_answer = on_answer
        #: Ids of the accounts that were started and whose rows were not yet yielded, in order.
        self._order: deque[str] = deque()
        #: The accounts that are being read, without their rows.
        self._unfinished: dict[str, ReadAccount] = {}
        #: The errors of accounts that will be left out when their turn comes, by id.
        self._errors: dict[str, GraphError] = {}
        self._first_error: GraphError | None = None

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows; possible only once.

        :raises GraphError: if an account cannot be read, or if every account was left out
        """
        yield from self._read_in_order()
        progress = self.progress
        # An account that max_items cut short was not read completely, but was not left out either.
        if self._first_error is not None and not progress.accounts and not progress.truncated:
            raise self._first_error
        log.info(
            "Listed %s rows of %s accounts on %s pages%s%s",
            f"{progress.count:,}",
            f"{progress.accounts:,}",
            f"{progress.pages:,}",
            f", {progress.skipped_count:,} accounts left out" if progress.skipped_count else "",
            ", cut by max_items" if progress.truncated else "",
        )

    def _read_in_order(self) -> Iterator[Row]:
        with closing(Spool()) as spool:
            self._put_kept_accounts_into(spool)
            steps = self._client.account_pages(
                self._accounts(spool),
                max_concurrency=self._query.max_concurrency,
                skips_accounts=self._query.skips_accounts,
            )
            with closing(steps):
                for step in steps:
                    if isinstance(step, AccountPage):
                        self._take_page(step.waba_id, step.page, spool)
                    else:
                        self._take_end(step.waba_id, step.error, spool)
                    self._on_answer(self.progress)
                    while self._order and (summary := spool.summary(self._order[0])) is not None:
                        yield from self._rows_of(self._order.popleft(), summary, spool)
                        if self.progress.truncated:
                            return

    def _put_kept_accounts_into(self, spool: Spool) -> None:
        for account, rows in self._kept:
            for row in rows:
                spool.add(account.waba_id, [row])
            spool.end(account.waba_id, asdict(account))
            self.progress.rows_read += account.count

    def _accounts(self, spool: Spool) -> Iterator[tuple[str, EdgeQuery | None]]:
        for waba_id in self._ids:
            self._order.append(waba_id)
            yield waba_id, None if spool.summary(waba_id) else self._query.of_account(waba_id)

    def _take_page(self, waba_id: str, page: Page, spool: Spool) -> None:
        spool.add(waba_id, page.rows)
        self.progress.rows_read += len(page.rows)
        self.progress.usage = page.usage or self.progress.usage
        self._unfinished[waba_id] = ReadAccount(waba_id, page.number, page.position.count, page.truncated)

    def _take_end(self, waba_id: str, error: GraphError | None, spool: Spool) -> None:
        self.progress.accounts_read += 1
        if error is not None:
            self._unfinished.pop(waba_id, None)
            # Drop the traceback: its frames would keep the rows in memory.
            self._errors[waba_id] = error.with_traceback(None)
            spool.remove(waba_id)
            spool.end(waba_id, {"reason": _reason_of(error)})
        elif (account := self._unfinished.pop(waba_id, None)) is not None:
            spool.end(waba_id, asdict(account))
            self._keep(account, spool.rows(waba_id))

    def _rows_of(self, waba_id: str, summary: dict[str, Any], spool: Spool) -> Iterator[Row]:
        progress = self.progress
        if "reason" in summary:
            self._note_skipped(waba_id, summary["reason"])
        else:
            account = ReadAccount(**summary)
            for row in spool.rows(waba_id):
                if progress.count == self._max_items:
                    progress.truncated = True
                    return
                progress.count += 1
                # The account's id replaces any field of that name in the row.
                yield {"waba_id": waba_id, **row, **{"waba_id": waba_id}}
            progress.pages += account.pages
            progress.accounts += not account.is_cut
            progress.truncated = account.is_cut
        spool.remove(waba_id)
        if progress.count == self._max_items:
            progress.truncated = progress.truncated or bool(self._order) or next(self._ids, None) is not None

    def _note_skipped(self, waba_id: str, reason: str) -> None:
        error = self._errors.pop(waba_id)
        self._first_error = self._first_error or error
        self.progress.skipped_count += 1
        # After the first hundred, only the log names the account.
        log.warning("Account %s is left out: %s", waba_id, reason)
        if len(self.progress.skipped) < _MOST_SKIPPED:
            self.progress.skipped.append({"waba_id": waba_id, "reason": reason})


def _reason_of(error: GraphError) -> str:
    # The id is removed, because it is reported next to the reason.
    return shorten(str(error).removeprefix(f"Account {error.waba_id}: "), _LONGEST_REASON)
