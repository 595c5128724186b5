from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_whatsapp.graph.versions import (
    DEFAULT_VERSION,
    describe_version_problem,
    has_ended,
    is_known,
    last_day_of,
    parse_version,
)


def test_versions() -> None:
    assert parse_version(None) == parse_version("") == DEFAULT_VERSION == "v26.0"
    assert parse_version(" v25.0 ") == "v25.0"


@pytest.mark.parametrize("value", ["26.0", "v26", "v26.1", "v0.0", "V26.0", "v26.0/x", "latest", 26, "v1234.0"])
def test_anything_else_is_no_version(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^api_version: .* for example 'v26\.0'"):
        parse_version(value)


def test_the_default_lasts_for_another_90_days() -> None:
    last_day = last_day_of(DEFAULT_VERSION)
    assert last_day is not None
    assert last_day - date.today() > timedelta(days=90), "choose a newer DEFAULT_VERSION, and run the checks with it"


def test_the_end_of_a_version() -> None:
    assert last_day_of("v20.0") == date(2026, 9, 24)
    assert last_day_of("v27.0") is None


@pytest.mark.parametrize(
    ("version", "known"), [("v1.0", True), ("v17.0", True), ("v18.0", True), ("v27.0", True), ("v28.0", False)]
)
def test_the_versions_that_are_known(version: str, known: bool) -> None:
    assert is_known(version) is known


@pytest.mark.parametrize(
    ("version", "ended"),
    [("v9.0", True), ("v17.0", True), ("v20.0", True), ("v21.0", False), ("v26.0", False), ("v27.0", False), ("v28.0", False)],
)  # fmt: skip
def test_the_versions_that_have_ended(version: str, ended: bool) -> None:
    assert has_ended(version, date(2026, 11, 24)) is ended


def test_on_its_last_day_a_version_counts_as_ended() -> None:
    assert not has_ended("v21.0", date(2027, 1, 20))
    assert has_ended("v21.0", date(2027, 1, 21))


@pytest.mark.parametrize(
    ("asked", "answered", "problem"),
    [
        ("v26.0", "v26.0", ""),
        ("v26.0", "", ""),
        ("v26.0", "<script>", ""),
        ("v20.0", "", "Graph API v20.0 ended on 2026-09-24: set a newer api_version in the connection."),
        ("v20.0", "v21.0", "Graph API v20.0 ended on 2026-09-24, and v21.0 answered: set a newer api_version in the connection."),
        ("v10.0", "v21.0", "Graph API v10.0 ended, and v21.0 answered: set a newer api_version in the connection."),
        ("v28.0", "v27.0", "Graph API v28.0 was requested, but v27.0 answered: set api_version in the connection to that."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_version(asked: str, answered: str, problem: str) -> None:
    now = datetime(2026, 11, 24, tzinfo=timezone.utc).timestamp()
    assert describe_version_problem(asked, answered, now=now) == problem
