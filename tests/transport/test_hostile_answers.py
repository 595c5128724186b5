"""Answers of hostile servers, byte by byte: both clients end in time, and always in a GraphError."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
import tracemalloc
from contextlib import suppress

import pytest
from raw_server import HEAD, SECRET, TOKEN, Act, Read, config, read_async, saying, server

from airflow_provider_whatsapp.graph import GraphError, GraphProtocolError, GraphTransportError
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.messages import MAX_BODY_BYTES
from airflow_provider_whatsapp.transport.shared import Body
from airflow_provider_whatsapp.transport.sync import GraphClient


def dripping(before: bytes, drop: bytes) -> Act:
    """Send something, and then one drop after another for a minute or until the client has gone."""

    def act(connection: socket.socket) -> None:
        connection.sendall(before)
        for _ in range(1200):
            connection.sendall(drop)
            time.sleep(0.05)

    return act


def silent(connection: socket.socket) -> None:
    """Send nothing for a minute or until the client has gone."""
    connection.settimeout(60)
    with suppress(OSError):
        connection.recv(1)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "status line": dripping(b"HTTP/1.1 200 ", b"O"),
    "one header": dripping(HEAD + b"X: ", b"x"),
    "many headers": dripping(HEAD, b"X: y\r\n"),
    "100 Continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "102 Processing": dripping(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "body": dripping(HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
    "body without a length": dripping(HEAD + b'Connection: close\r\n\r\n{"data":[]}', b" "),
    "chunks": dripping(CHUNKED, b"1\r\nx\r\n"),
    "chunk size": dripping(CHUNKED, b"0"),
    "chunk extension": dripping(CHUNKED + b"5;", b"x"),
    "trailers": dripping(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "redirect": dripping(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 1000\r\n\r\n", b"x"),
    "silence": silent,
}


@pytest.mark.parametrize("name", DRIPS)
def test_an_answer_that_drips_ends_on_time(name: str, read: Read) -> None:
    with server(DRIPS[name]) as port:
        started = time.monotonic()
        with pytest.raises(GraphTransportError, match="within 0.5 s"):
            read(config(port, timeout=0.5))
        assert time.monotonic() - started < 45  # the server continues for a minute


def test_an_endless_answer_ends_early(read: Read) -> None:
    sent: list[int] = []

    def act(connection: socket.socket) -> None:
        number = len(sent)
        sent.append(0)
        connection.sendall(CHUNKED)
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(200):
            connection.sendall(chunk)
            sent[number] += 1

    with server(act) as port, pytest.raises(GraphProtocolError, match="larger than"):
        read(config(port))
    # Each smaller page of the listing is requested once.
    assert len(sent) == 7
    assert max(sent) < 60


def test_a_large_body_takes_its_memory_once() -> None:
    chunk = b" " * 64 * 1024
    tracemalloc.start()
    try:
        body = Body()
        for _ in range(MAX_BODY_BYTES // len(chunk)):
            body.add(chunk[:-1] + b"x")
        assert len(body.joined()) == MAX_BODY_BYTES
        assert tracemalloc.get_traced_memory()[1] < 1.3 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()
    with pytest.raises(GraphProtocolError, match="larger than 16 MiB"):
        body.add(b" ")


ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "noise": b"\x00\xff" * 100,
    "http 0.9": b"hello\r\n\r\n",
    "version": b"HTTP/9.9 500 Oh\r\n\r\n",
    "negative length": HEAD + b"Content-Length: -5\r\n\r\n{}",
    "odd length": HEAD + b"Content-Length: five\r\n\r\n{}",
    "bad chunk": CHUNKED + b"zz\r\nx\r\n",
    "negative chunk": CHUNKED + b"-1\r\nx\r\n",
    "redirect, compressed": b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n"
    + gzip.compress(b"{}", mtime=0),
    "redirect, not text": b"HTTP/1.1 302 Found\r\nLocation: /\xff\r\nContent-Length: 0\r\n\r\n",
    "redirect, no address": b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    "redirect, no name": b"HTTP/1.1 302 Found\r\nLocation: http://xn--/\r\nContent-Length: 0\r\n\r\n",
    "redirect without location": b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "part": b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-10/5000\r\nContent-Length: 11\r\n\r\n{"data":[]}',
    "part with 200": HEAD + b'Content-Range: bytes 0-10/5000\r\nContent-Length: 11\r\n\r\n{"data":[]}',
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "long cursor": b'{"data":[],"paging":{"next":"x","cursors":{"after":"' + b"x" * 70_000 + b'"}}}',
    "repeated key": b'{"data":[{"id":"1","phone_numbers":{"data":[{"id":"5"}],"data":[]}}]}',
    "odd key": b'{"data":[{"id":"1","\\u0001../../x":{"data":[],"paging":{"next":"x","cursors":{"after":"a"}}}}]}',
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_answer_is_a_graph_error(name: str, read: Read, caplog: pytest.LogCaptureFixture) -> None:
    answer = ANSWERS[name]
    if answer.startswith(b"{"):
        answer = HEAD + b"Content-Length: %d\r\n\r\n" % len(answer) + answer
    with caplog.at_level(logging.DEBUG), server(saying(answer)) as port, pytest.raises(GraphError) as caught:
        read(config(port))
    assert caught.value.__context__ is None
    assert not [secret for secret in Credentials(TOKEN, SECRET).secrets if secret in caplog.text]


ECHOES = {
    "broken header": HEAD + b"this is malformed " + TOKEN.encode() + b"\r\nContent-Length: 2\r\n\r\n{}",
    "version": HEAD + b"facebook-api-version: " + TOKEN.encode() + b'\r\nContent-Length: 11\r\n\r\n{"data":[]}',
    "encoding": HEAD + b"Content-Encoding: " + TOKEN.encode() + b"\r\nContent-Length: 2\r\n\r\n{}",
    "reason": b"HTTP/1.1 400 " + TOKEN.encode() + b"\r\nContent-Length: 2\r\n\r\n{}",
    "status line": TOKEN.encode() + b"\r\n\r\n",
    "location": b"HTTP/1.1 302 Found\r\nLocation: http://" + TOKEN.encode() + b"\r\nContent-Length: 0\r\n\r\n",
    "cookie": HEAD + b"Set-Cookie: a=" + TOKEN.encode() + b'\r\nContent-Length: 11\r\n\r\n{"data":[]}',
}


@pytest.mark.parametrize("name", ECHOES)
def test_a_token_that_is_echoed_shows_nowhere(name: str, read: Read, caplog: pytest.LogCaptureFixture) -> None:
    shown = ""
    with caplog.at_level(logging.DEBUG), server(saying(ECHOES[name])) as port:
        try:
            read(config(port))
        except GraphError as error:
            shown = f"{error} {error!r} {vars(error)} {error.__context__!r} {error.__cause__!r}"
    shown += caplog.text
    assert not [secret for secret in Credentials(TOKEN, SECRET).secrets if secret in shown]


def test_cookies_are_not_kept(read: Read) -> None:
    heads: list[bytes] = []

    def act(connection: socket.socket) -> None:
        page = b'{"data":[],"paging":{"next":"n","cursors":{"after":"%d"}}}'
        for number in range(3):
            body = page % number if number < 2 else b'{"data":[]}'
            connection.sendall(HEAD + b"Set-Cookie: a=b\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            heads.append(connection.recv(65536))

    with server(act) as port:
        read(config(port))
    assert len(heads) == 3
    assert b"cookie" not in b"".join(heads).lower()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "http://user:5ecret@host:bad"),
        ("ALL_PROXY", "socks5://5ecret@127.0.0.1:9"),
        ("REQUESTS_CA_BUNDLE", "/no/such/5ecret"),
    ],
)
def test_an_unusable_environment_is_reported_without_its_values(
    name: str, value: str, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    secure = GraphConfig(credentials=Credentials(TOKEN), base_url="https://127.0.0.1:9", version="v26.0", timeout=1)
    with pytest.raises((GraphTransportError, ValueError)) as caught:
        read(secure)
    assert "5ecret" not in str(caught.value)


def test_threads_may_make_clients_while_others_log() -> None:
    body = b'{"data":[]}'
    failures: list[BaseException] = []

    def make() -> None:
        try:
            for number in range(200):
                GraphClient(
                    GraphConfig(
                        credentials=Credentials(f"token-{number}-{threading.get_ident()}"),
                        base_url="https://x",
                        version="v26.0",
                    )
                ).close()
        except BaseException as error:
            failures.append(error)

    with server(saying(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)) as port:
        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            read_async(config(port))
        for thread in threads:
            thread.join()
    assert failures == []
