"""The client for tasks, over ``requests``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, TypeVar

import requests
import urllib3

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.flow import Flow, Outcome, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.query import EdgeQuery, NodeQuery
from airflow_provider_whatsapp.graph.retry import Patience
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.deadline import Attempt, DeadlineAdapter
from airflow_provider_whatsapp.transport.errors import build_transport_error
from airflow_provider_whatsapp.transport.shared import (
    CHUNK_BYTES,
    NO_COOKIES,
    BaseClient,
    Body,
    find_trusted_cas,
    lower_case_names,
)

_Result = TypeVar("_Result")


class GraphClient(BaseClient):
    """Reads the Graph API over one kept-alive connection.

    :param config: where the API is and which credentials to use
    :param patience: how often and how long to try again
    """

    def __init__(self, config: GraphConfig, *, patience: Patience = Patience()) -> None:  # noqa: B008  # immutable
        super().__init__(config, patience)
        self._session = _Session()
        self._session.headers = requests.structures.CaseInsensitiveDict(config.headers)
        self._session.trust_env = not config.is_unencrypted

    def __enter__(self) -> GraphClient:
        """Return the client, which is closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def pages(self, query: EdgeQuery) -> Generator[Page, None, None]:
        """The pages of an edge, each fetched when it is asked for.

        :raises GraphError: if the listing cannot be completed
        """
        return self._carry_out(self._new_flow().pages(query))

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
        try:
            with Attempt(self._config.timeout):
                return self._exchange(request)
        except GraphError as error:
            return error
        except Exception as error:
            return build_transport_error(
                error,
                self._config,
                timeouts=(requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError),
                refusals=(urllib3.exceptions.NewConnectionError,),
                failures=(requests.RequestException, urllib3.exceptions.HTTPError),
            )

    def _exchange(self, request: Request) -> Response:
        params, headers = self._config.credentials.sign(request, now=clock.now())
        with self._session.get(
            self._config.url(request),
            params=params,
            auth=_Headers(headers),
            timeout=self._config.timeout,
            # Given with each request, because requests lets environment variables override what the session has.
            verify=find_trusted_cas(self._config) or True,
            proxies={"https": self._config.proxy} if self._config.proxy else None,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = Body()
            while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
                body.add(chunk)
        return Response(response.status_code, lower_case_names(response.headers), body.joined())


class _Session(requests.Session):
    """A session that follows no redirect, keeps no cookie and lets an :class:`Attempt` cut its connections."""

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(NO_COOKIES)
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # With a target, requests would read the body of a redirect to its end before handing the answer out.
        return None


class _Headers(requests.auth.AuthBase):
    """Sets headers as requests' ``auth``: otherwise an entry in ``~/.netrc`` would replace the Authorization header."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request
