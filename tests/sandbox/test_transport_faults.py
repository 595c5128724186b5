"""Faults on the connection, byte for byte."""

from __future__ import annotations

import socket
import time

import pytest
from sandbox_http import client, dial, no_thread_is_left, on_the_wire, parted

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.sandbox.server.http_exchange import Answer
from airflow_provider_whatsapp.sandbox.server.response_writer import ResponseWriter


@pytest.mark.parametrize("fault", [Fault.truncated_body(), Fault.reset_mid_reply()])
def test_half_of_the_body(sandbox: GraphSandbox, fault: Fault) -> None:
    sandbox.fail_next(fault)
    received, was_reset = on_the_wire(sandbox)
    headers, body = parted(received)
    assert was_reset is (fault.kind == "reset_mid_reply")
    assert 0 < len(body) <= int(headers["Content-Length"]) // 2
    assert was_reset or len(body) == int(headers["Content-Length"]) // 2
    assert sandbox.requests[0].status is None


def test_cut_chunked(sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.cut_chunked())
    received, was_reset = on_the_wire(sandbox)
    headers, body = parted(received)
    assert not was_reset
    assert headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in headers
    size, _, rest = body.partition(b"\r\n")
    assert rest[int(size, 16) :] == b"\r\n1000\r\n{"


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.closed()])
def test_no_reply(sandbox: GraphSandbox, fault: Fault) -> None:
    sandbox.fail_next(fault)
    assert on_the_wire(sandbox) == (b"", fault.kind == "reset")
    assert sandbox.requests[0].status is None
    assert sandbox.requests[0].params["access_token"] == "***"


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (Fault.slow_reply(7), [7]),
        (Fault.slow_drip(pause=2, drops=5), [2] * 5),
        (Fault.slow_drip(pause=2, drops=None), [2] * len(b'{"a":[]}')),
    ],
)
def test_slow_answers_are_right(fault: Fault, waits: list[float]) -> None:
    waited: list[float] = []
    server_end, client_end = socket.socketpair()
    with server_end, client_end:
        fault.effect(ResponseWriter(Answer(200, {"a": []}), server_end, "", waited.append, False), **fault.options)
        _, body = parted(client_end.recv(65536))
    assert (body, waited) == (b'{"a":[]}', waits)


@pytest.mark.parametrize("fault", [Fault.slow_reply(0.001), Fault.slow_drip(pause=0.001)])
def test_slow_answers_of_a_server(sandbox: GraphSandbox, fault: Fault) -> None:
    expected = client(sandbox).json
    sandbox.fail_next(fault)
    assert client(sandbox).json == expected


@pytest.mark.parametrize("fault", [Fault.slow_reply(600), Fault.slow_drip(600)])
def test_stop_ends_them(fault: Fault) -> None:
    sandbox = GraphSandbox().start()
    sandbox.fail_next(fault)
    with dial(sandbox):
        while not sandbox.requests:
            time.sleep(0.001)
        sandbox.stop()
        assert no_thread_is_left()
