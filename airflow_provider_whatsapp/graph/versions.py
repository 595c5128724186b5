"""Versions of the Graph API and how long they last.

https://developers.facebook.com/docs/graph-api/changelog
"""

from __future__ import annotations

import re
from datetime import date

from airflow_provider_whatsapp.graph.arguments import shown_if_short

#: The version that is asked for when neither hook nor connection names one.
DEFAULT_VERSION = "v26.0"

# Calls to a version that has ended do not fail: Meta answers them with the oldest version that is left.
_LAST_DAYS = {
    "v18.0": date(2026, 1, 26),
    "v19.0": date(2026, 5, 21),
    "v20.0": date(2026, 9, 24),
    "v21.0": date(2027, 1, 21),
    "v22.0": date(2027, 5, 20),
    "v23.0": date(2027, 10, 8),
    "v24.0": date(2028, 2, 18),
    "v25.0": date(2028, 7, 29),
}


def last_day_of(version: str) -> date | None:
    """The day on which the version ends or ended, or None when that is not known."""
    return _LAST_DAYS.get(version)


def parse_version(value: object) -> str:
    """A version of the Graph API, the package's default when the value is empty.

    :raises ValueError: if the value is not ``vN.0``
    """
    if value is None or value == "":
        return DEFAULT_VERSION
    if not isinstance(value, str) or re.fullmatch(r"v[1-9][0-9]{0,2}\.0", value.strip()) is None:
        raise ValueError(
            f"api_version: {shown_if_short(value)} is not a version; a right one looks like '{DEFAULT_VERSION}'"
        )
    return value.strip()
