from __future__ import annotations

import os
import shutil
import sys
import tempfile
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
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from servers import Store, open_store  # noqa: E402
from services import CannotStartError  # noqa: E402
from stores_support import Worker, connect  # noqa: E402

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


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    with tempfile.TemporaryDirectory(prefix="airflow-stores-worker-") as folder:
        worker = Worker(Path(folder))
        yield worker
        worker.close()
