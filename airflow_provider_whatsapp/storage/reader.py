"""Reads the rows of an object, one by one, as :mod:`~airflow_provider_whatsapp.storage.target` wrote them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from airflow_provider_whatsapp.storage.address import check_address, open_store
from airflow_provider_whatsapp.storage.formats import Row, parse_format
from airflow_provider_whatsapp.storage.parquet import read_parquet

_CHARACTERS_AT_ONCE = 64 * 1024
# Well above the size of any row that was written: a whole response has at most 16 MiB.
_LONGEST_ROW = 64 * 1024 * 1024


class _RewrittenError(Exception):
    """The object is not the one that its manifest describes."""


class ObjectReader:
    """A checked address in object storage, with the format of the rows to read.

    :param argument: name of the argument that the address was given in, for the errors
    :param path: any ``ObjectStoragePath`` URL, or an absolute path on this machine. The object is decompressed when it
        ends in ``.gz``.
    :param conn_id: Airflow connection of the store; the one in the URL by default
    :param default_conn_id: connection to use if neither of the two names one; the store's own default by default
    :param format: ``ndjson``, ``jsonl``, ``json``, ``csv`` or ``parquet``; the suffix of ``path`` decides by default
    :raises ValueError: if the path is no address of an object, has a password in it or names no known format, if no
        installed provider knows the store, or if pyarrow is missing for Parquet
    :raises StoreRefusedError: if the store does not accept the credentials
    :raises StoreError: if the store cannot be reached
    """

    def __init__(
        self,
        argument: str,
        path: str,
        *,
        conn_id: str | None = None,
        default_conn_id: str | None = None,
        format: str | None = None,
    ) -> None:
        path = check_address(argument, path)
        self._argument = argument
        #: Format of the rows in the object, e.g. ``"ndjson"``.
        self.format = parse_format(path, format, argument=argument)
        self._is_compressed = path.lower().endswith(".gz")
        #: The store, the path of the object within it, and its address for messages.
        self.store, self.key, self.place = open_store(argument, path, conn_id, default_conn_id)
        #: The store's own address of the object, without a connection in it.
        self.uri = self.place.uri

    def exists(self) -> bool:
        """Return whether the object exists now.

        :raises StoreRefusedError: if the credentials lack permission to read
        :raises StoreError: if the store failed
        """
        with self.place.errors("looked for"):
            return self.store.exists(self.key)

    def rows(
        self, columns: Sequence[str] | None = ("id", "waba_id"), *, count: object = None, size: object = None
    ) -> Iterator[Row]:
        """Yield the rows of the object; only a small part of it is in memory at a time.

        :param columns: columns to read from Parquet, or None for all; other formats are read whole
        :param count: number of rows that the object must have, or None if unknown
        :param size: size in bytes that the object must have, or None if unknown
        :raises ValueError: if there is no such object, or it does not hold rows in this format, or has another number
            of rows or bytes
        :raises StoreRefusedError: if the credentials lack permission to read
        :raises StoreError: if the store failed
        """
        number = 0
        try:
            if size is not None:
                self._compare(self.store.size(self.key), size, "bytes")
            with self.store.open(self.key) as file:
                for row in self._read(file, columns):
                    if not isinstance(row, dict):
                        raise ValueError("it is not an object")
                    number += 1
                    yield row
            if count is not None:
                self._compare(number, count, "rows")
        except _RewrittenError as error:
            raise ValueError(f"{self._argument}: {error}") from None
        except (FileNotFoundError, IsADirectoryError):
            raise ValueError(f"{self._argument}: there is no object {self.uri}") from None
        except (ValueError, RecursionError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
            # Leave out the message of the error, which can quote content of the object.
            reason = str(error) if type(error) is ValueError else type(error).__name__
            raise ValueError(
                f"{self._argument}: {self.uri} cannot be read as {self.format} after row {number} ({reason})"
            ) from None
        except Exception as error:
            # Do not chain the error: the log would show its message, which can contain a secret.
            raise self.place.explain(error, "read") from None

    def _compare(self, found: int | None, expected: object, what: str) -> None:
        if found is not None and found != expected:
            raise _RewrittenError(
                f"{self.uri} has {found} {what}, but its manifest says {expected}; the object has been rewritten "
                "since, so clear the task that returned the manifest"
            )

    def _read(self, file: Any, columns: Sequence[str] | None) -> Iterator[Any]:
        if self.format == "parquet":
            yield from read_parquet(file, columns)
            return
        body = _decompress(file) if self._is_compressed else file
        # Only a line feed ends a row of NDJSON. The reader of CSV finds the ends of its rows itself.
        newline = "" if self.format == "csv" else "\n"
        with io.TextIOWrapper(body, encoding="utf-8", newline=newline) as text:
            yield from _READERS[self.format](text)


def _decompress(file: Any) -> Any:
    # Python takes an empty file for a complete one.
    if not file.read(1):
        raise EOFError
    file.seek(0)
    return gzip.GzipFile(fileobj=file)


def _read_ndjson(file: TextIO) -> Iterator[Any]:
    while line := file.readline(_LONGEST_ROW):
        if len(line) == _LONGEST_ROW:
            raise ValueError("a row is too long")
        if line.strip():
            yield json.loads(line)


def _read_json(file: TextIO) -> Iterator[Any]:
    """Yield the elements of an array without loading the whole array."""
    decoder = json.JSONDecoder()
    text = _skip(file, file.read(_CHARACTERS_AT_ONCE), "[")
    text = _skip(file, text, "")
    if text[:1] == "]":
        return
    wanted = _CHARACTERS_AT_ONCE
    while True:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError:
            # The element may continue after what was read. Read twice as much each time, so that an element is not
            # decoded again and again for a few more characters.
            more = file.read(wanted)
            wanted *= 2
            if not more or len(text) > _LONGEST_ROW:
                raise
            text += more
            continue
        yield value
        wanted = _CHARACTERS_AT_ONCE
        text = _skip(file, text[end:], "")
        if text[:1] == "]":
            return
        text = _skip(file, _skip(file, text, ","), "")


def _skip(file: TextIO, text: str, expected: str) -> str:
    """Return the text after the expected character and the white space around it, and read more if nothing is left."""
    text = text.lstrip()
    while not text and (more := file.read(_CHARACTERS_AT_ONCE)):
        text = more.lstrip()
    if not text.startswith(expected) or not text:
        raise ValueError("it is not an array")
    return text[len(expected) :]


def _read_csv(file: TextIO) -> Iterator[Any]:
    # csv limits the size of a field, but not that of a line, which is read whole, nor the number of fields.
    csv.field_size_limit(min(_LONGEST_ROW, sys.maxsize))
    length = 0

    def lines() -> Iterator[str]:
        nonlocal length
        while line := file.readline(_LONGEST_ROW):
            length += len(line)
            if length >= _LONGEST_ROW:
                raise ValueError("a row is too long")
            yield line

    reader = csv.DictReader(lines())
    if reader.fieldnames is None:
        raise ValueError("it has no header line")
    for row in reader:
        length = 0
        if None in row or None in row.values():
            raise ValueError("a row does not have as many cells as there are columns")
        yield row


_READERS: dict[str, Callable[[TextIO], Iterator[Any]]] = {
    "ndjson": _read_ndjson,
    "json": _read_json,
    "csv": _read_csv,
}
