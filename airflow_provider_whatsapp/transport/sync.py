"""The client for tasks, built on ``requests``."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, TypeVar

from airflow_provider_whatsapp.graph.accounts_flow import (
    AccountEnd,
    AccountPage,
    AccountsFlow,
    Answer,
    Receive,
    Send,
)
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.flow import Flow, OnCall, Outcome, ReadConnection, Wait
from airflow_provider_whatsapp.graph.messages import Request
from airflow_provider_whatsapp.graph.pages import Page, Position
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery, NodeQuery
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.sending import RequestPool, Sender
from airflow_provider_whatsapp.transport.shared import BaseClient, ignore_call, warn_of_unread_connection

_Result = TypeVar("_Result")


class GraphClient(BaseClient):
    """Reads the Graph API over kept-alive connections, one per concurrent request.

    :param config: where the API is and which credentials to use
    :param patience: how often to retry and how long to wait
    :param on_call: called after each request with its usage and its error, or None
    :param read_connection: returns the current settings of the connection, after a request has failed; None keeps the
        settings
    :raises ValueError: if the environment names a proxy that cannot be used
    """

    def __init__(
        self,
        config: GraphConfig,
        *,
        patience: Patience = Patience(),  # noqa: B008  # immutable
        on_call: OnCall = ignore_call,
        read_connection: Callable[[], GraphConfig] | None = None,
    ) -> None:
        super().__init__(config, patience, on_call)
        self._read_connection = read_connection
        self._sender = Sender(config)
        #: Total seconds that the client has waited. Its patience has a budget for each listing, not for this total.
        self.waited = 0.0

    def __enter__(self) -> GraphClient:
        """Return the client; it is closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def pages(
        self, query: EdgeQuery, *, position: Position | None = None, ids: set[str] | None = None
    ) -> Generator[Page, None, None]:
        """Return an iterator over the pages of an edge; each is fetched when it is needed.

        :param query: the edge to list
        :param position: where to resume the listing of an earlier process. The first page is then the one at the
            position, without rows: the caller has them, and must add the ids of all rows so far to ``ids`` before it
            takes the next page
        :param ids: ids of the rows so far; the listing adds the ids that it reads
        :raises GraphError: if the listing cannot be completed
        :raises ListingMovedError: if it cannot resume from the position
        """
        return self._carry_out(self._new_flow().pages(query, position=position, ids=ids))

    def account_pages(
        self, accounts: Iterable[tuple[str, EdgeQuery | None]], *, max_concurrency: int, skips_accounts: bool
    ) -> Generator[AccountPage | AccountEnd, None, None]:
        """Yield the pages of one edge of many accounts as they arrive, and the end of each account.

        :param accounts: id and query of each account, consumed lazily; None instead of the query if nothing is to be
            read for the account
        :param max_concurrency: maximum number of requests in flight
        :param skips_accounts: whether to leave out an account that the API refuses, instead of raising the error
        :raises GraphError: if an account cannot be read; the error names the account
        """
        flow = AccountsFlow(
            new_flow=lambda patience, waba_id: self._new_flow(patience=patience, waba_id=waba_id),
            patience=self._patience,
            now=clock.monotonic,
            max_concurrency=max_concurrency,
            skips_accounts=skips_accounts,
        ).read(accounts)
        answer: Answer = None
        with closing(flow), RequestPool(self._sender) as pool:
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration:
                    return
                answer = None
                if isinstance(step, Send):
                    pool.send(step.key, step.request)
                elif isinstance(step, Receive):
                    answer = pool.receive(step.seconds)
                elif isinstance(step, ReadConnection):
                    answer = self._settings_after(step.config)
                elif isinstance(step, Wait):
                    self._wait(step.seconds)
                else:
                    yield step

    def node(self, query: NodeQuery) -> dict[str, Any]:
        """Return one node.

        :raises GraphError: if it cannot be read
        """
        with closing(self._carry_out(self._new_flow().node(query))) as nodes:
            return next(nodes)

    def _carry_out(self, flow: Flow[_Result, None]) -> Generator[_Result, None, None]:
        outcome: Outcome = None
        with closing(flow), RequestPool(self._sender) as pool:
            while True:
                try:
                    step = flow.send(outcome)
                except StopIteration:
                    return
                outcome = None
                if isinstance(step, Request):
                    outcome = pool.answer(step)
                elif isinstance(step, ReadConnection):
                    outcome = self._settings_after(step.config)
                elif isinstance(step, Wait):
                    self._wait(step.seconds)
                else:
                    yield step

    def _settings_after(self, failed: GraphConfig) -> GraphConfig | None:
        """Return the settings of the connection if they have changed since a request was sent, otherwise None.

        :param failed: settings that the request was sent with
        :raises ValueError: if the connection is gone, or no longer usable
        """
        if self._read_connection is not None and self._may_read_connection(failed):
            try:
                current = self._read_connection()
            except ValueError:
                raise
            except Exception as error:
                warn_of_unread_connection(error)
                current = failed
            if self._take_settings(failed, current):
                self._sender.use(current)
        return None if self._config == failed else self._config

    def _wait(self, seconds: float) -> None:
        self.waited += seconds
        clock.wait(seconds)
