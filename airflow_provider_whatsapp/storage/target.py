"""The address in object storage that a listing is written to.

The object is first written to a file on the worker and published when it is complete. Writing straight to the store
would leave half an object when the listing fails, and not every store can take back what it has received.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_whatsapp.storage import azure, gcs, s3, sftp
from airflow_provider_whatsapp.storage.address import check_address, open_store, split_address
from airflow_provider_whatsapp.storage.errors import ObjectExistsError, Place, Problem, StoreRefusedError
from airflow_provider_whatsapp.storage.formats import Row, content_type_of, parse_format, write_rows
from airflow_provider_whatsapp.storage.parts import Parts
from airflow_provider_whatsapp.storage.publish import can_publish_whole, is_local, publish
from airflow_provider_whatsapp.storage.record import read_record, write_record
from airflow_provider_whatsapp.storage.staging import StagingFolder

_HASH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that was written, as it is in the store.

    :param uri: the store's own address of the object, without a connection in it
    :param conn_id: Airflow connection of the store, or None for the store's own default
    :param format: format of the rows in it, e.g. ``"ndjson"``
    :param count: number of rows in it
    :param bytes: size of the object
    :param sha256: SHA-256 of the object's bytes, in hex
    """

    uri: str
    conn_id: str | None
    format: str
    count: int
    bytes: int
    sha256: str


