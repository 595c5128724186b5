"""Analytics of an account, as edges and as fields with arguments."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from sandbox_http import client, get

from airflow_provider_whatsapp.sandbox import GraphSandbox, no_waits
from airflow_provider_whatsapp.transport import clock

DAY = 86_400
CATEGORIES = {"MARKETING", "UTILITY", "AUTHENTICATION", "SERVICE"}


@pytest.fixture
def today() -> int:
    return int(clock.now()) // DAY * DAY


@pytest.fixture
def account(sandbox: GraphSandbox) -> dict[str, Any]:
    """An account with two numbers that pays for itself."""
    for account in sandbox.accounts:
        account["phone_numbers"] = [
            {"id": "1", "display_phone_number": "+1 555-010-0001"}, {"id": "2", "display_phone_number": "+1 555-010-0002"},
        ]  # fmt: skip
    start = int(clock.now()) - 9 * DAY
    return next(one for one in sandbox.accounts if "cost" in points(sandbox, one, start, start + 8 * DAY)[0])


def points(
    sandbox: GraphSandbox, account: dict[str, Any], start: int, end: int, kind: str = "pricing", **params: Any
) -> list[dict[str, Any]]:
    params = {"start": start, "end": end, "granularity": "DAILY", **params}
    reply = get(sandbox, f"{account['id']}/{kind}_analytics", params)
    assert reply.status == 200, reply.raw
    assert set(reply.json) == {"data"}
    (row,) = reply.json["data"]
    assert set(row) == {"data_points"}
    found: list[dict[str, Any]] = row["data_points"]
    return found


def total(found: list[dict[str, Any]], key: str = "volume") -> Any:
    return round(sum(point[key] for point in found), 6)


class TestAsAField:
    def test_pricing_with_quotes_and_brackets(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        window = f".start({today - 2 * DAY}).end({today}).granularity(DAILY)"
        for dimensions in ('["PRICING_CATEGORY", "PHONE", "COUNTRY"]', "['PRICING_CATEGORY','PHONE','COUNTRY']",
                           "PRICING_CATEGORY,PHONE,COUNTRY"):  # fmt: skip
            fields = f"id,pricing_analytics{window}.dimensions({dimensions}),name"
            reply = get(sandbox, account["id"], {"fields": fields})
            assert set(reply.json) == {"id", "name", "pricing_analytics"}
            assert set(reply.json["pricing_analytics"]) == {"data"}
            found = reply.json["pricing_analytics"]["data"][0]["data_points"]
            assert {frozenset(point) for point in found} == {
                frozenset({"start", "end", "pricing_category", "phone_number", "country", "volume", "cost"})
            }
            assert {point["phone_number"] for point in found} == {"15550100001", "15550100002"}
            assert {point["pricing_category"] for point in found} == CATEGORIES

    def test_the_same_as_the_edge(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        for kind in ("pricing", "conversation", "call"):
            window = f".start({today - 5 * DAY}).end({today}).granularity(DAILY)"
            fields = f'{kind}_analytics{window}.dimensions(["COUNTRY"]).as(it)'
            row = get(sandbox, account["id"], {"fields": fields}).json
            edge = points(sandbox, account, today - 5 * DAY, today, kind, dimensions="COUNTRY")
            assert row == {"it": {"data": [{"data_points": edge}]}, "id": account["id"]}
            assert edge

    def test_in_the_listing(self, sandbox: GraphSandbox, today: int) -> None:
        window = f".start({today - 30 * DAY}).end({today})"
        fields = f"name,pricing_analytics{window}.granularity(MONTHLY),analytics{window}.granularity(DAY)"
        rows = client(sandbox, fields=fields, limit=60).json["data"]
        assert len(rows) == 60
        assert client(sandbox, fields=fields, limit=60).json["data"] == rows
        found = [point for row in rows for point in row["pricing_analytics"]["data"][0]["data_points"]]
        # An account on the credit line of a partner has no cost.
        assert {"cost" in point for point in found} == {True, False}

    def test_messaging(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        fields = f"analytics.start({today - 3 * DAY}).end({today}).granularity(DAY)"
        found = get(sandbox, account["id"], {"fields": fields}).json["analytics"]
        assert set(found) == {"phone_numbers", "country_codes", "granularity", "data_points"}
        assert found["phone_numbers"] == ["15550100001", "15550100002"]
        assert found["granularity"] == "DAY"
        assert [set(point) for point in found["data_points"]] == [{"start", "end", "sent", "delivered"}] * 3
        assert all(point["sent"] >= point["delivered"] > 0 for point in found["data_points"])
        one = fields + '.phone_numbers(["15550100001"])'
        of_one = get(sandbox, account["id"], {"fields": one}).json["analytics"]["data_points"]
        assert 0 < total(of_one, "sent") < total(found["data_points"], "sent")
        assert get(sandbox, f"{account['id']}/analytics").error[0] == 2500

    @pytest.mark.parametrize("kind", ["pricing_analytics", "analytics"])
    @pytest.mark.parametrize("missing", ["start", "end", "granularity"])
    def test_required_arguments(self, sandbox: GraphSandbox, kind: str, missing: str) -> None:
        arguments = {"start": "1", "end": "2", "granularity": "DAY" if kind == "analytics" else "DAILY"}
        text = "".join(f".{name}({value})" for name, value in arguments.items() if name != missing)
        reply = client(sandbox, fields=f"id,{kind}{text}")
        assert (reply.status, reply.error[0]) == (400, 100)
        assert reply.json["error"]["message"] == f"(#100) The parameter {missing} is required"

    @pytest.mark.parametrize(
        "fields",
        [
            "pricing_analytics.start(1", 'pricing_analytics.dimensions(["A)', "pricing_analytics.dimensions((1))",
            "pricing_analytics.hologram(1)", "analytics.start",
        ],
    )  # fmt: skip
    def test_syntax_error(self, sandbox: GraphSandbox, fields: str) -> None:
        assert client(sandbox, fields=fields).error[0] == 2500

    def test_a_parenthesis_in_quotes(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts[0]["message_templates"] = [{"id": "1", "name": "a (b)"}, {"id": "2", "name": "a b"}]
        row = get(sandbox, sandbox.accounts[0]["id"], {"fields": 'message_templates.name("a (b)"){id}'}).json
        assert row["message_templates"]["data"] == [{"id": "1"}]


class TestNumbers:
    def test_the_same_in_every_run(self, today: int) -> None:
        with GraphSandbox() as sandbox, GraphSandbox() as again, GraphSandbox(seed=1) as other:
            other.accounts = sandbox.accounts

            def read(one: GraphSandbox) -> list[Any]:
                return [points(one, account, today - 3 * DAY, today) for account in sandbox.accounts]

            assert read(sandbox) == read(again) != read(other)

    @pytest.mark.parametrize(
        ("kind", "key"), [("pricing", "volume"), ("conversation", "conversation"), ("call", "count")]
    )
    def test_windows_and_granularities_add_up(
        self, sandbox: GraphSandbox, account: dict[str, Any], today: int, kind: str, key: str
    ) -> None:
        start, end = today - 8 * DAY, today
        days = points(sandbox, account, start, end, kind)
        assert [point["start"] for point in days] == list(range(start, end, DAY))
        by_dimension = points(sandbox, account, start, end, kind, dimensions='["PHONE","COUNTRY"]')
        assert total(by_dimension, key) == total(days, key)
        for granularity in ("HALF_HOUR", "MONTHLY"):
            other = points(sandbox, account, start, end, kind, granularity=granularity)
            assert total(other, key) == total(days, key) > 0
            assert total(other, "cost") == pytest.approx(total(days, "cost"))
        parts = [points(sandbox, account, at, at + 2 * DAY, kind) for at in range(start, end, 2 * DAY)]
        assert [point for part in parts for point in part] == days
        # A window may begin in the middle of a day, which then is none of its days.
        middle = start + DAY // 2
        assert points(sandbox, account, middle, end, kind) == days[1:]
        halves = [
            points(sandbox, account, *window, kind, granularity="HALF_HOUR")
            for window in ((start, middle), (middle, end))
        ]
        assert sum(total(half, key) for half in halves) == total(days, key)
        assert all(point["start"] >= middle and point["end"] - point["start"] == 1800 for point in halves[1])
        assert len({point["start"] % DAY for point in halves[1]}) > 10

    def test_months(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        found = points(sandbox, account, today - 70 * DAY, today, granularity="MONTHLY")
        assert len(found) in {3, 4}
        for point, after in zip(found, [*found[1:], None], strict=True):
            assert datetime.fromtimestamp(point["start"], timezone.utc).strftime("%d %H:%M:%S") == "01 00:00:00"
            assert after is None or point["end"] == after["start"]

    def test_filters(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        window = (today - 6 * DAY, today)
        everything = points(sandbox, account, *window, dimensions="PRICING_CATEGORY,PHONE,COUNTRY,PRICING_TYPE,TIER")
        assert all(("tier" in point) is (point["pricing_type"] == "REGULAR") for point in everything)
        for name, key, value in (
            ("phone_numbers", "phone_number", "15550100002"),
            ("country_codes", "country", everything[0]["country"]),
            ("pricing_categories", "pricing_category", "UTILITY"),
            ("pricing_types", "pricing_type", "FREE_CUSTOMER_SERVICE"),
        ):
            kept = points(sandbox, account, *window, **{name: f'["{value}"]'})  # type: ignore[arg-type]  # a name that is no int
            assert total(kept) == sum(point["volume"] for point in everything if point[key] == value) > 0

    def test_metrics(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        found = points(sandbox, account, today - DAY, today, metric_types='["VOLUME"]')
        assert [set(point) for point in found] == [{"start", "end", "volume"}]
        calls = points(sandbox, account, today - 4 * DAY, today, "call", dimensions='["DIRECTION"]')
        assert {point["direction"] for point in calls} == {"BUSINESS_INITIATED", "USER_INITIATED"}
        assert all(40 <= point["average_duration"] < 100 for point in calls)

    def test_a_year_back_and_nothing_to_come(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        found = points(sandbox, account, today - 800 * DAY, today + 800 * DAY)
        assert (found[0]["start"], found[-1]["start"]) == (today - 365 * DAY, today)
        with no_waits():
            clock.wait(2 * DAY)
            assert points(sandbox, account, today, today + 800 * DAY)[-1]["start"] == today + 2 * DAY

    def test_an_account_without_numbers_has_none(self, sandbox: GraphSandbox, today: int) -> None:
        sandbox.accounts[0]["phone_numbers"] = []
        assert points(sandbox, sandbox.accounts[0], today - DAY, today) == []

    @pytest.mark.parametrize(
        "bad",
        [
            {"granularity": "DAY"}, {"granularity": "daily"}, {"start": "x"}, {"end": 1}, {"dimensions": "COLOUR"},
            {"start": "2026-11-01"}, {"metric_types": "JOY"}, {"dimensions": '["PHONE"'},
        ],
    )  # fmt: skip
    def test_bad_parameters(self, sandbox: GraphSandbox, today: int, bad: dict[str, Any]) -> None:
        params = {"start": today - DAY, "end": today, "granularity": "DAILY", **bad}
        reply = get(sandbox, f"{sandbox.accounts[0]['id']}/pricing_analytics", params)
        assert (reply.status, reply.error[0]) == (400, 100)


class TestTemplateAnalytics:
    @pytest.fixture
    def account(self, sandbox: GraphSandbox) -> dict[str, Any]:
        """An account with twelve templates."""
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
        assert [set(point) for point in row["data_points"]] == [{"template_id", "start", "end", "sent"}] * 6

    def test_at_most_ten_templates(self, sandbox: GraphSandbox, account: dict[str, Any], today: int) -> None:
        ids = list(map(str, range(1, 12)))
        for text in (",".join, json.dumps):
            assert self.read(sandbox, account, today, template_ids=text(ids[:10])).status == 200
            refused = self.read(sandbox, account, today, template_ids=text(ids))
            assert (refused.status, refused.error[0]) == (400, 100)
            assert "template_ids must have at most 10" in refused.json["error"]["message"]

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
        dates = {
            name: f"{datetime.fromtimestamp(today + at * DAY, timezone.utc):%Y-%m-%d}"
            for name, at in (("start", -3), ("end", 0))
        }
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
