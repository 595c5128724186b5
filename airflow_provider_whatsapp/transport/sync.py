"""The client for tasks, over requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

import requests
import urllib3

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.fields import Field
from airflow_provider_whatsapp.graph.flow import Flow, Outcome, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.query import EdgeRead
from airflow_provider_whatsapp.graph.retry import RetryPolicy
from airflow_provider_whatsapp.transport.deadline import Attempt, DeadlineAdapter
from airflow_provider_whatsapp.transport.errors import transport_error
from airflow_provider_whatsapp.transport.shared import NO_COOKIES, BaseClient, Body, lower_case, trusted_cas

_CHUNK_BYTES = 64 * 1024
_Read = TypeVar("_Read")


class GraphClient(BaseClient):
    """Reads the Graph API over one kept-alive connection.

    :param config: where the API is and who asks
    :param policy: how patient to be
    :param sleep: waits so many seconds
    """

    def __init__(
        self,
        config: GraphConfig,
        *,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008  # immutable
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(config, policy)
        self._sleep = sleep
        self._session = _Session()
        self._session.headers = requests.structures.CaseInsensitiveDict(config.headers)
        self._session.trust_env = not config.on_loopback

    def __enter__(self) -> GraphClient:
        """Return the client, to be closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def pages(self, read: EdgeRead) -> Generator[Page, None, None]:
        """The pages of an edge, each fetched when it is asked for.

        :raises GraphError: the listing cannot be completed
        """
        return self._drive(self._flow().pages(read))

    def node(self, request: Request, fields: tuple[Field, ...] = ()) -> dict[str, Any]:
        """One node.

        :param fields: what the request asks for, to complete nested edges by
        :raises GraphError: it cannot be read
        """
        with closing(self._drive(self._flow().node(request, fields))) as nodes:
            return next(nodes)

    def _drive(self, flow: Flow[_Read, None]) -> Generator[_Read, None, None]:
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
                    self._sleep(step.seconds)
                else:
                    yield step

    def _send(self, request: Request) -> Response | GraphError:
        try:
            with Attempt(self._config.timeout):
                return self._exchange(request)
        except GraphError as error:
            return error
        except Exception as error:
            return transport_error(
                error,
                self._config,
                timeouts=(requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError),
                # Refused, yet urllib3 derives it from a timeout.
                no_timeouts=(urllib3.exceptions.NewConnectionError,),
                known=(OSError, requests.RequestException, urllib3.exceptions.HTTPError),
            )

    def _exchange(self, request: Request) -> Response:
        params, headers = self._config.credentials.sign(request, now=int(time.time()))
        with self._session.get(
            self._config.url(request),
            params=params,
            # As `auth`, since a header of that name gives way to an entry in ~/.netrc.
            auth=_Headers(headers),
            timeout=self._config.timeout,
            # Here, since environment variables would beat what the session says.
            verify=trusted_cas(self._config) or True,
            proxies={"https": self._config.proxy} if self._config.proxy else None,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = Body()
            while chunk := response.raw.read(_CHUNK_BYTES, decode_content=False):
                body.add(chunk)
        return Response(response.status_code, lower_case(response.headers), body.joined())


class _Headers(requests.auth.AuthBase):
    """Headers that an entry in ``~/.netrc`` does not replace.

    :param headers: by name
    """

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The request with the headers."""
        request.headers.update(self._headers)
        return request


class _Session(requests.Session):
    """A session that follows no redirect, keeps no cookie, and whose connections an attempt can cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(NO_COOKIES)
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: no answer leads elsewhere."""
        # Without this, requests reads a redirect's body to the end before it hands it out.
        return None
