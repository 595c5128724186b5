"""Finds out which accounts to read: from ids, rows, a manifest or an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.arguments import given, parse_rendered, parse_waba_id, shown

if TYPE_CHECKING:
    from airflow_provider_whatsapp.storage.reader import ObjectReader

_EXAMPLE = (
    "give ids (['102290129340398']), the rows or the manifest that WhatsAppListWabasOperator returned, or the address "
    "of an object with such rows"
)


class WabaIds:
    """The ids of the accounts to read, without duplicates, in the order in which they were given.

    Ids and rows in memory are checked immediately. Objects and iterators are read while the ids are consumed.

    :param value: ids, rows with an ``id``, a manifest, a list of these, or the address of an object with such rows. A
        string may also be a comma-separated list of ids, or a list or manifest that a template rendered to text
    :param conn_id: Airflow connection of the store, for addresses that name none
    :raises ValueError: if it is none of these; the message names the argument and the position in it
    """

    def __init__(self, value: Any, *, conn_id: str | None = None) -> None:
        #: Number of accounts, or None if it is known only after the last one.
        self.count: int | None = 0
        self._conn_id = conn_id
        self._batches: list[Iterable[str]] = []
        if given(value, None) is None:
            raise ValueError(
                f"waba_ids: {shown(value)} names no accounts, like a template without a value; an empty list reads "
                f"none; {_EXAMPLE}"
            )
        self._add(value, "waba_ids")

    @property
    def uris(self) -> list[str]:
        """The addresses of the objects that hold the ids."""
        return [batch.uri for batch in self._batches if isinstance(batch, _StoredIds)]

    def to_json(self) -> list[Any]:
        """Return the sources of the ids as JSON: the ids themselves, or the address of the object that holds them."""
        return [batch.uri if isinstance(batch, _StoredIds) else batch for batch in self._batches]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids.

        :raises ValueError: if an object does not hold accounts, or is not the one that its manifest describes
        """
        seen: set[str] = set()
        for batch in self._batches:
            for waba_id in batch:
                if waba_id not in seen:
                    seen.add(waba_id)
                    yield waba_id

    def _add(self, value: Any, where: str) -> None:
        if isinstance(value, str):
            # The text can come from a file of Excel or PowerShell, which begins with a byte order mark.
            self._add_text(value.removeprefix("\ufeff").strip(), where)
        elif isinstance(value, Mapping):
            self._add_mapping(value, where)
        elif isinstance(value, (bytes, bytearray)):
            # Bytes would be taken for a list of numbers.
            self._add_ids([parse_waba_id(value, where=where)])
        elif isinstance(value, (Sequence, set, frozenset)):
            # Sorted, because the next try of the task must find the accounts of a set in the same order.
            value = value if isinstance(value, Sequence) else sorted(value, key=str)
            for number, one in enumerate(value):
                self._add(one, f"{where}[{number}]")
        elif isinstance(value, Iterable) and where == "waba_ids":
            self._batches.append(_parse_row(one, where=f"waba_ids[{number}]") for number, one in enumerate(value))
            self.count = None
        else:
            self._add_ids([parse_waba_id(value, where=where)])

    def _add_text(self, text: str, where: str) -> None:
        # Check for a list or a manifest first, because they can contain addresses.
        value = parse_rendered("waba_ids", text, _EXAMPLE)
        if value is not text:
            self._add(value, where)
        elif "://" in text or text.startswith("/"):
            self._batches.append(_StoredIds(_open_reader(text, default_conn_id=self._conn_id)))
            self.count = None
        else:
            self._add_ids([parse_waba_id(one, where=where) for one in text.split(",")])

    def _add_mapping(self, value: Mapping[str, Any], where: str) -> None:
        if "uri" not in value:
            self._add_ids([_parse_row(value, where=where)])
            return
        if "relationship" not in value:
            listed = value.get("edge", "something else")
            raise ValueError(f"{where}: this is the manifest of {shown(listed)}, not of accounts; {_EXAMPLE}")
        reader = _open_reader(value["uri"], conn_id=value.get("conn_id"), format=value.get("format"))
        count = value.get("count")
        self._batches.append(_StoredIds(reader, value))
        self.count = self.count + count if isinstance(count, int) and self.count is not None else None

    def _add_ids(self, ids: list[str]) -> None:
        if self._batches and isinstance(self._batches[-1], list):
            self._batches[-1].extend(ids)
        else:
            self._batches.append(ids)
        if self.count is not None:
            self.count += len(ids)


class _StoredIds:
    """The ids of the rows of an object.

    :param reader: reader of the object
    :param manifest: manifest of the object, or None if only its address is known
    """

    def __init__(self, reader: ObjectReader, manifest: Mapping[str, Any] | None = None) -> None:
        self.uri = reader.uri
        self._reader = reader
        self._manifest = manifest

    def __iter__(self) -> Iterator[str]:
        for number, row in enumerate(self._reader.rows(manifest=self._manifest), start=1):
            yield _parse_row(row, where=f"waba_ids: row {number} of {self.uri}")


def _parse_row(row: Any, *, where: str) -> str:
    if isinstance(row, Mapping):
        if "waba_id" in row:
            # The `id` of such a row belongs to a phone number or a template, not to an account.
            raise ValueError(f"{where}: this is a row of an account's edge, not an account; {_EXAMPLE}")
        if row.get("id") is None:
            raise ValueError(f"{where}: the row has no `id`; {_EXAMPLE}")
        row = row["id"]
    return parse_waba_id(row, where=where)


def _open_reader(path: Any, **options: Any) -> ObjectReader:
    # lazy: fsspec
    from airflow_provider_whatsapp.storage.reader import ObjectReader

    return ObjectReader("waba_ids", path, **options)
