from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airflow_provider_whatsapp.graph.versions import DEFAULT_VERSION, last_day_of, parse_version


def test_versions() -> None:
    assert parse_version(None) == parse_version("") == DEFAULT_VERSION == "v26.0"
    assert parse_version(" v25.0 ") == "v25.0"


@pytest.mark.parametrize("value", ["26.0", "v26", "v26.1", "v0.0", "V26.0", "v26.0/x", "latest", 26, "v1234.0"])
def test_anything_else_is_no_version(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^api_version: .* a right one looks like 'v26\.0'"):
        parse_version(value)


def test_the_end_of_a_version() -> None:
    assert last_day_of("v20.0") == date(2026, 9, 24)
    assert last_day_of(DEFAULT_VERSION) is None
