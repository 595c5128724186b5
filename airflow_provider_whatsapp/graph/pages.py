"""Reads the pages of an edge and guards against listings that repeat themselves or never end.

https://developers.facebook.com/docs/graph-api/results
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from airflow_provider_whatsapp.graph.errors import GraphProtocolError
from airflow_provider_whatsapp.graph.messages import Request
from airflow_provider_whatsapp.graph.query import EdgeQuery
from airflow_provider_whatsapp.graph.usage import Usage

#: Maximum number of pages without any row between two new rows. Meta filters after paging, so many can be empty.
MAX_EMPTY_PAGES = 1000
#: Maximum number of pages with rows but without a new one between two new rows.
MAX_REPEATED_PAGES = 20
# A longer cursor would not fit into the URL of the next request.
_LONGEST_CURSOR = 8192
# Leaves room for a URL with the longest cursor, percent-encoded, and a long query.
_LONGEST_ADDRESS = 64 * 1024
# After these numbers of faults, a page is requested with a quarter of the rows. Not every error for a page that is too
# large says so, but most faults have another cause and pass. Only twice, so that an outage does not reduce pages to
# one row.
_FAULTS_BEFORE_SHRINKING = (3, 5)
# Each time a larger page has failed, more pages are read before the next attempt at that size, up to this number.
_MOST_PAGES_BEFORE_GROWTH = 16
_CONTAINERS = frozenset((dict, list))


@dataclass(frozen=True, slots=True)
class Position:
    """Where a listing stands after a page, so that another process can resume it.

    A cursor may expire, or lead elsewhere after accounts were added or removed. The page is therefore requested again
    before the listing resumes, and must hold the same nodes in the same order.

    :param page: number of the page in the listing, starting at 1
    :param after: cursor that the page was requested with, or None for the first page
    :param limit: number of rows that the page was requested with
    :param digest: hex SHA-256 of the page's ids (of whole rows where there is no id)
    :param count: number of rows read so far, this page included
    """

    page: int
    after: str | None
    limit: int
    digest: str
    count: int


class ListingMovedError(Exception):
    """A listing cannot resume from a position, because the API now returns different nodes there."""


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one response that no earlier page of the same listing had.

    :param rows: one ``dict`` per node, with ids as ``str`` and nested edges complete
    :param position: where the listing stands after this page
    :param usage: rate-limit usage that the response reported, or None
    :param truncated: whether ``max_items`` ended the listing with this page although the API has more rows
    :param is_last: whether the listing ends with this page
    :param is_kept: whether an earlier process read the rows, so that they come from its checkpoint
    """

    rows: list[dict[str, Any]]
    position: Position
    usage: Usage | None = None
    truncated: bool = False
    is_kept: bool = False
    is_last: bool = False

    @property
    def number(self) -> int:
        """The number of the page in the listing, starting at 1."""
        return self.position.page


@dataclass(frozen=True, slots=True)
class RawPage:
    """The rows and the cursor of one response.

    :param rows: the nodes of the response, duplicates included
    :param after: cursor of the next page, or None on the last page
    """

    rows: list[dict[str, Any]]
    after: str | None


