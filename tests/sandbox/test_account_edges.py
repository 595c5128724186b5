"""The edges of an account: their rows, the parameters that they require, and what they cannot be asked."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from documentation import code_in, section, tables
from sandbox_http import client, get, ids

from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.sandbox.world.node_types import ACCOUNT

# An example of each parameter that some edge requires.
EXAMPLES = {
    "business": "77", "configuration_name": "ours", "category": "AUTHENTICATION", "start": "1", "end": "2",
    "granularity": "DAILY", "template_ids": '["1"]', "template_group_ids": '["1"]', "group_ids": '["G"]',
    "metric_types": '["SENT"]',
}  # fmt: skip
REQUIRED = {edge: {name: EXAMPLES[name] for name in kind.required.split()} for edge, kind in ACCOUNT.edges.items()}
(TABLE,) = tables(section("## The edges of an account", "testing.md"))
# What the documentation says: the required parameters and the number of rows of each edge.
DOCUMENTED = {edge: (parameters, rows) for names, parameters, rows in TABLE for edge in code_in(names)}
FREE = [edge for edge, params in REQUIRED.items() if not params and DOCUMENTED[edge][1] != "none, without `id`"]


def rows_of(sandbox: GraphSandbox, edge: str, **params: Any) -> list[list[dict[str, Any]]]:
    """The rows of an edge for each account."""
    replies = [get(sandbox, f"{account['id']}/{edge}", {"limit": 100, **params}) for account in sandbox.accounts]
    assert {reply.status for reply in replies} == {200}
    return [reply.json["data"] for reply in replies]


def flat(sandbox: GraphSandbox, edge: str, **params: Any) -> list[dict[str, Any]]:
    """The rows of an edge of all accounts."""
    return [row for rows in rows_of(sandbox, edge, **params) for row in rows]


def test_every_edge_is_documented() -> None:
    assert set(DOCUMENTED) == set(ACCOUNT.edges)
    for edge, (parameters, rows) in DOCUMENTED.items():
        assert ([] if parameters.startswith("–") else code_in(parameters)) == list(REQUIRED[edge])
        assert ("without `id`" in rows) is not ACCOUNT.edges[edge].has_id


@pytest.mark.parametrize("edge", FREE)
def test_edge_without_parameters(sandbox: GraphSandbox, edge: str) -> None:
    found = rows_of(sandbox, edge)
    most = max(map(int, re.findall(r"\d+", DOCUMENTED[edge][1])))
    assert min(map(len, found)) == 0 < max(map(len, found)) <= most
    with GraphSandbox(accounts=60) as again, GraphSandbox(seed=1) as other:
        assert rows_of(again, edge) == found
        other.accounts = sandbox.accounts
        assert rows_of(other, edge) != found
    rows = [row for some in found for row in some]
    assert {"id" in row for row in rows} == {ACCOUNT.edges[edge].has_id}
    if ACCOUNT.edges[edge].has_id:
        assert len({row["id"] for row in rows}) == len(rows)
        assert all(rows[:1] == [get(sandbox, rows[0]["id"]).json] for rows in found[:5] if rows)
        assert get(sandbox, f"{sandbox.accounts[0]['id']}/{edge}", {"fields": "hologram"}).error[0] == 100


@pytest.mark.parametrize(("edge", "name"), [(edge, name) for edge, params in REQUIRED.items() for name in params])
def test_required_parameter(sandbox: GraphSandbox, edge: str, name: str) -> None:
    params = {key: value for key, value in REQUIRED[edge].items() if key != name}
    for given in (params, {**params, name: ""}):
        reply = get(sandbox, f"{sandbox.accounts[0]['id']}/{edge}", given)
        assert (reply.status, reply.error[0]) == (400, 100)
        assert reply.json["error"]["message"] == f"(#100) The parameter {name} is required"


@pytest.mark.parametrize("edge", ACCOUNT.edges)
def test_own_rows(sandbox: GraphSandbox, edge: str) -> None:
    account = sandbox.accounts[0]
    row = {"id": "5", "name": "ours", "configuration_name": "ours", "timestamp": "2026-01-01T00:00:00+0000"}
    account[edge] = [row]
    (found,) = get(sandbox, f"{account['id']}/{edge}", REQUIRED[edge]).json["data"]
    assert (found["payment_configurations"] if edge == "payment_configurations" else [found])[0].items() <= row.items()
    arguments = "".join(f".{name}({value})" for name, value in REQUIRED[edge].items())
    nested = get(sandbox, account["id"], {"fields": f"id,{edge}{arguments}"}).json
    assert nested[edge]["data"] == [found]


def test_an_edge_belongs_to_accounts(sandbox: GraphSandbox) -> None:
    for node in (sandbox.business_id, "me"):
        assert "nonexisting field (flows)" in get(sandbox, f"{node}/flows").json["error"]["message"]
    assert get(sandbox, "123456/flows").error == (100, 33)
    gone = sandbox.accounts.pop()["id"]
    assert get(sandbox, f"{gone}/flows").error == (100, 33)


def test_edges_nested_in_the_listing(sandbox: GraphSandbox) -> None:
    fields = (
        "id,flows.limit(1){name},subscribed_apps,assigned_users.business(77){tasks},message_templates.status(PAUSED)"
    )
    for row in client(sandbox, fields=fields, limit=60).json["data"]:
        assert [set(flow) for flow in row["flows"]["data"]] in ([], [{"id", "name"}])
        assert all("id" not in app for app in row["subscribed_apps"]["data"])
        assert all(set(user) == {"id", "tasks"} for user in row["assigned_users"]["data"])
        assert {template["status"] for template in row["message_templates"]["data"]} <= {"PAUSED"}
    refused = client(sandbox, fields="id,assigned_users{id}")
    assert refused.json["error"]["message"] == "(#100) The parameter business is required"


def test_phone_numbers(sandbox: GraphSandbox) -> None:
    limit = "whatsapp_business_manager_messaging_limit"
    fields = f"quality_rating,{limit},name_status,code_verification_status,throughput,status"
    rows = flat(sandbox, "phone_numbers", fields=fields)
    found = {name: {json.dumps(row[name]) for row in rows} for name in fields.split(",")}
    assert found["quality_rating"] == {'"GREEN"', '"YELLOW"', '"RED"', '"UNKNOWN"'}
    assert found["code_verification_status"] == {'"VERIFIED"', '"EXPIRED"', '"NOT_VERIFIED"'}
    assert {'{"level": "STANDARD"}', '{"level": "HIGH"}'} < found["throughput"]
    assert min(map(len, found.values())) >= 3
    assert max(map(len, rows_of(sandbox, "phone_numbers"))) > 25
    for account, numbers in zip(sandbox.accounts, rows_of(sandbox, "phone_numbers", fields=limit), strict=True):
        assert {row[limit] for row in numbers} <= {account[limit]}


def test_a_field_that_meta_no_longer_fills_is_null(sandbox: GraphSandbox) -> None:
    rows = flat(sandbox, "phone_numbers", fields="messaging_limit_tier")
    assert {row["messaging_limit_tier"] for row in rows} == {None}


@pytest.mark.parametrize("field", ["username", "waac_id"])
def test_a_field_that_meta_refuses_is_refused(sandbox: GraphSandbox, field: str) -> None:
    assert get(sandbox, f"{sandbox.accounts[0]['id']}/phone_numbers", {"fields": field}).error[0] == 100


def test_the_accounts_of_a_user() -> None:
    edge = "me/assigned_whatsapp_business_accounts"
    with GraphSandbox(accounts=3, owned_accounts=2, businesses=2) as sandbox:
        page = get(sandbox, edge, {"summary": "total_count"}).json
        assert page["summary"] == {"total_count": 10}
        assert {"MANAGE_TEMPLATES", "MESSAGING"} <= set(page["data"][0]["tasks"])
        assert "summary" not in get(sandbox, edge).json
        wanted = {account["id"] for rows in (sandbox.accounts, sandbox.owned_accounts) for account in rows}
        assert wanted < {row["id"] for row in page["data"]}


def test_limits_and_health_vary_over_accounts() -> None:
    with GraphSandbox(accounts=100, owned_accounts=20) as sandbox:
        fields = "whatsapp_business_manager_messaging_limit,health_status"
        rows = client(sandbox, fields=fields, limit=100).json["data"]
        # The limit of owned accounts belongs to the portfolio.
        assert len({row.get("whatsapp_business_manager_messaging_limit") for row in sandbox.owned_accounts}) == 1
    assert len({row["whatsapp_business_manager_messaging_limit"] for row in rows}) >= 4
    verdicts = {row["health_status"]["can_send_message"] for row in rows}
    assert verdicts == {"AVAILABLE", "LIMITED", "BLOCKED"}
    for row in rows:
        entities = row["health_status"]["entities"]
        assert row["health_status"]["can_send_message"] in {one["can_send_message"] for one in entities}
        assert entities[0]["id"] == row["id"]


class TestTemplates:
    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({"status": "APPROVED"}, {"status": {"APPROVED"}}),
            ({"status": '["PAUSED","REJECTED"]'}, {"status": {"PAUSED", "REJECTED"}}),
            ({"status": "paused,rejected"}, {"status": {"PAUSED", "REJECTED"}}),
            ({"category": "['MARKETING']"}, {"category": {"MARKETING"}}),
            ({"language": "hi"}, {"language": {"hi"}}),
            ({"quality_score": "RED"}, {"quality_score": {"RED"}}),
            ({"status": "APPROVED", "category": "UTILITY"}, {"status": {"APPROVED"}, "category": {"UTILITY"}}),
        ],
    )
    def test_filters(self, sandbox: GraphSandbox, params: dict[str, str], expected: dict[str, set[str]]) -> None:
        fields = "status,category,language,quality_score,rejected_reason"
        everyone = flat(sandbox, "message_templates", fields=fields)
        kept = flat(sandbox, "message_templates", fields=fields, **params)

        def value(row: dict[str, Any], name: str) -> Any:
            return row[name]["score"] if name == "quality_score" else row[name]

        assert kept == [row for row in everyone if all(value(row, name) in values for name, values in expected.items())]
        assert 0 < len(kept) < len(everyone)
        for row in everyone:
            assert (row["rejected_reason"] != "NONE") is (row["status"] == "REJECTED")

    def test_filter_by_name(self, sandbox: GraphSandbox) -> None:
        rows = flat(sandbox, "message_templates", name="welcome")
        assert rows
        assert all("welcome" in row["name"] for row in rows)

    def test_filters_hold_on_the_next_page(self, sandbox: GraphSandbox) -> None:
        most = max(sandbox.accounts, key=lambda one: len(ids(get(sandbox, f"{one['id']}/message_templates?limit=100"))))
        first = get(sandbox, f"{most['id']}/message_templates", {"status": "APPROVED", "limit": 5}).json
        assert "status=APPROVED" in first["paging"]["next"]

    @pytest.mark.parametrize("params", [{"status": "SHINY"}, {"category": "SPAM"}, {"status": '["PAUSED"'}])
    def test_bad_filter(self, sandbox: GraphSandbox, params: dict[str, str]) -> None:
        reply = get(sandbox, f"{sandbox.accounts[0]['id']}/message_templates", params)
        assert (reply.status, reply.error[0]) == (400, 100)


class TestOtherEdges:
    def test_subscribed_apps(self, sandbox: GraphSandbox) -> None:
        app = get(sandbox, "app").json["id"]
        found = rows_of(sandbox, "subscribed_apps", fields="id,name")
        for row in (row for rows in found for row in rows):
            assert set(row) <= {"whatsapp_business_api_data", "override_callback_uri"}
            assert set(row["whatsapp_business_api_data"]) == {"id", "name", "link"}
        ours = [any(row["whatsapp_business_api_data"]["id"] == app for row in rows) for rows in found]
        assert set(ours) == {True, False}
        # Rows without an id have pages as well.
        path, rows = next(
            (f"{a['id']}/subscribed_apps", r) for a, r in zip(sandbox.accounts, found, strict=True) if r[1:]
        )
        first = get(sandbox, path, {"limit": 1}).json
        second = get(sandbox, path, {"limit": 1, "after": first["paging"]["cursors"]["after"]}).json
        assert [*first["data"], *second["data"]] == rows
        assert "next" not in second["paging"]

    def test_assigned_users(self, sandbox: GraphSandbox) -> None:
        path = f"{sandbox.accounts[0]['id']}/assigned_users"
        rows = get(sandbox, path, {"business": sandbox.business_id}).json["data"]
        assert 1 <= len(rows) <= 3
        assert all(set(row) == {"id", "name", "tasks"} and row["tasks"] for row in rows)
        assert get(sandbox, path, {"business": sandbox.business_id}).json["data"] == rows
        (one, *_) = get(sandbox, path, {"business": "77", "fields": "business,user_type"}).json["data"]
        assert (one["business"]["id"], one["user_type"] in {"BUSINESS_USER", "SYSTEM_USER"}) == ("77", True)

    def test_activities_of_a_time(self, sandbox: GraphSandbox) -> None:
        times = sorted(row["timestamp"] for row in flat(sandbox, "activities"))
        middle = times[len(times) // 2]
        for name, expected in (("since", times[times.index(middle) :]), ("until", times[: times.index(middle) + 1])):
            assert sorted(row["timestamp"] for row in flat(sandbox, "activities", **{name: middle})) == expected
        assert flat(sandbox, "activities", since="1", until="2") == []
        added = flat(sandbox, "activities", activity_type="USER_ADDED")
        assert {row["activity_type"] for row in added} == {"USER_ADDED"}
        assert get(sandbox, f"{sandbox.accounts[0]['id']}/activities", {"since": "soon"}).error[0] == 100

    def test_payment_configurations(self, sandbox: GraphSandbox) -> None:
        found = zip(sandbox.accounts, rows_of(sandbox, "payment_configurations"), strict=True)
        (account, (row,)), *others = ((account, rows) for account, rows in found if rows)
        assert {one["country"] for one, _ in [(account, row), *others]} == {"IN"}
        (first, *_) = row["payment_configurations"]
        path, params = f"{account['id']}/payment_configuration", {"configuration_name": first["configuration_name"]}
        assert get(sandbox, path, params).json["data"] == [first]
        assert get(sandbox, path, {"configuration_name": "nobody's"}).error[0] == 100

    def test_template_previews(self, sandbox: GraphSandbox) -> None:
        path = f"{sandbox.accounts[0]['id']}/message_template_previews"
        params = {"category": "AUTHENTICATION"}
        rows = get(sandbox, path, params).json["data"]
        assert len({row["language"] for row in rows}) == len(rows) > 1
        assert all(set(row) == {"body", "buttons", "footer", "language"} for row in rows)
        more = {**params, "languages": '["pt_BR"]', "code_expiration_minutes": 7, "button_types": "OTP"}
        (row,) = get(sandbox, path, more).json["data"]
        assert (row["language"], "7" in row["footer"]) == ("pt_BR", True)
        for bad in ({"category": "MARKETING"}, {"code_expiration_minutes": 91}, {"button_types": "URL"}):
            assert get(sandbox, path, {**params, **bad}).error[0] == 100
