"""Writes JSON that every reader takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()
# JSON allows these characters within a text, but Python's and JavaScript's readers end a line at them, which would
# break a row of NDJSON in two. They are written as escapes.
_LINE_ENDS = {char.encode(): f"\\u{ord(char):04x}".encode() for char in "\x85\u2028\u2029"}
# `replace` takes three times as long to find nothing, and so does one pattern for all of them.
_HAS_LINE_ENDS = re.compile(b"\xc2\x85"), re.compile(b"\xe2\x80[\xa8\xa9]")
_PIECE_BYTES = 1 << 16


def encode_json(value: Any) -> str:
    """The JSON text of a value, which no reader splits into several lines.

    :raises ValueError: if the value has a number that JSON does not have
    """
    text = _ENCODER.encode(value)
    # msgspec writes such a number as null, and the standard library refuses it.
    if b"null" in text:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return _escape_line_ends(text).decode()


def encode_rows(rows: Iterable[Any]) -> Iterator[bytes]:
    """The JSON texts of all rows in UTF-8, a line each, in pieces of whole lines.

    :param rows: rows decoded from API responses, so that all numbers are finite; consumed once, lazily
    """
    lines = bytearray()
    for row in rows:
        _ENCODER.encode_into(row, lines, -1)
        lines += b"\n"
        # Not a number of rows, because rows can have many MB each.
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
