from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTransportError,
)
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT, Patience
from airflow_provider_whatsapp.graph.usage import Usage

PATIENCE = Patience(attempts=4, first_delay=1, max_delay=3, longest_named_wait=60, budget=100)


def delay(error: GraphError, attempt: int = 1, waited: float = 0, chance: float = 1) -> float | None:
    return PATIENCE.delay(error, attempt=attempt, waited=waited, chance=chance)


def throttled(seconds: float | None) -> GraphRateLimitError:
    return GraphRateLimitError("x", retry_after=None if seconds is None else timedelta(seconds=seconds))


def test_the_wait_doubles_up_to_its_cap() -> None:
    assert [delay(GraphTransportError("x"), attempt) for attempt in (1, 2, 3)] == [1, 2, 3]
    assert delay(GraphServerError("x"), 2, chance=0.25) == 0.5


def test_attempts_are_counted() -> None:
    assert delay(GraphTransportError("x"), 3) is not None
    assert delay(GraphTransportError("x"), 4) is None


@pytest.mark.parametrize(
    "error", [GraphRequestError("x"), GraphProtocolError("x"), GraphServerError("x", retryable=False)]
)
def test_what_a_retry_cannot_mend_is_not_retried(error: GraphError) -> None:
    assert delay(error) is None


def test_a_throttle_is_waited_out_when_it_is_short() -> None:
    assert delay(throttled(60), chance=0) == 60
    assert delay(throttled(60), chance=0.5) == 60.5
    assert delay(throttled(61)) is None
    assert delay(throttled(None)) is None


def test_the_named_wait_counts_for_server_errors_too() -> None:
    assert delay(GraphServerError("x", retry_after=timedelta(seconds=5)), chance=0) == 5
    assert delay(GraphServerError("x", retry_after=timedelta(seconds=61))) is None


def test_the_budget_ends_it() -> None:
    assert delay(GraphTransportError("x"), waited=99) == 1
    assert delay(GraphTransportError("x"), waited=99.1) is None
    assert delay(throttled(60), waited=41, chance=0) is None


@given(
    st.builds(throttled, st.none() | st.floats(0, 1000)) | st.just(GraphTransportError("x")),
    st.integers(1, 2000),
    st.floats(0, 1000),
    st.floats(0, 1),
)
def test_a_delay_is_never_shorter_than_asked_nor_longer_than_allowed(
    error: GraphError, attempt: int, waited: float, chance: float
) -> None:
    seconds = Patience(attempts=3000).delay(error, attempt=attempt, waited=waited, chance=chance)
    if seconds is not None:
        named = getattr(error, "retry_after", None) or timedelta()
        assert named.total_seconds() <= seconds <= named.total_seconds() + 30
        assert waited + seconds <= 600


@pytest.mark.parametrize(
    ("percent", "named", "waited", "pause"),
    [
        (94.9, 10, 0, 0),
        (95, 10, 0, 10),
        (120, 100, 0, 100),
        (95, 101, 0, 100),
        (95, None, 0, 100),
        (95, 50, 60, 40),
        (95, 50, 100, 0),
        (95, 50, 110, 0),
    ],
)
def test_a_pause_ends_with_the_budget(percent: float, named: float | None, waited: float, pause: float) -> None:
    usage = Usage(percent, None if named is None else timedelta(seconds=named))
    assert PATIENCE.pause(usage, waited=waited) == pause


def test_a_long_pause_can_be_an_error() -> None:
    patience = Patience(longest_named_wait=60, budget=100, raises_when_used_up=True)
    assert patience.pause(Usage(94), waited=0) == 0
    for named, wait in ((timedelta(seconds=61), 61), (None, UNNAMED_WAIT)):
        with pytest.raises(GraphRateLimitError, match="^95 % of the rate limit is used") as caught:
            patience.pause(Usage(95, named), waited=0)
        assert caught.value.retry_after == timedelta(seconds=wait)
    # A wait is too long as well when the time for all waits is used.
    assert patience.pause(Usage(95, timedelta(seconds=60)), waited=40) == 60
    with pytest.raises(GraphRateLimitError):
        patience.pause(Usage(95, timedelta(seconds=60)), waited=41)


def test_a_throttle_without_a_named_time_can_be_waited_out() -> None:
    patience = Patience(longest_named_wait=300, budget=600, unnamed_wait=UNNAMED_WAIT)
    assert patience.delay(throttled(None), attempt=1, waited=0, chance=0.5) == UNNAMED_WAIT + 0.5
    # A time that the API names goes before it.
    assert patience.delay(throttled(7), attempt=1, waited=0, chance=0) == 7
    assert patience.delay(throttled(None), attempt=1, waited=301, chance=0) is None
    shorter = Patience(longest_named_wait=299, budget=600, unnamed_wait=UNNAMED_WAIT)
    assert shorter.delay(throttled(None), attempt=1, waited=0, chance=0) is None


def test_only_a_throttle_waits_so_long_by_itself() -> None:
    patience = Patience(unnamed_wait=UNNAMED_WAIT, longest_named_wait=300)
    assert patience.delay(GraphServerError("x"), attempt=1, waited=0, chance=1) == 1
    assert patience.delay(GraphTransportError("x"), attempt=1, waited=0, chance=1) == 1


def test_without_a_bound_every_named_wait_is_waited() -> None:
    patience = Patience(longest_named_wait=math.inf, budget=math.inf, unnamed_wait=UNNAMED_WAIT, max_usage=math.inf)
    assert patience.delay(throttled(172_800), attempt=5, waited=1e9, chance=0) == 172_800
    assert patience.delay(throttled(1), attempt=6, waited=0, chance=0) is None
    assert patience.pause(Usage(1e300, timedelta(days=2)), waited=0) == 0
