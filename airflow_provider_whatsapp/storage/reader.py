"""Reads the rows of an object, one by one, as :mod:`~airflow_provider_whatsapp.storage.target` wrote them.

The object is first copied to a file on the worker. Reading it piece by piece from the store could mix two objects if it
is replaced meanwhile, and the rows may be consumed over hours.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from airflow_provider_whatsapp.storage.address import check_address, open_store
from airflow_provider_whatsapp.storage.errors import StoreError
from airflow_provider_whatsapp.storage.formats import Row, parse_format
from airflow_provider_whatsapp.storage.parquet import read_parquet
from airflow_provider_whatsapp.storage.row_texts import BinaryFile, read_csv, read_json, read_ndjson

_COPIED_AT_ONCE = 1024 * 1024
_UTF_8_MARK = b"\xef\xbb\xbf"


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
        #: Name of the argument that the address was given in.
        self.argument = argument
        #: Format of the rows in the object, e.g. ``"ndjson"``.
        self.format = parse_format(path, format, argument=argument)
        #: Whether the object is compressed with gzip.
        self.is_compressed = path.lower().endswith(".gz")
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
        self, columns: Sequence[str] | None = ("id", "waba_id"), *, manifest: Mapping[str, object] | None = None
    ) -> Iterator[Row]:
        """Yield the rows of the object; only a small part of it is in memory at a time.

        :param columns: columns to read from Parquet, or None for all; other formats are read whole
        :param manifest: manifest of the object; without it, any object at the address will do
        :raises ValueError: if there is no such object, if it does not hold rows in this format, or if it is not the
            object of the manifest
        :raises StoreRefusedError: if the credentials lack permission to read
        :raises StoreError: if the store failed, or if the object was replaced while it was copied
        """
        with self.copied() as copy:
            if manifest is not None:
                self._compare(copy.bytes, manifest.get("bytes"), "{} bytes")
                self._compare(copy.sha256, manifest.get("sha256"), "the SHA-256 {}")
            number = yield from copy.rows(columns)
            if manifest is not None:
                self._compare(number, manifest.get("count"), "{} rows")

    @contextmanager
    def copied(self) -> Iterator[ObjectCopy]:
        """Copy the object to a file on this worker, which disappears at the end of the ``with`` block.

        :raises ValueError: if there is no such object
        :raises StoreRefusedError: if the credentials lack permission to read
        :raises StoreError: if the store failed, or if the object was replaced while it was copied
        """
        # The file has no name, so it disappears even if the process is killed.
        with tempfile.TemporaryFile() as copy:
            digest = hashlib.sha256()
            try:
                version = self.store.version(self.key)
                with self.store.open(self.key) as file:
                    while data := file.read(_COPIED_AT_ONCE):
                        copy.write(data)
                        digest.update(data)
                # Some stores are read in several requests, each of which can get another object.
                is_whole = self.store.version(self.key) == version
            except (FileNotFoundError, IsADirectoryError):
                raise ValueError(f"{self.argument}: there is no object {self.uri}") from None
            except Exception as error:
                # Do not chain the error: the log would show its message, which can contain a secret.
                raise self.place.explain(error, "read") from None
            if not is_whole:
                raise StoreError(f"{self.argument}: {self.uri} was replaced while it was read; a retry reads it again")
            yield ObjectCopy(self, cast("BinaryIO", copy), copy.tell(), digest.hexdigest())

    def _compare(self, found: object, expected: object, what: str) -> None:
        if expected is not None and found != expected:
            raise ValueError(
                f"{self.argument}: {self.uri} has {what.format(found)}, but its manifest says {expected}; the object "
                "has been rewritten since, so clear the task that returned the manifest"
            )


@dataclass(frozen=True, slots=True)
class ObjectCopy:
    """A copy of an object on this worker.

    :param reader: what the object is
    :param file: the copy
    :param bytes: its size
    :param sha256: hex SHA-256 of its bytes
    """

    reader: ObjectReader
    file: BinaryIO
    bytes: int
    sha256: str

    def rows(self, columns: Sequence[str] | None) -> Generator[Row, None, int]:
        """Yield the rows of the object, and return their number; can be called again after the last one.

        :param columns: columns to read from Parquet, or None for all; other formats are read whole
        :raises ValueError: if the object does not hold rows in this format
        """
        number = 0
        self.file.seek(0)
        try:
            for row in self._read(columns):
                if not isinstance(row, dict):
                    raise ValueError("it is not an object")
                number += 1
                yield row
        except (ValueError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
            # Leave out the message of the error, which can quote content of the object.
            reason = str(error) if type(error) is ValueError else type(error).__name__
            what = f"{self.reader.uri} cannot be read as {self.reader.format} after row {number} ({reason})"
            raise ValueError(f"{self.reader.argument}: {what}") from None
        return number

    def _read(self, columns: Sequence[str] | None) -> Iterator[Any]:
        if self.reader.format == "parquet":
            return read_parquet(self.file, columns)
        body: BinaryFile = self.file
        if self.reader.is_compressed:
            # gzip.GzipFile accepts an empty file as complete, but gzip never writes one.
            if not self.bytes:
                raise EOFError
            body = gzip.GzipFile(fileobj=self.file)
        # Excel and PowerShell begin a file with a byte order mark.
        if body.read(len(_UTF_8_MARK)) != _UTF_8_MARK:
            body.seek(0)
        return _READERS[self.reader.format](body)


_READERS: dict[str, Callable[[BinaryFile], Iterator[Any]]] = {
    "ndjson": read_ndjson,
    "json": read_json,
    "csv": read_csv,
}
