"""One page of an edge: reading it, and the guards against a listing that repeats itself or never ends.

https://developers.facebook.com/docs/graph-api/results
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from airflow_provider_whatsapp.graph.errors import GraphProtocolError
from airflow_provider_whatsapp.graph.messages import Request
from airflow_provider_whatsapp.graph.query import EdgeRead
from airflow_provider_whatsapp.graph.usage import Usage

#: An edge may answer with empty pages, but not with this many in a row.
MAX_BARREN_PAGES = 1000
# Beyond this no address could carry it back.
_LONGEST_CURSOR = 8192
# Expansions of expansions go a few levels deep, not a hundred.
_MAX_DEPTH = 100
# So many pages after a page had to be made smaller, a larger one is tried again.
_PAGES_BEFORE_GROWTH = 10


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of an edge that no earlier page of the same listing had.

    :param rows: one ``dict`` per node, ids as ``str``, nested edges whole
    :param number: 1 for the first page
    :param usage: what the API said of its rate limit, or None
    :param truncated: ``max_items`` ended the listing here although the API has more
    """

    rows: list[dict[str, Any]]
    number: int
    usage: Usage | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class RawPage:
    """What one answer of an edge holds.

    :param rows: its nodes as they came
    :param after: the cursor that the next page follows; None on the last page
    """

    rows: list[dict[str, Any]]
    after: str | None


def parse_json(body: bytes, *, mask: Callable[[str], str] | None = None) -> Any:
    """The value of a JSON text, with ids as ``str`` and text that any store can hold.

    Meta's samples show ids as strings and as bare numbers (beyond what a float can hold): both come as ``str``.

    :param body: as it was unpacked
    :param mask: takes secrets out of a text, or None where there are none
    :raises GraphProtocolError: not JSON
    """
    try:
        value = json.loads(body, parse_constant=_no_such_number, parse_float=_finite)
        return _tidy(value, mask)
    except ValueError:
        # Cut by a gateway or an error page with status 200: the next try may well get the real one.
        problem = GraphProtocolError("the answer is not JSON", retryable=True)
    except RecursionError:
        problem = GraphProtocolError("the answer is nested too deeply to be one of the Graph API")
    # Not within `except`: the error of the JSON library holds the whole body.
    raise problem


