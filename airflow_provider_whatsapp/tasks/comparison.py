"""Compares the rows of a listing with those of an earlier object while they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph.changes import Changes, Snapshot
from airflow_provider_whatsapp.graph.fields import parse_fields
from airflow_provider_whatsapp.resume.published import read_record
from airflow_provider_whatsapp.storage.columns import UnfitValueError, encode_text, encoder_of
from airflow_provider_whatsapp.storage.json_text import encode_json

if TYPE_CHECKING:
    from airflow_provider_whatsapp.storage.reader import ObjectCopy, ObjectReader

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# A listing requests only dozens of fields. The names of all fields of the earlier object are in memory.
_MOST_FIELDS = 10_000
# Ids have about 20 characters. Ids that are not numbers are in memory.
_LONGEST_ID = 200
_KINDS = tuple(Changes().to_json())


class Comparison:
    """The differences between a listing and an earlier object.

    The earlier object is read immediately, because the listing may replace it.

    :param earlier: the earlier object, or None if there is none
    :param columns: names of the fields that the listing requests, or none if the API chooses them
    :raises ValueError: if the earlier object is not complete or cannot be read
    :raises AirflowFailException: if its rows have no id
    :raises OSError: if the store failed
    """

    def __init__(self, earlier: ObjectReader | None, columns: Sequence[str]) -> None:
        #: Format of the earlier object, or None if there is none.
        self._format = None if earlier is None else earlier.format
        self._before = Snapshot([])
        if earlier is not None:
            # The object may be replaced at any time, so everything is taken from one copy of it.
            with earlier.copied() as copy:
                self._before = _read_snapshot(copy, columns)
        self._after = Snapshot(self._before.fields)

    def watch(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the rows, and remember each for the comparison.

        :param rows: rows of the listing
        """
        # The listing may start again.
        self._after = Snapshot(self._before.fields)
        for row in rows:
            if self._format is not None:
                self._after.add({**self._spelled_like_before(row), "id": _key_of(row)})
            yield row

    def describe(self, *, truncated: bool) -> dict[str, Any]:
        """Return the differences for the manifest; each kind is None if there was no earlier object.

        :param truncated: whether ``max_items`` has cut the listing
        :raises AirflowFailException: if it has
        """
        if self._format is None:
            return dict.fromkeys(_KINDS)
        if truncated:
            raise AirflowFailException(
                "compare_with: max_items has cut the listing, so accounts that are missing in it may not be removed"
            )
        return self._before.changes_to(self._after).to_json()

    def _spelled_like_before(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with its values in the form that the earlier object's format gives them."""
        encode = _ENCODERS.get(self._format or "")
        if encode is None:
            return row
        return {name: encode(name, row.get(name)) for name in self._before.fields}


def _csv_cell(column: str, value: Any) -> str:
    return "" if value is None else encode_text(value)


def _parquet_cell(column: str, value: Any) -> Any:
    try:
        return None if value is None else encoder_of(column)(value)
    except UnfitValueError:
        # No cell of the earlier object can equal this.
        return encode_json([value])


def _read_snapshot(copy: ObjectCopy, columns: Sequence[str]) -> Snapshot:
    """Return the snapshot of an earlier object.

    :param copy: the object
    :param columns: names of the fields that the listing requests, or none if the API chooses them
    """
    manifest = _manifest_of(copy)
    if manifest.get("truncated"):
        raise ValueError(
            f"compare_with: max_items has cut {copy.reader.uri}, so accounts that are missing in it may not be new"
        )
    wanted = list(dict.fromkeys(("id", "waba_id", *columns)))
    names = set(_fields_of(manifest))
    for row in copy.rows(wanted):
        names.update(row.keys() & wanted if columns else row)
        if len(names) > _MOST_FIELDS:
            raise ValueError(f"compare_with: the rows of {copy.reader.uri} have more than {_MOST_FIELDS:,} fields")
    # A field that only one of the two has cannot be compared.
    snapshot = Snapshot(name for name in (columns or names) if name in names and name != "id")
    for row in copy.rows(wanted):
        snapshot.add({**{name: _plain(value) for name, value in row.items()}, "id": _key_of(row)})
    return snapshot


def _manifest_of(copy: ObjectCopy) -> dict[str, Any]:
    """Return the manifest from the record beside an object; empty if there is none, or if it describes another object.

    After a failed upload, the record describes an object that was never published.
    """
    reader = copy.reader
    with reader.place.errors("read"):
        record = read_record(reader.store, reader.key)
    manifest = None if record is None else record.get("manifest")
    return manifest if isinstance(manifest, dict) and manifest.get("sha256") == copy.sha256 else {}


def _fields_of(manifest: dict[str, Any]) -> list[str]:
    """Return the fields that an earlier listing requested.

    NDJSON and JSON do not show them all: the API leaves a field without a value out of a row, even if it is out of
    every row.
    """
    try:
        return [field.key for field in parse_fields(manifest["fields"])]
    except (KeyError, ValueError):
        # The listing left the choice of the fields to the API.
        return []


_ENCODERS = {"csv": _csv_cell, "parquet": _parquet_cell}


def _plain(value: Any) -> Any:
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def _key_of(row: dict[str, Any]) -> str:
    id_ = row.get("id")
    # The same user or app can be in the rows of several accounts.
    key = f"{row['waba_id']}/{id_}" if "waba_id" in row else str(id_)
    if not isinstance(id_, (str, int)) or not str(id_) or len(key) > _LONGEST_ID:
        raise AirflowFailException("compare_with: the rows have no `id` to compare them by")
    return key
