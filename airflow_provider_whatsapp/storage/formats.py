"""Writes rows as NDJSON, JSON or CSV, compressed if wanted."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

Row = dict[str, Any]
#: Media type of what is compressed.
GZIP = "application/gzip"
# JSON allows these characters within a text, but Python's and JavaScript's readers end a line at them, which would
# break a row of NDJSON in two. They are written as escapes.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
#: Formats by the names and suffixes that users give.
_FORMATS = {"ndjson": "ndjson", "jsonl": "ndjson", "json": "json", "csv": "csv"}
_CONTENT_TYPES = {
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
}


def parse_format(path: str, format: str | None, *, argument: str = "output_path") -> str:
    """The format of an object: ``"ndjson"``, ``"json"`` or ``"csv"``.

    :param path: address of the object; its suffix decides where ``format`` is None
    :param format: name of the format as the user gave it
    :param argument: name of the argument that the path was given in, for the error
    :raises ValueError: if the name or the suffix is not that of a format
    """
    if format is not None:
        if format not in _FORMATS:
            raise ValueError(
                f"output_format: {format!r} is not one of {', '.join(map(repr, _FORMATS))}; "
                "for a compressed object, let output_path end in .gz"
            )
        return _FORMATS[format]
    name = path.rpartition("/")[2].lower().removesuffix(".gz")
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix not in _FORMATS:
        raise ValueError(
            f"{argument}: the suffix of {path!r} names no format; use .ndjson, .jsonl, .json or .csv "
            "(each also with .gz)" + (", or give output_format" if argument == "output_path" else "")
        )
    return _FORMATS[suffix]


def content_type_of(format: str, *, compressed: bool) -> str:
    """The media type of an object.

    A compressed object is a gzip file. It has no content encoding: readers such as Spark, DuckDB and pandas decompress
    by the suffix ``.gz``, but HTTP clients and Google Cloud Storage already decompress on the way what has one, so that
    the readers would fail and the manifest's size and SHA-256 would not be those of what arrives.
    https://cloud.google.com/storage/docs/transcoding

    :param format: ``"ndjson"``, ``"json"`` or ``"csv"``
    :param compressed: whether the object is compressed with gzip
    """
    return GZIP if compressed else _CONTENT_TYPES[format]


def write_rows(rows: Iterable[Row], path: Path, columns: Sequence[str], *, format: str, compressed: bool) -> None:
    """Write the rows to a new file.

    :param rows: are read once, one at a time
    :param path: file to write
    :param columns: columns of a CSV; other keys of a row are left out of it
    :param format: ``"ndjson"``, ``"json"`` or ``"csv"``
    :param compressed: whether to compress the file with gzip
    """
    with _open_text(path, compressed=compressed) as file:
        _WRITERS[format](rows, file, columns)


@contextmanager
def _open_text(path: Path, *, compressed: bool) -> Iterator[TextIO]:
    with path.open("wb") as file:
        if not compressed:
            with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
                yield text
            return
        # The gzip header has neither file name nor time, so that the same rows give the same bytes and sha256.
        with (
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as body,
            io.TextIOWrapper(body, encoding="utf-8", newline="") as text,
        ):
            yield text


def _write_ndjson(rows: Iterable[Row], file: TextIO, columns: Sequence[str]) -> None:
    for row in rows:
        file.write(_encode_json(row) + "\n")


def _write_json(rows: Iterable[Row], file: TextIO, columns: Sequence[str]) -> None:
    separator = "\n"
    file.write("[")
    for row in rows:
        file.write(separator + _encode_json(row))
        separator = ",\n"
    file.write("\n]\n")


def _write_csv(rows: Iterable[Row], file: TextIO, columns: Sequence[str]) -> None:
    # Only the columns that were asked for: with a column for each key that a row brings, a server that invents a key
    # for each row would make the file grow with the square of the rows.
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_encode_cell(row.get(column)) for column in columns])


_WRITERS: dict[str, Callable[[Iterable[Row], TextIO, Sequence[str]], None]] = {
    "ndjson": _write_ndjson,
    "json": _write_json,
    "csv": _write_csv,
}


def _encode_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if not text.isascii():
        for char, escape in _LINE_ENDS.items():
            text = text.replace(char, escape)
    return text


def _encode_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _encode_json(value)