def parse_page(payload: Any) -> RawPage:
    """The rows of an edge's answer and where the next page starts.

    :param payload: the parsed answer, or a nested edge of a row
    :raises GraphProtocolError: it is not the page of an edge
    """
    if not isinstance(payload, dict) or "data" not in payload:
        raise GraphProtocolError("the answer has no `data`: it is not the page of an edge")
    rows = payload["data"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise GraphProtocolError("the answer's `data` is not a list of objects")
    paging = payload.get("paging")
    if paging is None or paging == []:
        paging = {}
    if not isinstance(paging, dict):
        raise GraphProtocolError("the answer's `paging` is not an object")
    following = paging.get("next")
    if following is None:
        # The one rule that ends a listing: `cursors.after` is there on the last page too, and a page may be empty.
        return RawPage(rows, None)
    if not isinstance(following, str):
        raise GraphProtocolError("the answer's `paging.next` is not an address")
    return RawPage(rows, _after(paging, following))


def is_nested_edge(value: Any) -> bool:
    """Whether a field's value is a page of an edge that was expanded in place."""
    if not isinstance(value, dict):
        return False
    data, paging = value.get("data"), value.get("paging")
    if isinstance(paging, dict) and paging.get("next") is not None:
        return True
    return isinstance(data, list) and all(isinstance(row, dict) for row in data)


def _after(paging: dict[str, Any], following: str) -> str:
    cursors = paging.get("cursors")
    after = cursors.get("after") if isinstance(cursors, dict) else None
    if not after:
        # Of `next` only the cursor is taken: it may name another host, carry the token and lack the proof.
        try:
            after = parse_qs(urlsplit(following).query).get("after", [None])[0]
        except ValueError:
            after = None
    if isinstance(after, str) and len(after) > _LONGEST_CURSOR:
        raise GraphProtocolError(f"the answer's cursor is longer than {_LONGEST_CURSOR} characters")
    if not isinstance(after, str) or not after:
        raise GraphProtocolError("the answer announces a next page but gives no cursor to reach it by")
    return after


class Listing:
    """How far the reading of an edge has come: which page is next, what was seen, whether there is more.

    :param read: what is read
    """

    def __init__(self, read: EdgeRead) -> None:
        #: Whether there is another page to ask for.
        self.more = True
        self._read = read
        self._after: str | None = None
        self._cursors = _SeenCursors()
        self._ids = _SeenIds()
        self._pages = 0
        self._barren_pages = 0
        self._page_size = read.page_size
        self._good_pages = 0
        self._left = read.max_items

    def request(self) -> Request:
        """The request for the next page."""
        return self._read.request(limit=self._limit, after=self._after)

    def take(self, raw: RawPage, usage: Usage | None = None) -> Page:
        """The rows of the page that no earlier one had; the listing moves on behind it.

        :raises GraphProtocolError: a row without its id, a cursor that was there before, pages without an end
        """
        self._pages += 1
        rows = [row for row in raw.rows if self._is_new(row)]
        kept = rows if self._left is None else rows[: self._left]
        if self._left is not None:
            self._left -= len(kept)
        self._move_on(raw.after, barren=not rows)
        reached = self._left == 0
        truncated = reached and (self.more or len(kept) < len(rows))
        self.more = self.more and not reached
        self._grow()
        return Page(kept, self._pages, usage, truncated)

    def shrink(self) -> bool:
        """Halve the page from now on; whether that was possible."""
        if self._limit == 1:
            return False
        self._page_size = self._limit // 2
        self._good_pages = 0
        return True

    @property
    def _limit(self) -> int:
        return self._page_size if self._left is None else min(self._page_size, self._left)

    def _is_new(self, row: dict[str, Any]) -> bool:
        id_ = row.get("id")
        if isinstance(id_, str) and id_:
            return self._ids.add(id_)
        if id_ is not None or any(field.key == "id" for field in self._read.fields):
            raise GraphProtocolError("a row of the answer has no usable `id`, so it cannot be told from others")
        return True

    def _move_on(self, after: str | None, *, barren: bool) -> None:
        self._barren_pages = self._barren_pages + 1 if barren else 0
        if self._barren_pages > MAX_BARREN_PAGES:
            raise GraphProtocolError(f"the listing has no end: {MAX_BARREN_PAGES} pages in a row held nothing new")
        if after is not None:
            self._cursors.add(after)
        self._after = after
        self.more = after is not None

    def _grow(self) -> None:
        # One heavy account must not slow down the thousands behind it.
        self._good_pages += 1
        if self._good_pages >= _PAGES_BEFORE_GROWTH and self._page_size < self._read.page_size:
            self._page_size = min(self._page_size * 2, self._read.page_size)
            self._good_pages = 0


class _SeenCursors:
    """The cursors of a listing, to end one that leads back to where it was."""

    def __init__(self) -> None:
        # Hashes instead of the cursors themselves: a collision would end in an error, never in a lost row.
        self._hashes: set[int] = set()

    def add(self, after: str) -> None:
        """Remember the cursor.

        :raises GraphProtocolError: it was there before
        """
        if hash(after) in self._hashes:
            raise GraphProtocolError("the listing loops: the API gave a cursor that it had given before")
        self._hashes.add(hash(after))


class _SeenIds:
    """The ids of a listing, exactly, in some ten bytes for each.

    A plain set of strings takes ten times that, which would be most of a worker's memory after a million
    accounts. Ids are numbers below 2^64, as all of Meta's are; any other text is remembered as it is.
    """

    # A prime, since the ids of one app tend to share their last digits.
    _BUCKETS = 16381

    def __init__(self) -> None:
        self._buckets: dict[int, array[int]] = {}
        self._others: set[str] = set()

    def add(self, id_: str) -> bool:
        """Remember the id; whether it is new."""
        number = int(id_) if id_.isascii() and id_.isdigit() and len(id_) < 20 else -1
        if not 0 <= number < 1 << 64 or str(number) != id_:
            new = id_ not in self._others
            self._others.add(id_)
            return new
        bucket = self._buckets.setdefault(number % self._BUCKETS, array("Q"))
        if number in bucket:
            return False
        bucket.append(number)
        return True


def _tidy(value: Any, mask: Callable[[str], str] | None, key: str = "", depth: int = 0) -> Any:
    if isinstance(value, str):
        return _text(value, mask)
    if isinstance(value, dict):
        if depth >= _MAX_DEPTH:
            raise RecursionError
        return {_text(name, mask): _tidy(item, mask, name, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        if depth >= _MAX_DEPTH:
            raise RecursionError
        return [_tidy(item, mask, key, depth + 1) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and (key == "id" or key.endswith(("_id", "_ids"))):
        return str(value)
    return value


def _text(value: str, mask: Callable[[str], str] | None) -> str:
    # JSON can spell a NUL and half of a surrogate pair (a name cut in the middle of an emoji), which databases and
    # files do not take: both become the replacement character, as in most JSON readers.
    if "\x00" in value:
        value = value.replace("\x00", "\ufffd")
    if not value.isascii():
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return mask(value) if mask else value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_such_number(text)


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
