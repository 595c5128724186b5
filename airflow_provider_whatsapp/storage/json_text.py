"""Writes JSON that every reader takes.

msgspec needs a twentieth of the time that the standard library takes, but it writes a number that JSON does not have,
such as NaN, as null. What has a null is therefore left to the standard library, which refuses such numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()
# JSON allows these characters within a text, but Python's and JavaScript's readers end a line at them, which would
# break a row of NDJSON in two. They are written as escapes.
_LINE_ENDS = {char.encode(): f"\\u{ord(char):04x}".encode() for char in "\x85\u2028\u2029"}
_PIECE_BYTES = 1 << 16


def encode_json(value: Any) -> str:
    """The JSON text of a value, in one line for every reader.

    :raises ValueError: if the value has a number that JSON does not have
    """
    return _escape_line_ends(_encode(value)).decode()


def encode_rows(rows: Iterable[Any]) -> Iterator[bytes]:
    """The JSON texts of all rows in UTF-8, a line each, in pieces of whole lines.

    :param rows: JSON; are read once, and some are read before their lines are handed out
    :raises ValueError: if a row has a number that JSON does not have
    """
    # Not a number of rows, because rows of many MB each would then be in memory together.
    lines, size = [], 0
    for row in rows:
        line = _encode(row)
        lines.append(line)
        size += len(line)
        if size >= _PIECE_BYTES:
            yield _join_lines(lines)
            lines, size = [], 0
    if lines:
        yield _join_lines(lines)


def _join_lines(lines: list[bytes]) -> bytes:
    return _escape_line_ends(b"\n".join(lines) + b"\n")


def _encode(value: Any) -> bytes:
    text = _ENCODER.encode(value)
    if b"null" not in text:
        return text
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _escape_line_ends(text: bytes) -> bytes:
    for char, escape in _LINE_ENDS.items():
        # Most texts do not have the first byte either, and looking for a single byte takes next to no time.
        if char[:1] in text:
            text = text.replace(char, escape)
    return text
