from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.usage import Usage, parse_retry_after

APP = {"x-app-usage": '{"call_count":28,"total_time":25,"total_cputime":31}'}


def business(*entries: dict[str, object]) -> dict[str, str]:
    return {"x-business-use-case-usage": json.dumps({"102290129340398": list(entries)})}


def test_the_largest_share_counts() -> None:
    assert Usage.from_headers(APP) == Usage(31)
    both = {**APP, **business({"call_count": 5}, {"call_count": 1, "total_time": 140})}
    assert Usage.from_headers(both) == Usage(140)


def test_regain_access_is_in_minutes_and_the_longest_counts() -> None:
    headers = business(
        {"call_count": 100, "estimated_time_to_regain_access": 3},
        {"call_count": 1, "estimated_time_to_regain_access": 20},
    )
    assert Usage.from_headers(headers) == Usage(100, timedelta(minutes=20))
    assert parse_retry_after(headers) == timedelta(minutes=20)


def test_a_wait_counts_without_a_share() -> None:
    headers = business({"type": "whatsapp", "estimated_time_to_regain_access": 5})
    assert Usage.from_headers(headers) is None
    assert parse_retry_after(headers) == timedelta(minutes=5)


def test_no_time_named_is_none() -> None:
    assert parse_retry_after(business({"call_count": 100, "estimated_time_to_regain_access": 0})) is None
    assert parse_retry_after(APP) is None
    assert parse_retry_after({}) is None


@pytest.mark.parametrize(
    "value",
    [
        "", "{", "[]", "1", "null", '{"1": 5}', '{"1": [5]}', '{"call_count": "much"}', '{"call_count": true}',
        '{"call_count": NaN}', '{"call_count": -1}', "[" * 100000, '{"call_count": 1e999}', '{"call_count": ' + "9" * 400 + "}",
    ],
)  # fmt: skip
def test_malformed_headers_are_none(value: str) -> None:
    assert Usage.from_headers({"x-app-usage": value}) is None
    assert Usage.from_headers({"x-business-use-case-usage": value}) is None


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, timedelta(seconds=7)),
        ({"retry-after": " 7 "}, timedelta(seconds=7)),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "7.5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "999999999"}, timedelta(days=2)),
        ({"retry-after": "9999999999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, None),
        (
            {"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"},
            timedelta(seconds=30),
        ),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 -0000"}, None),
    ],
)
def test_the_retry_after_header(headers: dict[str, str], wait: timedelta | None) -> None:
    assert parse_retry_after(headers) == wait


def test_the_longer_of_two_named_waits_counts() -> None:
    headers = {"retry-after": "90", **business({"call_count": 100, "estimated_time_to_regain_access": 1})}
    assert parse_retry_after(headers) == timedelta(seconds=90)


@given(st.dictionaries(st.sampled_from(["x-app-usage", "x-business-use-case-usage", "retry-after", "date"]), st.text()))
def test_headers_never_raise(headers: dict[str, str]) -> None:
    Usage.from_headers(headers)
    wait = parse_retry_after(headers)
    assert wait is None or timedelta() < wait <= timedelta(days=2)


def test_limits_are_distinguished() -> None:
    both = {
        **APP,
        "x-business-use-case-usage": json.dumps(
            {
                "1": [{"call_count": 5}, {"call_count": 90, "estimated_time_to_regain_access": 2}],
                "2": [{"call_count": 40, "estimated_time_to_regain_access": 9}],
                "3": [{"type": "whatsapp"}],
                "4": "odd",
            }
        ),
    }
    usage = Usage.from_headers(both)
    assert usage == Usage(90, timedelta(minutes=9))
    assert usage.shared == Usage(31)
    assert usage.by_node == {"1": Usage(90, timedelta(minutes=2)), "2": Usage(40, timedelta(minutes=9))}
    # What counts for one node only does not count for another one, and what counts for all does.
    assert usage.beyond("1") == Usage(40, timedelta(minutes=9))
    assert usage.beyond("2") == usage.beyond("5") == Usage(90, timedelta(minutes=2))


def test_beyond_the_node_itself() -> None:
    alone = Usage.from_headers(business({"call_count": 90}))
    assert alone is not None
    assert (alone.shared, alone.beyond("102290129340398"), alone.beyond("1")) == (None, None, Usage(90))
    of_app = Usage.from_headers(APP)
    assert of_app is not None
    assert (of_app.by_node, of_app.beyond("1")) == ({}, Usage(31))
    both = Usage.from_headers({**APP, **business({"call_count": 90})})
    assert both is not None
    assert both.beyond("102290129340398") == Usage(31)


def test_the_parts_of_a_usage_are_neither_compared_nor_shown() -> None:
    usage = Usage.from_headers({**APP, **business({"call_count": 90})})
    assert usage == Usage(90)
    assert repr(usage) == repr(Usage(90.0))
