from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

# Airflow reads its settings when it is first imported, so they are set before any other import.
_HOME = tempfile.mkdtemp(prefix="airflow-stores-home-")
for _name in [name for name in os.environ if name.upper().startswith(("AIRFLOW_", "AWS_", "GOOGLE_", "AZURE_"))]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    # Without these, the libraries look for credentials on a network that is not there.
    AWS_EC2_METADATA_DISABLED="true",
    NO_GCE_CHECK="true",
)
sys.path.insert(0, str(Path(__file__).parent))

from servers import STORES, CannotStartError, Store, open_store  # noqa: E402

_COLUMNS = ("success", "overwriting", "failures", "kills", "left behind", "content type", "memory")
_results: dict[str, dict[str, str]] = {}


def pytest_configure(config: pytest.Config) -> None:
    # The libraries of the stores leave sockets to the garbage collector.
    for warning in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{warning}")


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was found as a table of stores and aspects."""
    if _results:
        terminalreporter.write_line("")
        terminalreporter.write_line(f"| store | {' | '.join(_COLUMNS)} |")
        terminalreporter.write_line("|---" * (len(_COLUMNS) + 1) + "|")
        for store, cells in _results.items():
            terminalreporter.write_line(f"| {store} | {' | '.join(cells.get(name, '-') for name in _COLUMNS)} |")


@pytest.fixture(scope="session")
def _stores() -> Iterator[Callable[[str], Store]]:
    with ExitStack() as stack:
        started: dict[str, Store] = {}

        def start(name: str) -> Store:
            if name not in started:
                try:
                    started[name] = open_store(name, stack)
                except CannotStartError as error:
                    pytest.skip(f"{name}: {error}")
            return started[name]

        yield start


@pytest.fixture
def store(request: pytest.FixtureRequest, _stores: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that works, reached over a connection of its own id. Tests choose it with ``on``."""
    store = _stores(request.param)
    if store.proxy is not None:
        store.proxy.heal()
    store.conn_id = connect(monkeypatch, store.connection)
    return store


_connections = 0


def connect(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any]) -> str:
    """The id of a new Airflow connection. Airflow opens each store once for each id."""
    global _connections
    _connections += 1
    conn_id = f"lake_{_connections}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    return conn_id


@pytest.fixture
def result(request: pytest.FixtureRequest, store: Store) -> Callable[[str, str], None]:
    """Notes a cell of the table."""

    def note(column: str, text: str) -> None:
        assert column in _COLUMNS
        _results.setdefault(store.name, {})[column] = text

    return note


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the libraries of Google and Azure try again at once. They would wait for up to a minute."""
    from types import SimpleNamespace

    import gcsfs.retry
    import s3fs
    from azure.storage.blob._shared import policies_async

    async def at_once(*args: object) -> None:
        pass

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    monkeypatch.setattr(gcsfs.retry, "asyncio", SimpleNamespace(sleep=at_once))
    monkeypatch.setattr(policies_async.AsyncStorageRetryPolicy, "sleep", at_once)


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


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    with tempfile.TemporaryDirectory(prefix="airflow-stores-worker-") as folder:
        worker = Worker(Path(folder))
        yield worker
        worker.close()


def on(*names: str) -> Any:
    """Run a test on these stores."""
    return pytest.mark.parametrize("store", names or list(STORES), indirect=True)
