from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph import GraphError, GraphProtocolError
from airflow_provider_whatsapp.graph.decoding import FlatObject, _decode_any, _decode_common, parse_json
from airflow_provider_whatsapp.graph.pages import has_nested_edge, parse_page


class TestParseJson:
    def test_ids_are_text_however_they_come(self) -> None:
        body = b'{"id":1906385232743451,"a":{"id":9007199254740993},"b":[{"id":1}],"primary_funding_id":5,"x_ids":[1,2],"n":7}'
        assert parse_json(body) == {
            "id": "1906385232743451",
            "a": {"id": "9007199254740993"},
            "b": [{"id": "1"}],
            "primary_funding_id": "5",
            "x_ids": ["1", "2"],
            "n": 7,
        }

    def test_what_is_no_whole_number_stays(self) -> None:
        body = b'{"id":true,"a_id":null,"b_id":1.5,"valid":1,"idea":2}'
        assert parse_json(body) == {"id": True, "a_id": None, "b_id": 1.5, "valid": 1, "idea": 2}

    def test_what_no_store_takes_becomes_the_replacement_character(self) -> None:
        text = '{"n\\ud83d":"a\\ud83d b","m":"\\ud83d\\ude00 \\u00e9","o":"\\u0000x"}'
        assert parse_json(text.encode()) == {"n\ufffd": "a\ufffd b", "m": "😀 é", "o": "\ufffdx"}

    @pytest.mark.parametrize(
        "body", [b"", b"<html>", b'{"data":[', b'{"a":NaN}', b"[Infinity]", b"\xff", b"9" * 5000, b"1e999", b"[-1e999]"]
    )
    def test_what_is_not_json_may_be_tried_again(self, body: bytes) -> None:
        with pytest.raises(GraphProtocolError, match="not JSON") as caught:
            parse_json(body)
        assert caught.value.retryable

    @pytest.mark.parametrize("depth", [101, 100_000])
    def test_a_bottomless_answer_is_not_tried_again(self, depth: int) -> None:
        with pytest.raises(GraphProtocolError, match="too deeply") as caught:
            parse_json(b"[" * depth + b"]" * depth)
        with pytest.raises(GraphProtocolError, match="too deeply"):
            parse_json(b'{"a":' * depth + b"1" + b"}" * depth)
        assert not caught.value.retryable
        parse_json(b"[" * 100 + b"]" * 100)

    @pytest.mark.parametrize(
        "id_", ['"a\\u0000"', '"a\\ud83d"', '"xSECRETSECRETx"', '"\\u0000"'], ids=["nul", "half", "secret", "only nul"]
    )
    @pytest.mark.parametrize("answer", ['{{"data":[{{"id":{}}}]}}', '{{"id":"1","e":{{"data":[{{"id":{}}}]}}}}'])
    def test_an_id_that_would_have_to_be_changed_is_an_error(self, id_: str, answer: str) -> None:
        with pytest.raises(GraphProtocolError, match="`id` in the response") as caught:
            parse_json(answer.format(id_).encode(), mask=lambda text: text.replace("SECRETSECRET", "***"))
        assert not caught.value.retryable
        assert "SECRET" not in str(caught.value)

    @given(st.data())
    def test_a_key_that_occurs_twice_anywhere_is_an_error(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(["data", "paging", "next", "id", "name", "é"]))
        spellings = st.sampled_from(
            [json.dumps(key), json.dumps(key, ensure_ascii=False), f'"\\u{ord(key[0]):04x}{key[1:]}"']
        )
        values = st.sampled_from(["null", "[]", '"1"', '{"next":"n"}', '[{"id":"1"}]', "7"])
        first, second = (f"{data.draw(spellings)}:{data.draw(values)}" for _ in range(2))
        body = "{" + ",".join(data.draw(st.permutations([first, second, '"other":1']))) + "}"
        for around in data.draw(
            st.lists(st.sampled_from(['{"data":[{"id":"2"},%s]}', '{"a":%s}', "[1,%s]"]), max_size=9)
        ):
            body = around % body
        for mask in (None, str):
            with pytest.raises(GraphProtocolError, match="a key is repeated") as caught:
                parse_json(body.encode(), mask=mask)
            assert not caught.value.retryable

    def test_keys_that_become_the_same_are_an_error(self) -> None:
        with pytest.raises(GraphProtocolError, match="a key is repeated"):
            parse_json(b'{"a\\u0000":1,"a\\ufffd":2}')

    @pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'{"a":1}', b'""', b'"a,:[{"'])
    def test_an_answer_with_too_many_values_is_not_parsed(self, value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise AssertionError("parsed")

        parse_json(b"[" + b",".join([value] * 50_000) + b"]")
        monkeypatch.setattr(json, "loads", fail)
        monkeypatch.setattr(msgspec.json, "decode", fail)
        with pytest.raises(GraphProtocolError, match="too many values; request fewer fields") as caught:
            parse_json(b"[" + b",".join([value] * 500_001) + b"]")
        assert not caught.value.retryable

    @pytest.mark.parametrize("number", [b"9" * 401, b"-" + b"9" * 400])
    def test_whole_numbers_have_a_length_limit(self, number: bytes) -> None:
        with pytest.raises(GraphProtocolError, match="not JSON"):
            parse_json(number)
        assert parse_json(number.replace(b"9", b"", 9)) is not None

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
            | st.floats(allow_nan=False, allow_infinity=False),
            st.lists,
        )
    )
    def test_other_values_pass_through(self, value: Any) -> None:
        assert parse_json(json.dumps(value).encode()) == value

    @given(st.binary())
    def test_any_bytes_are_a_value_or_a_graph_error(self, body: bytes) -> None:
        try:
            parse_page(parse_json(body))
        except GraphError:
            return


