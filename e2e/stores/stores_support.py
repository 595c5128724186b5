"""What the tests of stores share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from servers import STORES

from airflow_provider_whatsapp.storage.target import StoredObject, Target

_connections = 0


def connect(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any]) -> str:
    """The id of a new Airflow connection. Airflow opens each store once for each id."""
    global _connections
    _connections += 1
    conn_id = f"lake_{_connections}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    return conn_id


def write_object(target: Target, rows: list[dict[str, Any]], *, owner: str = "", replace: bool = True) -> StoredObject:
    """Stage and publish an object with the columns ``id`` and ``name``."""
    with target.stage(rows, ["id", "name"]) as staged:
        staged.publish(owner=owner, replace=replace)
        return staged.stored


class Worker:
    """Processes that write objects, one after the other."""

    def __init__(self, folder: Path) -> None:
        #: Temporary folder of the processes.
        self.folder = folder
        self.pid = 0
        self.has_started = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )

    def run(self, **job: Any) -> dict[str, Any]:
        """What a process printed that did the job, and ``exit``.

        :param job: what ``worker.py`` takes
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.has_started.clear()
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        printed: dict[str, Any] = {}
        while "exit" not in printed:
            line = self._process.stdout.readline()
            assert line, "the worker died"
            if line.startswith("{"):
                printed.update(json.loads(line))
            if "pid" in printed and not self.has_started.is_set():
                self.pid = printed["pid"]
                self.has_started.set()
        return printed

    def close(self) -> None:
        """End the processes."""
        self._process.kill()
        self._process.communicate()


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test on these stores."""
    return pytest.mark.parametrize("store", names or list(STORES), indirect=True)
