from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.arguments import parse_business_id, parse_time
from airflow_provider_whatsapp.graph.edges import RELATIONSHIPS
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.graph.messages import Request
from airflow_provider_whatsapp.graph.query import (
    EdgeQuery,
    build_edge_query,
    build_node_query,
    build_waba_edge_query,
    build_waba_query,
)

PATH = f"123/{RELATIONSHIPS['client']}"


def filters(**query: Any) -> Any:
    return json.loads(build_edge_query(PATH, **query).params["filtering"])


def test_the_fields_of_known_edges_are_sent() -> None:
    for path in [PATH, "1/owned_whatsapp_business_accounts", "1/phone_numbers", "me/businesses"]:
        assert build_edge_query(path).request(limit=1, after=None).params["fields"].split(",")[0] == "id"
    for path in ["1/subscribed_apps", "1/anything_else"]:
        assert build_edge_query(path).request(limit=1, after=None).params == {"limit": "1"}
    assert build_node_query("1").request().params == {"fields": "id,name"}


def test_the_request_of_a_page() -> None:
    read = build_edge_query(f"/{PATH}/", fields="id,name", sort="creation_time_descending", page_size=50)
    assert read.node_id == "123"
    assert read.request(limit=50, after=None) == Request(
        PATH, {"sort": "creation_time_descending", "limit": "50", "fields": "id,name"}
    )
    assert read.request(limit=25, after="abc").params["after"] == "abc"


def test_accounts_are_always_read_with_their_id() -> None:
    assert join_fields(build_edge_query(PATH, fields="name").fields) == "id,name"
    assert join_fields(build_edge_query(PATH, fields="name,id").fields) == "name,id"
    assert join_fields(build_edge_query("me/businesses", fields="name").fields) == "id,name"
    assert join_fields(build_edge_query("1/subscribed_apps", fields="whatsapp_business_api_data").fields) == (
        "whatsapp_business_api_data"
    )


def test_no_filter_is_no_parameter() -> None:
    assert build_edge_query(PATH).params == {}
    assert build_edge_query(PATH, filtering=[]).params == {}


def test_ownership_types() -> None:
    expected = [{"field": "ownership_type", "operator": "IN", "value": ["SELF", "CLIENT_OWNED"]}]
    assert filters(ownership_types=["SELF", "CLIENT_OWNED"]) == expected
    assert filters(ownership_types="SELF, CLIENT_OWNED") == expected


def test_dates() -> None:
    assert filters(created_after=1604962813) == [
        {"field": "creation_time", "operator": "GREATER_THAN", "value": "1604962813"}
    ]
    assert filters(created_before="1604962813") == [
        {"field": "creation_time", "operator": "LESS_THAN", "value": "1604962813"}
    ]
    assert filters(created_after=1569783261, created_before=1604542049) == [
        {"field": "creation_time", "operator": "IN_RANGE", "value": ["1569783261", "1604542049"]}
    ]
    assert filters(created_after=5, created_before=5)[0]["value"] == ["5", "5"]


def test_own_filters_are_added_to_the_others() -> None:
    own = {"field": "country", "operator": "EQUAL", "value": "DE"}
    both = filters(ownership_types="SELF", filtering=[own])
    assert [one["field"] for one in both] == ["ownership_type", "country"]
    assert filters(filtering=json.dumps([own])) == [own]


def test_filtering_is_strict_json_without_blanks() -> None:
    text = build_edge_query(PATH, ownership_types="SELF").params["filtering"]
    assert text == '[{"field":"ownership_type","operator":"IN","value":["SELF"]}]'


@pytest.mark.parametrize(
    "value",
    [
        "2020-11-09T23:00:13Z", "2020-11-09T23:00:13+00:00", "2020-11-09 23:00:13", "2020-11-09T23:00:13", "20201109T230013",
        "2020-11-10T01:00:13+02", "2020-11-10T04:30:13+05:30", "2020-11-09T18:00:13-0500", "2020-11-09t23:00:13.987654z",
        "2020-11-09 23:00:13.987654+00:00", "1604962813", "1604962813.9", 1604962813, 1604962813.9,
        datetime(2020, 11, 9, 23, 0, 13), datetime(2020, 11, 10, 1, 0, 13, tzinfo=timezone(timedelta(hours=2))),
    ],
)  # fmt: skip
def test_ways_to_tell_a_time(value: Any) -> None:
    assert parse_time("created_after", value) == 1604962813


