"""Reads NDJSON, JSON and CSV row by row, within bounds.

Whoever can write to a store decides what is in an object, and a few bytes of gzip can become many. So each row is
bounded in bytes and in values before it is decoded.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import msgspec

#: What the rows are read from: a buffered file.
BinaryFile = BinaryIO | gzip.GzipFile
#: Maximum size of a row, with the blanks before it. A response of the API has no more.
LONGEST_ROW = 16 * 1024 * 1024
#: Maximum number of values in a row, nested ones included. A value takes up to fifty times its bytes in memory.
MOST_VALUES = 1_000_000
# A listing requests some dozen fields. Each row of CSV takes memory for every column.
_MOST_COLUMNS = 10_000
# Reading an empty line takes as long as decoding this many bytes.
_LINE_COST = 100
_BYTES_AT_ONCE = 64 * 1024
# The characters that delimit JSON values. A string without escapes is matched as a whole, for speed.
_MARK = re.compile(rb'"[^"\\]*"|[][{}",]')
_END_OF_STRING = re.compile(rb'"|\\.', re.DOTALL)


def decode_row(text: bytes | bytearray) -> Any:
    """Return the value of a row of JSON.

    :raises ValueError: if the text is not JSON in UTF-8, or has too many values
    """
    # Commas and brackets within strings are counted, too.
    if len(text) > MOST_VALUES and sum(map(text.count, (b",", b":", b"[", b"{"))) > MOST_VALUES:
        raise ValueError(f"a row has more than {MOST_VALUES:,} values")
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        # Do not chain the error, which can quote the row.
        raise ValueError("a row is not JSON") from None


def read_lines(file: BinaryFile) -> Iterator[bytes]:
    """Yield the lines of a buffered binary file that are not blank.

    :raises ValueError: if a line is too long, with the blank lines before it
    """
    length = 0
    while line := file.readline(LONGEST_ROW):
        length += len(line) + _LINE_COST
        _check_length(length)
        if not line.isspace():
            yield line
            length = 0


def read_ndjson(file: BinaryFile) -> Iterator[Any]:
    """Yield the values of the lines of a buffered binary file.

    :raises ValueError: if a line is not JSON, or too long
    """
    return map(decode_row, read_lines(file))


def read_json(file: BinaryFile) -> Iterator[Any]:
    """Yield the elements of an array; only the text of one of them is in memory.

    :raises ValueError: if the file is not one complete array, or if an element is too long
    """
    text = bytearray()
    # Where the current element starts, and how far the text has been searched.
    start = searched = depth = 0
    is_in_string = has_elements = False
    while more := file.read(_BYTES_AT_ONCE):
        text += more
        while match := (_END_OF_STRING if is_in_string else _MARK).search(text, searched):
            mark, searched = match[0], match.end()
            if depth == 0:
                if mark != b"[" or text[: searched - 1].strip():
                    raise ValueError("it is not an array")
                start, depth = searched, 1
                continue
            if is_in_string:
                is_in_string = mark != b'"'
            elif mark == b'"':
                is_in_string = True
            elif mark in b"[{":
                depth += 1
            elif mark in b"]}":
                depth -= 1
            if depth == 0 or (depth == 1 and mark == b","):
                element = text[start : searched - 1].strip()
                if element or has_elements or depth:
                    yield decode_row(element)
                if depth == 0:
                    _check_end(file, text[searched - 1 :])
                    return
                start, has_elements = searched, True
        # A backslash and the character after it are one mark.
        searched = max(searched, len(text) - (is_in_string and text.endswith(b"\\")))
        del text[:start]
        start, searched = 0, searched - start
        _check_length(len(text))
    raise ValueError("the array has no end" if depth else "it is not an array")


def _check_end(file: BinaryFile, text: bytes | bytearray) -> None:
    """Check that the text and the rest of the file are the end of an array."""
    if text[:1] != b"]":
        raise ValueError("it is not an array")
    text, length = text[1:], 0
    while text:
        if text.strip():
            raise ValueError("something follows the array")
        length += len(text)
        _check_length(length)
        text = file.read(_BYTES_AT_ONCE)


def read_csv(file: BinaryFile) -> Iterator[Any]:
    """Yield the rows of a CSV with a header line, as dictionaries of texts.

    :raises ValueError: if a row does not have one cell for each column, or is too long
    :raises csv.Error: if the file is not CSV
    """
    # Python's csv module limits only the size of a field. A row with millions of fields could still fill the memory, so
    # lines() below bounds the whole row.
    csv.field_size_limit(LONGEST_ROW)
    length = commas = 0

    def lines() -> Iterator[str]:
        nonlocal length, commas
        while line := text.readline(LONGEST_ROW):
            length += len(line) + _LINE_COST
            _check_length(length)
            commas += line.count(",")
            if commas > MOST_VALUES:
                raise ValueError(f"a row has more than {MOST_VALUES:,} values")
            yield line

    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        reader = csv.DictReader(lines())
        names = reader.fieldnames
        if names is None:
            raise ValueError("it has no header line")
        if len(names) > _MOST_COLUMNS or len(set(names)) < len(names):
            raise ValueError(f"it has more than {_MOST_COLUMNS:,} columns, or two of the same name")
        for row in reader:
            length = commas = 0
            if None in row or None in row.values():
                raise ValueError("a row does not have as many cells as there are columns")
            yield row
    finally:
        # Otherwise it would close the file, from which the rows can be read again. It may have been closed already.
        with suppress(ValueError):
            text.detach()


def _check_length(length: int) -> None:
    if length > LONGEST_ROW:
        raise ValueError(f"a row is longer than {LONGEST_ROW >> 20} MiB")
