"""Headers, connections, records of requests, start and stop."""

from __future__ import annotations

import ast
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sandbox_http import CLIENT, SECONDS_TO_HANG, address, client, dial, get, no_thread_is_left, send

import airflow_provider_whatsapp.sandbox as sandbox_package
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
        connection = http.client.HTTPConnection(*address(sandbox), timeout=SECONDS_TO_HANG)
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
        sandbox = GraphSandbox().start()
        idle = [socket.create_connection(address(sandbox)) for _ in range(20)]
        get(sandbox, "me")
        url = sandbox.url
        sandbox.stop()
        assert no_thread_is_left()
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
        sandbox = GraphSandbox(latency=600).start()
        with dial(sandbox):
            while not sandbox.connections:
                time.sleep(0.001)
            sandbox.stop()
            assert no_thread_is_left()

    def test_started_once(self, sandbox: GraphSandbox) -> None:
        with pytest.raises(RuntimeError, match="already"):
            sandbox.start()
        with pytest.raises(RuntimeError, match="not started"):
            _ = GraphSandbox().url

    def test_latency_does_not_add_up(self, sandbox: GraphSandbox) -> None:
        together = threading.Barrier(50)

        class Latency(float):
            """A latency that lasts until so many requests wait for it at the same time."""

            def __gt__(self, other: float) -> bool:
                together.wait(SECONDS_TO_HANG)
                return False

        sandbox.latency = Latency()
        wires = [dial(sandbox, "me") for _ in range(50)]
        assert all(wire.recv(12) == b"HTTP/1.1 200" for wire in wires)
        for wire in wires:
            wire.close()
        assert sandbox.connections == len(sandbox.requests) == 50

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
            "print([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names])"
        )
        command = [sys.executable, "-S", "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": os.getcwd()})
        own = "airflow_provider_whatsapp"
        # The clock, which the sandbox shares with the clients, needs nothing else either.
        allowed = {"__main__", own, f"{own}.transport", f"{own}.transport.clock"}
        assert not [name for name in set(ast.literal_eval(run.stdout)) - allowed if f"{own}.sandbox" not in name]

    def test_the_world_knows_nothing_of_the_server(self) -> None:
        files = list(Path(sandbox_package.__file__).with_name("world").glob("*.py"))
        assert files
        assert not [path for path in files if re.search(r"from \.\.", path.read_text())]
