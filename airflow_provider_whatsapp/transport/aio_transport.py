"""Works around two defects of ``httpcore`` in httpx's transport.

``httpcore`` reuses a connection on which a server has sent bytes after the response. They would be taken for the
response to the next request, which may belong to another listing: that listing would be incomplete without an error.

``httpcore`` also fails to close a socket if it is cancelled during a TLS handshake or while it talks to a proxy.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, cast

import httpx
from anyio.streams.tls import TLSAttribute, TLSStream

log = logging.getLogger(__name__)


class Transport(httpx.AsyncHTTPTransport):
    """Closes connections that must not be reused: with bytes after the response, or not fully opened."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and check the connection after its response."""
        sockets: list[Any] = []

        async def trace(event: str, info: dict[str, Any]) -> None:
            if event.endswith("connect_tcp.complete"):
                sockets.append(info["return_value"])

        request.extensions = {**request.extensions, "trace": trace}
        try:
            response = await super().handle_async_request(request)
        except BaseException:
            for sock in sockets:
                await sock.aclose()
            raise
        stream = cast("httpx.AsyncByteStream", response.stream)
        response.stream = _WatchedStream(stream, response.extensions["network_stream"])
        return response


class _WatchedStream(httpx.AsyncByteStream):
    """The body of a response.

    :param body: the stream that httpx created
    :param network: httpcore's stream of the connection
    """

    def __init__(self, body: httpx.AsyncByteStream, network: Any) -> None:
        self._body = body
        self._network = network

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield chunk
        # Check now: httpx closes the body next, which frees the connection for another request.
        if _has_more(self._body, self._network):
            # httpcore discards a connection whose socket is closed.
            await self._network.aclose()

    async def aclose(self) -> None:
        await self._body.aclose()


def _has_more(body: Any, network: Any) -> bool:
    """Return whether more than the response has arrived, or whether that is unknown.

    The libraries have no public way to check this. Bytes that are still in the socket do not matter: httpcore discards
    an idle connection that is readable.
    """
    try:
        if body._httpcore_stream._stream._connection._h11_state.trailing_data != (b"", False):
            return True
        layer = network._stream
        while isinstance(layer, TLSStream):
            if _can_read(layer.extra(TLSAttribute.ssl_object)):  # noqa: S610  # anyio's method, not Django's
                return True
            layer = layer.transport_stream
        return bool(layer._protocol.read_queue)
    except AttributeError as error:
        # A new connection for each request is slow but safe.
        _warn_of_new_connections(error.name)
        return True


# Cached, so that it is logged only once.
@lru_cache(maxsize=1)
def _warn_of_new_connections(attribute: str) -> None:
    log.warning(
        "Each request opens a new connection: this version of httpx, httpcore, h11 or anyio has no %s, which shows "
        "whether a connection can be reused",
        attribute,
    )


def _can_read(tls: Any) -> bool:
    try:
        # A byte that is read here is lost, which is harmless: the connection is not reused then.
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        return True
    return True
