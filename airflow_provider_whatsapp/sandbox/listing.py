"""How an edge is listed: what is filtered out, in which order, and which page a cursor asks for.

Where Meta's pages leave a choice open, the sandbox takes this one: a ``limit`` above 100 is read as 100,
several filter objects must all match, and ``sort`` works together with ``filtering`` on both account edges.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .accounts import Node
from .messages import CLIENT_EDGE, DEFAULT_LIMIT, MAX_LIMIT, OWNED_EDGE, ApiError

Match = Callable[[Any], bool]

_OWNERSHIP = {"SELF", "CLIENT_OWNED", "ON_BEHALF_OF"}
_SECONDS = re.compile(r"\d{1,12}")
_SORTS = {"creation_time_ascending": False, "creation_time_descending": True}


def select(rows: list[Node], edge: str, filtering: str | None, sort: str | None) -> list[Node]:
    """Give the rows of an edge that match, in the order asked for.

    Without filter and order it is the very list that came in, so that a page costs the same at any length.

    :raises ApiError: 100, a filter or an order the edge does not have.
    """
    matches = _read_filters(edge, filtering) if filtering is not None else []
    if matches:
        rows = [row for row in list(rows) if all(match(row.get(name)) for name, match in matches)]
    if sort is not None:
        if sort not in _SORTS or edge not in {CLIENT_EDGE, OWNED_EDGE}:
            raise ApiError(100, f"(#100) Param sort must be one of {{{', '.join(_SORTS).upper()}}}")
        rows = sorted(rows, key=lambda row: row.get("creation_time") or 0, reverse=_SORTS[sort])
    return rows


def _read_filters(edge: str, text: str) -> list[tuple[str, Match]]:
    try:
        filters = _read_json(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ApiError(100, "(#100) Param filtering must be an array.") from None
    if not isinstance(filters, list):
        raise ApiError(100, "(#100) Param filtering must be an array.")
    return [_read_filter(edge, number, item) for number, item in enumerate(filters)]


def _read_json(text: str) -> Any:
    """Read JSON, or the single-quoted form of it that Meta's own pages show."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _read_filter(edge: str, number: int, item: Any) -> tuple[str, Match]:
    where = f"(#100) Param filtering[{number}]"
    if not isinstance(item, dict) or not {"field", "operator", "value"} <= item.keys():
        raise ApiError(100, f"{where} must be an object with field, operator and value.")
    name, operator = item["field"], item["operator"]
    operators = _FILTERS.get(name) if isinstance(name, str) else None
    if operators is None or edge not in _FILTERED_EDGES[name]:
        raise ApiError(100, f"{where}[field]: {name} cannot be filtered on {edge}.")
    if not isinstance(operator, str) or operator not in operators:
        raise ApiError(100, f"{where}[operator] must be one of {{{', '.join(operators)}}}.")
    try:
        return name, operators[operator](item["value"])
    except (ValueError, TypeError):
        raise ApiError(100, f"{where}[value] does not suit {name} {operator}.") from None


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not _SECONDS.fullmatch(str(value)):
        raise ValueError(value)
    return int(value)


def _later_than(value: Any) -> Match:
    bound = _seconds(value)
    return lambda found: found is not None and found > bound


def _earlier_than(value: Any) -> Match:
    bound = _seconds(value)
    return lambda found: found is not None and found < bound


def _within(value: Any) -> Match:
    if not isinstance(value, list):
        raise TypeError(value)
    first, last = map(_seconds, value)
    return lambda found: found is not None and first <= found <= last


def _words(allowed: Callable[[str], Any]) -> dict[str, Callable[[Any], Match]]:
    """Make the two operators of a field of words, of which ``allowed`` knows the right ones."""

    def equal(value: Any) -> Match:
        if not isinstance(value, str) or not allowed(value):
            raise ValueError(value)
        return lambda found: found == value

    def one_of(values: Any) -> Match:
        if not isinstance(values, list) or not values:
            raise ValueError(values)
        for value in values:
            equal(value)
        return lambda found: found in values

    return {"EQUAL": equal, "IN": one_of}