@pytest.mark.parametrize(
    "value", ["2020-11-09", "20201109", date(2020, 11, 9), "2020-11-09T00:00", "2020-11-09T00:00Z"]
)
def test_a_date_is_its_midnight_in_utc(value: Any) -> None:
    assert parse_time("created_after", value) == 1604880000


@pytest.mark.parametrize(
    "value",
    [
        "yesterday", "2020-13-01", "2020-02-30", "2020-11-09T25:00", "2020-11-09T10", "٢٠٢٠-11-09", True, [], {}, "none",
        "-5", -5, 1604962813000, "1604962813000", float("nan"), float("inf"), "1e9", datetime(1969, 1, 1),
        "2020-11-09T10:00+9", "9" * 400,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["created_after", "created_before"])
def test_a_time_that_cannot_be_read_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .* for example"):
        build_edge_query(PATH, **{name: value})


def test_a_reversed_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^created_after: '2026-02-01' is later than created_before, '2026-01-01'"):
        build_edge_query(PATH, created_after="2026-02-01", created_before="2026-01-01")


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.timezones()))
def test_any_datetime_reads_as_its_iso_form_does(moment: datetime) -> None:
    offset = moment.utcoffset()
    if offset is not None and offset.total_seconds() % 60:
        return  # ISO 8601 has no seconds in an offset
    seconds = int(moment.replace(microsecond=0).timestamp())
    assert parse_time("created_after", moment) == seconds
    assert parse_time("created_after", moment.isoformat()) == seconds
    assert parse_time("created_after", str(moment)) == seconds


@pytest.mark.parametrize(
    ("value", "nearest"),
    [
        ("CLIENT", "CLIENT_OWNED"), ("self", "SELF"), ("CLIENT_OWNED,ON_BEHALF", "ON_BEHALF_OF"),
        (["AGENCY-OWNED"], "AGENCY_OWNED"),
    ],
)  # fmt: skip
def test_a_near_miss_of_an_ownership_type(value: Any, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"^ownership_types: .* did you mean '{nearest}'"):
        build_edge_query(PATH, ownership_types=value)


@pytest.mark.parametrize("value", ["SELF_OWNED", "PARTNER", "AGENCY_OWNED"])
def test_an_ownership_type_that_meta_may_add(value: str) -> None:
    assert filters(ownership_types=value)[0]["value"] == [value]


@pytest.mark.parametrize("value", [[], " , ", ["SELF", ""], [1], 5, {"SELF"}])
def test_odd_ownership_types_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="^ownership_types: "):
        build_edge_query(PATH, ownership_types=value)


@pytest.mark.parametrize(
    "value",
    [
        "text", "5", "{}", 5, {"field": "a"}, ["text"], [{}], [{"field": "a", "operator": "IN"}], [{"field": "a", "value": "b"}],
        [{"operator": "IN", "value": "b"}], [{"field": "", "operator": "IN", "value": "b"}], [{"field": "a", "operator": "", "value": "b"}],
        [{"field": 1, "operator": "IN", "value": "b"}], [{"field": "a", "operator": "IN", "value": None}],
        [{"field": "a", "operator": "IN", "value": []}], [{"field": "a", "operator": "IN", "value": [""]}],
        [{"field": "a", "operator": "IN", "value": {}}], [{"field": "a", "operator": "IN", "value": float("nan")}], [{"field": "a", "operator": "IN", "value": "b", "more": 1}],
    ],
)  # fmt: skip
def test_a_filter_needs_field_operator_and_value(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^filtering: .* for example"):
        build_edge_query(PATH, filtering=value)


@pytest.mark.parametrize("value", ["a b", "a;b", 5, "a\n"])
def test_an_odd_sort_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="^sort: "):
        build_edge_query(PATH, sort=value)


@pytest.mark.parametrize("name", ["page_size", "max_items"])
@pytest.mark.parametrize("value", [0, -1, "0", "ten", True, 1.5, [], "²"])
def test_a_count_below_one_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .* for example 100"):
        build_edge_query(PATH, **{name: value})


