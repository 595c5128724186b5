"""Selects the requested rows of an edge: filters, order, and pages with cursors.

Where Meta's documentation leaves a choice open, the sandbox decides: a ``limit`` above 100 is treated as 100, all
filter objects must match, and ``sort`` can be combined with ``filtering`` on both account edges.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .accounts import ACCOUNT_EDGES, CLIENT_EDGE, OWNED_EDGE, Node
from .api_error import ApiError

#: Number of rows of a page if the request has no ``limit``, and maximum number of rows.
DEFAULT_LIMIT = 25
MAX_LIMIT = 100
_SECONDS = re.compile(r"\d{1,12}")
_SORTS = {"creation_time_ascending": False, "creation_time_descending": True}
_Match = Callable[[Any], bool]


def select_rows(
    rows: list[Node], edge: str, filtering: str | None, sort: str | None, find: str | None = None
) -> list[Node]:
    """Return the rows of an edge that match the filters, in the requested order.

    Without filters and order this is the list that was passed in, not a copy, so the cost of a page does not depend on
    the length of the list.

    :param filtering: the request's ``filtering`` parameter
    :param sort: the request's ``sort`` parameter
    :param find: the request's ``find`` parameter, the id of one account; other edges ignore it
    :raises ApiError: (100) if the edge does not have such a filter or order
    """
    matches = _parse_filters(edge, filtering) if filtering is not None else []
    if matches:
        rows = [
            row for row in list(rows) if all(row.get(name) is not None and match(row[name]) for name, match in matches)
        ]
    if find is not None and edge in ACCOUNT_EDGES:
        rows = [row for row in list(rows) if _id_of(row) == find]
    if sort is not None:
        if sort not in _SORTS or edge not in ACCOUNT_EDGES:
            raise ApiError(100, f"(#100) Param sort must be one of {{{', '.join(_SORTS).upper()}}}")
        rows = sorted(rows, key=lambda row: row.get("creation_time") or 0, reverse=_SORTS[sort])
    return rows


def _parse_filters(edge: str, text: str) -> list[tuple[str, _Match]]:
    try:
        filters = _parse_json(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        filters = None
    if not isinstance(filters, list):
        raise ApiError(100, "(#100) Param filtering must be an array.")
    return [_parse_filter(edge, f"(#100) Param filtering[{number}]", item) for number, item in enumerate(filters)]


def _parse_json(text: str) -> Any:
    """Parse JSON, or the variant with single quotes that Meta's own examples show."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _parse_filter(edge: str, where: str, item: Any) -> tuple[str, _Match]:
    if not isinstance(item, dict) or not {"field", "operator", "value"} <= item.keys():
        raise ApiError(100, f"{where} must be an object with field, operator and value.")
    name, operator = item["field"], item["operator"]
    edges, operators, compare = _FILTERS.get(name if isinstance(name, str) else "", _NO_FILTER)
    if edge not in edges:
        raise ApiError(100, f"{where}[field]: {name} cannot be filtered on {edge}.")
    if operator not in operators:
        raise ApiError(100, f"{where}[operator] must be one of {{{', '.join(operators)}}}.")
    try:
        return name, compare(operator, item["value"])
    except (ValueError, TypeError):
        raise ApiError(100, f"{where}[value] does not suit {name} {operator}.") from None


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not _SECONDS.fullmatch(str(value)):
        raise ValueError(value)
    return int(value)


def _compare_times(operator: str, value: Any) -> _Match:
    if operator == "IN_RANGE":
        if not isinstance(value, list):
            raise TypeError(value)
        first, last = map(_seconds, value)
        return lambda found: bool(first <= found <= last)
    bound = _seconds(value)
    return lambda found: bool(found > bound if operator == "GREATER_THAN" else found < bound)


def _compare_words(pattern: str) -> Callable[[str, Any], _Match]:
    """Return a comparison with one word or a list of words, each of which must match the pattern."""

    def compare(operator: str, value: Any) -> _Match:
        words = [value] if operator == "EQUAL" else value
        if not isinstance(words, list) or not words:
            raise TypeError(value)
        if not all(re.fullmatch(pattern, word) for word in words):
            raise ValueError(value)
        return lambda found: found in words

    return compare


def _compare_partners(operator: str, value: Any) -> _Match:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one.isdecimal() for one in value):
        raise TypeError(value)
    return lambda found: set(value) <= set(found)


