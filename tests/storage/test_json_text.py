import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.storage.json_text import encode_json, encode_rows

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def rows_of(lines: bytes) -> list[Any]:
    return [json.loads(line) for line in lines.decode().splitlines()]


@given(JSON)
def test_a_value_is_read_as_it_was(value: object) -> None:
    text = encode_json(value)
    assert json.loads(text) == value
    assert len(text.splitlines()) == 1


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5))
def test_rows_are_read_as_they_were_a_line_each(rows: list[object]) -> None:
    assert rows_of(b"".join(encode_rows(rows))) == rows


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json({"a": [number]})


def test_a_whole_number_has_any_number_of_digits() -> None:
    row = {"a": int("9" * 400)}
    assert json.loads(encode_json(row)) == row
    assert rows_of(b"".join(encode_rows([row, {"a": 1}]))) == [row, {"a": 1}]


def test_a_row_of_many_bytes_is_handed_out_before_the_next_one_is_read() -> None:
    taken: list[int] = []

    def rows() -> Iterator[object]:
        for number in range(10_000):
            taken.append(number)
            yield {"id": number, "name": "x" * 100_000 if number else ""}

    pieces = encode_rows(rows())
    assert [row["id"] for row in rows_of(next(pieces))] == taken == [0, 1]
    assert [row["id"] for row in rows_of(next(pieces))] == [2]
    assert taken == [0, 1, 2]
