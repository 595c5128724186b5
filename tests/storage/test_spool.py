from __future__ import annotations

from contextlib import closing
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.storage.spool import Spool

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=4)


def test_rows_by_account_in_the_order_in_which_they_came() -> None:
    with closing(Spool()) as spool:
        spool.add("2", [{"id": "a"}, {"id": "b"}])
        spool.add("1", [{"id": "x"}])
        spool.add("2", [])
        spool.add("2", [{"id": "c"}])
        assert [row["id"] for row in spool.rows("2")] == ["a", "b", "c"]
        assert [row["id"] for row in spool.rows("1")] == ["x"]
        assert list(spool.rows("3")) == []
        assert list(spool.rows("12")) == []


def test_the_end_of_an_account() -> None:
    with closing(Spool()) as spool:
        spool.add("1", [{"id": "x"}])
        assert spool.summary("1") is None
        spool.end("1", {"pages": 2})
        assert spool.summary("1") == {"pages": 2}
        assert spool.summary("2") is None
        # Also an account of which there is nothing to remember has ended.
        spool.end("2", {})
        assert spool.summary("2") == {}


def test_one_account_is_forgotten() -> None:
    with closing(Spool()) as spool:
        for waba_id in ("1", "2"):
            spool.add(waba_id, [{"id": waba_id}])
            spool.end(waba_id, {"id": waba_id})
        spool.remove("1")
        spool.remove("3")
        assert (list(spool.rows("1")), spool.summary("1")) == ([], None)
        assert (list(spool.rows("2")), spool.summary("2")) == ([{"id": "2"}], {"id": "2"})
        spool.end("1", {"again": True})
        assert spool.summary("1") == {"again": True}


def test_rows_can_be_added_while_others_are_taken() -> None:
    with closing(Spool()) as spool:
        for _ in range(3):
            spool.add("1", [{"id": "x"}] * 2)
        taken = 0
        for _ in spool.rows("1"):
            taken += 1
            spool.add("2", [{"id": "y"}])
            spool.end(f"of {taken}", {})
        assert taken == 6
        assert len(list(spool.rows("2"))) == 6


def test_each_spool_has_its_own_rows() -> None:
    with closing(Spool()) as one, closing(Spool()) as other:
        one.add("1", [{"id": "x"}])
        assert list(other.rows("1")) == []


def test_rows_that_are_larger_than_memory_should_hold_lie_on_the_disk() -> None:
    with closing(Spool()) as spool:
        for number in range(200):
            spool.add(str(number), [{"text": "x" * 100_000}])
        (pages,) = spool._database.execute("PRAGMA page_count").fetchone()
        (size,) = spool._database.execute("PRAGMA page_size").fetchone()
        (cache,) = spool._database.execute("PRAGMA cache_size").fetchone()
        assert pages * size > 20_000_000
        # A negative number is that of KiB.
        assert abs(cache) * (1024 if cache < 0 else size) < 5_000_000
        assert all(len(row["text"]) == 100_000 for number in range(200) for row in spool.rows(str(number)))


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3"]), ROWS), max_size=8))
def test_rows_come_back_as_they_were(chunks: list[tuple[str, list[dict[str, Any]]]]) -> None:
    with closing(Spool()) as spool:
        expected: dict[str, list[dict[str, Any]]] = {"1": [], "2": [], "3": []}
        for waba_id, rows in chunks:
            spool.add(waba_id, rows)
            expected[waba_id] += rows
        assert {waba_id: list(spool.rows(waba_id)) for waba_id in expected} == expected
