"""The client for event loops, over httpx."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, closing
from functools import lru_cache
from typing import Any, TypeVar

import httpx

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.fields import Field
from airflow_provider_whatsapp.graph.flow import Flow, Outcome, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.query import EdgeRead
from airflow_provider_whatsapp.graph.retry import RetryPolicy
from airflow_provider_whatsapp.transport.errors import transport_error
from airflow_provider_whatsapp.transport.shared import NO_COOKIES, BaseClient, Body, lower_case, trusted_cas

_CHUNK_BYTES = 64 * 1024
_Read = TypeVar("_Read")


class AsyncGraphClient(BaseClient):
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
                verify=load_trusted_cas(trusted_cas(config)),
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
            return transport_error(
                error,
                self._config,
                timeouts=(httpx.TimeoutException, asyncio.TimeoutError, TimeoutError),
                no_timeouts=(),
                known=(OSError, httpx.HTTPError, httpx.StreamError),
            )

    async def _exchange(self, request: Request) -> Response:
        params, headers = self._config.credentials.sign(request, now=int(time.time()))
        async with self._http.stream("GET", self._config.url(request), params=params, headers=headers) as response:
            body = Body()
            async for chunk in response.aiter_raw(_CHUNK_BYTES):
                body.add(chunk)
        return Response(response.status_code, lower_case(response.headers), body.joined())


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
