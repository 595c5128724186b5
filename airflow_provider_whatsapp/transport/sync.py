"""The only sockets of the package: the two clients that carry out what :mod:`graph.flow` decides."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import httpx
import requests
import urllib3

from airflow_provider_whatsapp import __version__
from airflow_provider_whatsapp.graph.errors import GraphError, GraphTransportError
from airflow_provider_whatsapp.graph.fields import Field
from airflow_provider_whatsapp.graph.flow import Flow, GraphFlow, Outcome, Wait
from airflow_provider_whatsapp.graph.messages import (
    MAX_BODY_BYTES,
    Credentials,
    Request,
    Response,
    too_large,
)
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.query import EdgeRead
from airflow_provider_whatsapp.graph.retry import RetryPolicy
from airflow_provider_whatsapp.transport.deadline import NO_COOKIES, Attempt, Headers, Session
from airflow_provider_whatsapp.transport.log_filter import keep_out_of_library_logs

_CHUNK_BYTES = 64 * 1024
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphConfig:
    """Where the Graph API is and how to reach it, checked.

    :param credentials: token and app secret
    :param base_url: ``https://host[:port][/path]``, or ``http://`` on loopback, without a trailing slash
    :param version: ``vN.0``
    :param timeout: seconds for one HTTP attempt: connecting, waiting for the answer, and its last byte
    :param proxy: address of an HTTP proxy; None leaves that to the usual environment variables
    :param ca_bundle: path of a PEM file or folder with the CAs to trust; None leaves that to the environment
    """

    credentials: Credentials
    base_url: str
    version: str
    timeout: float = 30.0
    # A proxy's address may hold its password.
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every request says of itself."""
        return {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"airflow-provider-whatsapp/{__version__}",
        }

    @property
    def on_loopback(self) -> bool:
        """Whether requests go to this machine unencrypted; then no proxy may see them."""
        return self.base_url.startswith("http://")

    @property
    def trusted_cas(self) -> str | None:
        """Path of the CAs to trust; None for the ones that come with the HTTP library."""
        names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        return self.ca_bundle or next((os.environ[name] for name in names if os.environ.get(name)), None)

    def url(self, request: Request) -> str:
        """Address of the request, without its parameters."""
        return f"{self.base_url}/{self.version}/{request.path}"


class _Client:
    """What both clients share: the flow of each read."""

    def __init__(self, config: GraphConfig, policy: RetryPolicy) -> None:
        self._config = config
        self._policy = policy
        self._answered_versions: set[str] = set()
        keep_out_of_library_logs(config.credentials)

    @property
    def other_versions(self) -> list[str]:
        """Versions of the API that answered although another was asked for."""
        return sorted(self._answered_versions)

    def _flow(self) -> GraphFlow:
        return GraphFlow(
            credentials=self._config.credentials,
            version=self._config.version,
            policy=self._policy,
            random=random.random,
            answered_versions=self._answered_versions,
        )


