"""No secret shows in tracebacks with local variables, in http.client's debug output or in what is said of a proxy."""

from __future__ import annotations

import base64
import http.client
import logging
import os
import pickle
import signal
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from raw_server import EMPTY_LIST, HEAD, SECRET, TOKEN, Read, answer, config, read_async, saying, server, tunnel

from airflow_provider_whatsapp.graph import GraphError, GraphTransportError
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient

PASSWORD = "p@ss:w0rd'"
ENCODED = "p%40ss%3Aw0rd'"


def secrets() -> list[str]:
    basic = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    return [*Credentials(TOKEN, SECRET).secrets_at(time.time()), PASSWORD, ENCODED, basic]


def locals_of(error: BaseException | None) -> str:
    """The tracebacks of an exception and of those before it, with all local variables."""
    shown = []
    while error is not None:
        shown += [*traceback.TracebackException.from_exception(error, capture_locals=True).format(), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "".join(shown)


def shown_in(text: str) -> list[str]:
    return [secret for secret in secrets() if secret in text]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        for name in ("urllib3", "httpx", "httpcore", "requests"):
            caplog.set_level(logging.DEBUG, logger=name)
        yield caplog


def test_a_timeout_shows_no_secret(read: Read) -> None:
    with server(lambda connection: time.sleep(2)) as port, pytest.raises(GraphTransportError, match="within") as caught:
        read(config(port, 0.5))
    assert shown_in(locals_of(caught.value)) == []


def test_an_answer_that_is_too_large_shows_no_secret(read: Read) -> None:
    head = HEAD + b"Content-Length: 20000000\r\n\r\n"
    with server(saying(head + b" " * 20_000_000)) as port, pytest.raises(GraphError, match="larger") as caught:
        read(config(port))
    assert shown_in(locals_of(caught.value)) == []


@pytest.fixture
def _interrupts() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_an_interrupt_shows_no_secret(read: Read) -> None:
    main_thread = threading.main_thread().ident or 0

    def interrupt(connection: socket.socket) -> None:
        # An event loop sends the request in the thread that is interrupted. Python 3.10 would raise the exception there
        # if the loop did not wait for the answer yet.
        while read is read_async and sys._current_frames()[main_thread].f_code.co_name != "select":
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        connection.recv(1)

    with server(interrupt) as port, pytest.raises(KeyboardInterrupt) as caught:
        read(config(port))
    assert shown_in(locals_of(caught.value)) == []


@pytest.mark.parametrize("proxied", [False, True])
def test_the_debug_output_of_http_client_is_off(
    read: Read,
    tls: ssl.SSLContext,
    ca_bundle: str,
    proxied: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    with server(saying(answer(EMPTY_LIST)), tls) as port, tunnel() as proxy:
        found = replace(config(port), base_url=f"https://127.0.0.1:{port}", ca_bundle=ca_bundle)
        read(replace(found, proxy=f"http://user:{ENCODED}@127.0.0.1:{proxy}" if proxied else None))
    assert capsys.readouterr().out == ""


def secure(port: int, **more: Any) -> GraphConfig:
    return replace(config(port), base_url=f"https://127.0.0.1:{port}", **more)


def test_a_proxy_that_repeats_its_password(read: Read, logged: pytest.LogCaptureFixture) -> None:
    def refuse(connection: socket.socket) -> None:
        basic = base64.b64encode(f"user:{PASSWORD}".encode())
        said = b"%b %b %b" % (basic, PASSWORD.encode(), ENCODED.encode())
        connection.sendall(b"HTTP/1.1 407 %b\r\nX-Said: %b\r\nContent-Length: 0\r\n\r\n" % (said, said))

    with server(refuse) as port, pytest.raises(GraphTransportError) as caught:
        read(secure(9, proxy=f"http://user:{ENCODED}@127.0.0.1:{port}"))
    shown = f"{caught.value} {locals_of(caught.value)} {pickle.dumps(caught.value)!r} {logged.text}"
    assert shown_in(shown) == []


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_socks_proxy_is_refused(read: Read, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"socks5://user:{ENCODED}@127.0.0.1:9")
    with pytest.raises(ValueError, match=f"^{name}: not the address of an HTTP proxy") as caught:
        read(secure(9))
    assert shown_in(str(caught.value) + locals_of(caught.value)) == []
    # What the API is not reached through does not matter, and the connection's proxy goes before it.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(GraphTransportError):
        read(secure(9))
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(GraphTransportError):
        read(secure(9, proxy="http://127.0.0.1:9"))


@pytest.mark.parametrize("rest", [":%s@127.0.0.1:bad", ":%s#@127.0.0.1:9", ":12#%s@127.0.0.1", ":%s/@127.0.0.1"])
@pytest.mark.parametrize("name", ["proxy", "HTTPS_PROXY"])
def test_a_proxy_whose_address_cannot_be_used(
    read: Read, name: str, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "proxy":
        monkeypatch.setenv(name, f"http://user{rest % ENCODED}")
    with pytest.raises(ValueError, match=f"^{name}: not the address of an HTTP proxy.* write %23 for #") as caught:
        read(secure(9, proxy=f"http://user{rest % ENCODED}" if name == "proxy" else None))
    assert shown_in(str(caught.value) + locals_of(caught.value)) == []


def test_a_proxy_that_httpx_refuses() -> None:
    with pytest.raises(ValueError, match="cannot use the proxy") as caught:
        AsyncGraphClient(secure(9, proxy=f"http://user:{ENCODED}@999.1.1.1"))
    assert caught.value.__context__ is None
    assert shown_in(locals_of(caught.value)) == []


@pytest.mark.parametrize("place", ["row", "message", "header", "reason", "trailing"])
def test_a_proof_that_is_repeated(read: Read, place: str, logged: pytest.LogCaptureFixture) -> None:
    proofs: list[bytes] = []

    def act(connection: socket.socket) -> None:
        proof = Credentials(TOKEN, SECRET).secrets_at(time.time())[-2:]
        proofs.extend(text.encode() for text in proof)
        said = b" ".join(proofs)
        connection.sendall({
            "row": answer(b'{"data":[{"id":"1","name":"%b"}]}' % said),
            "message": answer(b'{"error":{"code":100,"message":"%b"}}' % said),
            "header": answer(EMPTY_LIST, b"Facebook-Api-Version: " + said, b"X: " + said),
            "reason": b"HTTP/1.1 400 %b\r\nContent-Length: 2\r\n\r\n{}" % said,
            "trailing": HEAD + b"%b\r\nContent-Length: 2\r\n\r\n{}" % said,
        }[place])  # fmt: skip

    shown = ""
    with server(act) as port:
        try:
            shown = repr(read(config(port)))
        except GraphError as error:
            shown = f"{error} {vars(error)} {pickle.dumps(error)!r} {error.__context__!r} {error.__cause__!r}"
    shown += logged.text
    assert proofs
    assert [proof for proof in proofs if proof.decode() in shown] == []
    assert shown_in(shown) == []


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_answers_before_the_final_one_are_skipped(read: Read, status: int) -> None:
    early = b"HTTP/1.1 %d Early\r\nLink: </x>\r\n\r\n" % status
    with server(saying(early * 3 + answer(EMPTY_LIST))) as port:
        assert len(read(config(port))) == 1
