"""Reads the rate-limit usage of an app from the headers of a response.

https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

_PERCENTAGES = ("call_count", "total_time", "total_cputime")
# A header that names a longer wait is assumed to be wrong, and the wait is shortened to this.
_LONGEST_WAIT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Usage:
    """The rate-limit usage that one response reported.

    :param percent: percentage used of the limit closest to being reached; may exceed 100
    :param regain_access: how long until the API accepts calls again; None when no time was named
    :param by_node: usage of each limit that applies to one node only, by node id
    :param shared: usage of the limits that apply to the whole app or token, or None if none was reported
    """

    percent: float
    regain_access: timedelta | None = None
    by_node: Mapping[str, Usage] = field(default_factory=dict, compare=False, repr=False)
    shared: Usage | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Usage | None:
        """Return the usage, or None if the headers are missing or malformed, although there may still be a limit.

        :param headers: header values by lower-case name
        """
        of_app, of_nodes = _app_entries(headers), _node_entries(headers)
        overall = _combine([*of_app, *(entry for entries in of_nodes.values() for entry in entries)])
        if overall is None:
            return None
        by_node = {node_id: usage for node_id, entries in of_nodes.items() if (usage := _combine(entries))}
        return replace(overall, by_node=by_node, shared=_combine(of_app))

    def beyond(self, node_id: str) -> Usage | None:
        """Return the usage of the limits that apply to more than one node, or None if none was reported.

        :param node_id: id of the node that was read. A limit reported under another id applies to more than this node:
            Meta's pages disagree on whether that id is the account's or the business's
        """
        parts = [usage for id_, usage in self.by_node.items() if id_ != node_id]
        return max([*parts, *([self.shared] if self.shared else [])], key=lambda usage: usage.percent, default=None)


def _combine(entries: Iterable[dict[str, Any]]) -> Usage | None:
    percentages = [
        percent for entry in entries for name in _PERCENTAGES if (percent := _number(entry.get(name))) is not None
    ]
    return Usage(max(percentages), _regain_access(entries)) if percentages else None


def parse_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long the headers ask to wait, or None if they name no time.

    :param headers: header values by lower-case name
    """
    usage = [*_app_entries(headers), *(entry for entries in _node_entries(headers).values() for entry in entries)]
    waits = [_regain_access(usage), _retry_after_header(headers)]
    return max((wait for wait in waits if wait), default=None)


def _retry_after_header(headers: Mapping[str, str]) -> timedelta | None:
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return _wait(seconds=float(value))
    try:
        # A date is compared with the server's own clock, because the worker's may be wrong.
        return _wait(seconds=(parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return None


def _wait(*, minutes: float | None = 0, seconds: float = 0) -> timedelta | None:
    total = (minutes or 0) * 60 + seconds
    return min(timedelta(seconds=min(total, 1e9)), _LONGEST_WAIT) if total > 0 else None


def _regain_access(entries: Iterable[dict[str, Any]]) -> timedelta | None:
    # Meta gives this time in minutes, but every other wait in seconds.
    waits = [_wait(minutes=_number(entry.get("estimated_time_to_regain_access"))) for entry in entries]
    return max((wait for wait in waits if wait), default=None)


def _app_entries(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    entry = _parse_json(headers.get("x-app-usage"))
    return [entry] if isinstance(entry, dict) else []


def _node_entries(headers: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    by_id = _parse_json(headers.get("x-business-use-case-usage"))
    if not isinstance(by_id, dict):
        return {}
    return {
        id_: [entry for entry in entries if isinstance(entry, dict)]
        for id_, entries in by_id.items()
        if isinstance(entries, list)
    }


def _parse_json(value: str | None) -> Any:
    try:
        return json.loads(value or "null")
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
