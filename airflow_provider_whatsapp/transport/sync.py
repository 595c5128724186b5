"""The client for tasks, over ``requests``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import requests
import urllib3

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.flow import Flow, OnCall, Outcome, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.graph.pages import Page, Position
from airflow_provider_whatsapp.graph.query import EdgeQuery, NodeQuery
from airflow_provider_whatsapp.graph.retry import Patience
from airflow_provider_whatsapp.graph.seen import SeenIds
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.connections import DeadlineAdapter
from airflow_provider_whatsapp.transport.deadline import Attempt
from airflow_provider_whatsapp.transport.errors import build_transport_error
from airflow_provider_whatsapp.transport.proxies import check_proxy, find_proxy
from airflow_provider_whatsapp.transport.shared import (
    CHUNK_BYTES,
    NO_COOKIES,
    BaseClient,
    Body,
    find_trusted_cas,
    ignore_call,
    lower_case_names,
)

_Result = TypeVar("_Result")


class GraphClient(BaseClient):
    """Reads the Graph API over one kept-alive connection.

    :param config: where the API is and which credentials to use
    :param patience: how often and how long to try again
    :param on_call: is told of each request that was sent
    :raises ValueError: if the environment names a proxy that cannot be used
    """

    def __init__(
        self,
        config: GraphConfig,
        *,
        patience: Patience = Patience(),  # noqa: B008  # immutable
        on_call: OnCall = ignore_call,
    ) -> None:
        super().__init__(config, patience, on_call)
        check_proxy(
            config,
            socks_schemes=("socks4", "socks4a", "socks5", "socks5h"),
            module="socks",
            install='pip install "requests[socks]"',
        )
        self._session = _Session()

    def __enter__(self) -> GraphClient:
        """Return the client, which is closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def pages(
        self, query: EdgeQuery, *, position: Position | None = None, ids: SeenIds | None = None
    ) -> Generator[Page, None, None]:
        """The pages of an edge, each fetched when it is asked for.

        :param query: what to list
        :param position: where to go on after an earlier process. The first page is then that of the position, without
            its rows: the caller has them, and adds the ids of all rows so far to ``ids`` before it asks for more
        :param ids: remembers the ids of the listing
        :raises GraphError: if the listing cannot be completed
        :raises ListingMovedError: if it cannot go on from the position
        """
        return self._carry_out(self._new_flow().pages(query, position=position, ids=ids))

    def node(self, query: NodeQuery) -> dict[str, Any]:
        """One node.

        :raises GraphError: if it cannot be read
        """
        with closing(self._carry_out(self._new_flow().node(query))) as nodes:
            return next(nodes)

    def _carry_out(self, flow: Flow[_Result, None]) -> Generator[_Result, None, None]:
        outcome: Outcome = None
        with closing(flow):
            while True:
                try:
                    step = flow.send(outcome)
                except StopIteration:
                    return
                outcome = None
                if isinstance(step, Request):
                    outcome = self._send(step)
                elif isinstance(step, Wait):
                    clock.wait(step.seconds)
                else:
                    yield step

    def _send(self, request: Request) -> Response | GraphError:
        attempt = Attempt(self._config.timeout)
        try:
            outcome = attempt.run(partial(self._attempt, self._session, request))
        finally:
            if attempt.is_given_up:
                # The attempt's thread may still be using the session.
                self._session.close()
                self._session = _Session()
        return self._build_error(TimeoutError()) if outcome is None else outcome

    def _attempt(self, session: requests.Session, request: Request) -> Response | GraphError:
        try:
            return self._exchange(session, request)
        except GraphError as error:
            # Without the traceback, whose frames hold the secrets that were sent.
            return error.with_traceback(None)
        except BaseException as error:
            return self._build_error(error)

    def _build_error(self, error: BaseException) -> GraphError:
        return build_transport_error(
            error,
            self._config,
            timeouts=(requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError),
            refusals=(urllib3.exceptions.NewConnectionError,),
            failures=(requests.RequestException, urllib3.exceptions.HTTPError),
        )

    def _exchange(self, session: requests.Session, request: Request) -> Response:
        params, headers = self._config.credentials.sign(request, now=clock.now())
        proxy = find_proxy(self._config)
        with session.get(
            self._config.url(request),
            params=params,
            headers={**self._config.headers, **headers},
            timeout=self._config.timeout,
            verify=find_trusted_cas(self._config) or True,
            proxies={"https": proxy} if proxy else None,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = Body()
            while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
                body.add(chunk)
        return Response(response.status_code, lower_case_names(response.headers), body.joined())


class _Session(requests.Session):
    """A session that follows no redirect, keeps no cookie and uses connections that an :class:`Attempt` can end."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.clear()
        # Otherwise an entry in `~/.netrc` would replace the Authorization header, and environment variables would
        # replace the CAs of the connection.
        self.trust_env = False
        self.cookies.set_policy(NO_COOKIES)
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # With a target, requests would read the body of a redirect to its end before handing the answer out.
        return None
