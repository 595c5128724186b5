"""Headers, connections, records of requests, start and stop."""

from __future__ import annotations

import ast
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from sandbox_http import CLIENT, address, client, get, send

from airflow_provider_whatsapp.sandbox import GraphSandbox


class TestHeaders:
    def test_of_a_good_answer(self, sandbox: GraphSandbox) -> None:
        headers = client(sandbox).headers
        assert headers["Content-Type"] == "application/json; charset=UTF-8"
        assert headers["facebook-api-version"] == "v26.0"
        assert headers["x-fb-trace-id"]
        assert headers["x-fb-request-id"]

    def test_of_an_error(self, sandbox: GraphSandbox) -> None:
        reply = get(sandbox, f"{sandbox.business_id}/x%0d%0aSet-Cookie:%20a=b")
        assert reply.json["error"]["fbtrace_id"]
        assert reply.headers["WWW-Authenticate"].startswith('OAuth "Facebook Platform" "invalid_token"')
        assert reply.headers["Set-Cookie"] is None

    def test_usage_appears_with_traffic(self, sandbox: GraphSandbox) -> None:
        seen = [get(sandbox, "me").headers["x-app-usage"] for _ in range(8)]
        assert seen[0] is None
        assert json.loads(seen[-1])["call_count"] >= 1
        usage = json.loads(get(sandbox, "me").headers["x-business-use-case-usage"])
        (entry,) = usage[sandbox.business_id]
        assert entry["type"] == "whatsapp_business_management"
        assert entry["estimated_time_to_regain_access"] == 0

    @pytest.mark.parametrize("accepted", ["gzip", "deflate, gzip;q=0.5", "*"])
    def test_gzip(self, sandbox: GraphSandbox, accepted: str) -> None:
        path = f"{sandbox.business_id}/{CLIENT}"
        packed = get(sandbox, path, Accept_Encoding=accepted)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.json == get(sandbox, path).json
        assert get(sandbox, "me", Accept_Encoding=accepted).headers["Content-Encoding"] is None

    def test_no_gzip_unasked(self, sandbox: GraphSandbox) -> None:
        reply = get(sandbox, f"{sandbox.business_id}/{CLIENT}", Accept_Encoding="br, gzip;q=0")
        assert reply.headers["Content-Encoding"] is None

    def test_any_script_survives(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts[:] = [{"id": "1", "name": "ÀÞ 北京 🍕 \"'\n\\ </script> \ud800"}]
        reply = client(sandbox, fields="name")
        assert reply.json["data"][0]["name"] == sandbox.accounts[0]["name"]
        assert b"<\\/script>" in reply.raw


class TestServer:
    def test_keep_alive_and_records(self, sandbox: GraphSandbox) -> None:
        connection = http.client.HTTPConnection(*address(sandbox), timeout=5)
        query = f"access_token={sandbox.token}&appsecret_proof=aa&input_token={sandbox.token}&limit=3"
        for method, path in (
            ("GET", f"/v26.0/{sandbox.token}/x?{query}"),
            ("POST", "/v26.0/me"),
            ("GET", "/me"),
        ):
            connection.request(method, path, "x=1" if method == "POST" else None, {"X-Seen": f"={sandbox.token}"})
            connection.getresponse().read()
        connection.close()
        get(sandbox, "me")
        assert [request.connection for request in sandbox.requests] == [0, 0, 0, 1]
        assert [request.status for request in sandbox.requests] == [400, 400, 400, 200]
        assert sandbox.connections == 2
        first = sandbox.requests[0]
        assert first.path == "/v26.0/***/x"
        assert first.params == {
            "access_token": "***", "appsecret_proof": "***", "input_token": "***", "limit": "3",
        }  # fmt: skip
        assert first.headers["x-seen"] == "=***"
        assert sandbox.requests[3].headers["authorization"] == "Bearer ***"
        assert sandbox.token not in repr(sandbox.requests)
        sandbox.reset()
        assert sandbox.requests == []

    def test_strange_tokens_are_masked_too(self, sandbox: GraphSandbox) -> None:
        get(sandbox, "me", Authorization="Bearer something-else-entirely", X_Copy="something-else-entirely")
        assert "something-else" not in repr(sandbox.requests)

    def test_stop_with_idle_connections(self) -> None:
        before = threading.active_count()
        sandbox = GraphSandbox().start()
        idle = [socket.create_connection(address(sandbox)) for _ in range(20)]
        get(sandbox, "me")
        url = sandbox.url
        sandbox.stop()
        # A connection that stop() had to give up on would still have its thread.
        assert threading.active_count() == before
        assert sandbox.url == url
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address(sandbox))
        for connection in idle:
            connection.close()
        sandbox.stop()
        with sandbox:
            assert get(sandbox, "me").status == 200
            assert sandbox.requests[-1].connection == 21
            assert sandbox.connections == 22

    def test_stop_ends_slow_answers(self) -> None:
        before = threading.active_count()
        sandbox = GraphSandbox(latency=600).start()
        with socket.create_connection(address(sandbox)) as wire:
            wire.sendall(b"GET /me HTTP/1.1\r\nHost: x\r\n\r\n")
            while not sandbox.connections:
                time.sleep(0.001)
            sandbox.stop()
            assert threading.active_count() == before

    def test_started_once(self, sandbox: GraphSandbox) -> None:
        with pytest.raises(RuntimeError, match="already"):
            sandbox.start()
        with pytest.raises(RuntimeError, match="not started"):
            _ = GraphSandbox().url

    def test_latency_does_not_add_up(self) -> None:
        with GraphSandbox(latency=0.2) as sandbox:
            begun = time.perf_counter()
            threads = [threading.Thread(target=get, args=(sandbox, "me")) for _ in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # One after the other they would take 20 seconds.
            assert 0.2 <= time.perf_counter() - begun < 15
            assert len(sandbox.requests) == 100

    def test_many_clients_at_once(self, sandbox: GraphSandbox) -> None:
        wires = [socket.create_connection(address(sandbox)) for _ in range(300)]
        for wire in wires:
            wire.sendall(f"GET /me?access_token={sandbox.token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert all(wire.recv(12) == b"HTTP/1.1 200" for wire in wires)
        for wire in wires:
            wire.close()
        assert sandbox.connections == 300

    def test_reached_as_a_proxy(self, sandbox: GraphSandbox) -> None:
        path = f"http://graph.facebook.example/v26.0/me?access_token={sandbox.token}"
        assert send(sandbox, path).status == 200
        assert sandbox.requests[0].path == "/v26.0/me"

    def test_connection_json(self, sandbox: GraphSandbox) -> None:
        assert json.loads(sandbox.connection) == {
            "conn_type": "whatsapp",
            "host": sandbox.url,
            "password": sandbox.token,
            "extra": {"business_id": sandbox.business_id, "api_version": "v26.0"},
        }
        with GraphSandbox(app_secret="s") as other:
            assert json.loads(other.connection)["extra"]["app_secret"] == "s"

    def test_needs_only_the_standard_library(self) -> None:
        code = (
            "import sys, airflow_provider_whatsapp.sandbox as s;"
            "own = s.__name__.split('.')[0];"
            "print([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names | {own}"
            " or m.startswith(own + '.') and not m.startswith(s.__name__)])"
        )
        run = subprocess.run(
            [sys.executable, "-S", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": os.getcwd()},
        )
        # The clock, which the sandbox shares with the clients, needs nothing else either.
        clock = {"airflow_provider_whatsapp.transport", "airflow_provider_whatsapp.transport.clock"}
        assert set(ast.literal_eval(run.stdout)) - {"__main__"} == clock
