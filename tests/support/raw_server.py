"""Servers that send exactly the bytes that a test wants, proxies to reach them through, and one read by each client."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import build_edge_query
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
from airflow_provider_whatsapp.transport.sync import GraphClient

TOKEN = "lowercase-token-0123456789"
SECRET = "5ecre7" * 5
ONCE = Patience(attempts=1)
READ = build_edge_query("1/client_whatsapp_business_accounts", fields="id")
HEAD = b"HTTP/1.1 200 OK\r\n"
EMPTY_LIST = b'{"data":[]}'
# A guard against a test that hangs. Nothing here takes so long, however busy the machine is.
SECONDS_TO_HANG = 60.0

Act = Callable[[socket.socket], None]
Read = Callable[[GraphConfig], list[Page]]


@contextmanager
def listening(act: Act) -> Iterator[int]:
    """Run a server within the block that calls ``act`` with each connection; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(SECONDS_TO_HANG)
            act(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(SECONDS_TO_HANG)
        for thread in threads:
            thread.join(SECONDS_TO_HANG)


def over_tls(context: ssl.SSLContext | None, act: Act) -> Act:
    """The same over TLS, if there is a context."""

    def act_securely(connection: socket.socket) -> None:
        if context is None:
            return act(connection)
        with context.wrap_socket(connection, server_side=True) as secured:
            act(secured)

    return act_securely


@contextmanager
def server(act: Act, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run a server within the block that calls ``act`` after the first request of each connection; gives its port."""

    def act_when_asked(connection: socket.socket) -> None:
        connection.recv(65536)
        act(connection)

    with listening(over_tls(tls, act_when_asked)) as port:
        yield port


@contextmanager
def tunnel(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run an HTTP proxy within the block, which is itself reached over TLS if there is a context; gives its port."""

    def act(connection: socket.socket) -> None:
        host, _, port = connection.recv(65536).split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            _relay(connection, target)

    with listening(over_tls(tls, act)) as port:
        yield port


def _relay(one: socket.socket, other: socket.socket) -> None:
    # In one thread, because OpenSSL does not allow two to use a TLS connection at once.
    opposite = {one: other, other: one}
    while True:
        decrypted = [end for end in opposite if isinstance(end, ssl.SSLSocket) and end.pending()]
        for end in decrypted or select.select(list(opposite), [], [], SECONDS_TO_HANG)[0]:
            data = end.recv(65536)
            if not data:
                return
            opposite[end].sendall(data)


def answer(body: bytes, *headers: bytes) -> bytes:
    """The bytes of an answer with this body."""
    return HEAD + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def saying(data: bytes) -> Act:
    return lambda connection: connection.sendall(data)


def config(port: int, timeout: float = SECONDS_TO_HANG) -> GraphConfig:
    return GraphConfig(
        credentials=Credentials(TOKEN, SECRET), base_url=f"http://127.0.0.1:{port}", version="v26.0", timeout=timeout
    )


def read_sync(config: GraphConfig) -> list[Page]:
    with GraphClient(config, patience=ONCE) as client:
        return list(client.pages(READ))


def read_async(config: GraphConfig) -> list[Page]:
    async def run() -> list[Page]:
        async with AsyncGraphClient(config, patience=ONCE) as client:
            return [page async for page in client.pages(READ)]

    return asyncio.run(run())
