"""Faults on the connection, byte for byte."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from sandbox_http import address, client, get, on_the_wire, parted

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox


class TestConnectionFaults:
    def test_truncated_body(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.truncated_body())
        received, was_reset = on_the_wire(sandbox)
        headers, body = parted(received)
        assert not was_reset
        assert len(body) == int(headers["Content-Length"]) // 2
        assert sandbox.requests[0].status is None

    def test_cut_chunked(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.cut_chunked())
        received, was_reset = on_the_wire(sandbox)
        headers, body = parted(received)
        assert not was_reset
        assert headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in headers
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length:] == b"\r\n1000\r\n{"

    @pytest.mark.parametrize("fault", [Fault.reset(), Fault.closed()])
    def test_no_reply(self, sandbox: GraphSandbox, fault: Fault) -> None:
        sandbox.fail_next(fault)
        assert on_the_wire(sandbox) == (b"", fault.kind == "reset")
        assert sandbox.requests[0].status is None
        assert sandbox.requests[0].params["access_token"] == "***"

    def test_reset_mid_reply(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.reset_mid_reply())
        received, was_reset = on_the_wire(sandbox)
        headers, body = parted(received)
        assert was_reset
        assert 0 < len(body) < int(headers["Content-Length"])

    def test_slow_reply(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.slow_reply(0.15))
        begun = time.perf_counter()
        assert client(sandbox).status == 200
        assert time.perf_counter() - begun >= 0.15

    def test_slow_drip(self, sandbox: GraphSandbox) -> None:
        expected = client(sandbox).json
        sandbox.fail_next(Fault.slow_drip(pause=0.01, drops=5), Fault.slow_drip(pause=0.0001, drops=None))
        begun = time.perf_counter()
        assert client(sandbox).json == expected
        assert time.perf_counter() - begun >= 0.05
        assert get(sandbox, "me").json

    @pytest.mark.parametrize("fault", [Fault.slow_reply(600), Fault.slow_drip(600)])
    def test_stop_ends_them(self, fault: Fault) -> None:
        before = threading.active_count()
        sandbox = GraphSandbox().start()
        sandbox.fail_next(fault)
        with socket.create_connection(address(sandbox)) as wire:
            wire.sendall(f"GET /me?access_token={sandbox.token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            while not sandbox.requests:
                time.sleep(0.001)
            sandbox.stop()
            # A connection that stop() had to give up on would still have its thread.
            assert threading.active_count() == before
