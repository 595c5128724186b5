from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.fields import Field, join_fields, parse_fields


def test_a_comma_string_and_a_sequence_mean_the_same() -> None:
    expected = (Field("id"), Field("name"))
    assert parse_fields("id,name") == parse_fields(["id", "name"]) == parse_fields(("id,name",)) == expected
    assert parse_fields(" id , name ") == expected


def test_nested_expansion() -> None:
    (field,) = parse_fields("phone_numbers.limit(5){id, status{ name }}")
    assert field == Field("phone_numbers", (("limit", "5"),), (Field("id"), Field("status", (), (Field("name"),))))
    assert str(field) == "phone_numbers.limit(5){id,status{name}}"
    assert field.key == "phone_numbers"


def test_an_alias_is_the_key() -> None:
    (field,) = parse_fields("phone_numbers.limit(5).as(phones){id}")
    assert field.key == "phones"
    assert str(field) == "phone_numbers.limit(5).as(phones){id}"


def test_arguments_may_hold_brackets() -> None:
    (field,) = parse_fields("""edge.filtering([{"field":"a","value":["x"]}]).limit(3)""")
    assert field.arguments == (("filtering", '[{"field":"a","value":["x"]}]'), ("limit", "3"))


def test_asked_twice_in_the_same_way_is_once() -> None:
    assert parse_fields("id,name,id") == (Field("id"), Field("name"))


@pytest.mark.parametrize(
    "fields",
    [
        "", " ", ",", "id,", ",id", "id,,name", "id name", "1d", "id;name", "id{", "id{}", "id}", "id{name", "id{name}}",
        "a.limit", "a.limit(", "a.limit(5", "a.limit(5]", "a.limit([5)", "a.(5)", "a..b(1)", "näme", "id\x00", "id&access_token=x",
        [], [""], ["id", " "], ["id", None], None, 5, {"id"}, b"id", "p{id},p{name}", "p.limit(1){id},p.limit(2){id}",
        "x.as(id),id", "a{" * 11 + "b" + "}" * 11, "a{" * 2000,
    ],
)  # fmt: skip
def test_odd_fields_are_refused_with_an_example(fields: object) -> None:
    with pytest.raises(ValueError, match="fields") as caught:
        parse_fields(fields)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 400 or isinstance(fields, list)


def test_the_error_points_at_the_place() -> None:
    with pytest.raises(ValueError, match=r"'\}' stands at position 3 where the name of a field should be; for example"):
        parse_fields("id{}")
    with pytest.raises(ValueError, match="the text ends at position 3 where the name of a field"):
        parse_fields("id,")


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
arguments = st.tuples(names.filter(lambda name: name != "as"), st.text("abc019[],{}\"': ", max_size=0) | names)
trees = st.recursive(
    st.builds(Field, names, st.lists(arguments, max_size=2).map(tuple)),
    lambda below: st.builds(
        Field,
        names,
        st.lists(arguments, max_size=2).map(tuple),
        st.lists(below, max_size=3, unique_by=lambda field: field.key).map(tuple),
    ),
    max_leaves=10,
)


@given(st.lists(trees, min_size=1, max_size=4, unique_by=lambda field: field.key))
def test_what_is_written_is_read_back(fields: list[Field]) -> None:
    assert parse_fields(join_fields(fields)) == tuple(fields)


@given(st.text("id,.(){}[]5 ", max_size=30))
def test_any_text_is_fields_or_a_value_error(text: str) -> None:
    try:
        fields = parse_fields(text)
    except ValueError:
        return
    assert parse_fields(join_fields(fields)) == fields
