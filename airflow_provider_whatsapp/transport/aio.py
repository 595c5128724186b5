"""The client for event loops, built on ``httpx``."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, closing
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import httpx

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.flow import Flow, OnCall, Outcome, ReadConnection, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery, NodeQuery
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.aio_transport import Transport
from airflow_provider_whatsapp.transport.errors import build_transport_error
from airflow_provider_whatsapp.transport.proxies import find_proxy
from airflow_provider_whatsapp.transport.shared import (
    CHUNK_BYTES,
    NO_COOKIES,
    BaseClient,
    Body,
    find_trusted_cas,
    ignore_call,
    load_ca_bundle,
    lower_case_names,
    warn_of_unread_connection,
)

_Result = TypeVar("_Result")
#: Waits when a listing must wait.
OnWait: TypeAlias = Callable[[Wait], Awaitable[None]]
# A larger response is parsed in a thread, so that other tasks of the event loop can run. The limit is low, because the
# decompressed body can be a thousand times larger.
_LONGEST_BODY_ON_THE_LOOP = 4 * 1024


async def wait_in_place(wait: Wait) -> None:
    """Wait as long as a listing must wait."""
    await clock.async_wait(wait.seconds)


class AsyncGraphClient(BaseClient):
    """Reads the Graph API over pooled connections, for many listings on one event loop.

    :param config: where the API is and which credentials to use
    :param patience: how often to retry and how long to wait
    :param on_call: called after each request with its usage and its error, or None
    :param read_connection: returns the current settings of the connection, after a request has failed; None keeps the
        settings
    :param max_concurrency: maximum number of requests in flight
    :raises ValueError: if the proxy or the CAs of the connection or the environment cannot be used
    """

    def __init__(
        self,
        config: GraphConfig,
        *,
        patience: Patience = Patience(),  # noqa: B008  # immutable
        on_call: OnCall = ignore_call,
        read_connection: Callable[[], Awaitable[GraphConfig]] | None = None,
        max_concurrency: int = 10,
    ) -> None:
        super().__init__(config, patience, on_call)
        self._turns = asyncio.Semaphore(max_concurrency)
        self._read_connection = read_connection
        self._http = self._build_http(config)
        # HTTP clients with earlier settings, which other listings may still be using.
        self._former_http: list[httpx.AsyncClient] = []

    @staticmethod
    def _build_http(config: GraphConfig) -> httpx.AsyncClient:
        reason = None
        try:
            transport = _build_transport(config)
        except Exception as error:
            reason = type(error).__name__
        if reason is not None:
            # Leave out the exception's text, and do not chain it: both may contain part of the proxy's password.
            raise ValueError(f"cannot use the proxy from the connection or environment ({reason})")
        http = httpx.AsyncClient(
            transport=transport,
            headers=config.headers,
            timeout=config.timeout,
            # The transport already has the environment's proxy and CAs. Otherwise, httpx would also read ~/.netrc.
            trust_env=False,
            follow_redirects=False,
        )
        http.cookies.jar.set_policy(NO_COOKIES)
        return http

    async def __aenter__(self) -> AsyncGraphClient:
        """Return the client; it is closed at the end of the block."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        for http in (self._http, *self._former_http):
            await http.aclose()

    def pages(self, query: EdgeQuery, *, wait: OnWait = wait_in_place) -> AsyncGenerator[Page, None]:
        """Return an iterator over the pages of an edge; each is fetched when it is needed.

        :param query: the edge to list
        :param wait: called for each wait of the listing, and returns when it is over
        :raises GraphError: if the listing cannot be completed
        """
        return self._carry_out(self._new_flow().pages(query), wait)

    async def node(self, query: NodeQuery) -> dict[str, Any]:
        """Return one node.

        :raises GraphError: if it cannot be read
        """
        async with aclosing(self._carry_out(self._new_flow().node(query))) as nodes:
            return await nodes.__anext__()

    async def _carry_out(
        self, flow: Flow[_Result, None], wait: OnWait = wait_in_place
    ) -> AsyncGenerator[_Result, None]:
        outcome: Outcome = None
        with closing(flow):
            while True:
                if isinstance(outcome, Response) and len(outcome.body) > _LONGEST_BODY_ON_THE_LOOP:
                    step = await asyncio.to_thread(_advance, flow, outcome)
                else:
                    step = _advance(flow, outcome)
                outcome = None
                if step is None:
                    return
                if isinstance(step, Request):
                    outcome = await self._send(step)
                elif isinstance(step, ReadConnection):
                    outcome = await self._settings_after(step.config)
                elif isinstance(step, Wait):
                    await wait(step)
                else:
                    yield step

    async def _settings_after(self, failed: GraphConfig) -> GraphConfig | None:
        """Return the settings of the connection if they have changed since a request was sent, otherwise None.

        :param failed: settings that the request was sent with
        :raises ValueError: if the connection is gone, or no longer usable
        """
        if self._read_connection is not None and self._may_read_connection(failed):
            try:
                current = await self._read_connection()
            except ValueError:
                raise
            except Exception as error:
                warn_of_unread_connection(error)
                current = failed
            # Another listing may have adopted the new settings while this one was reading the connection.
            if failed == self._config and self._take_settings(failed, current):
                self._former_http.append(self._http)
                self._http = self._build_http(current)
        return None if self._config == failed else self._config

    async def _send(self, request: Request) -> Response | GraphError:
        # The timeout of an attempt starts only when it is the request's turn, however long it waited for that.
        async with self._turns:
            # Runs in a separate task, so that the traceback of an interrupt or a cancellation does not contain the
            # frames of the HTTP library, whose local variables hold the Authorization header.
            attempt = asyncio.create_task(self._attempt(request))
            try:
                await asyncio.wait({attempt}, timeout=self._config.timeout)
            finally:
                if not attempt.done():
                    attempt.cancel()
                    await asyncio.wait({attempt})
            return self._build_error(TimeoutError()) if attempt.cancelled() else attempt.result()

    async def _attempt(self, request: Request) -> Response | GraphError:
        try:
            return await self._exchange(request)
        except GraphError as error:
            # Drop the traceback: its frames hold the secrets that were sent.
            return error.with_traceback(None)
        except Exception as error:
            return self._build_error(error)

    def _build_error(self, error: Exception) -> GraphError:
        return build_transport_error(
            error,
            self._config,
            timeouts=(httpx.TimeoutException, asyncio.TimeoutError, TimeoutError),
            refusals=(),
            failures=(httpx.HTTPError, httpx.StreamError),
            proxy_errors=(httpx.ProxyError,),
        )

    async def _exchange(self, request: Request) -> Response:
        config, http = self._config, self._http
        params, headers = config.credentials.sign(request, now=clock.now())
        async with http.stream("GET", config.url(request), params=params, headers=headers) as response:
            body = Body()
            async for chunk in response.aiter_raw(CHUNK_BYTES):
                body.add(chunk)
        return Response(response.status_code, lower_case_names(response.headers), body.joined())


def _advance(flow: Flow[Any, None], outcome: Outcome) -> Any:
    """Return the next step of a flow, or None at its end, because a StopIteration cannot leave a thread."""
    try:
        return flow.send(outcome)
    except StopIteration:
        return None


def _build_transport(config: GraphConfig) -> Transport:
    trusted = load_trusted_cas(find_trusted_cas(config))
    address = find_proxy(config)
    if address is None:
        return Transport(verify=trusted)
    # Only for a proxy that is reached over TLS: httpcore refuses CAs for any other.
    is_secure = address.lower().startswith("https:")
    return Transport(verify=trusted, proxy=httpx.Proxy(address, ssl_context=trusted if is_secure else None))


def load_trusted_cas(path: str | None) -> ssl.SSLContext:
    """Return an SSL context that trusts these CAs; they are read only once.

    :param path: path of a PEM file or folder; None for the CAs of the HTTP library
    :raises ValueError: if it cannot be read
    """
    return _load_default_cas() if path is None else load_ca_bundle(path)


@lru_cache(maxsize=1)
def _load_default_cas() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)