_Filter = tuple[frozenset[str], tuple[str, ...], Callable[[str, Any], _Match]]
# The edges that have the filter, its operators, and how a value is compared.
_FILTERS: dict[str, _Filter] = {
    "creation_time": (ACCOUNT_EDGES, ("GREATER_THAN", "LESS_THAN", "IN_RANGE"), _compare_times),
    "ownership_type": (ACCOUNT_EDGES, ("EQUAL", "IN"), _compare_words("SELF|CLIENT_OWNED|AGENCY_OWNED|ON_BEHALF_OF")),
    "country": (frozenset({OWNED_EDGE}), ("EQUAL", "IN"), _compare_words("[A-Z]{2}")),
    "partners": (frozenset({CLIENT_EDGE}), ("ALL",), _compare_partners),
    "marketing_messages_onboarding_status": (frozenset({CLIENT_EDGE}), ("IN",), _compare_words("[A-Z_]+")),
}
_NO_FILTER: _Filter = (frozenset(), (), _compare_times)


def _parse_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isdecimal() or not text.strip("0"):
        raise ApiError(100, "(#100) Param limit must be a number greater than or equal to 1")
    return MAX_LIMIT if len(text) > 9 else min(int(text), MAX_LIMIT)


def _make_cursor(position: int, node_id: str, salt: int = 0) -> str:
    # The position finds the row directly; the id finds it after other rows were added or removed.
    return base64.urlsafe_b64encode(f"at {position}.{salt}.{node_id}".encode()).decode()


def _locate(rows: list[Node], cursor: str) -> tuple[int, bool]:
    """Return the position of a cursor's row and True, or its former position and False if it is gone."""
    try:
        text = base64.b64decode(cursor.encode(), b"-_", validate=True).decode()
        position, salt, node_id = text.removeprefix("at ").split(".", 2)
        at = int(position)
        if at < -1 or _make_cursor(at, node_id, int(salt)) != cursor:
            raise ValueError(cursor)
    except (ValueError, binascii.Error):
        raise ApiError(100, "(#100) Invalid cursors values") from None
    if at == -1 or (at < len(rows) and _id_of(rows[at]) == node_id):
        return at, True
    moved = next((place for place, row in enumerate(rows) if _id_of(row) == node_id), None)
    return (min(at, len(rows)), False) if moved is None else (moved, True)


def _id_of(row: Node) -> str:
    # The rows of some edges have no id, so only their position finds them.
    return str(row.get("id", ""))


@dataclass(frozen=True)
class RowSlice:
    """The rows of one page of an edge.

    :param rows: all rows of the edge; the page has those from ``start`` up to but not including ``end``
    :param render: function that returns the object to send for a row
    :param link: function that returns the URL of another page, given ``after`` or ``before`` and a cursor
    :param is_paged: whether the page has ``paging``
    :param summary: totals of the edge, or None if the request does not ask for them
    """

    rows: list[Node]
    start: int
    end: int
    render: Callable[[Node], Node]
    link: Callable[[str, str], str]
    is_paged: bool = True
    summary: Node | None = None

    def payload(self) -> dict[str, Any]:
        """Return the body of the page: its rows and, unless it is empty, where the listing continues."""
        data = [self.render(row) for row in self.rows[self.start : self.end]]
        page: dict[str, Any] = {"data": data}
        if self.summary is not None:
            page["summary"] = self.summary
        if not data or not self.is_paged:
            return page
        before, after = self.cursor(self.start), self.cursor(self.end - 1)
        paging: dict[str, Any] = {"cursors": {"before": before, "after": after}}
        if self.end < len(self.rows):
            paging["next"] = self.link("after", after)
        if self.start > 0:
            paging["previous"] = self.link("before", before)
        return {**page, "paging": paging}

    def cursor(self, position: int, salt: int = 0) -> str:
        """Return the cursor of a row.

        :param position: position of the row on the edge, or -1 for the place before the first row
        :param salt: a different number gives a different cursor of the same row
        """
        return _make_cursor(position, _id_of(self.rows[position]) if position >= 0 else "", salt)


def slice_rows(
    rows: list[Node],
    params: dict[str, str],
    render: Callable[[Node], Node],
    link: Callable[[str, str], str],
    *,
    is_paged: bool = True,
    summary: Callable[[int], Node] | None = None,
) -> RowSlice:
    """Return the page that ``limit``, ``after`` and ``before`` select.

    :param is_paged: whether the page has ``paging``
    :param summary: function that returns the totals of the edge, given the number of its rows
    :raises ApiError: (100) if the limit or the cursor is invalid
    """
    limit = _parse_limit(params.get("limit"))
    if after := params.get("after"):
        position, is_there = _locate(rows, after)
        start = position + is_there
        end = min(start + limit, len(rows))
    elif before := params.get("before"):
        end = max(_locate(rows, before)[0], 0)
        start = max(end - limit, 0)
    else:
        start, end = 0, min(limit, len(rows))
    totals = summary(len(rows)) if summary and "summary" in params else None
    return RowSlice(rows, start, end, render, link, is_paged, totals)
