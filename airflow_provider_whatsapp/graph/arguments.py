"""Checks the single values that users give: ids, times, counts and paths.

Every error names the argument, shows the wrong value and gives an example. A value that could be a secret pasted into
the wrong field is described instead of shown.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable
from datetime import date, datetime, time, timezone
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeVar

from airflow_provider_whatsapp.graph.credentials import redact

_Value = TypeVar("_Value")
_Default = TypeVar("_Default")
#: Start of the last day of the year 9999, in unix seconds.
LATEST_TIME = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
# Matches texts with a user name and a password, such as the URL of a proxy.
_USER_INFO = re.compile(r":[^\s:@]*@")
# Tokens, app secrets, proofs and generated passwords have at least this many letters and digits in a row. Names are
# broken up by underscores or dots, and ids have digits only.
_WORD = re.compile(r"[A-Za-z0-9]{20,}")
# An app access token consists of the app's id and its secret.
_APP_TOKEN = re.compile(r"[0-9]{6}(?:\||%7C)[A-Za-z0-9_-]{6}", re.IGNORECASE)
# More connections to one server would look like an attack and would not be faster.
_MAX_CONCURRENCY = 50
_TIME_EXAMPLE = "for example '2026-11-01T00:00:00Z', a datetime, or unix seconds (1793491200)"
# Not datetime.fromisoformat, because in Python 3.10 it accepts less of ISO 8601 than in later versions.
_ISO_8601 = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,]\d+)?)?\s*(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)


def given(value: _Value | None, default: _Default) -> _Value | _Default:
    """Return the value of an optional argument, or the default if the user gave none.

    Blank strings and the string ``None`` count as not given: an empty template renders to them.

    :param value: the argument as the user gave it
    :param default: what to use if it is not given
    """
    # With native rendering, a value that Airflow resolves lazily is a proxy of None, but not None itself.
    if isinstance(value, NoneType) or (isinstance(value, str) and value.strip() in ("", "None")):
        return default
    return value


def parse_rendered(name: str, value: Any, example: str) -> Any:
    """Return the argument. The text of a list or an object, as a template renders it, is parsed.

    :param name: name of the argument, for the error
    :param value: the argument as the user gave it; JSON and Python's own notation are understood
    :param example: what a correct value looks like, for the error
    :raises ValueError: if the text begins like a list or an object, but is neither
    """
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] not in ("[", "{", "("):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    raise ValueError(f"{name}: {shown(value)} is neither JSON nor a list or an object of Python; {example}")


def parse_business_id(value: object) -> str:
    """Return the checked id of a business portfolio.

    :param value: digits as ``str`` or ``int``
    :raises ValueError: if the value is anything else
    """
    hint = "Business Settings, Business Info shows it, e.g. '1906385232743451'"
    if isinstance(value, str) and value.strip().lower().startswith("act_"):
        hint = f"this is the id of an ad account; {hint}"
    return _parse_id("business_id", value, "a business portfolio", hint)


def parse_waba_id(value: object, *, where: str = "waba_ids") -> str:
    """Return the checked id of an account.

    :param value: digits as ``str`` or ``int``
    :param where: argument, and position in it, that the value comes from, for the error
    :raises ValueError: if the value is anything else
    """
    return _parse_id(where, value, "an account", "a template gives several as '1,2', e.g. by {{ ids | join(',') }}")


def _parse_id(name: str, value: object, node: str, hint: str) -> str:
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if re.fullmatch(r"[0-9]{1,32}", text) is None:
        raise ValueError(f"{name}: {shown(value)} is not the id of {node}, which is digits only; {hint}")
    return text


def parse_edge_name(value: object) -> str:
    """Return the checked name of an edge, e.g. ``"phone_numbers"``.

    :raises ValueError: if it is not a bare edge name
    """
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value.strip()) is None:
        raise ValueError(f"edge: {shown(value)} is not the name of an edge; for example 'phone_numbers'")
    return value.strip()


def parse_time(name: str, value: object) -> int:
    """Return a time in unix seconds.

    :param name: name of the argument, for the error
    :param value: datetime, date, ISO 8601 string or unix seconds; UTC if no time zone is given
    :raises ValueError: if the value is not a time, or outside the years 1970 to 9999
    """
    seconds = _unix_seconds(value)
    if seconds is None:
        raise ValueError(f"{name}: {shown(value)} is not a time; {_TIME_EXAMPLE}")
    if not 0 <= seconds <= LATEST_TIME:
        raise ValueError(f"{name}: {shown(value)} is outside the years 1970 to 9999 (milliseconds?); {_TIME_EXAMPLE}")
    return int(seconds)


def parse_count(name: str, value: object, *, example: int = 100) -> int:
    """Return a whole number of at least 1.

    :param name: name of the argument, for the error
    :param value: ``int``, or digits as ``str``, because templates render numbers to text
    :param example: valid value to show in the error
    :raises ValueError: if the value is anything else
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: {shown(value)} is not a whole number of at least 1; for example {example}")
    return value