class Target:
    """A checked address in object storage, with the format of the rows that go there.

    :param path: any ``ObjectStoragePath`` URL, or an absolute path on this machine. The object is compressed when it
        ends in ``.gz``.
    :param conn_id: Airflow connection of the store; the one in the URL by default, else the store's own default
    :param format: ``ndjson``, ``jsonl``, ``json``, ``csv`` or ``parquet``; the suffix of ``path`` decides by default
    :raises ValueError: if the path is no address of an object, has a password in it, names no known format or names
        another account than the connection does, if pyarrow is missing for Parquet, if no installed provider knows the
        store, if there is no such connection, or if the store cannot publish an object in one step
    :raises StoreRefusedError: if the store does not accept the credentials, or has no such bucket
    :raises StoreError: if the store cannot be reached
    """

    def __init__(self, path: str, *, conn_id: str | None = None, format: str | None = None) -> None:
        path = check_address("output_path", path)
        self.format = parse_format(path, format)
        self._compressed = path.lower().endswith(".gz")
        address = split_address(path)
        #: Airflow connection of the store, or None for the store's own default.
        self.conn_id = conn_id or address.conn_id
        opened = open_store("output_path", address, self.conn_id)
        self._fs = opened.fs
        self._local = is_local(self._fs)
        self._key = os.path.abspath(opened.path) if self._local else opened.path
        #: The store's own address of the object, without a connection in it.
        self.uri = f"file://{self._key}" if self._local else address.uri
        self._place = Place("output_path", self.uri, self.conn_id)
        if self._local:
            _check_writable(self._key)
        with self._place.errors("written"):
            self._check_store(urlsplit(path).scheme)
        with self._place.errors("looked for"):
            is_folder = self._is_folder()
        if is_folder:
            raise ValueError(
                f"output_path: {path!r} is a folder; add a name for the object, e.g. {path.rstrip('/')}/wabas.ndjson"
            )

    def _check_store(self, scheme: str) -> None:
        """Find out before the listing what would fail after it, where that leaves nothing in the store."""
        if not can_publish_whole(self._fs, self._key):
            raise StoreRefusedError(
                f"output_path: half an object could be seen in a {scheme}:// store, because it shows uploads before "
                "they are complete and cannot move an object into place in one step"
                + (" (the server has no posix-rename)" if scheme in ("sftp", "ssh") else "")
                + "; use another store"
            )
        if s3.is_s3(self._fs):
            s3.check_writable(self._fs, self._key)
        elif gcs.is_gcs(self._fs):
            gcs.check_writable(self._fs, self._key)

    def _is_folder(self) -> bool:
        try:
            if azure.is_azure(self._fs):
                return azure.has_objects_below(self._fs, self._key)
            self._fs.invalidate_cache()
            return bool(self._fs.isdir(self._key))
        except Exception as error:
            # Credentials that may only write cannot list.
            may_be_limited = not azure.is_azure(self._fs) or not azure.has_account_key(self._fs)
            if Problem.of(error).kind == "forbidden" and may_be_limited:
                return False
            raise

    def exists(self) -> bool:
        """Whether an object with this address exists now.

        :raises StoreRefusedError: if the credentials may not read
        :raises StoreError: if the store failed
        """
        with self._place.errors("looked for"):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._key))

    @contextmanager
    def stage(self, rows: Iterable[Row], columns: Sequence[str]) -> Iterator[Staged]:
        """The finished object in a file on the worker, which is removed at the end of the ``with`` block.

        :param rows: rows to write; consumed once, lazily
        :param columns: columns of a CSV or of Parquet; other keys of a row are left out of them
        :raises UnfitValueError: if a value does not fit its column of Parquet
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

    def _publish(self, staged: Path, owner: str, *, replace: bool) -> None:
        if s3.is_s3(self._fs):
            s3.abort_abandoned_uploads(self._fs, self._key)
        elif sftp.is_sftp(self._fs):
            # The server may have been restarted while the rows were read.
            self._fs = sftp.connected(self._fs)
        try:
            publish(
                staged,
                self._fs,
                self._key,
                uri=self.uri,
                owner=owner,
                content_type=content_type_of(self.format, compressed=self._compressed),
                replace=replace,
            )
        except FileExistsError:
            if replace:
                raise
            raise ObjectExistsError(f"{self.uri} appeared while the rows were read") from None

    def holds(self, size: object, sha256: object) -> bool:
        """Whether the object that is there now has this size and this SHA-256.

        :param size: size in bytes
        :param sha256: SHA-256 of the object's bytes, in hex
        :raises OSError: if the store failed
        """
        self._fs.invalidate_cache()
        try:
            if self._fs.info(self._key).get("size") != size:
                return False
            with self._fs.open(self._key, "rb") as file:
                return _sha256(file) == sha256
        except FileNotFoundError:
            return False

    def open_parts(self, owner: str) -> Parts:
        """The place beside the object where the rows of an unfinished listing are kept.

        :param owner: tells the listing from others of the same object; letters and digits
        """
        return Parts(self._fs, self._key, owner=owner, place=self._place)

    def read_record(self) -> dict[str, Any] | None:
        """The record of who published the object, or None when there is none.

        :raises OSError: if the store failed
        """
        return read_record(self._fs, self._key)

    def write_record(self, record: dict[str, Any], *, owner: str) -> None:
        """Write the record of who publishes the object.

        :param record: JSON of less than 256 KB
        :param owner: tells the task instance that writes from others; letters and digits
        :raises OSError: if the store failed
        """
        write_record(self._fs, self._key, record, owner=owner)


def _check_writable(key: str) -> None:
    # Fail before the listing begins: the folder is otherwise written to only after the last row has been read.
    existing = next(parent for parent in Path(os.path.realpath(key)).parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"output_path: this worker cannot write below {str(existing)!r}")


class Staged:
    """A finished object in a file on the worker. Nothing is at its address yet.

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
        """Make the file the object at its address; on any failure, what was there before stays.

        :param owner: identifies the task instance that publishes; letters and digits
        :param replace: whether an existing object may be replaced. Stores that cannot check this replace it.
        :raises ObjectExistsError: if an object is there and may not be replaced
        :raises StoreRefusedError: if the store refused and a retry cannot help
        :raises StoreError: if the disk or the store failed
        """
        with self._target._place.errors("written"):
            self._target._publish(self._path, owner, replace=replace)


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
