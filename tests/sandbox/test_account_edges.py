"""The edges of an account: their rows, the parameters that they require, and what they cannot be asked."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from documentation import code_in, section, tables
from sandbox_http import client, get, ids

from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.sandbox.world.node_types import ACCOUNT
from airflow_provider_whatsapp.transport import clock

DAY = 86_400
# What each edge needs, with an example. Those that are not here need nothing.
REQUIRED: dict[str, dict[str, str]] = {
    "assigned_users": {"business": "77"},
    "payment_configuration": {"configuration_name": "ours"},
    "message_template_previews": {"category": "AUTHENTICATION"},
    "template_analytics": {"start": "1", "end": "2", "granularity": "DAILY", "template_ids": '["1"]'},
    "template_group_analytics": {"start": "1", "end": "2", "granularity": "DAILY", "template_group_ids": '["1"]'},
    "group_analytics": {"start": "1", "end": "2", "group_ids": '["G"]', "metric_types": '["SENT"]'},
    "pricing_analytics": {"start": "1", "end": "2", "granularity": "DAILY"},
    "conversation_analytics": {"start": "1", "end": "2", "granularity": "DAILY"},
    "call_analytics": {"start": "1", "end": "2", "granularity": "DAILY"},
}
# The edges that need nothing, and how many rows they have at most.
FREE = {
    "phone_numbers": 40, "message_templates": 30, "flows": 3, "solutions": 1, "schedules": 1, "audiences": 2,
    "product_catalogs": 1, "dataset": 1, "template_groups": 1, "activities": 3, "subscribed_apps": 2,
    "payment_configurations": 1,
}  # fmt: skip
WITHOUT_ID = {"subscribed_apps", "payment_configurations"}


def rows_of(sandbox: GraphSandbox, edge: str, **params: Any) -> list[list[dict[str, Any]]]:
    """The rows of an edge for each account."""
    replies = [get(sandbox, f"{account['id']}/{edge}", {"limit": 100, **params}) for account in sandbox.accounts]
    assert {reply.status for reply in replies} == {200}
    return [reply.json["data"] for reply in replies]


@pytest.mark.parametrize("edge", FREE)
def test_edge_without_parameters(sandbox: GraphSandbox, edge: str) -> None:
    found = rows_of(sandbox, edge)
    assert min(map(len, found)) == 0 < max(map(len, found))
    assert max(map(len, found)) <= FREE[edge]
    rows = [row for some in found for row in some]
    assert {"id" in row for row in rows} == {edge not in WITHOUT_ID}
    assert rows_of(sandbox, edge) == found
    if edge not in WITHOUT_ID:
        assert len({row["id"] for row in rows}) == len(rows)
        assert all(rows[:1] == [get(sandbox, rows[0]["id"]).json] for rows in found[:5] if rows)
        assert get(sandbox, f"{sandbox.accounts[0]['id']}/{edge}", {"fields": "hologram"}).error[0] == 100


@pytest.mark.parametrize("edge", FREE)
def test_same_for_the_same_seed(edge: str) -> None:
    with GraphSandbox(accounts=12) as sandbox, GraphSandbox(accounts=12) as again, GraphSandbox(seed=1) as other:
        assert rows_of(sandbox, edge) == rows_of(again, edge)
        # The same account is other rows to another seed.
        other.accounts = sandbox.accounts
        if edge != "payment_configurations":
            assert rows_of(other, edge) != rows_of(sandbox, edge)


@pytest.mark.parametrize(("edge", "name"), [(edge, name) for edge, params in REQUIRED.items() for name in params])
def test_required_parameter(sandbox: GraphSandbox, edge: str, name: str) -> None:
    path = f"{sandbox.accounts[0]['id']}/{edge}"
    params = {key: value for key, value in REQUIRED[edge].items() if key != name}
    for given in (params, {**params, name: ""}):
        reply = get(sandbox, path, given)
        assert (reply.status, reply.error[0]) == (400, 100)
        assert reply.json["error"]["message"] == f"(#100) The parameter {name} is required"


@pytest.mark.parametrize("edge", sorted({*REQUIRED, *FREE}))
def test_own_rows(sandbox: GraphSandbox, edge: str) -> None:
    row = {"id": "5", "name": "ours", "configuration_name": "ours", "timestamp": "2026-01-01T00:00:00+0000"}
    sandbox.accounts[0][edge] = [row]
    (found,) = get(sandbox, f"{sandbox.accounts[0]['id']}/{edge}", REQUIRED.get(edge)).json["data"]
    assert (found["payment_configurations"] if edge == "payment_configurations" else [found])[0].items() <= row.items()


def test_required_parameters_can_be_arguments_of_a_field(sandbox: GraphSandbox) -> None:
    account = sandbox.accounts[0]
    for edge, params in REQUIRED.items():
        account[edge] = [{"id": "5", "configuration_name": "ours"}]
        arguments = "".join(f".{name}({value})" for name, value in params.items())
        row = get(sandbox, account["id"], {"fields": f"id,{edge}{arguments}"}).json
        assert len(row[edge]["data"]) == 1, edge


def test_every_edge_is_documented_and_tested() -> None:
    assert set(ACCOUNT.edges) == {*REQUIRED, *FREE}
    (table,) = tables(section("## What hangs on an account", "testing.md"))
    documented = {edge: row[1] for row in table for edge in code_in(row[0])}
    assert set(documented) == set(ACCOUNT.edges)
    for edge, cell in documented.items():
        required = [] if cell.startswith("–") else code_in(cell)
        assert required == ACCOUNT.edges[edge].required.split() == list(REQUIRED.get(edge, {}))


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


class TestPhoneNumbers:
    def test_what_an_audit_reads(self) -> None:
        with GraphSandbox(accounts=100) as sandbox:
            fields = "quality_rating,messaging_limit_tier,name_status,code_verification_status,throughput,status"
            rows = [row for rows in rows_of(sandbox, "phone_numbers", fields=fields) for row in rows]
        found = {name: {json.dumps(row[name]) for row in rows} for name in fields.split(",")}
        assert found["quality_rating"] == {'"GREEN"', '"YELLOW"', '"RED"', '"UNKNOWN"'}
        assert found["code_verification_status"] == {'"VERIFIED"', '"EXPIRED"', '"NOT_VERIFIED"'}
        assert {'{"level": "STANDARD"}', '{"level": "HIGH"}'} < found["throughput"]
        assert min(map(len, found.values())) >= 3

    def test_limits_and_health_vary_over_accounts(self) -> None:
        with GraphSandbox(accounts=100, owned_accounts=20) as sandbox:
            fields = "whatsapp_business_manager_messaging_limit,health_status"
            rows = client(sandbox, fields=fields, limit=100).json["data"]
            assert len({row["whatsapp_business_manager_messaging_limit"] for row in rows}) >= 4
            verdicts = {row["health_status"]["can_send_message"] for row in rows}
            assert verdicts == {"AVAILABLE", "LIMITED", "BLOCKED"}
            for row in rows:
                entities = row["health_status"]["entities"]
                assert row["health_status"]["can_send_message"] in {one["can_send_message"] for one in entities}
                assert entities[0]["id"] == row["id"]
            # The limit belongs to the portfolio.
            assert len({row.get("whatsapp_business_manager_messaging_limit") for row in sandbox.owned_accounts}) == 1


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
        fields = "status,category,language,quality_score"
        everyone = [row for rows in rows_of(sandbox, "message_templates", fields=fields) for row in rows]
        kept = [row for rows in rows_of(sandbox, "message_templates", fields=fields, **params) for row in rows]

        def value(row: dict[str, Any], name: str) -> Any:
            return row[name]["score"] if name == "quality_score" else row[name]

        assert kept == [row for row in everyone if all(value(row, name) in values for name, values in expected.items())]
        assert 0 < len(kept) < len(everyone)

    def test_filter_by_name(self, sandbox: GraphSandbox) -> None:
        rows = [row for rows in rows_of(sandbox, "message_templates", name="welcome") for row in rows]
        assert rows
        assert all("welcome" in row["name"] for row in rows)

    def test_filters_hold_on_the_next_page(self, sandbox: GraphSandbox) -> None:
        path = max(sandbox.accounts, key=lambda one: len(ids(get(sandbox, f"{one['id']}/message_templates?limit=100"))))
        params = {"status": "APPROVED", "limit": 5}
        first = get(sandbox, f"{path['id']}/message_templates", params).json
        assert "status=APPROVED" in first["paging"]["next"]

    @pytest.mark.parametrize("params", [{"status": "SHINY"}, {"category": "SPAM"}, {"status": '["PAUSED"'}])
    def test_bad_filter(self, sandbox: GraphSandbox, params: dict[str, str]) -> None:
        reply = get(sandbox, f"{sandbox.accounts[0]['id']}/message_templates", params)
        assert (reply.status, reply.error[0]) == (400, 100)

    def test_why_they_were_rejected(self, sandbox: GraphSandbox) -> None:
        found = rows_of(sandbox, "message_templates", fields="status,rejected_reason,quality_score")
        for row in (row for rows in found for row in rows):
            assert (row["rejected_reason"] != "NONE") is (row["status"] == "REJECTED")
            assert row["quality_score"]["score"] in {"GREEN", "YELLOW", "RED", "UNKNOWN"}


class TestOtherEdges:
    def test_subscribed_apps(self, sandbox: GraphSandbox) -> None:
        app = get(sandbox, "app").json["id"]
        found = rows_of(sandbox, "subscribed_apps", fields="id,name")
        for row in (row for rows in found for row in rows):
            assert set(row) <= {"whatsapp_business_api_data", "override_callback_uri"}
            assert set(row["whatsapp_business_api_data"]) == {"id", "name", "link"}
        ours = [any(row["whatsapp_business_api_data"]["id"] == app for row in rows) for rows in found]
        assert set(ours) == {True, False}

    def test_rows_without_id_have_pages(self, sandbox: GraphSandbox) -> None:
        number = next(at for at, rows in enumerate(rows_of(sandbox, "subscribed_apps")) if len(rows) == 2)
        path = f"{sandbox.accounts[number]['id']}/subscribed_apps"
        first = get(sandbox, path, {"limit": 1}).json
        second = get(sandbox, path, {"limit": 1, "after": first["paging"]["cursors"]["after"]}).json
        assert [*first["data"], *second["data"]] == get(sandbox, path).json["data"]
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
        everything = [row for rows in rows_of(sandbox, "activities") for row in rows]
        times = sorted(row["timestamp"] for row in everything)
        middle = times[len(times) // 2]
        for name, expected in (("since", times[times.index(middle) :]), ("until", times[: times.index(middle) + 1])):
            kept = [row["timestamp"] for rows in rows_of(sandbox, "activities", **{name: middle}) for row in rows]
            assert sorted(kept) == expected
        assert sum(map(len, rows_of(sandbox, "activities", since="1", until="2"))) == 0
        added = [row for rows in rows_of(sandbox, "activities", activity_type="USER_ADDED") for row in rows]
        assert {row["activity_type"] for row in added} == {"USER_ADDED"}
        path = f"{sandbox.accounts[0]['id']}/activities"
        assert get(sandbox, path, {"since": "soon"}).error[0] == 100

    def test_payment_configurations(self, sandbox: GraphSandbox) -> None:
        found = dict(
            zip((one["id"] for one in sandbox.accounts), rows_of(sandbox, "payment_configurations"), strict=True)
        )
        account_id, (row,) = next((id_, rows) for id_, rows in found.items() if rows)
        (first, *_) = row["payment_configurations"]
        params = {"configuration_name": first["configuration_name"]}
        assert get(sandbox, f"{account_id}/payment_configuration", params).json["data"] == [first]
        refused = get(sandbox, f"{account_id}/payment_configuration", {"configuration_name": "nobody's"})
        assert refused.error[0] == 100
        assert {account["country"] for account in sandbox.accounts if found[account["id"]]} == {"IN"}

    def test_template_previews(self, sandbox: GraphSandbox) -> None:
        path = f"{sandbox.accounts[0]['id']}/message_template_previews"
        params = {"category": "AUTHENTICATION"}
        rows = get(sandbox, path, params).json["data"]
        assert len({row["language"] for row in rows}) == len(rows) > 1
        assert all(set(row) == {"body", "buttons", "footer", "language"} for row in rows)
        (row,) = get(
            sandbox, path, {**params, "languages": '["pt_BR"]', "code_expiration_minutes": 7, "button_types": "OTP"}
        ).json["data"]
        assert (row["language"], "7" in row["footer"]) == ("pt_BR", True)
        for bad in ({"category": "MARKETING"}, {"code_expiration_minutes": 91}, {"button_types": "URL"}):
            assert get(sandbox, path, {**params, **bad}).error[0] == 100


class TestTemplateAnalytics:
    @pytest.fixture
    def today(self) -> int:
        return int(clock.now()) // DAY * DAY

    @pytest.fixture
    def account(self, sandbox: GraphSandbox) -> dict[str, Any]:
        account = sandbox.accounts[0]
        account["is_enabled_for_insights"] = True
        account["message_templates"] = [{"id": str(number), "category": "UTILITY"} for number in range(1, 13)]
        return account

    def read(self, sandbox: GraphSandbox, account: dict[str, Any], today: int, **params: Any) -> Any:
        asked = {"start": today - 3 * DAY, "end": today, "granularity": "DAILY", "template_ids": '["1","2"]', **params}
        return get(sandbox, f"{account['id']}/template_analytics", asked)

    def test_shape(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        reply = self.read(sandbox, account, today)
        (row,) = reply.json["data"]
        assert set(row) == {"granularity", "product_type", "data_points"}
        assert (row["granularity"], row["product_type"]) == ("DAILY", "cloud_api")
        assert set(reply.json["paging"]) == {"cursors"}
        assert [(point["template_id"], point["start"]) for point in row["data_points"]] == [
            (template, today - back * DAY) for template in ("1", "2") for back in (3, 2, 1)
        ]
        for point in row["data_points"]:
            assert point["sent"] >= point["delivered"] >= point["read"] >= 0
            assert point["end"] - point["start"] == DAY
        assert any("clicked" in point for point in row["data_points"])
        assert self.read(sandbox, account, today).json == reply.json

    @pytest.mark.parametrize("metrics", ['["SENT"]', "sent", "[SENT]"])
    def test_metrics(self, sandbox: GraphSandbox, account: dict[str, Any], today: int, metrics: str) -> None:
        (row,) = self.read(sandbox, account, today, metric_types=metrics).json["data"]
        assert {frozenset(point) for point in row["data_points"]} == {
            frozenset({"template_id", "start", "end", "sent"})
        }

    def test_at_most_ten_templates(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        for separator, count, status in ((",", 10, 200), (",", 11, 400), ('","', 10, 200), ('","', 11, 400)):
            numbers = separator.join(map(str, range(1, count + 1)))
            text = numbers if separator == "," else f'["{numbers}"]'
            reply = self.read(sandbox, account, today, template_ids=text)
            assert reply.status == status
            if status == 400:
                assert reply.error[0] == 100
                assert "template_ids must have at most 10" in reply.json["error"]["message"]

    def test_a_template_of_another_account_has_no_data(
        self, sandbox: GraphSandbox, account: dict[str, Any], today: int
    ) -> None:
        assert self.read(sandbox, account, today, template_ids="99").json["data"][0]["data_points"] == []

    def test_insights_must_be_enabled(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        account["is_enabled_for_insights"] = False
        assert (reply := self.read(sandbox, account, today)).error[0] == 200007
        assert reply.status == 400
        path = f"{account['id']}/template_group_analytics"
        params = {"start": today - DAY, "end": today, "granularity": "DAILY", "template_group_ids": "1"}
        assert get(sandbox, path, params).error[0] == 200007
        # Other analytics do not need them.
        assert get(sandbox, f"{account['id']}/pricing_analytics", params).status == 200

    def test_looks_back_ninety_days(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        (row,) = self.read(sandbox, account, today, start=today - 90 * DAY, template_ids="1").json["data"]
        assert len(row["data_points"]) == 90
        too_old = self.read(sandbox, account, today, start=today - 92 * DAY)
        assert too_old.error[0] == 100
        assert "90 days" in too_old.json["error"]["message"]

    @pytest.mark.parametrize(
        "bad",
        [
            {"granularity": "HALF_HOUR"}, {"granularity": "day"}, {"start": "soon"}, {"metric_types": "SENT,SPENT"},
            {"end": 1}, {"template_ids": "[1"},
        ],
    )  # fmt: skip
    def test_bad_parameters(
        self, sandbox: GraphSandbox, account: dict[str, Any], today: int, bad: dict[str, Any]
    ) -> None:
        assert self.read(sandbox, account, today, **bad).error[0] == 100

    def test_dates(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        dates = {name: date_of(today + at * DAY) for name, at in (("start", -3), ("end", 0))}
        assert self.read(sandbox, account, today, **dates).json == self.read(sandbox, account, today).json

    def test_groups(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        account["template_groups"] = [{"id": "7"}]
        params = {"start": today - 2 * DAY, "end": today, "granularity": "DAILY"}
        path = f"{account['id']}/template_group_analytics"
        (row,) = get(sandbox, path, {**params, "template_group_ids": "7,8"}).json["data"]
        assert [point["template_group_id"] for point in row["data_points"]] == ["7", "7"]
        assert "product_type" not in row
        assert get(sandbox, path, {**params, "template_group_ids": "1" + ",1" * 10}).error[0] == 100
        path = f"{account['id']}/group_analytics"
        (row,) = get(sandbox, path, {**params, "group_ids": "G", "metric_types": "SENT,PARTICIPANTS_LEFT"}).json["data"]
        assert [set(point) for point in row["data_points"]] == [{"group_id", "start", "end", "sent", "left"}] * 2
        for bad in ({"group_ids": "G,H"}, {"metric_types": "SPENT"}, {"granularity": "MONTHLY"}):
            assert get(sandbox, path, {**params, "group_ids": "G", "metric_types": "SENT", **bad}).error[0] == 100


def date_of(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d}"
