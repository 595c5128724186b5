"""Ends every HTTP attempt of the client for tasks on time.

The timeout of ``requests`` is that of the socket, and a socket's timeout begins anew with each byte that arrives: a
server that sends one byte a second keeps a request open for ever. Reading in small pieces and looking at the clock in
between is not enough either, because the status line, the headers, the sizes of chunks and the trailers are read inside
of ``http.client``. In a test with twelve ways to send slowly, six got past such a loop. A timer that shuts the
socket down ends all of them, whatever is being read.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import requests
import urllib3


class Attempt:
    """One HTTP attempt, which ends with a ``TimeoutError`` when its time is over.

    :param timeout: seconds
    """

    _of_thread = threading.local()

    def __init__(self, timeout: float) -> None:
        self._timer = threading.Timer(timeout, self._cut)
        self._timer.daemon = True
        self._is_over = False
        self._connection: _CuttableConnection | None = None
        self._socket: socket.socket | None = None

    @classmethod
    def watch(cls, connection: _CuttableConnection, sock: socket.socket | None) -> None:
        """Let the current thread's attempt cut this connection.

        :param connection: the connection that the attempt uses
        :param sock: its socket; None while it is connecting, when the socket may still change
        :raises TimeoutError: if the attempt's time is over already
        """
        attempt: Attempt = cls._of_thread.attempt
        attempt._connection, attempt._socket = connection, sock
        if attempt._is_over:
            raise TimeoutError

    def __enter__(self) -> None:
        self._of_thread.attempt = self
        self._timer.start()

    def __exit__(self, *exc_info: object) -> None:
        self._timer.cancel()
        self._of_thread.attempt = None
        if self._is_over:
            # Raised even if the answer looks complete: a body without a length ends where the socket was shut down.
            raise TimeoutError

    def _cut(self) -> None:
        self._is_over = True
        sock = self._socket or getattr(self._connection, "sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _CuttableConnection:
    sock: Any

    def connect(self) -> None:
        Attempt.watch(self, None)
        super().connect()  # type: ignore[misc]  # of urllib3's connection

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        # A connection that is not kept alive drops its reference to the socket before the body has been read.
        Attempt.watch(self, self.sock)
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]  # of urllib3's connection


class _HTTPConnection(_CuttableConnection, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_CuttableConnection, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class DeadlineAdapter(requests.adapters.HTTPAdapter):
    """Sends requests over connections that an :class:`Attempt` can cut."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