_FILTERS: dict[str, dict[str, Callable[[Any], Match]]] = {
    "creation_time": {"GREATER_THAN": _later_than, "LESS_THAN": _earlier_than, "IN_RANGE": _within},
    "ownership_type": _words(_OWNERSHIP.__contains__),
    "country": _words(re.compile("[A-Z]{2}").fullmatch),
    "marketing_messages_onboarding_status": {"IN": _words(re.compile("[A-Z_]+").fullmatch)["IN"]},
}
_FILTERED_EDGES = {
    "creation_time": {CLIENT_EDGE, OWNED_EDGE},
    "ownership_type": {CLIENT_EDGE, OWNED_EDGE},
    "country": {OWNED_EDGE},
    "marketing_messages_onboarding_status": {CLIENT_EDGE},
}


def read_limit(text: str | None) -> int:
    """Give the number of rows of a page.

    :raises ApiError: 100, it is not a number of at least 1.
    """
    if text is None:
        return DEFAULT_LIMIT
    if not text.isdecimal() or not text.strip("0"):
        raise ApiError(100, "(#100) Param limit must be a number greater than or equal to 1")
    return MAX_LIMIT if len(text) > 9 else min(int(text), MAX_LIMIT)


def make_cursor(position: int, node_id: str, salt: int = 0) -> str:
    """Make the cursor of a row.

    The position finds it at once, the id finds it still when rows came or went.

    :param position: -1 for the place before the first row.
    :param salt: Makes another cursor for the same place.
    """
    return base64.urlsafe_b64encode(f"at {position}.{salt}.{node_id}".encode()).decode()


def _locate(rows: list[Node], cursor: str) -> tuple[int, bool]:
    """Give the row's position, or that of the row in its place, and whether it is still there."""
    try:
        text = base64.b64decode(cursor.encode(), b"-_", validate=True).decode()
        position, salt, node_id = text.removeprefix("at ").split(".", 2)
        at = int(position)
        if at < -1 or make_cursor(at, node_id, int(salt)) != cursor:
            raise ValueError(cursor)
    except (ValueError, binascii.Error):
        raise ApiError(100, "(#100) Invalid cursors values") from None
    if at == -1 or (at < len(rows) and str(rows[at].get("id")) == node_id):
        return at, True
    moved = next((place for place, row in enumerate(rows) if str(row.get("id")) == node_id), None)
    return (min(at, len(rows)), False) if moved is None else (moved, True)


@dataclass(frozen=True)
class Page:
    """A stretch of a listing.

    :param render: Makes what is sent of a row.
    :param link: Makes the URL of another page of the listing from ``after=`` or ``before=`` and a cursor.
    """

    rows: list[Node]
    start: int
    end: int
    render: Callable[[Node], Node]
    link: Callable[[str, str], str]

    def payload(self) -> dict[str, Any]:
        """Give the body: the rows and, when there are any, where to go on."""
        data = [self.render(row) for row in self.rows[self.start : self.end]]
        if not data:
            return {"data": []}
        before, after = self.cursor(self.start), self.cursor(self.end - 1)
        paging: dict[str, Any] = {"cursors": {"before": before, "after": after}}
        if self.end < len(self.rows):
            paging["next"] = self.link("after", after)
        if self.start > 0:
            paging["previous"] = self.link("before", before)
        return {"data": data, "paging": paging}

    def cursor(self, position: int, salt: int = 0) -> str:
        """Give the cursor of the row at a position of the listing."""
        return make_cursor(position, self.rows[position]["id"] if position >= 0 else "", salt)


def cut(
    rows: list[Node], params: dict[str, str], render: Callable[[Node], Node], link: Callable[[str, str], str]
) -> Page:
    """Cut the page that ``limit``, ``after`` and ``before`` ask for.

    :raises ApiError: 100, a limit or a cursor that cannot be read.
    """
    limit = read_limit(params.get("limit"))
    if after := params.get("after"):
        position, there = _locate(rows, after)
        start = position + there
        end = min(start + limit, len(rows))
    elif before := params.get("before"):
        end = max(_locate(rows, before)[0], 0)
        start = max(end - limit, 0)
    else:
        start, end = 0, min(limit, len(rows))
    return Page(rows, start, end, render, link)


def find(lists: Iterable[list[Node]], node_id: str) -> Node | None:
    """Give the node with this id."""
    return next((node for nodes in lists for node in nodes if str(node.get("id")) == node_id), None)
