"""``python -m airflow_provider_whatsapp.sandbox``."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from sandbox_http import SECONDS_TO_HANG

from airflow_provider_whatsapp.sandbox import main

COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_whatsapp.sandbox"]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The running command, and the connection that it prints."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *arguments], stdout=pipe, stderr=pipe, text=True) as served:
        assert served.stdout
        try:
            lines = [served.stdout.readline() for _ in range(3)]
            match = re.fullmatch("export AIRFLOW_CONN_WHATSAPP_DEFAULT='(.*)'\n", lines[2])
            assert match
            connection = json.loads(match[1])
            assert connection["host"] in lines[0]
            assert connection["extra"]["business_id"] in lines[1]
            yield served, connection
        finally:
            served.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command(number: signal.Signals) -> None:
    with serving("--accounts", "7", "--port", "0") as (served, connection):
        parts = urlsplit(connection["host"])
        with socket.create_connection((parts.hostname, parts.port)):
            served.send_signal(number)
            assert served.wait(SECONDS_TO_HANG) == 0
        assert served.stderr
        assert served.stderr.read() == ""


def test_connection_survives_a_restart() -> None:
    port = str(free_port())
    with serving("--port", port) as (_, before):
        assert before["host"] == f"http://127.0.0.1:{port}"
    with serving("--port", port) as (_, after):
        assert after == before


def test_default_port(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "(default: 8099)" in " ".join(capsys.readouterr().out.split())


def refusal(*arguments: str) -> str:
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=SECONDS_TO_HANG)
    assert (run.returncode, run.stdout) == (2, "")
    assert "Traceback" not in run.stderr
    return run.stderr


def test_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refusal("--port", str(port))
    assert f"argument --port: cannot listen on port {port}" in message
    assert "0 for a free one" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "argument --port"),
        (["--businesses", "0"], "businesses must be at least 1"),
        (["--calls-per-hour", "0"], "calls_per_hour must be"),
        (["--calls-per-hour", "5", "--hour", "0"], "hour must be"),
        (["--hour", "soon"], "argument --hour: invalid seconds value: 'soon'"),
        (["--fault", "throtle"], "argument --fault: 'throtle' is not a fault (throtle is unknown); try for example"),
        (["--fault", "throttle(hours=1)"], "unexpected keyword argument 'hours'"),
        (["--fault", "throttle().times(0)"], "times() needs a number of requests of at least 1"),
        (["--fault", "throttle().__init__()"], "is unknown"),
        (["--fault", "throttle(minutes=print(1))"], "is not a fault"),
        (["--fault", "throttle("], "is not a fault"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    assert message in refusal(*arguments)


def answers(connection: dict[str, Any], *paths: str) -> list[bytes]:
    parts = urlsplit(connection["host"])
    found = []
    for path in paths:
        with socket.create_connection((parts.hostname, parts.port), timeout=SECONDS_TO_HANG) as wire:
            wire.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            found.append(b"".join(iter(lambda: wire.recv(65536), b"")))
    return found


def test_quota() -> None:
    with serving("--port", "0", "--calls-per-hour", "1", "--hour", "600") as (_, connection):
        first, second = answers(connection, "x", "x")
        assert b"(#80008)" not in first
        assert b"(#80008)" in second


def test_faults() -> None:
    faults = ["--fault", "throttle(4, minutes=None).on('7').after(1).times(2)", "--fault", "blocked"]
    with serving("--port", "0", *faults) as (_, connection):
        blocked, passed, *throttled, over = answers(connection, "5", "7", "7", "7", "7")
        assert b"(#368)" in blocked
        assert all(b"(#4)" in answer for answer in throttled)
        assert all(b'"code":4' not in answer and b"(#368)" not in answer for answer in (passed, over))