def parse_page(payload: Any) -> RawPage:
    """Return the rows of a response, and the cursor of the next page.

    :param payload: parsed response from an edge, or the value of a nested edge in a row
    :raises GraphProtocolError: if it is not a page of an edge
    """
    if not isinstance(payload, dict) or "data" not in payload:
        raise GraphProtocolError("the response has no `data`: it is not a page of an edge")
    rows = payload["data"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise GraphProtocolError("the response's `data` is not a list of objects")
    paging = payload.get("paging")
    if paging is None or paging == []:
        paging = {}
    if not isinstance(paging, dict):
        raise GraphProtocolError("the response's `paging` is not an object")
    following = paging.get("next")
    if following is None:
        # Only the absence of `next` ends a listing: a page without rows can be followed by others, and the last page
        # has a `cursors.after` too.
        return RawPage(rows, None)
    if not isinstance(following, str) or len(following) > _LONGEST_ADDRESS:
        raise GraphProtocolError("the response's `paging.next` is not a URL")
    return RawPage(rows, _find_cursor(paging, following))


def is_nested_edge(value: Any) -> bool:
    """Return whether the value of a field is a page of an edge that was expanded in place."""
    if not isinstance(value, dict):
        return False
    data, paging = value.get("data"), value.get("paging")
    if isinstance(paging, dict) and paging.get("next") is not None:
        return True
    return isinstance(data, list) and all(isinstance(row, dict) for row in data)


def has_nested_edge(rows: list[dict[str, Any]]) -> bool:
    """Return whether any value below these rows is, or looks like, an edge that was expanded in place.

    :param rows: rows of a page
    """
    level: list[Any] = rows
    while level:
        values = chain.from_iterable([item.values() if isinstance(item, dict) else item for item in level])
        level = [value for value in values if type(value) in _CONTAINERS]
        if any(is_nested_edge(item) for item in level if "data" in item or "paging" in item):
            return True
    return False


def _find_cursor(paging: dict[str, Any], following: str) -> str:
    cursors = paging.get("cursors")
    after = cursors.get("after") if isinstance(cursors, dict) else None
    if type(after) is int:
        return str(after)
    if not after:
        # Take only the cursor from the `next` URL and never fetch that URL: it could lead to another host, which would
        # then receive the token, and it lacks the proof.
        try:
            after = parse_qs(urlsplit(following).query).get("after", [None])[0]
        except ValueError:
            after = None
    if isinstance(after, str) and len(after) > _LONGEST_CURSOR:
        raise GraphProtocolError(f"the response's cursor is longer than {_LONGEST_CURSOR} characters")
    if not isinstance(after, str) or not after:
        raise GraphProtocolError("the response announces a next page but has no cursor for it")
    return after


class PageReader:
    """The state of reading an edge page by page: the next request, the ids seen, and whether there is more.

    :param query: what is listed
    :param position: where to resume, or None to start with the first page
    :param ids: ids of the rows up to and including the position; the listing adds the ids that it reads
    """

    def __init__(self, query: EdgeQuery, *, position: Position | None = None, ids: set[str] | None = None) -> None:
        #: Whether there is another page to request.
        self.more = True
        self._query = query
        self._asks_for_ids = any(field.key == "id" for field in query.fields)
        self._after: str | None = None
        # Hashes take less memory than cursors. A collision would end the listing with an error, but never lose a row.
        self._cursors: set[int] = set()
        # A set is safe against ids chosen to collide, because Python seeds string hashes in each process.
        self._ids = set() if ids is None else ids
        self._pages = 0
        self._count = 0
        self._empty_pages = 0
        self._repeated_pages = 0
        self._page_size = query.page_size
        # Largest size to try: below every size that was refused.
        self._largest_size = query.page_size
        # Size of the last page that could be read, or 0 before the first.
        self._proven_size = 0
        self._faults = 0
        self._pages_of_size = 0
        self._pages_before_growth = 1
        self._position = position
        if position is not None:
            self._after = position.after
            self._page_size = self._proven_size = position.limit

    def next_request(self) -> Request:
        """Return the request for the next page."""
        return self._query.request(limit=self._limit, after=self._after)

    def take(self, raw: RawPage, usage: Usage | None = None) -> Page:
        """Move on to the next page, and return the rows of this one that no earlier page had.

        :param raw: the response to :meth:`next_request`
        :param usage: rate-limit usage that the response reported
        :raises GraphProtocolError: if a row has no id, a cursor is repeated or the listing does not end
        """
        limit = self._limit
        self._pages += 1
        rows = self._without_known(raw.rows)
        kept = rows[: self._items_left]
        self._count += len(kept)
        position = Position(self._pages, self._after, limit, _digest(raw), self._count)
        self._check_for_end(raw.rows, rows)
        self._move_on(raw.after)
        truncated = self._items_left == 0 and (self.more or len(kept) < len(rows))
        self._end_at_max_items()
        if limit > self._proven_size:
            self._pages_before_growth = 1
        self._proven_size, self._faults = limit, 0
        self._grow()
        return Page(kept, position, usage, truncated, is_last=not self.more)

    def return_to_position(self, raw: RawPage, usage: Usage | None = None) -> Page:
        """Move on to the page after the position; the returned page has no rows, because the caller has them.

        :param raw: the response to :meth:`next_request`, which requested the page of the position again
        :param usage: rate-limit usage that the response reported
        :raises ListingMovedError: if the response does not hold the same nodes in the same order as before
        """
        position = cast("Position", self._position)
        if _digest(raw) != position.digest:
            raise ListingMovedError(f"page {position.page} does not hold the same accounts as before")
        self._pages, self._count = position.page, position.count
        self._move_on(raw.after)
        # The API may have returned more rows than requested; those over `max_items` were cut.
        truncated = self._items_left == 0 and (self.more or len(raw.rows) > position.limit)
        self._end_at_max_items()
        return Page([], position, usage, truncated)

    def shrink(self) -> bool:
        """Request at most half as many rows from now on. Returns False if the page already has only one row."""
        if self._limit == 1:
            return False
        self._page_size = self._largest_size = self._limit // 2
        self._pages_of_size = 0
        return True

    def note_fault(self) -> None:
        """Request fewer rows for now if the page may be too large although the API does not say so."""
        self._faults += 1
        if 0 < self._proven_size < self._limit:
            self._page_size = self._proven_size
            # Otherwise, a listing whose larger pages all fail would try one before every other page.
            self._pages_before_growth = min(self._pages_before_growth * 4, _MOST_PAGES_BEFORE_GROWTH)
        elif self._faults in _FAULTS_BEFORE_SHRINKING:
            self._page_size = max(1, self._limit // 4)
        self._pages_of_size = 0

    @property
    def _limit(self) -> int:
        return self._page_size if self._items_left is None else min(self._page_size, self._items_left)

    @property
    def _items_left(self) -> int | None:
        return None if self._query.max_items is None else self._query.max_items - self._count

    def _end_at_max_items(self) -> None:
        self.more = self.more and self._items_left != 0

    def _without_known(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows whose ids are new. Rows without an id are never taken for duplicates."""
        ids = [id_ for row in rows if (id_ := row.get("id")) is not None]
        if not all(isinstance(id_, str) and id_ for id_ in ids) or (self._asks_for_ids and len(ids) < len(rows)):
            raise GraphProtocolError("a row of the response has no usable `id`, so duplicates cannot be detected")
        unknown = []
        for row in rows:
            id_ = row.get("id")
            if id_ is None or id_ not in self._ids:
                unknown.append(row)
            if id_ is not None:
                self._ids.add(id_)
        return unknown

    def _check_for_end(self, rows: list[dict[str, Any]], new_rows: list[dict[str, Any]]) -> None:
        if new_rows:
            self._empty_pages = self._repeated_pages = 0
        elif rows:
            self._repeated_pages += 1
        else:
            self._empty_pages += 1
        if self._repeated_pages > MAX_REPEATED_PAGES or self._empty_pages > MAX_EMPTY_PAGES:
            pages = self._repeated_pages + self._empty_pages
            raise GraphProtocolError(f"the listing does not end: {pages} consecutive pages held nothing new")

    def _move_on(self, after: str | None) -> None:
        if after is not None:
            if hash(after) in self._cursors:
                raise GraphProtocolError("the listing loops: the API returned a cursor that it had returned before")
            self._cursors.add(hash(after))
        self._after = after
        self.more = after is not None

    def _grow(self) -> None:
        # Otherwise, one outage would keep all later pages small.
        self._pages_of_size += 1
        if self._pages_of_size >= self._pages_before_growth and self._page_size < self._largest_size:
            self._page_size = min(self._page_size * 2, self._largest_size)
            self._pages_of_size = 0


def _digest(raw: RawPage) -> str:
    # Rows without an id are identified by all their values.
    nodes = [row.get("id", row) for row in raw.rows]
    return hashlib.sha256(json.dumps(nodes, sort_keys=True).encode()).hexdigest()
