"""The HTTP server of the sandbox: sockets and threads, but nothing about the Graph API."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from .http_exchange import Answer, IncomingRequest
from .response_writer import ResponseWriter

_LARGEST_REQUEST_BODY = 1024 * 1024
_SECONDS_TO_STOP = 30.0

#: Returns the response to a request, and the function that writes it.
Responder = Callable[[IncomingRequest], tuple[Answer, Callable[[ResponseWriter], None]]]


class HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server with a thread for each connection, which can end all of them at once.

    :param respond: function that responds to a request
    :param accepted: number of connections that earlier servers of the sandbox accepted; counting continues from there
    """

    allow_reuse_address = True
    request_queue_size = 2048

    def __init__(self, address: tuple[str, int], respond: Responder, accepted: int) -> None:
        self.respond = respond
        self.accepted = accepted
        self._stopping = threading.Event()
        self._open: dict[socket.socket, tuple[int, threading.Thread]] = {}
        self._guard = threading.Lock()
        super().__init__(address, _Connection)
        self._serving = threading.Thread(target=self.serve_forever, args=(0.02,), name="graph-sandbox", daemon=True)
        self._serving.start()

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the server stops."""
        if seconds > 0:
            self._stopping.wait(seconds)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a new connection in a thread."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"graph-sandbox-{self.accepted}",
            daemon=True,
        )
        with self._guard:
            self._open[request] = (self.accepted, thread)
            self.accepted += 1
        thread.start()

    def number_of(self, connection: Any) -> int:
        """Return the number of a connection, counted from 0."""
        return self._open[connection][0]

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection after it has ended."""
        super().shutdown_request(request)
        with self._guard:
            self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error of the sandbox itself; a client that disconnects is not an error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Close the port and every connection, idle or not, and wait for the threads to end."""
        self._stopping.set()
        self.shutdown()
        self._serving.join()
        self.server_close()
        with self._guard:
            open_now = list(self._open.items())
        for connection, _ in open_now:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        deadline = time.monotonic() + _SECONDS_TO_STOP
        for _, (_, thread) in open_now:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Connection(BaseHTTPRequestHandler):
    """One TCP connection and its requests, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = IncomingRequest(self.command, self.path, headers, self.server.number_of(self.request))
        self._skip_body(headers)
        answer, write = self.server.respond(request)
        encoding = headers.get("accept-encoding", "")
        writer = ResponseWriter(answer, self.connection, encoding, self.server.wait, self.close_connection)
        write(writer)
        self.close_connection = writer.closed

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _skip_body(self, headers: dict[str, str]) -> None:
        """Read the body of a POST; otherwise it would be taken for the next request."""
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > _LARGEST_REQUEST_BODY:
            self.close_connection = True
        else:
            self.rfile.read(int(length))

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing; ``GraphSandbox.requests`` records the requests."""
