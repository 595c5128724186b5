"""Reads the rows that the operators and sensors of this package wrote to object storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_whatsapp.storage.errors import StoreError, StoreRefusedError

if TYPE_CHECKING:
    from airflow_provider_whatsapp.storage.reader import ObjectReader

__all__ = ["Manifest", "StoreError", "StoreRefusedError", "read_rows"]

_EXAMPLE = "give the manifest of a task, or an address such as 's3://bucket/wabas.ndjson'"


class Manifest(TypedDict, total=False):
    """The XCom of a task with ``output_path``: where the rows are, and what was listed.

    Each operator and sensor sets the keys that apply to it.
    """

    #: The store's own address of the object, without a connection id.
    uri: str
    #: Airflow connection of the store, or None for the store's own default.
    conn_id: str | None
    #: Format of the object: ``"ndjson"``, ``"json"``, ``"csv"`` or ``"parquet"``.
    format: str
    #: Number of rows in the object.
    count: int
    #: Size of the object in bytes.
    bytes: int
    #: Hex SHA-256 of the object's bytes.
    sha256: str

    #: Number of pages that were read.
    pages: int
    #: True only if ``max_items`` cut the list.
    truncated: bool
    #: The fields that were requested; empty if the API chose them.
    fields: list[str]

    #: Id of the business whose accounts were listed, or None if there were several.
    business_id: str | None
    #: Number of businesses, if there were several.
    businesses: int
    #: ``"client"``, ``"owned"`` or ``"all"``.
    relationship: str

    #: The API's name of the edge that was read.
    edge: str
    #: Number of accounts that were read completely.
    accounts: int
    #: Start of the analytics window in unix seconds, inclusive.
    start: int
    #: End of the analytics window in unix seconds, exclusive.
    end: int

    #: The first 100 accounts or businesses that were left out, each with its ``reason``.
    skipped: list[dict[str, str]]
    #: Number of accounts or businesses that were left out.
    skipped_count: int

    #: Address of the earlier object that the rows were compared with.
    compared_with: str
    #: ``count`` of the new rows, and at most 1,000 of their ``ids``; None if there was no earlier object.
    added: dict[str, Any] | None
    #: The same for rows that are now missing.
    removed: dict[str, Any] | None
    #: The same for rows with different values.
    changed: dict[str, Any] | None
    #: Number of rows that could not be compared, because their account or business was left out.
    not_compared: int
    #: The manifest of the object with one row for each change.
    changes: Manifest


def read_rows(source: Mapping[str, object] | str, *, conn_id: str | None = None) -> Iterator[dict[str, Any]]:
    """Return an iterator over the rows of an object; only a small part of it is in memory at a time.

    The store is opened immediately. When the first row is read, the object is copied to the worker's temporary folder,
    and the copy is gone after the last one. Values from CSV are strings; NDJSON, JSON and Parquet give the values that
    were written.

    :param source: manifest of a task, from XCom; or address of an object: an ``ObjectStoragePath`` URL or an absolute
        path, which ends in ``.ndjson``, ``.jsonl``, ``.json`` or ``.csv``, each also with ``.gz``, or in ``.parquet``
    :param conn_id: Airflow connection of the store; by default the one in the manifest or the address, or otherwise the
        store's own default
    :raises ValueError: if the source is neither, or names no format, no installed store or no existing connection.
        While the rows are read: if there is no such object, if it does not hold rows in this format, or if it is no
        longer the object of the manifest
    :raises StoreRefusedError: if the credentials lack permission to read, which a retry cannot fix
    :raises StoreError: if the store failed, which may be temporary
    """
    if isinstance(source, Mapping):
        uri = source.get("uri")
        if not isinstance(uri, str):
            raise ValueError(f"source: the mapping has no `uri`, so it is not a manifest; {_EXAMPLE}")
        reader = _open(uri, conn_id or source.get("conn_id"), source.get("format"))
        return reader.rows(None, manifest=source)
    if not isinstance(source, str):
        raise ValueError(f"source: a {type(source).__name__} is neither a manifest nor an address; {_EXAMPLE}")
    return _open(source, conn_id, None).rows(None)


def _open(path: str, conn_id: Any, format: Any) -> ObjectReader:
    # lazy: fsspec
    from airflow_provider_whatsapp.storage.reader import ObjectReader

    return ObjectReader("source", path, conn_id=conn_id, format=format)
