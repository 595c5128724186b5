"""Writes rows as NDJSON, JSON, CSV or Parquet, optionally compressed."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from airflow_provider_whatsapp.storage.columns import encode_text
from airflow_provider_whatsapp.storage.errors import shown_address
from airflow_provider_whatsapp.storage.json_text import encode_rows
from airflow_provider_whatsapp.storage.parquet import require_pyarrow, write_parquet

Row = dict[str, Any]
#: Media type of compressed objects.
GZIP = "application/gzip"
#: Formats by the names and suffixes that users can give.
_FORMATS = {"ndjson": "ndjson", "jsonl": "ndjson", "json": "json", "csv": "csv", "parquet": "parquet"}
_CONTENT_TYPES = {
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}


def parse_format(path: str, format: str | None, *, argument: str = "output_path") -> str:
    """Return the format of an object: ``"ndjson"``, ``"json"``, ``"csv"`` or ``"parquet"``.

    :param path: address of the object; its suffix decides if ``format`` is None
    :param format: name of the format as the user gave it
    :param argument: name of the argument that the path was given in, for the error
    :raises ValueError: if the name or the suffix is not one of a format, or pyarrow is missing for Parquet
    """
    name = path.rpartition("/")[2].lower()
    is_output = argument == "output_path"
    if format is not None:
        if format not in _FORMATS:
            raise ValueError(
                f"{'output_format' if is_output else argument}: {shown_address(format)} is not one of "
                f"{', '.join(map(repr, _FORMATS))}; for compression, end the address in .gz"
            )
        found = _FORMATS[format]
    else:
        stem = name.removesuffix(".gz")
        suffix = stem.rpartition(".")[2] if "." in stem else ""
        if suffix not in _FORMATS:
            raise ValueError(
                f"{argument}: the suffix of {shown_address(path)} names no format; use .ndjson, .jsonl, .json or .csv "
                "(each also with .gz), or .parquet" + (", or give output_format" if is_output else "")
            )
        found = _FORMATS[suffix]
    if found == "parquet":
        if name.endswith(".gz"):
            raise ValueError(
                f"{argument}: {shown_address(path)} ends in .gz, but Parquet is compressed internally, and its "
                "readers do not open it inside gzip; leave out .gz"
            )
        require_pyarrow("output_format" if is_output and format is not None else argument)
    return found


def content_type_of(format: str, *, compressed: bool) -> str:
    """Return the media type of an object.

    A compressed object is a gzip file without a content encoding. Readers such as Spark, DuckDB and pandas decompress
    by the suffix ``.gz``, but HTTP clients and Google Cloud Storage decompress objects with a content encoding in
    transit, so that the readers would fail and the manifest's size and SHA-256 would not match.
    https://cloud.google.com/storage/docs/transcoding

    :param format: ``"ndjson"``, ``"json"`` or ``"csv"``
    :param compressed: whether the object is compressed with gzip
    """
    return GZIP if compressed else _CONTENT_TYPES[format]


def write_rows(rows: Iterable[Row], path: Path, columns: Sequence[str], *, format: str, compressed: bool) -> None:
    """Write the rows to a new file.

    :param rows: rows to write; consumed once, lazily
    :param path: file to write
    :param columns: columns of CSV and Parquet objects; other keys of a row are left out
    :param format: ``"ndjson"``, ``"json"``, ``"csv"`` or ``"parquet"``
    :param compressed: whether to compress the file with gzip; Parquet is compressed internally
    :raises UnfitValueError: if a value does not fit its Parquet column
    """
    if format == "parquet":
        write_parquet(rows, path, columns)
        return
    with path.open("wb") as file:
        if compressed:
            # The gzip header has neither file name nor time, so that the same rows give the same bytes and SHA-256.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as body:
                _WRITERS[format](rows, cast("BinaryIO", body), columns)
        else:
            _WRITERS[format](rows, file, columns)


def _write_ndjson(rows: Iterable[Row], file: BinaryIO, columns: Sequence[str]) -> None:
    for lines in encode_rows(rows):
        file.write(lines)


def _write_json(rows: Iterable[Row], file: BinaryIO, columns: Sequence[str]) -> None:
    separator = b"\n"
    file.write(b"[")
    for lines in encode_rows(rows):
        # Within a row, a line feed is written as an escape.
        file.write(separator + lines.rstrip(b"\n").replace(b"\n", b",\n"))
        separator = b",\n"
    file.write(b"\n]\n")


def _write_csv(rows: Iterable[Row], file: BinaryIO, columns: Sequence[str]) -> None:
    # Write only the requested columns: with a column for each key of any row, a server that invents a key for each row
    # would make the file grow with the square of the number of rows.
    with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(columns)
        for row in rows:
            values = map(row.get, columns)
            writer.writerow(["" if value is None else encode_text(value) for value in values])


_WRITERS: dict[str, Callable[[Iterable[Row], BinaryIO, Sequence[str]], None]] = {
    "ndjson": _write_ndjson,
    "json": _write_json,
    "csv": _write_csv,
}
