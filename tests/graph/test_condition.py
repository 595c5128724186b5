from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph.condition import Tally, build_condition
from airflow_provider_whatsapp.graph.fields import join_fields, parse_fields

ROWS: list[dict[str, Any]] = [
    {"id": "1", "status": "ACTIVE", "owner": {"id": "7", "name": "A"}, "n": 1},
    {"id": "2", "status": "ACTIVE", "owner": {"id": "8", "name": "B"}, "n": True},
    {"id": "3", "status": "DISABLED", "owner": None, "n": 1.0},
    {"id": "4"},
]


def matching(**condition: Any) -> list[str]:
    return [row["id"] for row in Tally(build_condition(**condition)).matching(ROWS)]


def met(**condition: Any) -> bool:
    tally = build_condition(**condition).new_tally()
    for row in ROWS:
        tally.add(row)
    return tally.is_met


def test_with_nothing_given_one_account_is_enough() -> None:
    tally = build_condition().new_tally()
    assert not tally.is_met
    assert (tally.add(ROWS[0]), tally.is_met, tally.is_complete) == (True, True, False)


def test_all_of_the_ids_must_be_there() -> None:
    assert met(waba_ids=["1", "4"])
    assert not met(waba_ids=["1", "9"])
    assert matching(waba_ids="1, 4") == ["1", "4"]
    assert matching(waba_ids=[4, 9]) == ["4"]
    assert matching(waba_ids=4) == ["4"]
    assert not met(waba_ids=["1", "9"], min_count=1)


def test_reading_ends_when_all_ids_were_found() -> None:
    rows = iter(ROWS)
    assert [row["id"] for row in Tally(build_condition(waba_ids=["2"])).matching(rows)] == ["2"]
    assert next(rows)["id"] == "3"
    rows = iter(ROWS)
    assert len(list(Tally(build_condition(min_count=1)).matching(rows))) == 4


def test_so_many_must_be_there() -> None:
    assert met(min_count=4)
    assert met(min_count="4")
    assert not met(min_count=5)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ({"status": "ACTIVE"}, ["1", "2"]),
        ({"status": ["ACTIVE", "DISABLED"]}, ["1", "2", "3"]),
        ({"status": None}, ["4"]),
        ({"owner.name": "B"}, ["2"]),
        ({"owner.name": ("A", "B")}, ["1", "2"]),
        ({"owner.id": 7}, ["1"]),
        ({"owner.name": None}, ["3", "4"]),
        ({"status": "ACTIVE", "owner.name": ["B", "C"]}, ["2"]),
        ({"n": 1}, ["1", "3"]),
        ({"n": True}, ["2"]),
        ({"n": "1"}, ["1"]),
        ({"n": "True"}, ["2"]),
        ({"n": "2"}, []),
        ({"status.x.y": "ACTIVE"}, []),
    ],
)
def test_only_accounts_with_these_values_count(where: dict[str, Any], ids: list[str]) -> None:
    assert matching(where=where) == ids
    assert met(where=where) is bool(ids)
    assert not met(where=where, min_count=len(ids) + 1)


