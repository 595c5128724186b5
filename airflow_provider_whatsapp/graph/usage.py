"""Reads from the headers of an answer how much of its rate limit an app has used.

https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

_PERCENTAGES = ("call_count", "total_time", "total_cputime")
# A header that asks for a longer wait than this is taken for a mistake, and the wait is cut to it.
_LONGEST_WAIT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of the rate limits that one answer reported.

    :param percent: use of the limit that is closest to being reached, in percent; may exceed 100
    :param regain_access: how long until the API accepts calls again; None when no time was named
    """

    percent: float
    regain_access: timedelta | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Usage | None:
        """The usage, or None when the headers are missing or malformed, which does not mean that there is no limit.

        :param headers: header values by lower-case name
        """
        entries = _entries(headers)
        percentages = [
            percent for entry in entries for name in _PERCENTAGES if (percent := _number(entry.get(name))) is not None
        ]
        if not percentages:
            return None
        return cls(max(percentages), _regain_access(entries))


def parse_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """How long the headers ask to wait, or None when they name no time.

    :param headers: header values by lower-case name
    """
    waits = [_regain_access(_entries(headers)), _retry_after_header(headers)]
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


def _regain_access(entries: list[dict[str, Any]]) -> timedelta | None:
    # Meta gives this time in minutes, unlike every other wait, which is in seconds.
    waits = [_wait(minutes=_number(entry.get("estimated_time_to_regain_access"))) for entry in entries]
    return max((wait for wait in waits if wait), default=None)


def _entries(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    return [*_app_entries(headers), *_business_entries(headers)]


def _app_entries(headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    entry = _parse_json(headers.get("x-app-usage"))
    if isinstance(entry, dict):
        yield entry


def _business_entries(headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    by_id = _parse_json(headers.get("x-business-use-case-usage"))
    for entries in by_id.values() if isinstance(by_id, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                yield entry


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