def test_counts() -> None:
    read = build_edge_query(PATH, page_size="250", max_items="7")
    assert (read.page_size, read.max_items) == (250, 7)
    read = build_edge_query(PATH, page_size=None)
    assert (read.page_size, read.max_items) == (100, None)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "1",
        "me",
        "../1/x",
        "1/../x",
        "1//x",
        "1/x?a=b",
        "1/x#y",
        "https://evil/1/x",
        "v26.0/1/x",
        "1/%2e",
        5,
        None,
    ],
)
def test_a_path_that_is_no_edge_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="^path: "):
        build_edge_query(path)


@pytest.mark.parametrize("value", ["123", 123, " 123 ", "1" * 32])
def test_a_business_id_is_digits(value: Any) -> None:
    assert parse_business_id(value) == str(value).strip()


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "abc",
        "12a",
        "../123",
        "123/owned",
        "123?x",
        "-1",
        -1,
        1.0,
        True,
        None,
        [],
        "١٢٣",
        "²",
        "1" * 33,
        "123\n4",
    ],
)
def test_anything_else_is_no_business_id(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^business_id: .* Business Info shows it, e\.g\. '1906385232743451'"):
        parse_business_id(value)


def test_a_node_with_further_parameters() -> None:
    query = build_node_query("1", fields=["id", "health_status"], params={"a": "b", "c": [1], "d": None})
    assert query.request() == Request("1", {"a": "b", "c": "[1]", "fields": "id,health_status"})
    assert join_fields(query.fields) == "id,health_status"


REFUSED = [
    "method", "access_token", "appsecret_proof", "appsecret_time", "input_token", "oauth_token", "app_secret", "client_id", "client_secret",
    "fb_exchange_token", "signed_request", "batch", "attached_files", "relative_url", "id", "ids", "fields", "limit", "after", "before",
    "first", "last", "offset", "__paging_token", "callback", "format", "pretty", "debug", "metadata", "include_headers", "redirect",
    "suppress_http_code", "return_ssl_resources", "date_format",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("spell", [str, str.upper, str.title, " {}".format, "{}\n".format, "\u00a0{} ".format])
def test_a_parameter_that_changes_or_redirects_the_request_is_refused(name: str, spell: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match=r"^params: .* cannot be given here: "):
        build_node_query("1", params={"a": "b", spell(name): "x"})
    with pytest.raises(ValueError, match=r"^params: .* cannot be given here: "):
        EdgeQuery.from_json({"path": "1/phone_numbers", "params": {spell(name): "x"}})


@pytest.mark.parametrize("name", ["method", "METHOD", "access_token", "ids", "callback", "batch"])
@pytest.mark.parametrize("fields", ["phone_numbers.{}(delete){{id}}", "id,owner{{phone_numbers.limit(1).{}(delete)}}"])
def test_such_a_parameter_is_refused_as_the_argument_of_a_field(name: str, fields: str) -> None:
    # The further pages of phone_numbers would be read with it as a parameter.
    for build in (build_node_query, build_edge_query):
        with pytest.raises(ValueError, match=rf"^fields: 'phone_numbers.{name}' cannot be given here: "):
            build("1/phone_numbers", fields=fields.format(name))
    with pytest.raises(ValueError, match="^fields: "):
        EdgeQuery.from_json({"path": PATH, "fields": fields.format(name)})


def test_arguments_that_page_or_shape_one_field_are_allowed() -> None:
    fields = "id,phone_numbers.limit(5).after(abc).as(phones).sort(x){id},pricing_analytics.start(1).granularity(DAILY)"
    assert join_fields(build_edge_query(PATH, fields=fields).fields) == fields


@pytest.mark.parametrize(("name", "advice"), [("fields", "`fields` argument"), ("limit", "`page_size` argument")])
def test_the_argument_to_give_instead_is_named(name: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        build_node_query("1", params={name: "x"})


@pytest.mark.parametrize(
    "name",
    ["", " ", "fields[0]", "access.token", "access token", "access[token", "me\u017fthod", "method\x00", "a&b", "a=b", "_a", 1, None],
)  # fmt: skip
def test_what_the_api_could_take_for_another_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="^params: .* is not the name of a parameter"):
        build_node_query("1", params={name: "x"})


@pytest.mark.parametrize("params", ["[1]", ["a"], 5])
def test_parameters_are_an_object(params: Any) -> None:
    with pytest.raises(ValueError, match="^params: .* is not an object; for example"):
        build_node_query("1", params=params)


@pytest.mark.parametrize("value", [float("nan"), object(), {"a": {1, 2}}])
def test_the_value_of_a_parameter_is_json(value: Any) -> None:
    with pytest.raises(ValueError, match="^params: the value of 'a', .*, is not JSON"):
        build_node_query("1", params={"a": value})


def test_a_stored_query_is_read_back() -> None:
    query = build_edge_query(
        PATH, fields="id,name", ownership_types="SELF", sort="creation_time_ascending", page_size=7, max_items=9
    )
    assert EdgeQuery.from_json(json.loads(json.dumps(query.to_json()))) == query


def test_long_values_are_shown_in_part() -> None:
    with pytest.raises(ValueError, match="business_id") as caught:
        parse_business_id("x" * 5000)
    assert len(str(caught.value)) < 300


class TestParams:
    def test_values_as_they_are_sent(self) -> None:
        params = {
            "category": "UTILITY", "ids": None, "language": ["en_US", "de"], "flag": True, "count": 5, "share": 1.5,
            "nested": {"a": [1, None]}, "blank": " ", "none": "None", "text": "a b", "Odd_Name2": "ü",
        }  # fmt: skip
        del params["ids"]
        assert build_edge_query("1/x", params=params).params == {
            "category": "UTILITY", "language": '["en_US","de"]', "flag": "true", "count": "5", "share": "1.5",
            "nested": '{"a":[1,null]}', "text": "a b", "Odd_Name2": "\u00fc",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("value", "sent"),
        [
            (date(2026, 11, 1), "1793491200"),
            (datetime(2026, 11, 1), "1793491200"),
            (datetime(2026, 11, 1, 2, tzinfo=timezone(timedelta(hours=2))), "1793491200"),
            (1793491200, "1793491200"),
            ("1793491200", "1793491200"),
            ("2026-11-01", "1793491200"),
            ('"2026-11-01T02:00:00+0200" ', "1793491200"),
            (1793491200.7, "1793491200"),
        ],
    )
    @pytest.mark.parametrize("name", ["start", "end", "since", "until"])
    def test_times_are_unix_seconds(self, name: str, value: Any, sent: str) -> None:
        query = build_edge_query("1/x", params={name: value})
        assert query.params == {name: sent}
        assert EdgeQuery.from_json(query.to_json()) == query
        (field,) = build_node_query("1", fields=f"x.{name}({value}).as(y)").fields
        assert field.arguments == ((name, sent), ("as", "y"))

    def test_a_word_for_a_time(self) -> None:
        assert build_edge_query("1/x", params={"since": "yesterday", "day": "x"}).params == {
            "since": "yesterday",
            "day": "x",
        }

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("start", datetime(1969, 1, 1)), ("start", "yesterday"), ("end", 1793491200000), ("end", "1793491200000"),
            ("since", "2026-13-01"), ("until", "-7 days"),
        ],
    )  # fmt: skip
    def test_a_wrong_time_names_its_parameter(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"^params: {name}: .* for example"):
            build_edge_query("1/x", params={name: value})
        if isinstance(value, str):
            with pytest.raises(ValueError, match=rf"^fields: x.{name}: .* for example"):
                build_node_query("1", fields=f"a{{x.{name}({value})}}")

    def test_a_json_text(self) -> None:
        text = '{"start": 5, "ids_wanted": ["a"], "left_out": null}'
        assert build_edge_query("1/x", params=text).params == {"start": "5", "ids_wanted": '["a"]'}
        blanks: tuple[Any, ...] = ("", " ", "None", None, {})
        for blank in blanks:
            assert build_edge_query("1/x", params=blank).params == {}

    @pytest.mark.parametrize("text", ["{", "start=5", '["start", 5]'])
    def test_a_text_of_no_object(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^params: .* for example {'business'"):
            build_edge_query("1/x", params=text)

    @pytest.mark.parametrize("name", ["filtering", "sort", " Filtering ", "SORT"])
    def test_what_is_an_argument_of_the_listing(self, name: str) -> None:
        argument = name.strip().lower()
        with pytest.raises(
            ValueError, match=f"^params: .* cannot be given here: give the `{argument}` argument instead"
        ):
            build_edge_query("1/x", params={name: "x"})
        # A node has no such arguments.
        if name == argument:
            assert build_node_query("1", params={name: "x"}).params == {name: "x"}

    def test_they_go_along_on_every_page(self) -> None:
        query = build_edge_query(
            "1/x", params={"a": "b"}, sort="name", filtering=[{"field": "f", "operator": "IN", "value": [1]}]
        )
        for after in (None, "A"):
            sent = query.request(limit=5, after=after).params
            assert (sent["a"], sent["sort"], sent["limit"]) == ("b", "name", "5")
            assert json.loads(sent["filtering"]) == [{"field": "f", "operator": "IN", "value": [1]}]

    def test_a_stored_query_keeps_them(self) -> None:
        query = build_edge_query("1/x", params={"a": ["b"]}, sort="name")
        assert EdgeQuery.from_json(json.loads(json.dumps(query.to_json()))) == query


class TestWabaEdgeQuery:
    def test_the_same_for_each_account(self) -> None:
        of_account = build_waba_edge_query(" phone_numbers ", params={"a": 1}, sort="name", page_size="7", max_items=9)
        expected = build_edge_query("102/phone_numbers", params={"a": 1}, sort="name", page_size=7, max_items=9)
        assert of_account("102") == expected
        assert of_account("103").path == "103/phone_numbers"
        assert of_account("103").node_id == "103"

    def test_the_arguments_are_checked_before_an_account_is_known(self) -> None:
        for name, arguments in {
            "sort": {"sort": "a b"},
            "fields": {"fields": "id,"},
            "params": {"params": "x"},
            "page_size": {"page_size": 0},
            "max_items": {"max_items": "0"},
            "filtering": {"filtering": "x"},
        }.items():
            with pytest.raises(ValueError, match=f"^{name}: "):
                build_waba_edge_query("phone_numbers", **arguments)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="^params: pricing_analytics needs start, end, granularity; "):
            build_waba_edge_query("pricing_analytics")

    @pytest.mark.parametrize("name", ["ownership_types", "created_after", "created_before"])
    def test_what_only_a_list_of_accounts_takes(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"^{name}: the edges of an account have no such field"):
            build_waba_edge_query("phone_numbers", **{name: "2026-11-01"})  # type: ignore[arg-type]
        for blank in (None, "", " ", "None"):
            assert build_waba_edge_query("phone_numbers", **{name: blank})("1").params == {}  # type: ignore[arg-type]

    @pytest.mark.parametrize("edge", ["", "a/b", "../x", "1x", "a b", "phone-numbers", "x?y", None, 5, ["x"], "ü"])
    def test_what_is_no_name_of_an_edge(self, edge: Any) -> None:
        with pytest.raises(ValueError, match=r"^edge: .* is not the name of an edge; for example 'phone_numbers'"):
            build_waba_edge_query(edge)

    @pytest.mark.parametrize("waba_id", ["", "x", "1/2", "../1", "-1", "1" * 33, "²"])
    def test_what_is_no_id_of_an_account(self, waba_id: str) -> None:
        with pytest.raises(ValueError, match=r"^waba_ids: .* is not the id of an account"):
            build_waba_edge_query("phone_numbers")(waba_id)

    @given(st.text(max_size=20))
    def test_no_name_of_an_edge_leads_elsewhere(self, edge: str) -> None:
        try:
            path = build_waba_edge_query(edge)("1").path
        except ValueError:
            return
        assert path == f"1/{edge.strip()}"
        assert path.isascii()
        assert not set(path[2:]) & set("/?#%. ")


def test_an_alias_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    build_edge_query("1/flows", fields="id,name,a{b.as(c)}")
    build_node_query("1", fields="name.as(title)")
    build_node_query("1", fields="name")
    assert [record.getMessage().partition(" is an alias")[0] for record in caplog.records] == [
        "fields: b.as(c)",
        "fields: name.as(title)",
    ]


@pytest.mark.parametrize(("version", "knows_limit"), [("v23.0", False), ("v24.0", True), ("v26.0", True)])
def test_a_version_gets_the_default_fields_that_it_knows(version: str, knows_limit: bool) -> None:
    limit = "whatsapp_business_manager_messaging_limit"
    default = build_edge_query("1/phone_numbers").for_version(version)
    assert (limit in join_fields(default.fields)) is knows_limit
    chosen = build_edge_query("1/phone_numbers", fields=f"id,{limit}")
    assert chosen.for_version(version) is chosen


def test_the_id_of_an_ad_account_is_no_business() -> None:
    with pytest.raises(ValueError, match="^business_id: 'act_12' .* this is the id of an ad account"):
        build_waba_query("act_12", "client")