def test_ids_and_values_together() -> None:
    assert met(waba_ids=["1", "2"], where={"status": "ACTIVE"})
    assert not met(waba_ids=["1", "3"], where={"status": "ACTIVE"})


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        ({"waba_ids": []}, "waba_ids"),
        ({"waba_ids": ""}, "waba_ids"),
        ({"waba_ids": ["a"]}, "waba_ids"),
        ({"waba_ids": ["1/x"]}, "waba_ids"),
        ({"waba_ids": [True]}, "waba_ids"),
        ({"waba_ids": [None]}, "waba_ids"),
        ({"waba_ids": 5.5}, "waba_ids"),
        ({"min_count": 0}, "min_count"),
        ({"min_count": "many"}, "min_count"),
        ({"min_count": 3, "waba_ids": ["1", "2"]}, "min_count"),
        ({"where": {}}, "where"),
        ({"where": "status"}, "where"),
        ({"where": "[]"}, "where"),
        ({"where": {"": 1}}, "where"),
        ({"where": {"a..b": 1}}, "where"),
        ({"where": {"a b": 1}}, "where"),
        ({"where": {5: 1}}, "where"),
        ({"where": {"a": []}}, "where"),
        ({"where": {"a": {}}}, "where"),
        ({"where": {"a": [[1]]}}, "where"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(condition: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        build_condition(**condition)


def test_only_the_fields_it_has_to_see_are_needed() -> None:
    fields = parse_fields("name,id,owner{id,name},phone_numbers.limit(5){id}")
    assert join_fields(build_condition().needed_fields(fields)) == "id"
    assert join_fields(build_condition(where={"owner.name": "A"}).needed_fields(fields)) == "id,owner{id,name}"
    with pytest.raises(
        ValueError, match="^where: 'status' of 'status' is not among the fields 'name', 'id', 'owner', 'phone_numbers'"
    ):
        build_condition(where={"status": "ACTIVE"}).needed_fields(fields)
    with pytest.raises(ValueError, match="'owner', 'phone_numbers'; did you mean 'phone_numbers'"):
        build_condition(where={"phoneNumber": 1}).needed_fields(fields)
    assert join_fields(build_condition(where={"owner": None}).needed_fields(fields)) == "id,owner{id,name}"
    with pytest.raises(ValueError, match="^where: 'city' of 'owner.city' is not among the fields 'id', 'name'; add it"):
        build_condition(where={"owner.city": "A"}).needed_fields(fields)
    aliased = parse_fields("id,owner_business_info.as(owner)")
    assert (
        join_fields(build_condition(where={"owner.name": "A"}).needed_fields(aliased))
        == "id,owner_business_info.as(owner)"
    )


def test_an_edge_has_many_values() -> None:
    row = {"id": "1", "phones": {"data": [{"id": "2", "number": "3"}]}}
    with pytest.raises(ValueError, match="^where: 'phones.number' leads through an edge"):
        build_condition(where={"phones.number": "3"}).matches(row)


def test_values_as_json_text() -> None:
    assert matching(where='{"status": ["DISABLED"]}') == ["3"]


@given(
    st.none() | st.lists(st.integers(0, 10**17).map(str), min_size=1, max_size=3, unique=True),
    st.none()
    | st.dictionaries(
        st.sampled_from(["a", "b.c", "d_id"]), st.text() | st.none() | st.lists(st.integers(), min_size=1), min_size=1
    ),
)
def test_it_survives_json(ids: list[str] | None, where: dict[str, Any] | None) -> None:
    condition = build_condition(waba_ids=ids, where=where)
    arguments = json.loads(json.dumps(condition.to_json()))
    assert build_condition(**arguments) == condition


SHARED: list[dict[str, Any]] = [{"id": f"{number}", "review": "PENDING", "n": number} for number in range(1, 13)]


@pytest.mark.parametrize(
    ("condition", "rows", "reason"),
    [
        ({}, 0, ""),
        ({"min_count": 20}, 12, "20 are needed"),
        ({"waba_ids": "1", "where": {"review": "APPROVED"}}, 1, "1 is shared, but review is PENDING, not APPROVED"),
        ({"waba_ids": "77,1"}, 12, "77 is not shared"),
        (
            {"waba_ids": "1,2,3,4,77", "where": {"review": ["A", "B"]}},
            12,
            "77 is not shared; 1 is shared, but review is PENDING, not A or B; 2 is shared, but review is PENDING, "
            "not A or B; and 2 more",
        ),
        (
            {"waba_ids": "1", "where": {"review": "pending"}},
            12,
            "1 is shared, but review is PENDING, not pending; upper and lower case matter: review is PENDING",
        ),
        (
            {"where": {"review": "DONE"}},
            1,
            "1 is shared, but review is PENDING, not DONE; no account has review DONE, only PENDING",
        ),
        ({"where": {"gone.name": "x"}}, 1, "1 is shared, but gone.name is missing, not x; no account has gone.name"),
        # An account could still have the value, since not all values are remembered.
        ({"where": {"n": 99}}, 12, "; ".join(f"{n} is shared, but n is {n}, not 99" for n in (1, 2, 3))),
        ({"where": {"review": "EAA" + "secret" * 9}}, 0, ""),
    ],
)  # fmt: skip
def test_why_it_is_not_met(condition: dict[str, Any], rows: int, reason: str) -> None:
    tally = build_condition(**condition).new_tally()
    for row in SHARED[:rows]:
        tally.add(row)
    assert tally.reason(listed="shared") == reason


def test_no_secret_is_in_the_reason() -> None:
    tally = build_condition(where={"review": "x"}).new_tally()
    tally.add({"id": "1", "review": "EAA" + "secret" * 9})
    assert "secretsecret" not in tally.reason(listed="shared")
