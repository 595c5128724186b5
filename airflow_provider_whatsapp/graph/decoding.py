"""Decodes responses within bounds, and refuses or replaces what would lose rows or break a database.

Nearly all responses need no change. :func:`_decode_common` recognises and decodes those in less than half the time that
:func:`_decode_any` takes. Both give the same values.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, cast

import msgspec

from airflow_provider_whatsapp.graph.errors import GraphProtocolError

#: Maximum number of values in one response, nested ones included. A page of 100 accounts has about 3,000.
MAX_VALUES = 500_000
# No whole number of the Graph API has more digits. Python takes quadratic time for them.
_LONGEST_NUMBER = 400
# Real responses are nested a few levels deep. Without a limit, a response could exhaust the interpreter's stack.
_MAX_DEPTH = 100


class FlatObject(dict[str, Any]):
    """A JSON object whose values are nested at most three levels deep.

    A page of rows that is flat contains no nested edge: the rows take two levels, an edge the third, and its ``data``
    or ``paging`` would take a fourth.
    """


def _decoder(depth: int) -> msgspec.json.Decoder[Any]:
    """Return a decoder for JSON objects nested at most *depth* levels, with integers of at most 64 bits."""
    scalar: Any = str | bool | float | Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None
    value: Any = scalar
    for _ in range(depth):
        value = scalar | list[value] | dict[str, value]
    answer: Any = dict[str, value]
    return msgspec.json.Decoder(answer)


# msgspec checks a type while it decodes, at almost no cost. Each level doubles the size of the type; seven are enough
# for the examples in a template.
_FLAT_DECODER = _decoder(3)
_COMMON_DECODER = _decoder(7)


def parse_json(body: bytes, *, mask: Callable[[str], str] | None = None) -> Any:
    """Return the value of a JSON text, with ids as ``str`` and without characters that databases or files refuse.

    Meta's samples show ids both as strings and as bare numbers, some too large for a float to hold exactly.

    :param body: the decompressed response
    :param mask: function that removes secrets from a text, or None if there are none
    :raises GraphProtocolError: if the body is not JSON, has too many values, or repeats a key in any object
    """
    # Counted before parsing, because a value takes up to fifty times its bytes in memory, and the parser blocks the
    # whole process. Commas and brackets within strings are counted too, so this is an upper bound, as is the number of
    # bytes.
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_VALUES:
        error = GraphProtocolError("the response has too many values; request fewer fields")
        error.too_much_data = True
        raise error
    value = _decode_common(body) if mask is None else None
    return _decode_any(body, mask) if value is None else value


# A response with one of these takes the slow path: an ASCII character written as an escape, which may be a NUL or a
# quotation mark, or an id that is a number.
_UNCOMMON = tuple(map(re.compile, (rb"\\u00[0-7]", rb'ids?"\s*:\s*[-0-9\[]')))


def _decode_common(body: bytes) -> Any:
    """Return the value of a response that needs no change, or None for any other response.

    msgspec itself refuses lone surrogates, NaN, and bytes that are not UTF-8.
    """
    if any(pattern.search(body) for pattern in _UNCOMMON):
        return None
    try:
        value = _decode_bounded(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # msgspec silently keeps the last value of a repeated key. Encoded again, such a value has fewer quotation marks
    # than the body.
    return value if msgspec.json.encode(value).count(b'"') == body.count(b'"') else None


def _decode_bounded(body: bytes) -> dict[str, Any]:
    try:
        return FlatObject(_FLAT_DECODER.decode(body))
    except msgspec.ValidationError:
        # Most responses that are not flat fail on their first row, so little work is lost.
        return cast("dict[str, Any]", _COMMON_DECODER.decode(body))


def _decode_any(body: bytes, mask: Callable[[str], str] | None) -> Any:
    try:
        value = json.loads(
            body,
            parse_constant=_reject_number,
            parse_float=_parse_float,
            parse_int=_parse_int,
            object_pairs_hook=_build_object,
        )
        return _normalize(value, mask)
    except ValueError:
        # Retryable, because the usual cause is a gateway that truncated the response or sent its own error page.
        problem = GraphProtocolError("the response is not JSON", retryable=True)
    except RecursionError:
        problem = GraphProtocolError("the response is nested too deeply to come from the Graph API")
    # Raised outside the except block: otherwise the JSON library's error, which holds the whole body and any secret in
    # it, would become the __context__ of this one.
    raise problem


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    # JSON parsers keep the last of two values: `{"data": [...], "data": []}` would be a listing without rows. At any
    # depth, because the rows of a nested edge are rows too.
    if len(value) < len(pairs):
        raise GraphProtocolError("a key is repeated in the response, so data would be lost")
    return value


def _normalize(value: Any, mask: Callable[[str], str] | None, key: str = "", depth: int = 0) -> Any:
    if isinstance(value, str):
        text = _normalize_text(value, mask)
        if key == "id" and text != value:
            # Two ids that differ only in the replaced characters would be taken for the same row.
            raise GraphProtocolError("an `id` in the response holds a secret or characters that no id has")
        return text
    if isinstance(value, dict):
        if depth >= _MAX_DEPTH:
            raise RecursionError
        # Two keys can become the same here.
        return _build_object(
            [(_normalize_text(name, mask), _normalize(item, mask, name, depth + 1)) for name, item in value.items()]
        )
    if isinstance(value, list):
        if depth >= _MAX_DEPTH:
            raise RecursionError
        return [_normalize(item, mask, key, depth + 1) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and (key == "id" or key.endswith(("_id", "_ids"))):
        return str(value)
    return value


# JSON can contain a NUL or a lone surrogate (a name cut in the middle of an emoji), which databases and files refuse.
# Both become the replacement character U+FFFD, as in most JSON readers.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _normalize_text(value: str, mask: Callable[[str], str] | None) -> str:
    if "\x00" in value or not value.isascii():
        value = _UNSTORABLE.sub("\ufffd", value)
    return mask(value) if mask else value


def _parse_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _reject_number(text)


def _parse_int(text: str) -> int:
    return int(text) if len(text) <= _LONGEST_NUMBER else _reject_number(text)


def _reject_number(text: str) -> NoReturn:
    raise ValueError("not a JSON number")
