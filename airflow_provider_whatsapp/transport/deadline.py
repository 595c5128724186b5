"""Ends every HTTP attempt of the client for tasks on time.

The timeout of ``requests`` applies to one operation on a socket: a server that sends one byte a second keeps a request
open forever, a name with eight addresses has eight timeouts, and name resolution has none. Checking the clock between
two reads of the body is not enough: the status line, headers, chunk sizes and trailers are read inside ``http.client``,
and in a test with twelve ways to send slowly, six got past such a check. Nothing in Python can interrupt
``getaddrinfo``.

An attempt therefore runs in a different thread from its caller. When its time is over, the caller stops waiting and
shuts down its socket, which ends whatever the thread is reading.

The thread has a second purpose. A traceback with local variables, which some log formats print, shows only the frames
of the interrupted thread, and so not those of the HTTP library, which hold the Authorization header.
"""

from __future__ import annotations

import contextvars
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Attempt:
    """One HTTP attempt.

    :param timeout: seconds from the start of the attempt to the last byte of the response
    """

    _of_thread = threading.local()

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._has_ended = False
        #: Whether the caller has stopped waiting, because of a timeout or an interrupt.
        self.is_given_up = False

    @classmethod
    def current(cls) -> Attempt:
        """Return the attempt that runs in this thread."""
        attempt: Attempt = cls._of_thread.attempt
        return attempt

    @property
    def seconds_left(self) -> float:
        """The seconds until the attempt times out, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def give_up(self) -> bool:
        """Stop waiting for the attempt. Returns False if it has already ended.

        The thread of an abandoned attempt ends on its next read or, if it is still in getaddrinfo, in :meth:`watch`.
        """
        with self._lock:
            if self._has_ended:
                return False
            self.is_given_up = True
            if self._handle is not None:
                with suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)
            return True

    def connect(self, host: str, port: int, options: Iterable[tuple[Any, ...]]) -> socket.socket:
        """Return a connection to the first address of a name that accepts one.

        :param host: name or IP address
        :param port: TCP port
        :param options: arguments for ``setsockopt``
        :raises OSError: if the name cannot be resolved or no address accepts
        """
        failure = OSError(f"no address for {host}")
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in options:
                    sock.setsockopt(*option)
                # Each address gets a share of the remaining time, so that one that does not answer, such as IPv6 in a
                # network that drops it, does not use up the time of the next ones.
                sock.settimeout(max(self._deadline - time.monotonic(), 0.001) / (len(addresses) - number))
                self.watch(sock)
                sock.connect(address)
                sock.settimeout(self._timeout)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    def watch(self, sock: Any) -> None:
        """Remember this socket, to shut it down if the caller gives up the attempt.

        :param sock: a socket, or one of the wrappers that TLS puts around it
        :raises TimeoutError: if the attempt has already timed out
        """
        with self._lock:
            self._forget_socket()
            if self.is_given_up:
                raise TimeoutError
            # Keep a duplicate, because the original may be unusable by then: TLS takes over its descriptor, and the
            # library closes it early if the connection is not kept alive. Shutting down the duplicate shuts down both.
            # (The address family does not matter for that.)
            self._handle = socket.fromfd(sock.fileno(), socket.AF_INET, socket.SOCK_STREAM)

    def carry_out(self, work: Callable[[], _Result]) -> _Result:
        """Run the work with this as the current attempt of the thread, and return its result.

        :param work: function that sends the request and receives the response
        """
        self._of_thread.attempt = self
        try:
            return work()
        finally:
            with self._lock:
                self._has_ended = True
                self._forget_socket()

    def _forget_socket(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class AttemptThread:
    """A thread that runs attempts, one after the other."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        threading.Thread(target=_carry_out, args=(self._jobs,), name="Attempts of GraphClient", daemon=True).start()

    def __del__(self) -> None:
        # A client that is never closed must not leave a thread behind.
        self.end()

    def start(self, attempt: Attempt, work: Callable[[], _Result], on_answer: Callable[[_Result], object]) -> None:
        """Start an attempt.

        :param attempt: the attempt
        :param work: function that runs the attempt; must not raise
        :param on_answer: called in the thread with the result
        """
        # Give the thread the caller's context variables, because instrumentation of the HTTP library may read them.
        run_in_context = contextvars.copy_context().run
        self._jobs.put(lambda: on_answer(run_in_context(attempt.carry_out, work)))

    def end(self) -> None:
        """End the thread as soon as it is idle."""
        self._jobs.put(None)


def _carry_out(jobs: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    while job := jobs.get():
        job()
