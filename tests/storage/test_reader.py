"""Objects are read back as they were written, or not at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
import traceback
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from written_objects import write_object

from airflow_provider_whatsapp.storage.errors import StoreError, StoreRefusedError
from airflow_provider_whatsapp.storage.reader import ObjectReader
from airflow_provider_whatsapp.storage.row_texts import read_json
from airflow_provider_whatsapp.storage.target import Target
from airflow_provider_whatsapp.tasks.comparison import Comparison

NAMES = [f"a.{suffix}{gz}" for suffix in ("ndjson", "jsonl", "json", "csv") for gz in ("", ".gz")]
# Characters that end a line for some readers, separate columns or rows, or take more than one byte.
ODD = st.text(st.sampled_from("\r\n\x0b\x0c\x1c\x85\u2028\u2029\ufeff\"'\\,;[]{}: \tü東😀a1"), max_size=12)
TEXTS = ODD | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=6)


def read(path: Path | str, **more: Any) -> list[dict[str, Any]]:
    return list(ObjectReader("waba_ids", str(path), **more).rows())


class Dribble(io.BytesIO):
    """A file that gives only a few bytes at a time."""

    at_once = 1

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.at_once)


@pytest.mark.parametrize("name", [name for name in NAMES if ".csv" not in name])
@settings(max_examples=40)
@given(rows=ROWS, at_once=st.integers(1, 40))
def test_json_comes_back_as_it_was(name: str, rows: list[dict[str, Any]], at_once: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write_object(Target(str(path)), rows, [])
        assert read(path) == rows
        if name == "a.json":
            file = Dribble(path.read_bytes())
            file.at_once = at_once
            assert list(read_json(file)) == rows


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@settings(max_examples=60)
@given(cells=st.lists(st.tuples(TEXTS, TEXTS), max_size=6))
def test_csv_comes_back_as_it_was(name: str, cells: list[tuple[str, str]]) -> None:
    rows = [{"id": id_, "name": text} for id_, text in cells]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write_object(Target(str(path)), rows, ["id", "name"])
        assert read(path) == rows


ARRAY = ' [\n{"id":"1","name":"a\\u0062\\"]},{["},\n {"id": "2", "n": [1, {"x": "}"}]} ,{"id":"3","t":"東😀"}\n]\n'


def test_an_array_that_is_cut_at_every_byte() -> None:
    for at_once in range(1, len(ARRAY.encode()) + 2):
        file = Dribble(ARRAY.encode())
        file.at_once = at_once
        assert list(read_json(file)) == json.loads(ARRAY)


def test_half_an_array_is_an_error() -> None:
    for length in range(len(ARRAY.encode().rstrip())):
        with pytest.raises(ValueError, match="it is not an array|the array has no end"):
            list(read_json(io.BytesIO(ARRAY.encode()[:length])))


@pytest.mark.parametrize("text", ["[]", " [ ] ", "[\n]\n"])
def test_an_array_without_elements(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read(tmp_path / "a.json") == []


@pytest.mark.parametrize(
    ("name", "text", "count", "reason"),
    [
        ("a.json", "", 0, "it is not an array"),
        ("a.json", "  ", 0, "it is not an array"),
        ("a.json", '{"id":"1"}', 0, "it is not an array"),
        ("a.json", '{"id":"1"}\n{"id":"2"}\n', 0, "it is not an array"),
        ("a.json", '[{"id":"1"} {"id":"2"}]', 0, "a row is not JSON"),
        ("a.json", '[{"id":"1"},]', 1, "a row is not JSON"),
        ("a.json", "[5]", 0, "it is not an object"),
        ("a.json", '[{"id":"1"},["2"]]', 1, "it is not an object"),
        ("a.json", '[{"id":"1"}}', 1, "it is not an array"),
        ("a.json", '[{"id":"1"},{"id":"2"', 1, "the array has no end"),
        ("a.json", '[{"id":"1"}][{"id":"2"}]', 1, "something follows the array"),
        ("a.json", "\ufeff\ufeff[]", 0, "it is not an array"),
        ("a.ndjson", '{"id":"1"}\n{"id":', 1, "a row is not JSON"),
        ("a.ndjson", '{"id":"1"}\n"2"\n', 1, "it is not an object"),
        ("a.ndjson", "[]\n", 0, "it is not an object"),
        ("a.ndjson", '{"id":"1"}{"id":"2"}', 0, "a row is not JSON"),
        ("a.json", '[{"id":"1"},' + '{"a":' * 9999 + "1" + "}" * 9999 + "]", 1, "a row is not JSON"),
        ("a.ndjson", '{"id":"1"}\n' + '{"a":' * 100_000, 1, "a row is not JSON"),
    ],
)
def test_what_does_not_hold_rows(tmp_path: Path, name: str, text: str, count: int, reason: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    format = name.partition(".")[2]
    with pytest.raises(ValueError, match="^waba_ids: ") as caught:
        read(path)
    assert str(caught.value) == f"waba_ids: {path.as_uri()} cannot be read as {format} after row {count} ({reason})"
    # What is in the object could be anything, so that neither the message nor the exceptions before it quote it.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["a.ndjson", "a.json", "a.csv"])
@pytest.mark.parametrize(
    "data", [b'\xff\xfe[{"id":"1"}]', b'[{"id":"\xe9"}]', '\ufeff[{"id":"1"}]'.encode("utf-16-le")]
)
def test_text_that_is_not_utf_8(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"after row 0 \((UnicodeDecodeError|a row is not JSON|it is not an array)\)$"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.json.gz", "a.csv.gz"])
def test_half_a_gzip_is_an_error(tmp_path: Path, name: str) -> None:
    rows = [{"id": str(number * 7919)} for number in range(20_000)]
    write_object(Target(str(tmp_path / name)), rows, ["id"])
    assert read(tmp_path / name) == rows
    whole = (tmp_path / name).read_bytes()
    for length in (0, 1, 5, 12, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^waba_ids: .* after row \d+ \((EOFError|BadGzipFile)\)$"):
            read(tmp_path / name)


def test_a_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson.gz"
    whole = bytearray(gzip.compress(b'{"id":"1"}\n' * 1000 + b'{"id":"2"}\n'))
    for place in (2, len(whole) // 2, len(whole) - 6):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^waba_ids: .* after row \d+ \("):
            read(path)


@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.json.gz", "a.csv.gz"])
def test_what_is_not_compressed_although_it_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"id":"1"}\n')
    with pytest.raises(ValueError, match=r"after row 0 \(BadGzipFile\)$"):
        read(tmp_path / name)


def test_the_format_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text('[{"id":"1"}]')
    assert read(tmp_path / "rows", format="json") == [{"id": "1"}]
    (tmp_path / "rows.csv").write_text('{"id":"1"}\n')
    assert read(tmp_path / "rows.csv", format="jsonl") == [{"id": "1"}]
    (tmp_path / "ROWS.NDJSON.GZ").write_bytes(gzip.compress(b'{"id":"1"}\n'))
    assert read(tmp_path / "ROWS.NDJSON.GZ") == [{"id": "1"}]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('\n{"id":"1"}\r\n\n  \n{"id":"2"}')
    assert read(tmp_path / "a.ndjson") == [{"id": "1"}, {"id": "2"}]
    (tmp_path / "a.csv").write_text("id,name\n\n1,a\n\n2,b\n")
    assert read(tmp_path / "a.csv") == [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}]


def test_a_line_ends_with_a_line_feed_only(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"id":"1","t":"a\u2028b\x85"}\n{"id":\r"2"}\n', encoding="utf-8", newline="")
    assert read(tmp_path / "a.ndjson") == [{"id": "1", "t": "a\u2028b\x85"}, {"id": "2"}]


@pytest.mark.parametrize("name", NAMES)
def test_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    # As Excel and PowerShell write them.
    write_object(Target(str(tmp_path / name)), [{"id": "1"}, {"id": "2"}], ["id"])
    data = (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"\xef\xbb\xbf") + data)
    else:
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data)
    assert read(tmp_path / name) == [{"id": "1"}, {"id": "2"}]


LONG = 17 << 20


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.ndjson", b'{"id":"' + b"x" * LONG, "16 MiB"),
        ("a.ndjson", b'{"id":"1"}\n' + b"\n" * LONG, "16 MiB"),
        ("a.ndjson", b'{"id":"1","y":[' + b"[]," * 600_000 + b"[]]}", "1,000,000 values"),
        ("a.json", b'[{"id":"' + b"x" * LONG, "16 MiB"),
        ("a.json", b'[{"id":"1"},' + b" " * LONG, "16 MiB"),
        ("a.json", b'[{"id":"1"}]' + b"\n" * LONG, "16 MiB"),
        ("a.json", b" " * LONG, "16 MiB"),
        ("a.json", b'[{"id":"1","y":[' + b"[]," * 600_000 + b"[]]}]", "1,000,000 values"),
        ("a.csv", b"id\n" + b"x" * LONG, "16 MiB"),
        ("a.csv", b"id\n1\n" + b"\n" * LONG, "16 MiB"),
        ("a.csv", b'id\n"' + b"1\n" * (LONG // 20), "16 MiB"),
        ("a.csv", b"id,name\n" + b"1," * 1_000_001, "1,000,000 values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_is_bounded_before_it_takes_memory(tmp_path: Path, name: str, text: bytes, reason: str) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(text, 1))
    if b"x" in text:
        tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"a row .* {reason}\)$"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (",".join(map(str, range(20_000))), "more than 10,000 columns"),
        ("id,name,id", "two of the same name"),
    ],
)
def test_the_columns_of_a_csv(tmp_path: Path, header: str, reason: str) -> None:
    (tmp_path / "a.csv").write_text(header + "\n")
    with pytest.raises(ValueError, match=f"after row 0 .*{reason}"):
        read(tmp_path / "a.csv")


def test_a_long_row_of_csv_is_read(tmp_path: Path) -> None:
    # The limit of Python's reader is 128 KiB.
    write_object(Target(str(tmp_path / "a.csv")), [{"id": "1", "name": "x" * 200_000}], ["id", "name"])
    assert len(read(tmp_path / "a.csv")[0]["name"]) == 200_000


def test_no_object(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    with pytest.raises(ValueError, match="^waba_ids: there is no object ") as caught:
        read(path)
    assert str(caught.value) == f"waba_ids: there is no object {path.as_uri()}"
    path.mkdir()
    with pytest.raises(ValueError, match="^waba_ids: there is no object "):
        read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_object_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text("")
    (tmp_path / "a.ndjson").chmod(0)
    with pytest.raises(StoreRefusedError, match=r"^waba_ids: file:///.*/a.ndjson cannot be read \(PermissionError"):
        read(tmp_path / "a.ndjson")


class FailingStore(MemoryFileSystem):
    """A store in memory whose library fails with an error whose text nobody may see."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def info(self, path: str, **kwargs: Any) -> Any:
        raise self.error

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError("5ecret"), StoreError), (PermissionError("5ecret"), StoreRefusedError)]
)
def test_a_store_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]) -> None:
    from airflow.sdk.io import attach, store

    monkeypatch.setattr(store, "_STORE_CACHE", {})
    attach("memory", conn_id="lake", fs=FailingStore(error))
    stored = ObjectReader("compare_with", "memory://lake@bucket/a.ndjson")
    for action in (stored.exists, lambda: Comparison(stored, []), lambda: list(stored.rows())):
        with pytest.raises(kind, match="^compare_with: memory://bucket/a.ndjson cannot be") as caught:
            action()
        shown = "".join(traceback.format_exception(caught.value))
        assert "over the connection 'lake'" in shown
        assert "5ecret" not in shown


