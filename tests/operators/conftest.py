from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from listings import LISTINGS, OPERATORS, Listing
from numbered_accounts import give_numbers

from airflow_provider_whatsapp.sandbox import GraphSandbox, SkippedWaits, no_waits


def name_of(listing: type[Listing]) -> str:
    return str(listing.kind.__name__)


@pytest.fixture(params=LISTINGS, ids=name_of)
def listing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listing]:
    """Each operator and sensor."""
    with request.param.open(monkeypatch) as listing:
        yield listing


@pytest.fixture(params=OPERATORS, ids=name_of)
def operator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listing]:
    """Each operator."""
    with request.param.open(monkeypatch) as listing:
        yield listing


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[GraphSandbox]]:
    """Runs a sandbox whose accounts have phone numbers. The sixth has two pages of them, and every fourth has none."""

    @contextmanager
    def serve(**options: Any) -> Iterator[GraphSandbox]:
        with GraphSandbox(**options) as sandbox:
            give_numbers(sandbox)
            monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
            yield sandbox

    return serve


@pytest.fixture
def numbered(serve: Callable[..., AbstractContextManager[GraphSandbox]]) -> Iterator[GraphSandbox]:
    """A sandbox with twenty such accounts."""
    with serve(accounts=20) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def skipped() -> Iterator[SkippedWaits]:
    with no_waits() as skipped:
        yield skipped


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "lake" / "rows.ndjson"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the operators, the sensor and the package log."""
    for each in LISTINGS:
        monkeypatch.setattr(each.kind, "log", logging.getLogger("task"))
    for name in ("task", "airflow_provider_whatsapp"):
        caplog.set_level(logging.INFO, logger=name)
    return caplog


@pytest.fixture
def after_the_last_row(log: pytest.LogCaptureFixture) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Has something done once, when a listing has come to its end and before its object is published."""
    actions: list[Callable[[], object]] = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if actions and record.getMessage().startswith("Listed "):
                actions.pop()()

    watch = Watch()
    logging.getLogger().addHandler(watch)
    yield actions.append
    logging.getLogger().removeHandler(watch)
