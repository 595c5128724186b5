"""What the errors of arguments show, and the single values that triggers and their events hold."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.arguments import (
    given,
    parse_concurrency,
    parse_edge_name,
    parse_moment,
    parse_percentage,
    parse_seconds,
    parse_waba_id,
    shown,
    shown_if_short,
)
from airflow_provider_whatsapp.graph.condition import build_condition
from airflow_provider_whatsapp.graph.query import (
    build_edge_query,
    build_node_query,
    build_waba_edge_query,
    build_waba_query,
)

SECRETS = {
    "token": "EAAJ" + "abC9" * 50,
    "app secret": "5ecre7ab" * 4,
    "proof": "0123456789abcdef" * 4,
    "token of an app": "123456789012345|abcdEFGH123-9xY_8abcdefghijk",
    "address": "https://graph.facebook.com/me?access_token=abcdefgh",
    "proxy": "http://user:hunter2@proxy:3128",
}
EDGE = "1/phone_numbers"
ARGUMENTS: dict[str, Callable[[str], object]] = {
    "business_id": lambda secret: build_waba_query(f"{secret} ?", "client"),
    "relationship": lambda secret: build_waba_query("1", secret),
    "path": lambda secret: build_edge_query(secret),
    "path of a node": lambda secret: build_node_query(f"{secret}?"),
    "fields": lambda secret: build_edge_query(EDGE, fields=f"id,{secret}$"),
    "fields as a list": lambda secret: build_edge_query(EDGE, fields=[secret, ""]),
    "fields of another type": lambda secret: build_edge_query(EDGE, fields={secret: 1}),  # type: ignore[arg-type]
    "fields asked for twice": lambda secret: build_edge_query(
        EDGE, fields=f"a.x({secret.replace('(', '')}),a.x(b)" if "?" not in secret else f"a.x({secret}),a"
    ),
    "ownership_types": lambda secret: build_edge_query(EDGE, ownership_types=[secret, ""]),
    "created_after": lambda secret: build_edge_query(EDGE, created_after=secret),
    "filtering": lambda secret: build_edge_query(EDGE, filtering=secret),  # type: ignore[arg-type]
    "filtering with a wrong key": lambda secret: build_edge_query(EDGE, filtering=[{"field": secret}]),
    "sort": lambda secret: build_edge_query(EDGE, sort=f"{secret}?"),
    "page_size": lambda secret: build_edge_query(EDGE, page_size=secret),
    "waba_ids": lambda secret: build_condition(waba_ids=[secret]),
    "min_count": lambda secret: build_condition(min_count=secret),
    "waba_ids of an edge": lambda secret: build_waba_edge_query("phone_numbers")(secret),
    "edge of an account": lambda secret: build_waba_edge_query(f"{secret}?"),
    "params": lambda secret: build_edge_query(EDGE, params=secret),
    "params with a wrong name": lambda secret: build_edge_query(EDGE, params={f"{secret}?": 1}),
    "params with a wrong value": lambda secret: build_edge_query(EDGE, params={"a": {secret, 1}}),
    "max_concurrency": lambda secret: parse_concurrency(secret),
    "where": lambda secret: build_condition(where=secret),
    "where with a wrong name": lambda secret: build_condition(where={f"{secret}?": 1}),
    "where with a wrong value": lambda secret: build_condition(where={"name": {secret: 1}}),
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_a_secret_in_the_wrong_argument_is_not_shown(argument: str, secret: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument.partition(' ')[0]}: ") as caught:
        ARGUMENTS[argument](secret)
    message = str(caught.value)
    for part in (secret, secret[-12:], "hunter2", "abcdefgh"):
        assert part not in message


# A template renders a list or an object to its text, unless the DAG has native rendering.
RENDERED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "fields": (["id", "phone_numbers.limit(5){id}"], lambda value: build_edge_query(EDGE, fields=value)),
    "ownership_types": (["SELF", "CLIENT_OWNED"], lambda value: build_edge_query(EDGE, ownership_types=value)),
    "filtering": (
        [{"field": "name", "operator": "CONTAIN", "value": "it's"}],
        lambda value: build_edge_query(EDGE, filtering=value),
    ),
    "params": ({"a": [1, True, None], "b": "it's"}, lambda value: build_edge_query(EDGE, params=value)),
    "where": ({"country": ["BR", None], "ok": True}, lambda value: build_condition(where=value)),
    "waba_ids": (["1", "2"], lambda value: build_condition(waba_ids=value)),
}


@pytest.mark.parametrize("as_text", [str, json.dumps, lambda value: f" {json.dumps(value)}\n"])
@pytest.mark.parametrize("name", RENDERED)
def test_the_text_of_a_list_or_an_object(name: str, as_text: Callable[[Any], str]) -> None:
    value, build = RENDERED[name]
    assert build(as_text(value)) == build(value)
    if isinstance(value, list):
        assert build(str(tuple(value))) == build(value)


@pytest.mark.parametrize("text", ["[1", "{", "[x]", "(1, y())", "[" * 50_000, "soon" * 50, '"id"', "{{ params.x }}"])
@pytest.mark.parametrize("name", RENDERED)
def test_a_text_that_is_neither(name: str, text: str) -> None:
    if (name, text) == ("fields", "soon" * 50):
        return
    if name == "ownership_types" and text[0] not in "[({":
        return
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        RENDERED[name][1](text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        "", "soon", "2026-11-01T00:00:00Z", "102290129340398", "9" * 32, "../me/accounts", "whatsapp_production_2", 5, None,
        ["id", "name"], {"owner_business_info.name": ["Acme", "B 2"]}, "client_whatsapp_business_accounts", "a:b", "me@work",
        "https://graph.facebook.com:443/x", "/etc/ssl/certs/company-ca-2026.pem", 1.5, "graph.facebook.com",
    ],
)  # fmt: skip
def test_an_ordinary_value_is_shown(value: object) -> None:
    assert shown(value) == repr(value)


TOKENS = {
    "token": "EAAJ" + "abC9" * 50,
    "token of an app": "123456789012345|abcdEFGH123-9xY_8abcdefghijk",
    "address": "https://graph.facebook.com/me?access_token=abcdefgh",
}
SENDING: dict[str, Callable[[str], object]] = {
    "params: language": lambda token: build_edge_query(EDGE, params={"language": ["de", token]}),
    "params: a": lambda token: build_node_query("1", params={"a": token}),
    "filtering": lambda token: build_edge_query(EDGE, ownership_types=token),
    "filtering with a value": lambda token: build_edge_query(
        EDGE, filtering=[{"field": "name", "operator": "CONTAIN", "value": token}]
    ),
    "fields": lambda token: build_node_query("1", fields=f"a.b({token})"),
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("argument", SENDING)
def test_a_token_in_an_argument_is_never_sent(argument: str, token: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument.partition(' with')[0]}: holds what looks like a") as caught:
        SENDING[argument](token)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("name", ["path", "sort", "path of an edge", "fields of an edge"])
def test_a_token_as_a_name_is_never_sent(name: str) -> None:
    token = TOKENS["token"]
    calls: dict[str, Callable[[], object]] = {
        "path": lambda: build_node_query(token),
        "sort": lambda: build_edge_query(EDGE, sort=token.replace("9", "")),
        "path of an edge": lambda: build_waba_edge_query(token),
        "fields of an edge": lambda: build_edge_query(EDGE, fields=token),
    }
    with pytest.raises(ValueError, match=f"^{name.partition(' of')[0]}: holds what looks like a"):
        calls[name]()


def test_a_long_value_is_cut() -> None:
    assert shown("no " * 100) == repr("no " * 100)[:77] + "..."


def test_a_value_that_could_be_a_secret_is_described() -> None:
    assert shown("EAA" + "a" * 200) == "a text of 203 characters (not shown, as it could be a secret)"
    assert shown(["5ecre7ab" * 4]) == "a list of 36 characters (not shown, as it could be a secret)"


def test_where_right_values_are_short_a_long_one_is_described() -> None:
    assert shown_if_short("v26") == "'v26'"
    assert shown_if_short("pass word " * 3) == "a text of 30 characters (not shown, as it could be a secret)"


@pytest.mark.parametrize("value", [0, 0.0, 1793491200, 1793491200.5])
def test_moments(value: float) -> None:
    assert parse_moment("deadline", value) == parse_seconds("max_wait", value) == value


@pytest.mark.parametrize("value", [None, True, "five", [], -1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("parse", [parse_moment, parse_seconds])
def test_what_is_no_moment_or_number_of_seconds(parse: Callable[[str, Any], float], value: Any) -> None:
    with pytest.raises(ValueError, match=r"^clock: .* for example"):
        parse("clock", value)


def test_a_moment_lies_in_the_years_that_python_knows() -> None:
    with pytest.raises(ValueError, match="deadline: 1e"):
        parse_moment("deadline", 1e300)


WABAS = "1/client_whatsapp_business_accounts"
#: What templates render as that have no value to fill in.
BLANKS = st.tuples(st.sampled_from(["", "None"]), st.text(" \t\r\n"), st.text(" \t\r\n")).map(
    lambda parts: f"{parts[1]}{parts[0]}{parts[2]}"
)
OPTIONAL = [name for name in inspect.signature(build_edge_query).parameters if name != "path"]


@for_all(st.dictionaries(st.sampled_from(OPTIONAL), st.none() | BLANKS), BLANKS)
def test_blank_arguments_count_as_not_given(blank_arguments: dict[str, Any], blank: str) -> None:
    assert build_edge_query(WABAS, **blank_arguments) == build_edge_query(WABAS)
    assert build_waba_query("1", blank, **blank_arguments) == build_edge_query(WABAS)
    assert build_node_query("1", fields=blank, params=blank) == build_node_query("1")  # type: ignore[arg-type]
    assert build_condition(min_count=blank, waba_ids=["1", "2"]) == build_condition(waba_ids=["1", "2"])


@for_all(st.sampled_from(["business_id", "waba_ids", "where"]), BLANKS)
def test_an_argument_that_narrows_what_is_wanted_must_not_be_blank(argument: str, blank: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: "):
        build_waba_query(blank, "client") if argument == "business_id" else build_condition(**{argument: blank})


@for_all(st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.text()))
def test_every_other_value_is_given(value: Any) -> None:
    if not isinstance(value, str) or value.strip() not in ("", "None"):
        assert given(value, "default") is value


@pytest.mark.parametrize("value", ["102290129340398", 102290129340398, " 102290129340398\n"])
def test_the_id_of_an_account(value: Any) -> None:
    assert parse_waba_id(value) == "102290129340398"
    assert parse_waba_id("9" * 32) == "9" * 32


@pytest.mark.parametrize(
    "value", ["", " ", "x", "1,2", "1/2", -1, 1.0, True, None, [], {}, b"1", "1" * 33, "\u0661", "\u00b2", "1\n2"]
)
def test_what_is_no_id_of_an_account(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^here\[5\]: .* is not the id of an account, which is digits only; a template"
    ):
        parse_waba_id(value, where="here[5]")


@pytest.mark.parametrize("value", [1, 10, 50, "50", " 7 "])
def test_how_many_accounts_at_once(value: Any) -> None:
    assert parse_concurrency(value) == int(value)


@pytest.mark.parametrize("value", [51, "51", 10**17])
def test_too_many_accounts_at_once(value: Any) -> None:
    with pytest.raises(ValueError, match=f"^max_concurrency: {value} is more than 50; for example 10"):
        parse_concurrency(value)


@pytest.mark.parametrize("value", [0, -1, "0", "many", 1.5, True, None, []])
def test_no_number_of_accounts_at_once(value: Any) -> None:
    with pytest.raises(ValueError, match="^max_concurrency: .* is not a whole number of at least 1; for example 10$"):
        parse_concurrency(value)


@pytest.mark.parametrize("value", [1, 100, 95.5, "95", " 95 "])
def test_percentages(value: Any) -> None:
    assert parse_percentage("max_usage", value) == float(value)


@pytest.mark.parametrize("value", [0, 0.9, 100.1, "much", None, True, math.nan, math.inf, 10**400, []])
def test_what_is_no_percentage(value: Any) -> None:
    with pytest.raises(ValueError, match="^max_usage: .* is not a percentage from 1 to 100; for example 95"):
        parse_percentage("max_usage", value)


def test_the_name_of_an_edge() -> None:
    assert parse_edge_name(" phone_numbers ") == "phone_numbers"
    assert parse_edge_name("_x1") == "_x1"
    for value in ("", "1x", "a.b", "a\nb", None, 5):
        with pytest.raises(ValueError, match="^edge: .* is not the name of an edge; for example 'phone_numbers'"):
            parse_edge_name(value)
