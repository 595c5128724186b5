"""The kept rows of a listing are those of one process and of those that went on with its work."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_whatsapp.resume.files import CheckpointFiles, RowsLostError
from airflow_provider_whatsapp.storage.local import LocalStore

Open = Callable[[], CheckpointFiles]


@pytest.fixture
def open_parts(tmp_path: Path) -> Iterator[Open]:
    """Gives the parts of a listing as another process finds them."""
    opened = []

    def open_parts() -> CheckpointFiles:
        opened.append(CheckpointFiles(LocalStore(LocalFileSystem()), str(tmp_path / "wabas.ndjson"), owner="a"))
        opened[-1].find()
        return opened[-1]

    yield open_parts
    for parts in opened:
        parts.close()


def keep(parts: CheckpointFiles, *ids: str) -> None:
    parts.add([{"id": id_} for id_ in ids])
    parts.keep({"ids": ids})


def ids_of(parts: CheckpointFiles) -> list[Any]:
    return [row["id"] for row in parts.rows()]


def test_another_process_resumes(open_parts: Open) -> None:
    keep(open_parts(), "1", "2")
    second = open_parts()
    keep(second)
    keep(second, "3")
    third = open_parts()
    assert third.state is not None
    assert third.state["ids"] == ["3"]
    assert ids_of(third) == ["1", "2", "3"]


def test_forgotten_rows_stay_until_the_first_new_ones(open_parts: Open) -> None:
    keep(open_parts(), "1")
    second = open_parts()
    second.forget()
    assert second.state is None
    assert ids_of(open_parts()) == ["1"]
    keep(second, "2")
    assert ids_of(open_parts()) == ["2"]


def test_a_process_that_was_taken_for_dead_keeps_writing(open_parts: Open) -> None:
    first = open_parts()
    keep(first, "1")
    second = open_parts()
    second.forget()
    keep(second, "9")
    keep(first, "2")
    with pytest.raises(RowsLostError, match="part 2 in .* does not follow"):
        ids_of(open_parts())


def test_a_process_that_was_taken_for_dead_replaces_the_last_part(open_parts: Open) -> None:
    first = open_parts()
    keep(first, "1")
    second = open_parts()
    keep(second, "2")
    third = open_parts()
    keep(first, "8")
    with pytest.raises(RowsLostError, match="was replaced"):
        ids_of(third)


def test_the_rows_are_not_held_in_memory(open_parts: Open) -> None:
    first = open_parts()
    for _ in range(20):
        first.add([{"id": str(number), "name": "x" * 500} for number in range(1000)])
    first.keep({})
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_parts().rows()) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_all_parts_can_be_removed(open_parts: Open, tmp_path: Path) -> None:
    parts = open_parts()
    keep(parts, "1")
    parts.clear()
    assert parts.state is None
    assert list(tmp_path.iterdir()) == []
    keep(parts, "2")
    assert ids_of(open_parts()) == ["2"]


def test_parts_of_other_listings_are_removed_with_the_first_one(open_parts: Open, tmp_path: Path) -> None:
    other = CheckpointFiles(LocalStore(LocalFileSystem()), str(tmp_path / "wabas.ndjson"), owner="b")
    keep(other, "9")
    other.close()
    assert open_parts().state is None
    keep(open_parts(), "1")
    (part,) = tmp_path.glob("_*/*")
    assert part.name == "_a-00001"


def test_a_listing_without_kept_rows_begins_without_a_warning(
    open_parts: Open, caplog: pytest.LogCaptureFixture
) -> None:
    parts = open_parts()
    assert parts.state is None
    assert ids_of(parts) == []
    assert not caplog.records


def test_a_missing_part_is_noticed(open_parts: Open, tmp_path: Path) -> None:
    first = open_parts()
    keep(first, "1")
    keep(first, "2")
    second = open_parts()
    (tmp_path / "_wabas.ndjson.airflow-parts" / "_a-00001").unlink()
    assert open_parts().state is None
    with pytest.raises(RowsLostError, match=r"part 1 in .* cannot be read \(FileNotFoundError\)"):
        ids_of(second)


@pytest.mark.parametrize(
    "change",
    [
        lambda part: b"",
        lambda part: b"no gzip",
        lambda part: gzip.compress(b'[1]\n{"id":"1"}\n'),
        lambda part: gzip.compress(b" " * (17 << 20)),
        lambda part: gzip.compress(b'{"x":[' + b"[]," * 600_000 + b"[]]}\n"),
        # From here on, the state is as it was.
        lambda part: part[:-9],
        lambda part: part + gzip.compress(b"[1]\n"),
        lambda part: part + gzip.compress(b"x" * (17 << 20)),
        lambda part: part + gzip.compress(b"\n" * (17 << 20)),
        lambda part: part + gzip.compress(b'{"x":[' + b"[]," * 600_000 + b"[]]}\n"),
    ],
    ids=["empty", "no gzip", "no state", "blanks", "values", "cut", "no row", "long row", "blank lines", "many values"],
)
def test_a_broken_part_is_noticed(open_parts: Open, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    first = open_parts()
    keep(first, "1")
    second = open_parts()
    path = tmp_path / "_wabas.ndjson.airflow-parts" / "_a-00001"
    path.write_bytes(change(path.read_bytes()))
    tracemalloc.start()
    try:
        with pytest.raises(RowsLostError):
            ids_of(second)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_nothing_is_kept_where_nothing_can_be_removed(
    open_parts: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fs: Any, path: str) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(LocalFileSystem, "rm_file", refuse)
    with pytest.raises(PermissionError):
        keep(open_parts(), "1")
    assert not (tmp_path / "_wabas.ndjson.airflow-parts").exists()


@pytest.mark.parametrize("failure", [PermissionError(13, "a secret"), OSError(5, "a secret")])
def test_a_part_that_the_store_does_not_give(
    open_parts: Open, monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    parts = open_parts()
    keep(parts, "1")
    again = open_parts()

    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    monkeypatch.setattr(LocalStore, "open", fail)
    assert open_parts().state is None
    with pytest.raises(RowsLostError, match=rf"part 1 in .* cannot be read \({type(failure).__name__}\)$") as e:
        list(again.rows())
    assert e.value.__cause__ is None