def spell_objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON objects and arrays, spelled in many ways, with keys that occur twice."""
    pair = st.tuples(KEYS, st.sampled_from([":", ":", ":", " :", "\n: "]), values).map("".join)
    return st.lists(pair, max_size=4).map(lambda pairs: "{" + ",".join(pairs) + "}") | st.lists(values, max_size=3).map(
        lambda items: "[" + " ,".join(items) + "]"
    )


KEYS = st.sampled_from(
    ['"id"', '"x_id"', '"y_ids"', '"data"', '"paging"', '"name"', '"\\u0069d"', '"a\\":"', '"\\u0000"', '"é"', '""']
)
TEXTS = st.text().map(json.dumps) | st.text().map(lambda text: json.dumps(text, ensure_ascii=False))
ODD_VALUES = st.sampled_from(
    [
        '"\\u0000"',
        '"\\ud83d"',
        '"\\ude00\\ud83d"',
        '"\\ud83d\\ude00"',
        '"\\/\\u00e9"',
        '"\ud83d"',
        '"a\0"',
        '"\\":1"',
        "NaN",
        "1e999",
        "-0",
        "-0.0",
        "1e16",
        "0.1",
        "01",
        "9" * 19,
        "9" * 25,
        "9" * 401,
        "9" * 5000,
        "1." + "0" * 400,
        "[" * 101 + "]" * 101,
    ]
)
NUMBERS = st.integers().map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
DOCUMENTS = st.recursive(TEXTS | ODD_VALUES | NUMBERS | st.sampled_from(["null", "true"]), spell_objects, max_leaves=12)
ROWS = st.lists(spell_objects(DOCUMENTS), max_size=4).map(lambda rows: f'{{"data":[{",".join(rows)}],"paging":{{}}}}')


def outcome(decode: Any, *arguments: Any) -> str:
    try:
        # Not the value itself, because 1 equals True and 1.0.
        return repr(decode(*arguments))
    except GraphProtocolError as error:
        return f"{error!r} {error.retryable}"


class TestTheTwoWays:
    @given(ROWS | DOCUMENTS, st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    @example("null", "utf-8")
    @example('{"id":"1","id":"2","x" :1}', "utf-8")
    @example('{"a":{"b":' * 50 + "{}" + "}}" * 50, "utf-8")
    def test_both_give_the_same(self, text: str, encoding: str) -> None:
        body = text.encode(encoding, "surrogatepass")
        assert outcome(parse_json, body) == outcome(_decode_any, body, None)

    @pytest.mark.parametrize(
        "body",
        [
            '{"data":[{"id":"1","name":"Müller & Söhne \\u00fc \\ud83d\\ude00","owner":{"id":"2"},"tasks":["A","B"]}]}',
            '{"data":[{"id":"1","creation_time":1793491200,"is_enabled":true,"x_id":null}],"paging":{"next":"https:\\/\\/x"}}',
            '{"error":{"code":190,"message":"no"}}',
            '{"cost":1.5,"other":[-0.25e3,0]}',
            '{ "a" : "\\":" , "b":\t"c" }',
            '{"data":[{"components":[{"type":"BODY","example":{"body_text":[["a"]]}}]}]}',
        ],
    )
    def test_the_common_answer_goes_the_short_way(self, body: str) -> None:
        assert _decode_common(body.encode()) == json.loads(body)

    @pytest.mark.parametrize(
        "body",
        [
            "[]",
            '{"id":1}',
            '{"x_ids":[1]}',
            '{"a":"\\u0000"}',
            '{"a":1,"a":1}',
            '{"a" :1,"b":{"a":1,"a":{}}}',
            '{"a":"\\u0022","b":1,"b":2}',
            '{"a":"\\ud83d"}',
            '{"a":-1e999}',
            '{"a":' + "9" * 20 + "}",
            '{"a":' + "[" * 100 + "]" * 100 + "}",
            '{"a":' + '{"a":' * 100 + "1" + "}" * 101,
            '{"a":-9223372036854775809}',
            '{"a":NaN}',
            "{",
        ],
    )
    def test_any_other_goes_the_long_way(self, body: str) -> None:
        assert _decode_common(body.encode()) is None


EDGES = st.recursive(
    st.sampled_from(["1", '"a"', "[]", "{}", '{"next":"n"}', '[{"id":"1"}]']),
    lambda inner: (
        st.dictionaries(st.sampled_from(["data", "paging", "a", "b"]), inner, max_size=2).map(
            lambda values: "{" + ",".join(f'"{key}":{value}' for key, value in values.items()) + "}"
        )
        | inner.map("[{}]".format)
    ),
    max_leaves=5,
)


class TestFlatObject:
    @given(EDGES)
    @example('{"data":[]}')
    @example('{"paging":{"next":"n"}}')
    @example('[{"data":[]}]')
    def test_no_row_of_it_has_a_nested_edge(self, value: str) -> None:
        answer = parse_json(f'{{"data":[{{"id":"1"}},{{"a":{value}}}]}}'.encode())
        assert not isinstance(answer, FlatObject) or not has_nested_edge(answer["data"])

    def test_usual_accounts_are_flat(self) -> None:
        body = b'{"data":[{"id":"1","owner":{"id":"2"},"tasks":["A"]}],"paging":{"cursors":{"after":"a"},"next":"n"}}'
        assert isinstance(parse_json(body), FlatObject)
        assert not isinstance(parse_json(body.replace(b'"A"', b"[]")), FlatObject)
