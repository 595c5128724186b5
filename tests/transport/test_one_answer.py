"""Bytes that follow an answer are never taken for the answer to the next request."""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from raw_server import EMPTY_LIST, ONCE, READ, SECONDS_TO_HANG, Read, answer, config, listening, over_tls, tunnel

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.query import build_edge_query
from airflow_provider_whatsapp.transport import aio_transport
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
from airflow_provider_whatsapp.transport.sync import GraphClient

# Loopback carries so many bytes in one piece; a longer answer arrives in several.
_LARGEST_SEGMENT = 60_000


class TwoPages:
    """A server with two pages of each listing, which sends something after the first page.

    :param surplus: what follows the answer
    :param writes: number of writes, which over TLS are as many records, for the answer and the surplus
    :param size: length of the first answer in bytes, which is filled up with blanks
    """

    def __init__(self, surplus: bytes, *, writes: int = 1, size: int = 0) -> None:
        self.connections = 0
        self._surplus = surplus
        self._writes = writes
        self._size = size

    def __call__(self, connection: socket.socket) -> None:
        self.connections += 1
        while request := connection.recv(65536):
            path = re.search(rb"/v26.0/([0-9]+)/", request)
            assert path
            rows = b'{"data":[{"id":"%b1"},{"id":"%b2"}],"paging":{"next":"n","cursors":{"after":"a"}}}'
            if b"after=a" in request:
                connection.sendall(answer(b'{"data":[{"id":"%b3"}]}' % path[1]))
                continue
            body = rows.replace(b"%b", path[1])
            while len(page := answer(body)) < self._size:
                body += b" " * max(self._size - len(page) - 5, 1)
            if len(page) >= _LARGEST_SEGMENT:
                # Too long to arrive at once. The end of the answer and the surplus do, when all before them has arrived:
                # a surplus that arrives after the next request was sent cannot be distinguished from its answer.
                connection.sendall(page[:-1])
                while unacknowledged(connection):
                    time.sleep(0.001)
                connection.sendall(page[-1:] + self._surplus)
                continue
            # The system holds the bytes back until all of them are there, so that they arrive at once.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            for part in (page, self._surplus) if self._writes == 2 else (page + self._surplus,):
                connection.sendall(part)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def unacknowledged(connection: socket.socket) -> int:
    """Number of bytes that were sent and have not arrived yet."""
    count: int = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]
    return count


def ids(pages: list[Any]) -> list[str]:
    return [row["id"] for page in pages for row in page.rows]


SURPLUS = {
    "an answer": answer(EMPTY_LIST),
    "half an answer": answer(EMPTY_LIST)[:30],
    "one byte": b"\n",
}
KINDS = ["plain", "tls", "tls in tls"]


@contextmanager
def reached(pages: TwoPages, kind: str, tls: ssl.SSLContext, ca_bundle: str) -> Iterator[GraphConfig]:
    with ExitStack() as stack:
        port = stack.enter_context(listening(over_tls(None if kind == "plain" else tls, pages)))
        found = replace(config(port), ca_bundle=ca_bundle)
        if kind != "plain":
            found = replace(found, base_url=f"https://127.0.0.1:{port}")
        if kind == "tls in tls":
            found = replace(found, proxy=f"https://127.0.0.1:{stack.enter_context(tunnel(tls))}")
        yield found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writes", [1, 2])
@pytest.mark.parametrize("surplus", SURPLUS)
def test_what_follows_an_answer_is_dropped(
    read: Read, surplus: str, writes: int, kind: str, tls: ssl.SSLContext, ca_bundle: str
) -> None:
    pages = TwoPages(SURPLUS[surplus], writes=writes)
    with reached(pages, kind, tls, ca_bundle) as found:
        assert ids(read(found)) == ["11", "12", "13"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [8192, 16384, 65536, 131072])
def test_what_follows_an_answer_that_fills_a_buffer_is_dropped(
    read: Read, size: int, kind: str, tls: ssl.SSLContext, ca_bundle: str
) -> None:
    """The libraries read in pieces of such sizes, and what is beyond a piece waits in a buffer of theirs."""
    with reached(TwoPages(answer(EMPTY_LIST), size=size), kind, tls, ca_bundle) as found:
        assert ids(read(found)) == ["11", "12", "13"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_without_a_surplus_is_used_again(
    read: Read, kind: str, tls: ssl.SSLContext, ca_bundle: str
) -> None:
    pages = TwoPages(b"")
    with reached(pages, kind, tls, ca_bundle) as found:
        assert ids(read(found)) == ["11", "12", "13"]
    assert pages.connections == 1


class Late(TwoPages):
    """Sends a surplus on its first connection when the first page has been read."""

    def __init__(self) -> None:
        super().__init__(b"")
        self.is_read = threading.Event()
        self.is_sent = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        if self.connections:
            return super().__call__(connection)

        def follow() -> None:
            self.is_read.wait(SECONDS_TO_HANG)
            connection.sendall(answer(EMPTY_LIST))
            self.is_sent.set()

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        super().__call__(connection)
        following.join(SECONDS_TO_HANG)


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_what_arrives_on_an_idle_connection_is_dropped_sync(kind: str, tls: ssl.SSLContext, ca_bundle: str) -> None:
    server = Late()
    with reached(server, kind, tls, ca_bundle) as found, GraphClient(found, patience=ONCE) as client:
        pages = client.pages(READ)
        read = [next(pages)]
        server.is_read.set()
        assert server.is_sent.wait(SECONDS_TO_HANG)
        assert ids([*read, *pages]) == ["11", "12", "13"]


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_what_arrives_on_an_idle_connection_is_dropped_async(kind: str, tls: ssl.SSLContext, ca_bundle: str) -> None:
    server = Late()

    async def run(found: GraphConfig) -> list[str]:
        async with AsyncGraphClient(found, patience=ONCE) as client:
            pages = client.pages(READ)
            read = [await pages.__anext__()]
            server.is_read.set()
            assert await asyncio.to_thread(server.is_sent.wait, SECONDS_TO_HANG)
            return ids([*read, *[page async for page in pages]])

    with reached(server, kind, tls, ca_bundle) as found:
        assert asyncio.run(run(found)) == ["11", "12", "13"]


def test_a_shared_pool_does_not_mix_up_listings() -> None:
    async def read(client: AsyncGraphClient, business: int) -> list[str]:
        query = build_edge_query(f"{business}/client_whatsapp_business_accounts", fields="id")
        return ids([page async for page in client.pages(query)])

    async def run(found: GraphConfig) -> list[list[str]]:
        # One request at a time, so that each connection serves both listings by turns.
        async with AsyncGraphClient(found, patience=ONCE, max_concurrency=1) as client:
            return await asyncio.gather(*(read(client, business) for business in (1, 2, 3)))

    foreign = answer(b'{"data":[{"id":"99"}]}')
    with listening(TwoPages(foreign)) as port:
        assert asyncio.run(run(config(port))) == [[f"{n}1", f"{n}2", f"{n}3"] for n in (1, 2, 3)]


def test_a_surplus_that_cannot_be_looked_for_counts_as_one(caplog: pytest.LogCaptureFixture) -> None:
    """An attribute that a later version of httpcore may rename."""
    aio_transport._warn_of_new_connections.cache_clear()
    for _ in range(3):
        assert aio_transport._has_more(object(), object())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("Each request opens a new connection: ")
    assert "has no _httpcore_stream" in line
