from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listings import LISTINGS, OPERATORS, Listing

from airflow_provider_whatsapp.sandbox import SkippedWaits, no_waits


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
