from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.seen import SeenIds

IDS = st.integers(0, 300).map(str) | st.sampled_from(
    ["", "0", "00", "01", "1", "+1", " 1", "1_0", "-1", "\u0661", "\u00b2", "x", str(2**64 - 1), str(2**64), "9" * 5000]
)


@given(st.lists(st.lists(IDS, max_size=20), max_size=20))
def test_an_id_is_new_once(pages: list[list[str]]) -> None:
    seen, expected = SeenIds(), set()
    for ids in pages:
        for id_, is_new in zip(ids, seen.add_all(ids), strict=True):
            assert is_new == (id_ not in expected)
            expected.add(id_)


def test_many_ids() -> None:
    seen = SeenIds()
    ids = [str(number * 7919) for number in range(1, 50_001)]
    for start in range(0, 50_000, 100):
        assert all(seen.add_all(ids[start : start + 100]))
    assert not any(seen.add_all(ids))
    assert seen.add(str(50_001 * 7919))


@pytest.mark.parametrize("step", [1, 16, 1024, 16381, 2**20, 2**32])
def test_the_cost_of_an_id_does_not_depend_on_the_ids(step: int) -> None:
    # With a place that follows from the number alone, all multiples of the number of places share one.
    seen = SeenIds()
    seen.add_all([str(number) for number in range(step, step * 20_001, step)])
    places = seen._places
    assert max(map(len, bytes(map(bool, places)).split(b"\0"))) < 200


def test_ids_take_little_memory() -> None:
    seen = SeenIds()
    for number in range(100_000):
        seen.add(str(10**16 + number))
    assert sys.getsizeof(seen._places) < 64 * 100_000
