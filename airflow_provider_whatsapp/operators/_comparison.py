"""Compares the rows of a listing with those of an earlier object while they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph.changes import Changes, Snapshot

if TYPE_CHECKING:
    from airflow_provider_whatsapp.storage.source import Source

_KINDS = tuple(Changes().to_json())


class Comparison:
    """What is different in a listing from an earlier object.

    The earlier object is read at once, because it may be the one that the listing replaces.

    :param earlier: the earlier object, or None if there is none
    :param columns: names of the fields that the listing asks for, or none if the API chooses them
    :raises ValueError: if the earlier object is not complete or cannot be read
    :raises AirflowFailException: if its rows have no id
    :raises OSError: if the store failed
    """

    def __init__(self, earlier: Source | None, columns: Sequence[str]) -> None:
        self._earlier = earlier
        self._is_text = earlier is not None and earlier.format == "csv"
        names: set[str] = set()
        if earlier is not None:
            if (earlier.read_manifest() or {}).get("truncated"):
                raise ValueError(
                    f"compare_with: max_items has cut {earlier.uri}, so accounts that are missing in it are not new"
                )
            for row in earlier.rows():
                names.update(row)
        # A field that only one of the two has cannot have changed.
        fields = [name for name in (columns or sorted(names)) if name in names and name != "id"]
        self._before, self._after = Snapshot(fields), Snapshot(fields)
        if earlier is not None:
            for row in earlier.rows():
                self._before.add({**row, "id": _key_of(row)})

    def watch(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows, of which each is remembered.

        :param rows: rows of the listing
        """
        # The listing may begin anew.
        self._after = Snapshot(self._before.fields)
        for row in rows:
            if self._earlier is not None:
                self._after.add({**self._spelled_like_before(row), "id": _key_of(row)})
            yield row

    def describe(self, *, truncated: bool) -> dict[str, Any]:
        """The part of the manifest that says what is different; null for each kind if there was no earlier object.

        :param truncated: whether ``max_items`` has cut the listing
        :raises AirflowFailException: if it has
        """
        if self._earlier is None:
            return dict.fromkeys(_KINDS)
        if truncated:
            raise AirflowFailException(
                "compare_with: max_items has cut the listing, so accounts that are missing in it are not removed"
            )
        return self._before.changes_to(self._after).to_json()

    def _spelled_like_before(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self._is_text:
            return row
        from airflow_provider_whatsapp.storage.formats import encode_cell

        return {name: encode_cell(row.get(name)) for name in self._before.fields}


def _key_of(row: dict[str, Any]) -> str:
    id_ = row.get("id")
    if not isinstance(id_, (str, int)) or not str(id_):
        raise AirflowFailException("compare_with: the rows have no `id` by which they could be compared")
    # The same user or app can be a row of several accounts.
    return f"{row['waba_id']}/{id_}" if "waba_id" in row else str(id_)
