"""Proxies on loopback that stand before a real server and fail on demand."""

from __future__ import annotations

import http.client
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_FORBIDDEN_XML = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_COPY_BYTES = 64 * 1024


@dataclass(frozen=True)
class Request:
    """A request that came to the proxy.

    :param number: number of the request, from 0
    :param method: HTTP method
    :param path: path with the query
    """

    number: int
    method: str
    path: str


class FaultyHttpProxy:
    """Forwards HTTP requests to a server.

    ``fault`` is asked before each request and says what happens to it:

    - ``None``: it is forwarded
    - ``"500"``, ``"401"`` or ``"403"``: it is answered so, and not forwarded
    - ``"cut"``: the connection is reset, and it is not forwarded
    - ``"lost"``: it is forwarded, and the connection is reset instead of an answer
    - ``"hang"``: it is not forwarded, and there is no answer until the proxy is healed

    :param port: port of the server
    """

    def __init__(self, port: int) -> None:
        self.fault: Callable[[Request], str | None] = lambda request: None
        #: Called when a request was forwarded, before its answer is.
        self.forwarded: Callable[[Request], object] = lambda request: None
        self.requests: list[Request] = []
        self._healed = threading.Event()
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                body = self._read_body()
                with proxy._lock:
                    request = Request(len(proxy.requests), self.command, self.path)
                    proxy.requests.append(request)
                fault, healed = proxy.fault(request), proxy._healed
                if fault == "hang":
                    healed.wait()
                if fault in ("cut", "hang"):
                    self._reset()
                    return
                if fault is not None and fault != "lost":
                    self._answer(
                        int(fault), {"Content-Type": "application/xml"}, _FORBIDDEN_XML if fault == "403" else b""
                    )
                    return
                connection = http.client.HTTPConnection("127.0.0.1", port)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
                headers["Content-Length"] = str(len(body))
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                proxy.forwarded(request)
                if fault == "lost":
                    self._reset()
                    return
                self._answer(answer.status, dict(answer.getheaders()), data)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_any  # noqa: N815  # names of the library

            def _read_body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response_only(status)
                length = str(len(data))
                for name, value in headers.items():
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = value
                    elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def _reset(self) -> None:
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.connection.close()

            def handle(self) -> None:
                # A client that was killed has closed its connection.
                with suppress(OSError, ValueError):
                    super().handle()

            def finish(self) -> None:
                with suppress(OSError, ValueError):
                    super().finish()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def heal(self) -> None:
        """Forward all requests from now on, and count them from 0."""
        self.fault = lambda request: None
        self.forwarded = lambda request: None
        with self._lock:
            self.requests = []
        self._healed.set()
        self._healed = threading.Event()

    def stop(self) -> None:
        """End the proxy."""
        self.heal()
        self._server.shutdown()
        self._server.server_close()


class FaultyTcpProxy:
    """Forwards connections to a server, and cuts all of them when ``cut_after`` bytes were sent to the server.

    With ``hang_after``, nothing goes in either direction after that many bytes until the proxy is healed.

    :param port: port of the server
    """

    def __init__(self, port: int) -> None:
        #: Number of bytes after which the connections are cut; None for never.
        self.cut_after: int | None = None
        #: Number of bytes after which nothing is forwarded any more; None for never.
        self.hang_after: int | None = None
        self._healed = threading.Event()
        #: Number of bytes that were sent to the server.
        self.sent = 0
        #: Called when the connections are cut.
        self.on_cut: Callable[[], object] = lambda: None
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
                    threading.Thread(target=self._copy_back, args=(server,), daemon=True).start()
                    while data := self.request.recv(_COPY_BYTES):
                        proxy._wait_if_hanging(len(data))
                        if proxy.cut_after is not None and proxy.sent + len(data) > proxy.cut_after:
                            # The server gets the bytes up to there, and then the connection is gone.
                            server.sendall(data[: max(proxy.cut_after - proxy.sent, 0)])
                            proxy.on_cut()
                            break
                        proxy.sent += len(data)
                        server.sendall(data)
                    self.request.close()

            def _copy_back(self, server: socket.socket) -> None:
                with suppress(OSError):
                    while data := server.recv(_COPY_BYTES):
                        proxy._wait_if_hanging(0)
                        self.request.sendall(data)
                with suppress(OSError):
                    self.request.shutdown(socket.SHUT_RDWR)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def heal(self) -> None:
        """Forward everything from now on, and count it from 0."""
        self.cut_after, self.hang_after, self.sent, self.on_cut = None, None, 0, lambda: None
        self._healed.set()
        self._healed = threading.Event()

    def _wait_if_hanging(self, more: int) -> None:
        healed = self._healed
        if self.hang_after is not None and self.sent + more > self.hang_after:
            healed.wait()
            # What was held back is lost, as it is when a firewall has forgotten the connection.
            raise ConnectionAbortedError

    def stop(self) -> None:
        """End the proxy."""
        self.heal()
        self._server.shutdown()
        self._server.server_close()
