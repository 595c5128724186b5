"""Writes a listing to an address in object storage.

The object is first written to a file on the worker and published when it is complete. Writing directly to the store
could leave half an object when the listing fails, and not every store can discard what it has received.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.storage.address import check_address, open_store
from airflow_provider_whatsapp.storage.errors import ObjectExistsError
from airflow_provider_whatsapp.storage.formats import Row, content_type_of, parse_format, write_rows
from airflow_provider_whatsapp.storage.staging import StagingFolder

_HASH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A written object, as it is in the store.

    :param uri: the store's own address of the object, without a connection
    :param conn_id: Airflow connection of the store, or None for the store's own default
    :param format: format of its rows, e.g. ``"ndjson"``
    :param count: number of its rows
    :param bytes: size of the object in bytes
    :param sha256: hex SHA-256 of the object's bytes
    """

    uri: str
    conn_id: str | None
    format: str
    count: int
    bytes: int
    sha256: str


class Target:
    """A checked address in object storage, with the format of the rows to write.

    :param path: any ``ObjectStoragePath`` URL, or an absolute path on this machine. The object is compressed if it ends
        in ``.gz``
    :param conn_id: Airflow connection of the store; by default the one in the URL, or otherwise the store's own default
    :param format: ``ndjson``, ``jsonl``, ``json``, ``csv`` or ``parquet``; by default, the suffix of ``path`` decides
    :param argument: name of the argument that the address was given in, for errors
    :raises ValueError: if the path is not the address of an object, contains a password, names no known format or names
        a different account than the connection, if pyarrow is missing for Parquet, if no installed provider supports
        the store, if there is no such connection, or if the store cannot publish an object in one step
    :raises StoreRefusedError: if the store does not accept the credentials, or has no such bucket
    :raises StoreError: if the store cannot be reached
    """

    def __init__(
        self, path: str, *, conn_id: str | None = None, format: str | None = None, argument: str = "output_path"
    ) -> None:
        path = check_address(argument, path)
        self.format = parse_format(path, format, argument=argument)
        #: The store, the path of the object within it, and its address for messages.
        self.store, self.key, self.place = open_store(argument, path, conn_id)
        #: The store's own address of the object, without a connection.
        self.uri = self.place.uri
        #: Airflow connection of the store, or None for the store's own default.
        self.conn_id = self.place.conn_id
        self._compressed = path.lower().endswith(".gz")
        self._content_type = content_type_of(self.format, compressed=self._compressed)
        with self.place.errors("written"):
            self.store.check_writable(self.key)
        with self.place.errors("looked for"):
            is_folder = self.store.is_folder(self.key)
        if is_folder:
            raise ValueError(
                f"{argument}: {path!r} is a folder; add a name for the object, e.g. {path.rstrip('/')}/wabas.ndjson"
            )

    def exists(self) -> bool:
        """Return whether an object with this address exists now.

        :raises StoreRefusedError: if the credentials lack permission to read
        :raises StoreError: if the store failed
        """
        with self.place.errors("looked for"):
            return self.store.exists(self.key)

    def holds(self, size: object, sha256: object) -> bool:
        """Return whether the current object has this size and SHA-256.

        :param size: size in bytes
        :param sha256: hex SHA-256 of the object's bytes
        :raises OSError: if the store failed
        """
        try:
            if self.store.size(self.key) != size:
                return False
            with self.store.open(self.key) as file:
                return _sha256(file) == sha256
        except FileNotFoundError:
            return False

    @contextmanager
    def stage(self, rows: Iterable[Row], columns: Sequence[str]) -> Iterator[Staged]:
        """Prepare the object in a file on the worker; the file is removed at the end of the ``with`` block.

        :param rows: rows to write; consumed once, lazily
        :param columns: columns of CSV and Parquet objects; other keys of a row are left out
        :raises UnfitValueError: if a value does not fit its Parquet column
        """
        with StagingFolder() as folder:
            path = folder / "object"
            counted = _CountedRows(rows)
            write_rows(counted, path, columns, format=self.format, compressed=self._compressed)
            with path.open("rb") as file:
                stored = StoredObject(
                    uri=self.uri,
                    conn_id=self.conn_id,
                    format=self.format,
                    count=counted.count,
                    bytes=path.stat().st_size,
                    sha256=_sha256(file),
                )
            yield Staged(self, path, stored)


class Staged:
    """A finished object in a file on the worker, not yet in the store.

    :param target: the address of the object
    :param path: the file
    :param stored: the object as it will be in the store
    """

    def __init__(self, target: Target, path: Path, stored: StoredObject) -> None:
        #: The object as it will be in the store.
        self.stored = stored
        self._target = target
        self._path = path

    def publish(self, *, owner: str = "", replace: bool = True) -> None:
        """Publish the file as the object at its address; on any failure, what was there before stays.

        :param owner: identifies the task instance that publishes; letters and digits
        :param replace: whether an existing object may be replaced. Stores that cannot check this replace it
        :raises ObjectExistsError: if an object exists and must not be replaced
        :raises StoreRefusedError: if the store refused and a retry cannot help
        :raises StoreError: if the disk or the store failed
        """
        target = self._target
        with target.place.errors("written"):
            try:
                target.store.upload(
                    self._path, target.key, content_type=target._content_type, owner=owner, replace=replace
                )
            except FileExistsError:
                if replace:
                    raise
                raise ObjectExistsError(f"{target.uri} appeared while the rows were read") from None


class _CountedRows:
    def __init__(self, rows: Iterable[Row]) -> None:
        self.count = 0
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_HASH_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