def test_it_is_read_again_each_time(tmp_path: Path) -> None:
    opened = ObjectReader("waba_ids", str(tmp_path / "a.ndjson"))
    for id_ in ("1", "2"):
        (tmp_path / "a.ndjson").write_text(f'{{"id":"{id_}"}}')
        assert list(opened.rows()) == [{"id": id_}]


def test_the_address_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"id":"1"}')
    assert ObjectReader("waba_ids", f" {path.as_uri()}\n").uri == path.as_uri()
    assert ObjectReader("waba_ids", f" {path} ").uri == path.as_uri()
    assert read(path.as_uri()) == [{"id": "1"}]


@pytest.mark.parametrize(
    "path", ["", "  ", None, 5, "a.ndjson", "./a.ndjson", "/tmp/a.txt", "/tmp/a", "file://host/a.ndjson", "/tmp/a.gz"]
)
def test_what_is_no_address(path: Any) -> None:
    with pytest.raises(ValueError, match="^waba_ids: "):
        ObjectReader("waba_ids", path)


def test_errors_name_the_argument_and_no_password() -> None:
    with pytest.raises(ValueError, match="^waba_ids: the URL has a password in it") as caught:
        ObjectReader("waba_ids", "s3://user:hunter2@bucket/a.ndjson")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValueError, match="^waba_ids: no storage is installed for nowhere://"):
        ObjectReader("waba_ids", "nowhere://bucket/a.ndjson")
    with pytest.raises(ValueError, match=r"^waba_ids: the suffix of '/tmp/a' names no format; use [^;]*\.parquet$"):
        ObjectReader("waba_ids", "/tmp/a")
    with pytest.raises(ValueError, match="^waba_ids: 'xml' is not one of"):
        ObjectReader("waba_ids", "/tmp/a", format="xml")
