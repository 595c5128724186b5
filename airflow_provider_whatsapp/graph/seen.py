"""Remembers the ids and cursors of a listing, in little memory however long it is."""

from __future__ import annotations

from array import array

from airflow_provider_whatsapp.graph.errors import GraphProtocolError


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
    """Remembers the ids of a listing exactly, in some twenty bytes an id.

    A set of texts takes five times as much, which would be most of a worker's memory after a million accounts. Meta's
    ids are numbers below 2^64, which are kept as such in many small arrays; any other text is kept as it is.
    """

    _IDS_PER_ARRAY = 32

    def __init__(self) -> None:
        self._arrays: list[array[int]] = [array("Q")]
        self._count = 0
        self._others: set[str] = set()

    def add(self, id_: str) -> bool:
        """Remember the id; False when it came before."""
        # Numbers of less than twenty digits are below 2^64. Another text with the same number is another id.
        if len(id_) > 19 or not id_.isdigit() or not id_.isascii() or id_[0] == "0":
            new = id_ not in self._others
            self._others.add(id_)
            return new
        number, ids = int(id_), self._array_of(id_)
        if number in ids:
            return False
        ids.append(number)
        self._count += 1
        if self._count > self._IDS_PER_ARRAY * len(self._arrays):
            self._double()
        return True

    def _array_of(self, id_: str) -> array[int]:
        # By the hash of the text, which Python seeds anew in each process: a server could choose ids that all go to the
        # same array if it knew to which array a number goes, and each search would then go through all of them.
        return self._arrays[hash(id_) & (len(self._arrays) - 1)]

    def _double(self) -> None:
        before = self._arrays
        self._arrays = [array("Q") for _ in range(2 * len(before))]
        for ids in before:
            for number in ids:
                self._array_of(str(number)).append(number)