class GraphClient(_Client):
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
        self._session = Session()
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
            return _transport_error(error, self._config)

    def _exchange(self, request: Request) -> Response:
        params, headers = self._config.credentials.sign(request, now=int(time.time()))
        with self._session.get(
            self._config.url(request),
            params=params,
            # As `auth`, since a header of that name gives way to an entry in ~/.netrc.
            auth=Headers(headers),
            timeout=self._config.timeout,
            # Here, since environment variables would beat what the session says.
            verify=self._config.trusted_cas or True,
            proxies={"https": self._config.proxy} if self._config.proxy else None,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = _Body()
            while chunk := response.raw.read(_CHUNK_BYTES, decode_content=False):
                body.add(chunk)
        return Response(response.status_code, _lower_case(response.headers), body.joined())


class AsyncGraphClient(_Client):
    """Reads the Graph API over pooled connections, for many reads on one event loop.

    :param config: where the API is and who asks
    :param policy: how patient to be
    :param sleep: waits so many seconds
    :param max_concurrency: how many requests are under way at once
    """

    def __init__(
        self,
        config: GraphConfig,
        *,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008  # immutable
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        max_concurrency: int = 10,
    ) -> None:
        super().__init__(config, policy)
        self._sleep = sleep
        self._turns = asyncio.Semaphore(max_concurrency)
        try:
            self._http = httpx.AsyncClient(
                headers=config.headers,
                timeout=config.timeout,
                trust_env=not config.on_loopback,
                verify=load_trusted_cas(config.trusted_cas),
                proxy=None if config.on_loopback else config.proxy,
                follow_redirects=False,
            )
        except Exception as error:
            # Not with its text, which may hold a part of the proxy's password.
            raise ValueError(
                f"the proxy or the CAs of the connection or the environment are unusable ({type(error).__name__})"
            ) from None
        self._http.cookies.jar.set_policy(NO_COOKIES)

    async def __aenter__(self) -> AsyncGraphClient:
        """Return the client, to be closed at the end of the block."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def pages(self, read: EdgeRead) -> AsyncGenerator[Page, None]:
        """The pages of an edge, each fetched when it is asked for.

        :raises GraphError: the listing cannot be completed
        """
        return self._drive(self._flow().pages(read))

    async def node(self, request: Request, fields: tuple[Field, ...] = ()) -> dict[str, Any]:
        """One node.

        :param fields: what the request asks for, to complete nested edges by
        :raises GraphError: it cannot be read
        """
        async with aclosing(self._drive(self._flow().node(request, fields))) as nodes:
            return await nodes.__anext__()

    async def _drive(self, flow: Flow[_Read, None]) -> AsyncGenerator[_Read, None]:
        outcome: Outcome = None
        with closing(flow):
            while True:
                try:
                    step = flow.send(outcome)
                except StopIteration:
                    return
                outcome = None
                if isinstance(step, Request):
                    outcome = await self._send(step)
                elif isinstance(step, Wait):
                    await self._sleep(step.seconds)
                else:
                    yield step

    async def _send(self, request: Request) -> Response | GraphError:
        try:
            # The time of an attempt begins with its turn.
            async with self._turns:
                return await asyncio.wait_for(self._exchange(request), self._config.timeout)
        except GraphError as error:
            return error
        except Exception as error:
            return _transport_error(error, self._config)

    async def _exchange(self, request: Request) -> Response:
        params, headers = self._config.credentials.sign(request, now=int(time.time()))
        async with self._http.stream("GET", self._config.url(request), params=params, headers=headers) as response:
            body = _Body()
            async for chunk in response.aiter_raw(_CHUNK_BYTES):
                body.add(chunk)
        return Response(response.status_code, _lower_case(response.headers), body.joined())


class _Body:
    """The bytes of a body as they come, up to the limit."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Take the next bytes.

        :raises GraphProtocolError: there are too many
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise too_large()

    def joined(self) -> bytes:
        """All of them."""
        return b"".join(self._chunks)


def _lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def load_trusted_cas(trusted_cas: str | None) -> ssl.SSLContext:
    """What a TLS connection trusts, read once.

    :param trusted_cas: path of a PEM file or folder; None for the CAs that come with the HTTP library
    """
    return _tls_context(trusted_cas, os.path.getmtime(trusted_cas) if trusted_cas else 0.0)


@lru_cache(maxsize=8)
def _tls_context(trusted_cas: str | None, changed: float) -> ssl.SSLContext:
    if trusted_cas is None:
        return httpx.create_ssl_context(trust_env=False)
    folder = os.path.isdir(trusted_cas)
    return ssl.create_default_context(cafile=None if folder else trusted_cas, capath=trusted_cas if folder else None)


# Refused, yet urllib3 derives it from a timeout.
_NO_TIMEOUT = urllib3.exceptions.NewConnectionError
_TIMEOUTS = (
    requests.Timeout,
    urllib3.exceptions.TimeoutError,
    httpx.TimeoutException,
    asyncio.TimeoutError,
    TimeoutError,
)


def _transport_error(error: BaseException, config: GraphConfig) -> GraphTransportError:
    """The error without the library's own text, which holds addresses with their parameters."""
    host = config.base_url.partition("://")[2]
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return GraphTransportError(
            f"the TLS certificate of {host} is not signed by a trusted CA; a proxy of your own needs ca_bundle",
            retryable=False,
        )
    if any(isinstance(cause, _TIMEOUTS) and not isinstance(cause, _NO_TIMEOUT) for cause in causes):
        return GraphTransportError(f"no complete answer from {host} within {config.timeout:g} s")
    known = (OSError, requests.RequestException, urllib3.exceptions.HTTPError, httpx.HTTPError, httpx.StreamError)
    reasons = (_system_reason(cause) for cause in reversed(causes) if isinstance(cause, OSError))
    return GraphTransportError(
        f"no complete answer from {host}: {next(filter(None, reasons), type(causes[-1]).__name__)}",
        retryable=isinstance(error, known),
    )


def _system_reason(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed; is it an https address?"
    # Its own text may hold what was sent; name resolution has numbers of its own, below zero.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        inner = [*following.args, getattr(following, "reason", None)]
        following = following.__cause__ or next(
            (value for value in inner if isinstance(value, BaseException)), following.__context__
        )