def parse_concurrency(value: object) -> int:
    """Return the checked number of accounts to read at once.

    :param value: a whole number from 1 to 50, or digits as ``str``
    :raises ValueError: if the value is anything else
    """
    count = parse_count("max_concurrency", value, example=10)
    if count > _MAX_CONCURRENCY:
        raise ValueError(f"max_concurrency: {count} is more than {_MAX_CONCURRENCY}; for example 10")
    return count


def parse_path(path: object) -> list[str]:
    """Return the segments of a path below the version, e.g. ``["102290129340398", "phone_numbers"]``.

    :raises ValueError: if the path could lead to anything but a node or one of its edges
    """
    segments = path.strip("/").split("/") if isinstance(path, str) else [""]
    if not all(map(is_path_segment, segments)):
        raise ValueError(
            f"path: {shown(path)} is not the path of a node or edge below the version; "
            "for example '<waba id>/phone_numbers'"
        )
    return segments


def is_path_segment(value: object) -> bool:
    """Return whether the value can be a segment of a path without being encoded."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]+", value) is not None


def parse_moment(name: str, value: object) -> float:
    """Return a time in unix seconds, as stored in triggers and their events.

    :param name: name of the value, for the error
    :raises ValueError: if the value is not a number, or outside the years 1970 to 9999
    """
    # This also refuses NaN and infinity.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LATEST_TIME:
        raise ValueError(f"{name}: {shown(value)} is not a time in unix seconds; for example 1793491200.0")
    return value


def parse_seconds(name: str, value: object) -> float:
    """Return a number of seconds of at least 0, given as a number or as text.

    :param name: name of the value, for the error
    :raises ValueError: if the value is not a number, or negative
    """
    number = _parse_number(value)
    if number is None or number < 0:
        raise ValueError(f"{name}: {shown(value)} is not a number of seconds of at least 0; for example 60")
    return number


def parse_percentage(name: str, value: object) -> float:
    """Return a percentage from 1 to 100, given as a number or as text.

    :param name: name of the value, for the error
    :raises ValueError: if the value is not such a percentage
    """
    number = _parse_number(value)
    if number is None or not 1 <= number <= 100:
        raise ValueError(f"{name}: {shown(value)} is not a percentage from 1 to 100; for example 95")
    return number


def shown(value: object) -> str:
    """Return the value as shown in errors: at most 80 characters, or a description if it could be a secret."""
    text = repr(value)
    if could_be_secret(text):
        return _describe(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def shown_if_short(value: object) -> str:
    """Return the same as :func:`shown` for a field with short values: a longer value is described, never cut.

    A secret without a recognisable form, such as a password, is often longer than such values.
    """
    return shown(value) if len(repr(value)) <= 20 else _describe(value)


def _describe(value: object) -> str:
    kind, length = ("text", len(value)) if isinstance(value, str) else (type(value).__name__, len(repr(value)))
    return f"a {kind} of {length} characters (not shown, as it could be a secret)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like the given one, as ``"; did you mean 'x'?"``; empty if none is.

    :param name: name that is not known
    :param known: the known names
    """
    by_letters = {re.sub(r"[\W_]", "", one.lower()): one for one in known}
    near = get_close_matches(re.sub(r"[\W_]", "", name.lower()), by_letters, n=1, cutoff=0.7)
    return f"; did you mean {by_letters[near[0]]!r}?" if near else ""


def check_holds_no_token(name: str, text: str) -> None:
    """Check that a text that is about to be sent as a query parameter holds no access token.

    Parameters end up in logs of proxies and of the API, and an API that refuses one repeats it in its message.

    :param name: name of the argument, for the error
    :raises ValueError: if something in the text looks like a token
    """
    if redact(text) != text or _APP_TOKEN.search(text):
        raise ValueError(
            f"{name}: holds what looks like an access token, so nothing was sent; the token goes into the "
            "connection's password"
        )


def could_be_secret(text: str) -> bool:
    """Return whether anything in the text looks like a token, an app secret, a proof or a password."""
    if redact(text) != text or _USER_INFO.search(text) or _APP_TOKEN.search(text):
        return True
    return any(re.search("[0-9]", word) and re.search("[A-Za-z]", word) for word in _WORD.findall(text))


def _parse_number(value: object) -> float | None:
    # Accept text, because templates render numbers to text.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _unix_seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        text = value.strip()
        # Eight digits are a date (20261101); any other number is a time in seconds.
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and len(text) != len("20261101"):
            return float(text)
        value = _parse_iso_8601(text)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    # Without microseconds, because they could round up in a float of this size.
    return aware.replace(microsecond=0).timestamp()


def _parse_iso_8601(text: str) -> datetime | None:
    match = _ISO_8601.fullmatch(text.upper())
    if match is None:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    offset = "+0000" if zone in (None, "Z") else zone.replace(":", "").ljust(5, "0")
    try:
        return datetime.strptime(
            f"{year}{month}{day}{hour or '00'}{minute or '00'}{second or '00'}{offset}", "%Y%m%d%H%M%S%z"
        )
    except ValueError:
        return None
