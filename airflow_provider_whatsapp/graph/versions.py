"""Versions of the Graph API and how long they last.

https://developers.facebook.com/docs/graph-api/changelog
"""

from __future__ import annotations

import re
from datetime import date, datetime, timezone

from airflow_provider_whatsapp.graph.arguments import shown_if_short

#: The version that is requested if neither the hook nor the connection names one.
DEFAULT_VERSION = "v26.0"

# The last day of each version that was known when this package was released. Meta keeps a version for two years after
# the release of the next one, so the newest version has no last day yet (None). Calls to a version that has ended do
# not fail: Meta answers them with the oldest version that still exists.
_LAST_DAYS: dict[str, date | None] = {
    "v18.0": date(2026, 1, 26),
    "v19.0": date(2026, 5, 21),
    "v20.0": date(2026, 9, 24),
    "v21.0": date(2027, 1, 21),
    "v22.0": date(2027, 5, 20),
    "v23.0": date(2027, 10, 8),
    "v24.0": date(2028, 2, 18),
    "v25.0": date(2028, 7, 29),
    "v26.0": date(2028, 11, 4),
    "v27.0": None,
}
_OLDEST_KNOWN = min(int(version[1:-2]) for version in _LAST_DAYS)
_VERSION = re.compile(r"v([1-9][0-9]{0,2})\.0")


def last_day_of(version: str) -> date | None:
    """Return the last day of the version, or None if it is not known."""
    return _LAST_DAYS.get(version)


def is_known(version: str) -> bool:
    """Return whether Meta had published the version, or already ended it, when this package was released."""
    return version in _LAST_DAYS or _is_older_than_known(version)


def has_ended(version: str, today: date) -> bool:
    """Return whether the version is known to have ended; it counts as ended on its last day.

    :param version: version of the Graph API, ``vN.0``
    :param today: the day to compare with
    """
    last_day = last_day_of(version)
    return _is_older_than_known(version) if last_day is None else last_day <= today


def describe_version_problem(asked: str, answered: str, *, now: float) -> str:
    """Return a sentence about the API version, for the error of a failed request; empty if the version is fine.

    :param asked: version that was requested
    :param answered: version in the header of the response; empty if there was none
    :param now: the time in unix seconds
    """
    another = answered if _VERSION.fullmatch(answered) and answered != asked else ""
    if has_ended(asked, datetime.fromtimestamp(now, timezone.utc).date()):
        last_day = last_day_of(asked)
        when = f" on {last_day:%Y-%m-%d}" if last_day else ""
        instead = f", and {another} answered" if another else ""
        return f"Graph API {asked} ended{when}{instead}: set a newer api_version in the connection."
    if another:
        return f"Graph API {asked} was requested, but {another} answered: set api_version in the connection to that."
    return ""


def _is_older_than_known(version: str) -> bool:
    match = _VERSION.fullmatch(version)
    return match is not None and int(match[1]) < _OLDEST_KNOWN


def parse_version(value: object) -> str:
    """Return the checked version of the Graph API, or ``DEFAULT_VERSION`` if the value is empty.

    :raises ValueError: if the value is not ``vN.0``
    """
    if value is None or value == "":
        return DEFAULT_VERSION
    if not isinstance(value, str) or _VERSION.fullmatch(value.strip()) is None:
        raise ValueError(f"api_version: {shown_if_short(value)} is not a version; for example '{DEFAULT_VERSION}'")
    return value.strip()
