"""A ``requests`` session that does as it is told: no redirect, no cookie, and every attempt ends on time."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import requests
import urllib3


class Attempt:
    """One HTTP attempt, cut off when its time is over.

    A socket's own timeout begins anew with each byte, so that an answer may drip for ever.

    :param timeout: seconds
    """

    _of_thread = threading.local()

    def __init__(self, timeout: float) -> None:
        self._timer = threading.Timer(timeout, self._cut)
        self._timer.daemon = True
        self._over = False
        self._connection: _Cuttable | None = None
        self._socket: socket.socket | None = None

    @classmethod
    def uses(cls, connection: _Cuttable, sock: socket.socket | None) -> None:
        """Let this thread's attempt cut the connection, whose socket may change until it is connected."""
        attempt: Attempt = cls._of_thread.attempt
        attempt._connection, attempt._socket = connection, sock
        if attempt._over:
            raise TimeoutError

    def __enter__(self) -> None:
        self._of_thread.attempt = self
        self._timer.start()

    def __exit__(self, *exc_info: object) -> None:
        self._timer.cancel()
        self._of_thread.attempt = None
        if self._over:
            # Whatever it looked like from inside: a cut body without a length passes for a whole one.
            raise TimeoutError

    def _cut(self) -> None:
        self._over = True
        sock = self._socket or getattr(self._connection, "sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Cuttable:
    sock: Any

    def connect(self) -> None:
        Attempt.uses(self, None)
        super().connect()  # type: ignore[misc]  # of urllib3's connection

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        # A connection that is not kept alive lets go of its socket while the body is still to come.
        Attempt.uses(self, self.sock)
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]


class _HTTPConnection(_Cuttable, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_Cuttable, urllib3.connection.HTTPSConnection):
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
