"""Finds the accounts that were added, removed or changed between two listings.

A :class:`Snapshot` stores a listing in twelve bytes per account: the id, and a digest of the compared fields.
"""

from __future__ import annotations

import base64
import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_whatsapp.graph.arguments import shown

#: Maximum number of ids reported per kind of change; ``count`` stays exact.
MAX_IDS = 1000
# Two snapshots are compared part by part, so that only one part of each is unpacked in memory at a time.
_PARTS = 256
_DIGEST_BYTES = 4
_LARGEST_ID = (1 << 64) - 1


@dataclass(slots=True)
class ChangedIds:
    """The number of accounts that changed in one way, and the ids of the first of them.

    :param count: number of accounts
    :param ids: at most ``MAX_IDS`` of their ids
    """

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, id_: str) -> None:
        """Count an account, and keep its id while there is room."""
        self.count += 1
        if len(self.ids) < MAX_IDS:
            self.ids.append(id_)

    def to_json(self) -> dict[str, Any]:
        """Return the count and the ids as JSON, in ascending order."""
        return {"count": self.count, "ids": sorted(self.ids, key=lambda id_: (len(id_), id_))}


@dataclass(slots=True)
class Changes:
    """The differences between two listings.

    :param added: accounts that only the later listing has
    :param removed: accounts that only the earlier listing has
    :param changed: accounts whose compared fields have different values
    """

    added: ChangedIds = field(default_factory=ChangedIds)
    removed: ChangedIds = field(default_factory=ChangedIds)
    changed: ChangedIds = field(default_factory=ChangedIds)

    def __bool__(self) -> bool:
        return bool(self.added.count or self.removed.count or self.changed.count)

    def to_json(self) -> dict[str, Any]:
        """Return the three kinds of changes as JSON."""
        return {name: getattr(self, name).to_json() for name in ("added", "removed", "changed")}


class Snapshot:
    """The accounts of one complete listing, with a digest of the compared fields of each.

    :param fields: names of the fields that are compared
    """

    def __init__(self, fields: Iterable[str]) -> None:
        self.fields = sorted(fields)
        self._ids = [array("Q") for _ in range(_PARTS)]
        self._digests = [array("I") for _ in range(_PARTS)]
        # Meta's ids are numbers below 2^64. Any other id is stored as text.
        self._others: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._ids)) + len(self._others)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an account.

        :param row: its fields, including ``id``
        """
        id_, digest = row["id"], _digest([row.get(name) for name in self.fields])
        number = int(id_) if id_.isascii() and id_.isdigit() and len(id_) <= 20 else -1
        if 0 <= number <= _LARGEST_ID and str(number) == id_:
            self._ids[number % _PARTS].append(number)
            self._digests[number % _PARTS].append(digest)
        else:
            self._others[id_] = digest

    def changes_to(self, later: Snapshot) -> Changes:
        """Return the changes in a later listing. Fields are compared only if both snapshots have the same ones.

        :param later: snapshot of the later listing
        """
        changes = Changes()
        compares_fields = self.fields == later.fields
        for before, after in zip(self._parts(), later._parts(), strict=True):
            for id_, digest in after.items():
                if id_ not in before:
                    changes.added.add(str(id_))
                elif compares_fields and before[id_] != digest:
                    changes.changed.add(str(id_))
            for id_ in before.keys() - after.keys():
                changes.removed.add(str(id_))
        return changes

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot as JSON, for :meth:`from_json`: 16 characters per account."""
        return {
            "fields": self.fields,
            "ids": _pack(self._ids),
            "digests": _pack(self._digests),
            "others": self._others,
        }

    @classmethod
    def from_json(cls, value: Any) -> Snapshot:
        """Return the snapshot that :meth:`to_json` described.

        :raises ValueError: if the value is not a snapshot
        """
        try:
            snapshot = cls(value["fields"])
            ids, digests = _unpack("Q", value["ids"]), _unpack("I", value["digests"])
            for number, digest in zip(ids, digests, strict=True):
                snapshot._ids[number % _PARTS].append(number)
                snapshot._digests[number % _PARTS].append(digest)
            snapshot._others.update(value["others"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{shown(value)} is not the snapshot of a listing") from error
        return snapshot

    def _parts(self) -> Iterator[dict[Any, int]]:
        for ids, digests in zip(self._ids, self._digests, strict=True):
            yield dict(zip(ids, digests, strict=True))
        yield self._others


@dataclass(frozen=True, slots=True)
class AnyChange:
    """The condition that a watcher waits for: a listing that differs from an earlier one.

    :param before: snapshot of the earlier listing, or None to wait for the first one
    :param fields: names of the fields that are compared
    """

    before: Snapshot | None
    fields: tuple[str, ...]

    def new_tally(self) -> ChangeTally:
        """Return a new tally for one reading of the listing."""
        return ChangeTally(self.before, self.fields)


class ChangeTally:
    """Compares a listing with an earlier one while it is read.

    :param before: snapshot of the earlier listing, or None if this one is the first
    :param fields: names of the fields that are compared
    """

    #: The listing must be read completely: an account that has not appeared yet is not gone.
    needs_whole_listing = True
    is_met = False

    def __init__(self, before: Snapshot | None, fields: Sequence[str]) -> None:
        #: Snapshot of the listing that is being read.
        self.after = Snapshot(fields)
        #: The changes, once the listing was read completely; empty for the first listing.
        self.changes = Changes()
        self._before = before

    @property
    def count(self) -> int:
        """The number of accounts read so far."""
        return len(self.after)

    def add(self, row: Mapping[str, Any]) -> bool:
        """Add an account of the listing."""
        self.after.add(row)
        return True

    def reason(self, *, listed: str) -> str:
        """Return an empty text: the number of accounts says enough."""
        return ""

    def is_met_at_end(self) -> bool:
        """Return whether the listing, now read completely, differs from the stored snapshot."""
        if self._before is None:
            return True
        self.changes = self._before.changes_to(self.after)
        # If the fields to compare have changed, this listing must become the new snapshot.
        return bool(self.changes) or self._before.fields != self.after.fields


def _digest(values: list[Any]) -> int:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest(), "little")


def _pack(parts: Iterable[array[int]]) -> str:
    # Uses the machine's byte order: all processors that Airflow runs on are little-endian.
    return base64.b64encode(b"".join(part.tobytes() for part in parts)).decode()


def _unpack(typecode: str, text: str) -> array[int]:
    packed = array(typecode)
    packed.frombytes(base64.b64decode(text, validate=True))
    return packed
