"""Remembers the ids and cursors of a listing, in little memory however long it is."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from airflow_provider_whatsapp.graph.errors import GraphProtocolError

# A power of two.
_FEWEST_PLACES = 16


class SeenCursors:
    """Remembers the cursors of a listing, so that one that leads in a circle ends."""

    def __init__(self) -> None:
        # Hashes take less memory than cursors. Two cursors with the same hash would end the listing in an error, but
        # would never lose a row.
        self._hashes: set[int] = set()

    def add(self, after: str) -> None:
        """Remember the cursor.

        :raises GraphProtocolError: if it came before
        """
        if hash(after) in self._hashes:
            raise GraphProtocolError("the listing loops: the API gave a cursor that it had given before")
        self._hashes.add(hash(after))


class SeenIds:
    """Remembers the ids of a listing exactly, in some forty bytes an id.

    A set of texts takes three times as much, which would be most of a worker's memory after a million accounts. Meta's
    ids are numbers below 2^64, which are kept as such in a hash table; any other text is kept as it is.
    """

    def __init__(self) -> None:
        # A number is in the first place behind its hash that was free. 0 marks a free place.
        self._places = array("Q", bytes(8 * _FEWEST_PLACES))
        self._count = 0
        self._others: set[str] = set()

    def add(self, id_: str) -> bool:
        """Remember the id; False when it came before."""
        return self.add_all([id_])[0]

    def add_all(self, ids: list[str]) -> list[bool]:
        """Remember the ids; False for each that came before."""
        numbers = _parse_numbers(ids)
        if numbers is not None:
            while 2 * (self._count + len(ids)) > len(self._places):
                self._grow()
            new = self._put(numbers, map(hash, ids))
            self._count += sum(new)
            return new
        if len(ids) != 1:
            return [self.add(id_) for id_ in ids]
        is_new = ids[0] not in self._others
        self._others.add(ids[0])
        return [is_new]

    def _put(self, numbers: Iterable[int], hashes: Iterable[int]) -> list[bool]:
        # The hashes are those of the texts, which Python seeds anew in each process: a server could choose ids that all
        # have the same place if it knew the place of a number, and each search would then go through all of them.
        places, last = self._places, len(self._places) - 1
        new = []
        for number, hash_ in zip(numbers, hashes, strict=True):
            place = hash_ & last
            while (found := places[place]) and found != number:
                place = (place + 1) & last
            places[place] = number
            new.append(not found)
        return new

    def _grow(self) -> None:
        before = self._places
        self._places = array("Q", bytes(4 * 8 * len(before)))
        self._put(filter(None, before), map(hash, map(str, filter(None, before))))


def _parse_numbers(ids: list[str]) -> list[int] | None:
    """The numbers that these texts are, or None if one is no number from 1 to 2^64 - 1 in its usual spelling."""
    try:
        numbers = list(map(int, ids))
    except ValueError:
        return None
    is_usual = min(numbers, default=1) > 0 and max(numbers, default=1) < 1 << 64 and list(map(str, numbers)) == ids
    return numbers if is_usual else None
