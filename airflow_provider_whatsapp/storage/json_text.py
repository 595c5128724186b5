"""Writes JSON that every reader accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()
# JSON allows these characters within a string, but Python's and JavaScript's readers end a line at them, which would
# split a row of NDJSON. They are written as escapes.
_LINE_ENDS = {char.encode(): f"\\u{ord(char):04x}".encode() for char in "\x85\u2028\u2029"}
# Without a match, these take a third of the time of `replace` or of a single pattern.
_HAS_LINE_ENDS = re.compile(b"\xc2\x85"), re.compile(b"\xe2\x80[\xa8\xa9]")
_PIECE_BYTES = 1 << 16


def encode_json(value: Any) -> str:
    """Return the JSON text of a value; no reader splits it into several lines.

    :raises ValueError: if the value contains NaN or an infinite number
    """
    text = _ENCODER.encode(value)
    # msgspec writes NaN and infinity as null; the standard library refuses them.
    if b"null" in text:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return _escape_line_ends(text).decode()


def encode_rows(rows: Iterable[Any]) -> Iterator[bytes]:
    """Yield the JSON texts of all rows in UTF-8, one row per line, in pieces of whole lines.

    :param rows: rows decoded from API responses, so that all numbers are finite; consumed once, lazily
    """
    lines = bytearray()
    for row in rows:
        _ENCODER.encode_into(row, lines, -1)
        lines += b"\n"
        # A size, not a number of rows, because a row can have many MB.
        if len(lines) >= _PIECE_BYTES:
            yield _escape_line_ends(lines)
            lines = bytearray()
    if lines:
        yield _escape_line_ends(lines)


def _escape_line_ends(text: bytes | bytearray) -> bytes:
    if any(pattern.search(text) for pattern in _HAS_LINE_ENDS):
        for char, escape in _LINE_ENDS.items():
            text = text.replace(char, escape)
    return bytes(text)
