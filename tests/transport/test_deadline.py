"""One attempt ends on time, wherever it hangs: name resolution, any address, a proxy, TLS, or the last byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from raw_server import EMPTY_LIST, HEAD, ONCE, READ, Act, Read, answer, config, saying, server, tunnel

from airflow_provider_whatsapp.graph import GraphTransportError
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
from airflow_provider_whatsapp.transport.deadline import Attempt, AttemptThread
from airflow_provider_whatsapp.transport.sending import Session
from airflow_provider_whatsapp.transport.sync import GraphClient

TIMEOUT = 1.0
# Far longer than the timeout, because the machine may be busy, and yet far below what a client without a deadline waits.
BOUND = 30.0


def dripping(before: bytes, drop: bytes) -> Act:
    """Send something, and then one drop after another for a minute or until the client has gone."""

    def act(connection: socket.socket) -> None:
        connection.sendall(before)
        for _ in range(300):
            connection.sendall(drop)
            time.sleep(0.2)

    return act


def secure(port: int, ca_bundle: str, **more: Any) -> GraphConfig:
    return replace(config(port, TIMEOUT), base_url=f"https://127.0.0.1:{port}", ca_bundle=ca_bundle, **more)


def assert_ends_on_time(read: Read, config: GraphConfig) -> None:
    before = set(threading.enumerate())
    started = time.monotonic()
    with pytest.raises(GraphTransportError, match=f"within {TIMEOUT:g} s"):
        read(config)
    assert time.monotonic() - started < BOUND
    # A thread that keeps running without anybody waiting for it would hold its connection, too.
    wait_until_ended(before)


def wait_until_ended(before: set[threading.Thread]) -> None:
    started = time.monotonic()
    while left := [thread for thread in set(threading.enumerate()) - before if "Attempt" in thread.name]:
        assert time.monotonic() - started < BOUND, left
        time.sleep(0.05)


@pytest.mark.parametrize("proxied", [False, True])
def test_an_answer_that_drips_over_tls(read: Read, tls: ssl.SSLContext, ca_bundle: str, proxied: bool) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(server(dripping(HEAD + b"Content-Length: 1000\r\n\r\n", b"x"), tls))
        proxy = f"https://127.0.0.1:{stack.enter_context(tunnel(tls))}" if proxied else None
        assert_ends_on_time(read, secure(port, ca_bundle, proxy=proxy))


# A record of the TLS handshake that is longer than what follows.
HANDSHAKE = b"\x16\x03\x03\x40\x00"


def test_a_tls_handshake_that_drips(read: Read, ca_bundle: str) -> None:
    with server(dripping(HANDSHAKE, b"x")) as port:
        assert_ends_on_time(read, secure(port, ca_bundle))


def test_a_tls_handshake_of_the_proxy_that_drips(read: Read, ca_bundle: str) -> None:
    with server(dripping(HANDSHAKE, b"x")) as port:
        assert_ends_on_time(read, secure(9, ca_bundle, proxy=f"https://127.0.0.1:{port}"))


@pytest.mark.parametrize("by_tls", [False, True])
def test_a_proxy_whose_answer_drips(read: Read, tls: ssl.SSLContext, ca_bundle: str, by_tls: bool) -> None:
    with server(dripping(HEAD + b"X: ", b"x"), tls if by_tls else None) as port:
        proxy = f"{'https' if by_tls else 'http'}://127.0.0.1:{port}"
        assert_ends_on_time(read, secure(9, ca_bundle, proxy=proxy))


def test_a_tls_handshake_through_a_proxy_that_drips(read: Read, tls: ssl.SSLContext, ca_bundle: str) -> None:
    with server(dripping(HANDSHAKE, b"x")) as port, tunnel(tls) as proxy:
        assert_ends_on_time(read, secure(port, ca_bundle, proxy=f"https://127.0.0.1:{proxy}"))


@contextmanager
def hanging_resolution(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every name resolution within the block take until its end."""
    is_over = threading.Event()

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        is_over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", getaddrinfo)
        yield
        is_over.set()


def test_a_name_resolution_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    named = replace(config(9, TIMEOUT), base_url="http://localhost:9")
    started = time.monotonic()
    with hanging_resolution(monkeypatch), GraphClient(named, patience=ONCE) as client:
        with pytest.raises(GraphTransportError, match="within 1 s"):
            list(client.pages(READ))
        assert time.monotonic() - started < BOUND


def test_a_name_resolution_that_hangs_does_not_hold_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    named = replace(config(9, TIMEOUT), base_url="http://localhost:9")

    async def run() -> None:
        started = time.monotonic()
        with hanging_resolution(monkeypatch):
            async with AsyncGraphClient(named, patience=ONCE) as client:
                with pytest.raises(GraphTransportError, match="within 1 s"):
                    await client.pages(READ).__anext__()
            assert time.monotonic() - started < BOUND

    asyncio.run(run())


def test_a_client_continues_after_an_attempt_that_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(saying(answer(EMPTY_LIST))) as port:
        named = replace(config(port, TIMEOUT), base_url=f"http://localhost:{port}")
        with GraphClient(named, patience=ONCE) as client:
            with hanging_resolution(monkeypatch), pytest.raises(GraphTransportError, match="within 1 s"):
                list(client.pages(READ))
            assert len(list(client.pages(READ))) == 1


@contextmanager
def deaf(port: int = 0) -> Iterator[int]:
    """Let 127.0.0.2 neither accept nor refuse connections to a port within the block; gives the port."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(4):
            # Fills the queue, after which the system drops requests to connect.
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def resolve_to(monkeypatch: pytest.MonkeyPatch, port: int, *hosts: str) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)) for host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: entries)


def test_a_name_with_many_addresses_that_hang(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf() as port:
        resolve_to(monkeypatch, port, *["127.0.0.2"] * 8)
        assert_ends_on_time(read, replace(config(port, TIMEOUT), base_url=f"http://localhost:{port}"))


def test_an_address_that_hangs_leaves_time_for_the_next(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(saying(answer(EMPTY_LIST))) as port, deaf(port):
        resolve_to(monkeypatch, port, "127.0.0.2", "127.0.0.1")
        assert len(read(replace(config(port, 10), base_url=f"http://localhost:{port}"))) == 1


def test_a_name_whose_addresses_all_refuse_says_so(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(saying(b"")) as port:
        resolve_to(monkeypatch, port, "127.0.0.2", "127.0.0.3")
        with pytest.raises(GraphTransportError, match="refused"):
            read(replace(config(port, TIMEOUT), base_url=f"http://localhost:{port}"))


def test_a_thread_that_nobody_ends_ends_with_its_owner() -> None:
    before = set(threading.enumerate())
    thread = AttemptThread()
    assert len(set(threading.enumerate()) - before) == 1
    del thread
    wait_until_ended(before)


def test_an_attempt_that_was_given_up_opens_no_connection() -> None:
    attempt = Attempt(TIMEOUT)
    assert attempt.give_up()
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(TimeoutError):
        attempt.connect("127.0.0.1", server.getsockname()[1], ())


def test_a_closed_session_closes_its_connection_although_something_refers_to_it() -> None:
    """As a request does that was given up, until Python looks for cycles of references."""
    is_closed = threading.Event()

    def act(connection: socket.socket) -> None:
        connection.sendall(answer(EMPTY_LIST))
        if not connection.recv(1):
            is_closed.set()

    with server(act) as port:
        session = Session(config(port))
        Attempt(60).carry_out(lambda: session.get(f"http://127.0.0.1:{port}/"))
        session.close()
        assert is_closed.wait(BOUND)
