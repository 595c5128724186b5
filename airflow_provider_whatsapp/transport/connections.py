"""The connections of the client for tasks, which an :class:`Attempt` can end."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import requests
import urllib3

from airflow_provider_whatsapp.transport.deadline import Attempt


class _Answer(http.client.HTTPResponse):
    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # not in the type stubs
        # http.client skips only responses with status 100 and takes 102 and 103 for final, although a final response
        # follows them too. 101 is left alone: it answers an upgrade, which was not requested.
        return version, 100 if 102 <= status <= 199 else status, reason


class _Watched:
    """The part that all connections share; a mix-in that precedes urllib3's class among the bases."""

    # If a user sets `http.client.HTTPConnection.debuglevel` for the whole process, it would print every header that is
    # sent, including the token.
    debuglevel = 0
    response_class: Any = _Answer
    sock: Any
    port: int
    _dns_host: str
    socket_options: Any

    @property
    def is_connected(self) -> bool:
        # urllib3 discards a kept-alive connection on which something has arrived, but checks only the socket and not
        # what TLS has already decrypted.
        return super().is_connected and not _has_pending_bytes(self.sock)  # type: ignore[misc]  # of urllib3

    def _new_conn(self) -> socket.socket:
        return Attempt.current().connect(self._dns_host, self.port, self.socket_options or ())

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            Attempt.current().watch(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]  # of urllib3

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]  # of http.client
        # http.client takes a truncated response of the proxy for a complete one, and would then start TLS on a
        # connection that the end of the attempt has shut down.
        Attempt.current().watch(self.sock)


def _has_pending_bytes(sock: Any) -> bool:
    if hasattr(sock, "pending"):
        return bool(sock.pending())
    # TLS within the TLS of a proxy.
    return hasattr(sock, "sslobj") and bool(sock.sslobj.pending() or sock.incoming.pending or sock.socket.pending())


class _HTTPConnection(_Watched, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_Watched, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class DeadlineAdapter(requests.adapters.HTTPAdapter):
    """Sends requests to one host, over connections that an :class:`Attempt` can end."""

    _pool: Any = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool of connections to the host."""
        # requests would look up the pool for the host, proxy and CAs again for each request.
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def close(self) -> None:
        """Close the connections, including one that an abandoned attempt returns later."""
        # urllib3 would leave them open until the garbage collector finds the pool.
        if self._pool is not None:
            self._pool.close()
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Create the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
