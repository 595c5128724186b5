from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.changes import MAX_IDS, AnyChange, Changes, ChangeTally, Snapshot

# Ids of Meta, and what an id could be besides: with zeros in front, above 2^64, or no number at all.
IDS = st.one_of(
    st.integers(0, 2**64 - 1).map(str),
    st.integers(0, 600).map(str),
    st.sampled_from(["007", str(2**64), "9" * 30, "flow-1", "½", ""]),
)
LISTINGS = st.dictionaries(IDS, st.sampled_from(["a", "b", None, {"c": 1}]), max_size=30)


def snapshot_of(names: dict[str, Any], fields: tuple[str, ...] = ("name",)) -> Snapshot:
    snapshot = Snapshot(fields)
    for id_, name in names.items():
        snapshot.add({"id": id_, "name": name, "other": id(name)})
    return snapshot


def ids_of(changes: Changes) -> tuple[set[str], set[str], set[str]]:
    return set(changes.added.ids), set(changes.removed.ids), set(changes.changed.ids)


@given(LISTINGS, LISTINGS)
def test_every_difference_is_found_and_no_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    stored = Snapshot.from_json(json.loads(json.dumps(snapshot_of(before).to_json())))
    assert len(stored) == len(before)
    changes = stored.changes_to(snapshot_of(after))
    changed = {id_ for id_ in before.keys() & after.keys() if before[id_] != after[id_]}
    assert ids_of(changes) == (after.keys() - before.keys(), before.keys() - after.keys(), changed)
    assert bool(changes) == (before != after)


def test_fields_that_only_one_listing_has_are_not_compared() -> None:
    names = {"1": "a", "2": "b"}
    assert not snapshot_of(names).changes_to(snapshot_of(names, ("name", "other")))
    assert not snapshot_of(names, ()).changes_to(snapshot_of({"1": "x", "2": "y"}, ()))


def test_a_field_that_is_missing_equals_none() -> None:
    missing, empty = Snapshot(["name"]), Snapshot(["name"])
    missing.add({"id": "1"})
    empty.add({"id": "1", "name": None})
    assert not missing.changes_to(empty)


def test_the_order_of_keys_and_fields_does_not_count() -> None:
    one, other = Snapshot(["a", "b"]), Snapshot(["b", "a"])
    one.add({"id": "1", "a": {"x": 1, "y": 2}, "b": 3})
    other.add({"b": 3, "a": {"y": 2, "x": 1}, "id": "1"})
    assert not one.changes_to(other)


def test_at_most_a_thousand_ids_are_named() -> None:
    changes = Snapshot([]).changes_to(snapshot_of(dict.fromkeys(map(str, range(5000))), ()))
    added = changes.to_json()["added"]
    assert (added["count"], len(added["ids"])) == (5000, MAX_IDS)
    assert added["ids"] == sorted(added["ids"], key=int)
    assert changes.to_json()["removed"] == {"count": 0, "ids": []}


def test_an_account_takes_sixteen_characters() -> None:
    names = dict.fromkeys(str(10**16 + number) for number in range(10_000))
    assert len(json.dumps(snapshot_of(names).to_json())) < 16.1 * len(names)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": "%"},
        {"ids": ""},
        {"digests": "AAAA"},
        {"ids": "AAAA", "digests": ""},
        {"ids": 5},
        {"fields": None},
        {"fields": [1, "a"]},
        {"others": None},
        {"others": [1]},
    ],
)
def test_what_is_no_snapshot_is_refused(change: dict[str, Any]) -> None:
    stored = snapshot_of({"1": "a"}).to_json()
    with pytest.raises(ValueError, match="is not the snapshot of a listing"):
        Snapshot.from_json({**stored, **change})
    values: tuple[Any, ...] = (None, [], "text", {})
    for value in values:
        with pytest.raises(ValueError, match="is not the snapshot of a listing"):
            Snapshot.from_json(value)


class TestTally:
    def tally(self, before: Snapshot | None, names: dict[str, Any]) -> ChangeTally:
        tally = AnyChange(before, ("name",)).new_tally()
        for id_, name in names.items():
            assert tally.add({"id": id_, "name": name})
            assert not tally.is_met
        assert tally.needs_whole_listing
        assert tally.count == len(names)
        return tally

    def test_the_first_listing_is_something_new_without_a_change(self) -> None:
        tally = self.tally(None, {"1": "a"})
        assert tally.is_met_at_end()
        assert not tally.changes

    def test_the_same_listing_is_nothing_new(self) -> None:
        same = self.tally(snapshot_of({"1": "a"}), {"1": "a"})
        assert not same.is_met_at_end()
        assert same.reason(listed="shared") == ""

    def test_a_change(self) -> None:
        tally = self.tally(snapshot_of({"1": "a", "2": "b"}), {"2": "c", "3": "a"})
        assert tally.is_met_at_end()
        assert ids_of(tally.changes) == ({"3"}, {"1"}, {"2"})
        assert len(tally.after) == 2

    def test_other_fields_are_remembered_from_the_next_listing_on(self) -> None:
        tally = self.tally(snapshot_of({"1": "a"}, ("currency",)), {"1": "a"})
        assert tally.is_met_at_end()
        assert not tally.changes
