"""Operator and sensor in a real Airflow: each test runs a DAG through ``dag.test()`` on SQLite."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from dag_runs import NOON, PROJECT, Finished, find_dag, load_dag, run_dag
from pyarrow import parquet
from sandbox_http import get

from airflow_provider_whatsapp._compat import AirflowException
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits

pytestmark = pytest.mark.usefixtures("airflow_db")
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:3])
RESCHEDULES = pytest.mark.skipif(
    AIRFLOW < (3, 1, 5), reason="dag.test() gave a rescheduled sensor its start as a text before Airflow 3.1.5"
)
needs_state = pytest.mark.skipif(
    find_spec("airflow.models.asset_state_store") is None, reason="needs the asset state store of Airflow 3.3"
)


def test_example_list_wabas(connected: GraphSandbox) -> None:
    del connected.accounts[4:]
    finished = run_dag("list_wabas")
    assert finished.state == "success"
    accounts = finished.xcom("accounts")
    wanted = [account["id"] for account in connected.accounts]
    assert [account["id"] for account in accounts] == wanted
    assert [key for key in finished.states if key[0] == "phone_numbers"] == [
        ("phone_numbers", index) for index in range(len(wanted))
    ]
    asked = [request.path.rpartition("/")[2] for request in connected.requests]
    assert asked.count("phone_numbers") == len(wanted)


def test_example_export_wabas(connected: GraphSandbox, tmp_path: Path) -> None:
    finished = run_dag("export_wabas", conf={"lake": tmp_path.as_uri()})
    assert finished.state == "success"
    manifest = finished.xcom("export")
    (path,) = (tmp_path / "wabas").glob("[!_]*")
    assert manifest["uri"] == path.as_uri()
    assert path.name.endswith(".ndjson.gz")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [row["id"] for row in rows] == [account["id"] for account in connected.accounts]

    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        event = session.query(AssetEvent).order_by(AssetEvent.id.desc()).first()
        assert event is not None
        assert event.extra == manifest


def test_example_export_businesses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dag = find_dag("export_businesses")
    dag.get_task("export").retry_delay = timedelta(0)
    with GraphSandbox(accounts=3, businesses=10) as sandbox, no_waits():
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        faults = (Fault.no_permission(), Fault.server_error(), Fault.wrong_business())
        failing = dict(zip((1, 4, 9), faults, strict=True))
        del sandbox.businesses[4]["name"]
        for index, fault in failing.items():
            sandbox.fail_next(fault.on(sandbox.businesses[index]["id"]).times(1000))
        # A rate limit that lifts before the last retry is no failure.
        sandbox.fail_next(Fault.throttle(minutes=5).on(sandbox.businesses[6]["id"]).times(3))
        finished = run_dag(dag, conf={"lake": tmp_path.as_uri()})

        assert finished.state == "failed"
        states = {f"export {index}": "failed" if index in failing else "success" for index in range(10)}
        assert {f"export {index}": finished.states["export", index] for index in range(10)} == states
        for index, business in enumerate(sandbox.businesses):
            assert finished.label("export", index) == business.get("name", business["id"])
        worked = [business["id"] for index, business in enumerate(sandbox.businesses) if index not in failing]
        assert [manifest["business_id"] for manifest in finished.xcom("exported")] == worked
        assert sorted(path.name for path in tmp_path.rglob("*.gz")) == sorted(f"{id_}.ndjson.gz" for id_ in worked)
        first, second, third = (sandbox.businesses[index] for index in failing)
        assert finished.states["check", -1] == "failed"
        message = f"3 of 10 businesses were not exported: {first['name']}, {second['id']}, {third['name']}"
        assert message in capfd.readouterr().out

        sandbox.reset()
        assert run_dag(dag, conf={"lake": tmp_path.as_uri()}).state == "success"


def test_example_keep_wabas(connected: GraphSandbox, tmp_path: Path) -> None:
    def run(hour: int, *, logical_date: bool = True) -> Finished:
        now = NOON.add(hours=hour)
        return run_dag(
            "keep_wabas",
            conf={"lake": tmp_path.as_uri()},
            logical_date=now if logical_date else None,
            run_after=now,
        )

    def share(created: int) -> str:
        account = {**connected.accounts[0], "id": str(10**17 + len(connected.accounts)), "creation_time": created}
        connected.accounts.append(account)
        return str(account["id"])

    def listed(since: int, *, week: str = "2026-W47") -> set[str]:
        path = tmp_path / "wabas" / week / f"{since}.ndjson"
        return {json.loads(line)["id"] for line in path.read_text().splitlines()}

    newest = max(account.get("creation_time", 0) for account in connected.accounts)
    recent = share(newest - 1800)
    # The first run lists all accounts.
    assert run(0).xcom("accounts") == len(listed(0)) == 251
    # The second lists the new accounts and those of the last hour, and counts each once.
    late, first = share(newest - 86_400), share(newest + 5000)
    assert run(1).xcom("accounts") == 252
    assert {recent, first} < listed(newest - 3600)
    assert len(listed(newest - 3600)) < 10
    assert len(connected.requests) == 3 + 1
    # Neither a failed run nor a run without a logical date, such as one that an asset starts, loses accounts.
    connected.fail_next(Fault.expired_token())
    second = share(newest + 6000)
    assert run(2).state == "failed"
    assert run(3, logical_date=False).xcom("accounts") == 253
    assert listed(newest + 5000 - 3600) == {first, second}
    # Clearing an earlier run changes nothing.
    assert run(0).xcom("accounts") == 253
    assert len(listed(0)) == 251
    # The next week starts with all accounts, including those that were shared late, and without those that are gone.
    del connected.accounts[0]
    assert run(24 * 7).xcom("accounts") == 253
    assert listed(0, week="2026-W48") == {account["id"] for account in connected.accounts}
    assert late in listed(0, week="2026-W48")


def test_every_field_can_be_a_template(connected: GraphSandbox, tmp_path: Path) -> None:
    params = {
        "business": connected.business_id,
        "relationship": "client",
        "field": "name",
        "types": "CLIENT_OWNED,ON_BEHALF_OF",
        "since": "2010-01-01",
        "size": 20,
        "folder": str(tmp_path),
        "exists": "overwrite",
        "empty": "fail",
        "conn": "default",
    }
    finished = run_dag("templated", conf=params)
    assert finished.state == "success"
    assert finished.xcom("accounts")["uri"] == (tmp_path / "2026-11-22.json").as_uri()
    assert finished.xcom("accounts")["count"] == 20
    created = json.loads(connected.requests[0].params["filtering"])[1]
    assert created == {"field": "creation_time", "operator": "IN_RANGE", "value": ["1262304000", "1795348800"]}
    assert finished.rendered("accounts")["fields"] == "id,name"


def test_mapped_over_businesses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with GraphSandbox(accounts=3, businesses=3) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        finished = run_dag("mapped", conf={"folder": str(tmp_path)})
        assert finished.state == "success"
        for index, business in enumerate(sandbox.businesses):
            wanted = [account["id"] for account in sandbox.client_accounts_of(business["id"])]
            assert [row["id"] for row in finished.xcom("rows", index)] == wanted
            assert finished.xcom("objects", index)["business_id"] == business["id"]
            rows = (tmp_path / f"{business['id']}.ndjson").read_text().splitlines()
            assert [json.loads(row)["id"] for row in rows] == wanted


def test_mapped_tasks_do_not_write_the_same_object(connected: GraphSandbox, tmp_path: Path) -> None:
    finished = run_dag("mapped_onto_one", conf={"folder": str(tmp_path)})
    # Without a template, the path is always the same. With one, the record shows that it was the same.
    assert [finished.states["fixed", index] for index in (0, 1)] == ["failed", "failed"]
    # Either may be the first.
    states = [finished.states["templated", index] for index in (0, 1)]
    assert sorted(states) == ["failed", "success"]
    written = [connected.accounts, connected.owned_accounts][states.index("success")]
    assert len((tmp_path / "a.ndjson").read_text().splitlines()) == len(written)
    tomorrow = NOON.add(days=1)
    again = run_dag("mapped_onto_one", conf={"folder": str(tmp_path)}, logical_date=tomorrow, run_after=tomorrow)
    # The object of another DAG run is replaced.
    assert sorted(again.states["templated", index] for index in (0, 1)) == ["failed", "success"]


def test_a_list_too_long_to_map_over_fails_at_once(connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    del connected.accounts[8:]
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
    finished = run_dag("mapped_over")
    assert finished.states["accounts", -1] == "failed"
    # The fourth account is on the second of four pages, and no retry follows.
    assert len(connected.requests) == 2
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "8")
    finished = run_dag("mapped_over")
    assert finished.state == "success"
    assert [finished.xcom("number_of", index) for index in range(8)] == [int(row["id"]) for row in connected.accounts]


def test_a_listing_of_more_calls_than_the_quota_allows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # QUOTA_ACCOUNTS=60000 QUOTA_CALLS=200 is a real app's case, and takes two minutes.
    accounts, calls = int(os.environ.get("QUOTA_ACCOUNTS", "6000")), int(os.environ.get("QUOTA_CALLS", "20"))
    with GraphSandbox(accounts=accounts, calls_per_hour=calls) as sandbox, no_waits() as skipped:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        finished = run_dag("deferred", conf={"folder": str(tmp_path)})
        assert finished.state == "success"
        rows = [json.loads(line)["id"] for line in (tmp_path / "a.ndjson").read_text().splitlines()]
        assert rows == [account["id"] for account in sandbox.accounts]
        pages = accounts // 100
        refused = sum(request.status != 200 for request in sandbox.requests)
        again = len(sandbox.requests) - refused - pages
        print(f"{len(sandbox.requests)} calls: {pages} pages, {again} pages again, {refused} refused")
        print(f"{len(skipped.seconds)} waits of {skipped.total / 3600:.1f} hours in all")
        # Each wait costs one page again. A refusal is followed by a wait, so no call is made while throttled.
        assert again <= len(skipped.seconds)
        assert refused <= len(skipped.seconds)
        assert len(sandbox.requests) <= calls * (skipped.total / 3600 + 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["_a.ndjson.airflow-record", "a.ndjson"]


def test_retried(connected: GraphSandbox, tmp_path: Path) -> None:
    # The operator does not wait for a rate limit that names no time: Airflow retries the task.
    connected.fail_next(Fault.too_many_requests().after(1))
    finished = run_dag("retried", conf={"folder": str(tmp_path)})
    assert finished.state == "success"
    assert finished.xcom("accounts")["count"] == 250
    assert len(connected.requests) == 5


def test_not_retried_when_that_cannot_help(connected: GraphSandbox, tmp_path: Path) -> None:
    connected.fail_next(Fault.expired_token().times(100))
    finished = run_dag("retried", conf={"folder": str(tmp_path)})
    assert finished.state == "failed"
    assert len(connected.requests) == 1


def test_without_xcom(connected: GraphSandbox, tmp_path: Path) -> None:
    finished = run_dag("without_xcom", conf={"folder": str(tmp_path)})
    assert finished.state == "success"
    assert finished.xcom("object") is None
    assert finished.xcom("rows") is None
    assert len((tmp_path / "a.ndjson").read_text().splitlines()) == 250


def test_skipped(connected: GraphSandbox) -> None:
    connected.accounts.clear()
    assert run_dag("skipped").states["accounts", -1] == "skipped"


def test_no_secret_in_the_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with GraphSandbox(accounts=5, app_secret="5ecre7" * 5) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        sandbox.fail_next(Fault.echoed_token().after(1))
        finished = run_dag("two_tasks", conf={"folder": str(tmp_path)})
        assert finished.states == {("first", -1): "success", ("second", -1): "failed"}
        stored = b"".join(path.read_bytes() for path in Path(os.environ["AIRFLOW_HOME"]).rglob("*") if path.is_file())
        assert finished.xcom("first")["sha256"].encode() in stored
        assert sandbox.token.encode() not in stored
        assert b"5ecre7" * 5 not in stored


@pytest.mark.parametrize("dag_id", ["wait_poke", pytest.param("wait_reschedule", marks=RESCHEDULES), "wait_deferrable"])
def test_every_mode_of_the_sensor_gives_the_same(monkeypatch: pytest.MonkeyPatch, dag_id: str) -> None:
    with GraphSandbox(accounts=2) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        # The third account is missing at the first look, and the second look meets a fault that passes.
        sandbox.fail_next(Fault.unavailable().after(1), Fault.account_added().after(1))
        finished = run_dag(dag_id)
        assert finished.state == "success"
        assert finished.xcom("wait") == [
            {key: account[key] for key in ("id", "name") if key in account} for account in sandbox.accounts
        ]
        assert len(sandbox.accounts) == 3
        assert {request.status for request in sandbox.requests} == {200, 500}


def test_the_deferred_sensor_writes_an_object(connected: GraphSandbox, tmp_path: Path) -> None:
    waba = connected.accounts.pop(130)
    connected.accounts.insert(0, {**waba, "id": "4242"})
    connected.fail_next(Fault.numeric_ids().times(100))
    finished = run_dag("wait_for_object", conf={"ids": "4242", "folder": str(tmp_path)})
    assert finished.state == "success"
    manifest = finished.xcom("wait")
    assert manifest["count"] == 1
    (path,) = tmp_path.glob("[!_]*")
    assert manifest["uri"] == f"file://{path}"
    assert [row["id"] for row in json.loads(path.read_text())] == ["4242"]


@RESCHEDULES
def test_a_timeout_is_the_same_in_every_mode(connected: GraphSandbox) -> None:
    softly, in_vain = run_dag("wait_softly"), run_dag("wait_in_vain")
    for mode in ("poke", "reschedule", "deferrable"):
        assert softly.states[mode, -1] == "skipped"
        assert in_vain.states[mode, -1] == "failed"


def test_example_wait_for_waba(connected: GraphSandbox) -> None:
    connected.accounts[7].update(account_review_status="APPROVED", name="Acme")
    finished = run_dag("wait_for_waba", conf={"waba_id": connected.accounts[7]["id"]})
    assert finished.state == "success"
    assert finished.xcom("welcome") == "Welcome, Acme!"


# The analytics of the sandbox end with the present day, as those of Meta do.
TODAY = pendulum.now("UTC").start_of("day")
YESTERDAY = TODAY.subtract(days=1)


def scheduled_by(source: str, schedule: str, folder: Path) -> Any:
    """The DAG of an example, with another schedule."""
    text = (PROJECT / "example_dags" / f"{source}.py").read_text()
    assert text.count('schedule="@daily"') == 1
    (folder / f"{source}.py").write_text(text.replace('schedule="@daily"', f"schedule={schedule}"))
    return load_dag(source, folder / f"{source}.py")


@pytest.fixture(params=["scheduled", "scheduled with intervals", "weekly", "manual", "manual for a date", "asset"])
def a_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs an example for yesterday in one of the ways in which runs are started, and gives the days that it reads."""
    days, schedule = 1, '"@daily"'
    dates: dict[str, Any] = {"logical_date": TODAY, "run_after": TODAY.add(minutes=1)}
    if request.param == "scheduled with intervals":
        monkeypatch.setenv("AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS", "True")
    elif request.param == "weekly":
        # The interval of a manual run of this schedule ends at the last of its days.
        monkeypatch.setenv("AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS", "True")
        days, schedule = 7, f'"0 0 * * {TODAY.isoweekday() % 7}"'
    elif request.param == "manual":
        dates = {"logical_date": None, "run_after": TODAY.add(hours=13)}
    elif request.param == "manual for a date":
        dates = {"logical_date": TODAY.add(hours=7), "run_after": TODAY.add(days=3)}
    elif request.param == "asset":
        schedule, dates = '[__import__("airflow.sdk").sdk.Asset("whatsapp_wabas")]', {**dates, "logical_date": None}

    def run(name: str) -> tuple[Finished, int]:
        finished = run_dag(scheduled_by(name, schedule, tmp_path), conf={"lake": f"{tmp_path}/lake"}, **dates)
        return finished, days

    return run


def at_once(name: str) -> Any:
    """The DAG of an example, whose retries do not wait."""
    dag = find_dag(name)
    for operator in dag.tasks:
        operator.retry_delay = timedelta(0)
    return dag


def objects_in(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each object that a reader of the folder sees, by the object's name."""
    found = {path.name: path.read_text().splitlines() for path in folder.glob("[!_]*")}
    return {name: [json.loads(line) for line in lines] for name, lines in found.items()}


def days_of(days: int) -> tuple[int, int, str]:
    first = TODAY.subtract(days=days)
    return int(first.timestamp()), int(TODAY.timestamp()), f"{first.to_date_string()}.ndjson"


def pricing_of(sandbox: GraphSandbox, days: int) -> list[dict[str, Any]]:
    """What the sandbox has, read account by account."""
    start, end, _ = days_of(days)
    dimensions = '["PRICING_CATEGORY","PRICING_TYPE","COUNTRY","PHONE"]'
    params = {"start": start, "end": end, "granularity": "DAILY", "dimensions": dimensions}
    rows = []
    for account in sandbox.accounts:
        (answer,) = get(sandbox, f"{account['id']}/pricing_analytics", params).json["data"]
        rows += [
            {"waba_id": account["id"], "name": account.get("name"), "cost": None, **point}
            for point in answer["data_points"]
        ]
    return rows


def test_example_export_pricing_analytics(connected: GraphSandbox, tmp_path: Path, a_run: Any) -> None:
    del connected.accounts[20:]
    finished, days = a_run("export_pricing_analytics")
    assert finished.state == "success"
    # One call reads all accounts.
    assert len(connected.requests) == 1
    rows = pricing_of(connected, days)
    assert objects_in(tmp_path / "lake" / "pricing_analytics") == {days_of(days)[2]: rows}
    assert finished.xcom("flatten") == len(rows)
    # Some accounts have no cost, and every data point says what it stands for.
    assert {row["cost"] is None for row in rows} == {True, False}
    labels = {"start", "end", "pricing_category", "pricing_type", "country", "phone_number", "volume"}
    assert all(labels <= row.keys() for row in rows)
    assert len({row["start"] for row in rows}) == days


def test_example_export_pricing_analytics_is_complete_or_fails(connected: GraphSandbox, tmp_path: Path) -> None:
    def run(day: pendulum.DateTime) -> str:
        dag, conf = at_once("export_pricing_analytics"), {"lake": f"file://{tmp_path}"}
        return run_dag(dag, conf=conf, logical_date=None, run_after=day).state

    folder = tmp_path / "pricing_analytics"
    assert run(YESTERDAY) == "success"
    assert run(TODAY) == "success"
    before = objects_in(folder)
    assert len(before) == 2
    # The listing has three pages. The second is refused until the last retry, and nothing of the others is published.
    connected.fail_next(Fault.expired_token().after(1).times(100))
    connected.accounts.pop()
    assert run(TODAY) == "failed"
    assert objects_in(folder) == before
    connected.reset()
    # A rerun replaces the object of its day, and leaves that of the other day.
    connected.fail_next(Fault.server_error().after(1))
    with no_waits():
        assert run(TODAY) == "success"
    _, _, name = days_of(1)
    assert objects_in(folder) == {**before, name: pricing_of(connected, 1)}
    assert sorted(path.name for path in folder.glob("_*")) == ["_raw"]


def template_analytics_of(sandbox: GraphSandbox, days: int) -> list[dict[str, Any]]:
    """What the sandbox has of the accounts with insights, read template by template."""
    start, end, _ = days_of(days)
    rows = []
    for account in sandbox.accounts:
        templates = get(sandbox, f"{account['id']}/message_templates", {"limit": 100}).json["data"]
        for template in templates if account.get("is_enabled_for_insights", True) else []:
            params = {"start": start, "end": end, "granularity": "DAILY", "template_ids": template["id"]}
            (answer,) = get(sandbox, f"{account['id']}/template_analytics", params).json["data"]
            given = {"waba_id": account["id"], "template_name": template["name"], "clicked": [], "cost": []}
            rows += [{**given, **point} for point in answer["data_points"]]
    return rows


def test_example_export_template_analytics(connected: GraphSandbox, tmp_path: Path, a_run: Any) -> None:
    del connected.accounts[25:]
    finished, days = a_run("export_template_analytics")
    assert finished.state == "success"
    asked = [json.loads(request.params.get("template_ids", "[]")) for request in connected.requests]
    rows = template_analytics_of(connected, days)
    assert objects_in(tmp_path / "lake" / "template_analytics") == {days_of(days)[2]: rows}
    # An account with thirty templates needs three calls of ten.
    assert max(Counter(row["waba_id"] for row in rows).values()) == 30 * days
    assert {len(ids) for ids in asked} >= {0, 3, 10}
    assert max(map(len, asked)) == 10


def test_example_export_template_analytics_names_who_is_left_out(connected: GraphSandbox, tmp_path: Path) -> None:
    del connected.accounts[12:]
    for account in connected.accounts:
        account["is_enabled_for_insights"] = True
    off, refused, empty = connected.accounts[2], connected.accounts[5], connected.accounts[7]
    off["is_enabled_for_insights"] = False
    refused["message_templates"] = [{"id": str(number), "name": "t"} for number in range(1, 25)]
    empty["message_templates"] = []

    def run() -> Finished:
        dag = at_once("export_template_analytics")
        return run_dag(dag, conf={"lake": f"{tmp_path}"}, logical_date=None, run_after=TODAY)

    # The third of three calls for the account is refused. The rows of the first two must not appear.
    connected.fail_next(Fault.insights_not_enabled().after(3).on(refused["id"]))
    finished = run()
    assert finished.state == "success"
    given = finished.xcom("analytics")
    assert (given["left_out_count"], given["left_out"]) == (2, [off["id"], refused["id"]])
    rows = [row for row in template_analytics_of(connected, 1) if row["waba_id"] != refused["id"]]
    assert objects_in(tmp_path / "template_analytics") == {days_of(1)[2]: rows}
    assert given["count"] == len(rows)

    # Any other error in the middle fails the run, and the object stays as it was.
    connected.fail_next(Fault.no_account_permission().after(2).on(refused["id"]).times(100))
    assert run().state == "failed"
    assert objects_in(tmp_path / "template_analytics") == {days_of(1)[2]: rows}


def test_example_export_template_analytics_looks_back_90_days(connected: GraphSandbox, tmp_path: Path) -> None:
    del connected.accounts[3:]
    conf = {"lake": f"{tmp_path}"}
    oldest = TODAY.subtract(days=88)
    finished = run_dag("export_template_analytics", conf=conf, logical_date=None, run_after=oldest)
    assert finished.state == "success"
    connected.reset()
    finished = run_dag("export_template_analytics", conf=conf, logical_date=None, run_after=oldest.subtract(days=3))
    assert finished.states["window", -1] == "failed"
    assert connected.requests == []


def test_example_audit_phone_numbers(connected: GraphSandbox, tmp_path: Path) -> None:
    del connected.accounts[12:]
    locked, gone = connected.accounts[3], connected.accounts[7]
    for place, account in enumerate(connected.accounts):
        account["phone_numbers"] = [
            {
                "id": f"{place * 20 + number}",
                "name_status": ("APPROVED", "DECLINED", "EXPIRED", "PENDING_REVIEW")[number % 4],
                "quality_rating": ("RED", "GREEN", "UNKNOWN")[number % 3],
            }
            for number in range(20)
        ]
    connected.accounts[0]["phone_numbers"][0] |= {
        "whatsapp_business_manager_messaging_limit": "TIER_2K", "throughput": {"level": "HIGH"},
    }  # fmt: skip
    shown = ("id", "name_status", "quality_rating")
    fine: list[dict[str, Any]] = []
    poor: list[dict[str, Any]] = []
    for account in connected.accounts:
        answer = get(connected, f"{account['id']}/phone_numbers", {"limit": 100, "fields": ",".join(shown)}).json
        for number in answer["data"] if account not in (locked, gone) else []:
            is_poor = number["name_status"] in ("DECLINED", "EXPIRED") or number["quality_rating"] == "RED"
            kind = poor if is_poor else fine
            kind.append({"waba_id": account["id"], **number})
    assert fine
    assert len(poor) > 100

    def run(**params: Any) -> Finished:
        connected.fail_next(
            Fault.no_account_permission().on(locked["id"]).times(100), Fault.wrong_business().on(gone["id"]).times(100)
        )
        return run_dag(
            "audit_phone_numbers", conf={"lake": f"{tmp_path}", **params}, logical_date=None, run_after=TODAY
        )

    finished = run()
    assert finished.states["check", -1] == "failed"
    found = finished.xcom("findings")
    assert found["count"] == len(poor) + 2
    assert found["limits"] == {"TIER_2K": 1, "unknown": len(poor) + len(fine) - 1}
    assert found["throughput"] == {"HIGH": 1, "unknown": len(poor) + len(fine) - 1}
    assert [{key: row[key] for key in ("waba_id", *shown)} for row in found["first"]] == poor[:100]
    assert [account["waba_id"] for account in found["skipped"]] == [locked["id"], gone["id"]]
    listed = objects_in(tmp_path / "phone_numbers")
    assert list(listed) == [f"{TODAY.to_date_string()}.ndjson"]
    assert len(listed[f"{TODAY.to_date_string()}.ndjson"]) == len(poor) + len(fine)
    # A run that only reports does not fail. Neither does one without findings.
    connected.reset()
    assert run(fail=False).state == "success"
    connected.reset()
    good = {"id": "1", "display_phone_number": "+1", "name_status": "APPROVED", "quality_rating": "GREEN"}
    # What is normal for a new number is no finding.
    new = {**good, "id": "2", "name_status": "PENDING_REVIEW", "quality_rating": "UNKNOWN"}
    connected.accounts[:] = [{**account, "phone_numbers": [good, new]} for account in connected.accounts[:2]]
    assert (
        run_dag("audit_phone_numbers", conf={"lake": f"{tmp_path}"}, logical_date=None, run_after=TODAY).state
        == "success"
    )


def test_example_audit_subscribed_apps(
    connected: GraphSandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    del connected.accounts[60:]
    our_app = connected.token_info["app_id"] = "4242"
    other = {"whatsapp_business_api_data": {"id": "17", "name": "Chat Inbox"}}
    ours = {"whatsapp_business_api_data": {"id": our_app, "name": "Our App"}, "override_callback_uri": "https://x"}
    apps: tuple[list[Any], ...] = ([], [other], [ours], [other, ours])
    for number, account in enumerate(connected.accounts):
        account["subscribed_apps"] = apps[number % 4]
        account["phone_numbers"] = [] if number == 3 else [{"id": f"{number}0"}]
    locked = connected.accounts[2]
    connected.fail_next(Fault.no_account_permission().on(locked["id"]).times(100))
    conf: dict[str, Any] = {"conf": {"lake": f"{tmp_path}"}, "logical_date": None, "run_after": TODAY}
    finished = run_dag("audit_subscribed_apps", **conf)
    wanted = [account["id"] for number, account in enumerate(connected.accounts) if number % 4 < 2 or account is locked]
    assert finished.xcom("missing") == wanted
    assert finished.states["check", -1] == "failed"
    assert f"{len(wanted)} accounts lack a subscription of our app: {wanted[0]}, " in capfd.readouterr().out
    assert finished.xcom("without_numbers") == [connected.accounts[3]["id"]]
    connected.reset()
    for account in connected.accounts:
        account["subscribed_apps"] = [other, ours]
    assert run_dag("audit_subscribed_apps", **conf).state == "success"


@pytest.mark.parametrize("name", ["audit_phone_numbers", "audit_subscribed_apps"])
def test_an_api_that_fails_in_the_middle_of_an_audit_fails_it(
    connected: GraphSandbox, tmp_path: Path, name: str
) -> None:
    del connected.accounts[20:]
    connected.fail_next(Fault.server_error().after(8).times(1000))
    with no_waits():
        finished = run_dag(at_once(name), conf={"lake": f"{tmp_path}"}, logical_date=None, run_after=TODAY)
    assert finished.states[name.removeprefix("audit_"), -1] == "failed"
    assert objects_in(tmp_path / name.removeprefix("audit_")) == {}


def test_example_welcome_shared_waba(connected: GraphSandbox) -> None:
    account = connected.accounts[7]
    account.update(name="Acme", phone_numbers=[{"id": "1", "display_phone_number": "+49 30 901820"}])
    finished = run_dag("welcome_shared_waba", conf={"waba_id": account["id"]})
    assert finished.state == "success"
    assert finished.xcom("shared") == [{"id": account["id"], "name": "Acme"}]
    (number,) = finished.xcom("phone_numbers")
    assert number == {"waba_id": account["id"], "id": "1", "display_phone_number": "+49 30 901820"}
    assert finished.xcom("welcome") == "Welcome, Acme, with 1 phone numbers!"


def test_example_welcome_shared_waba_of_a_forged_delivery(connected: GraphSandbox) -> None:
    dag = find_dag("welcome_shared_waba")
    sensor = dag.get_task("shared")
    sensor.poke_interval, sensor.timeout = 0.2, 1
    finished = run_dag(dag, conf={"waba_id": "424242"})
    assert finished.state == "failed"
    assert finished.states == {
        ("shared", -1): "failed",
        ("phone_numbers", -1): "upstream_failed",
        ("welcome", -1): "upstream_failed",
    }
    # The run asked for nothing but the list.
    asked = {request.path.rpartition("/")[2] for request in connected.requests}
    assert asked == {"client_whatsapp_business_accounts"}


@pytest.mark.parametrize("waba_id", ["", "me", "4242/phone_numbers", "1,2", "{{ 7 }}", "-1", 4242, None, ["4242"]])
def test_example_welcome_shared_waba_refuses_what_is_no_id(connected: GraphSandbox, waba_id: object) -> None:
    # In Airflow 3.1, the error is no ValueError.
    with pytest.raises((ValueError, AirflowException), match="param waba_id"):
        run_dag("welcome_shared_waba", conf={"waba_id": waba_id})
    assert connected.requests == []


@pytest.mark.skipif(AIRFLOW < (3, 1, 3), reason="Airflow took no lists in the event of an alias before 3.1.3")
def test_example_export_wabas_parquet(connected: GraphSandbox, tmp_path: Path) -> None:
    def run(day: pendulum.DateTime) -> Finished:
        finished = run_dag("export_wabas_parquet", conf={"lake": tmp_path.as_uri()}, logical_date=None, run_after=day)
        assert finished.state == "success"
        return finished

    assert run(NOON).xcom("report") == "250 accounts"
    gone, renamed = connected.accounts.pop(), connected.accounts[0]
    renamed["name"] = "Another name"
    # A field that is not exported is not compared either.
    connected.accounts[1]["status"] = "ANOTHER"
    new = {**renamed, "id": "4242"}
    connected.accounts += [new, {**renamed, "id": "4243"}]
    finished = run(NOON.add(days=1))
    manifest = finished.xcom("export")
    assert manifest["added"] == {"count": 2, "ids": ["4242", "4243"]}
    assert manifest["removed"] == {"count": 1, "ids": [gone["id"]]}
    assert manifest["changed"] == {"count": 1, "ids": [renamed["id"]]}
    assert finished.xcom("report") == "251 accounts: 2 added, 1 removed, 1 changed"
    # After a day without an object, nothing is compared.
    assert run(NOON.add(days=3)).xcom("report") == "251 accounts"

    table = parquet.read_table(tmp_path / "wabas_parquet", partitioning="hive")
    assert Counter(table["ds"].to_pylist()) == {"2026-11-22": 250, "2026-11-23": 251, "2026-11-25": 251}
    assert table.column_names == [*manifest["fields"], "ds"]

    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        events = session.query(AssetEvent).order_by(AssetEvent.id.desc()).limit(3).all()
        # Each day has its own asset, and all have the alias.
        folder = f"file://{tmp_path}/wabas_parquet"
        assert [event.uri for event in events] == [f"{folder}/ds=2026-11-{day}/wabas.parquet" for day in (25, 23, 22)]
        assert events[1].extra == manifest
        assert {alias.name for event in events for alias in event.source_aliases} == {"whatsapp_wabas_parquet"}


def added(*ids: str, count: int | None = None) -> Any:
    """An event of the asset that a watcher has updated."""
    nothing = {"count": 0, "ids": []}
    change = {"count": len(ids) if count is None else count, "ids": list(ids)}
    return SimpleNamespace(extra={"payload": {"added": change, "removed": nothing, "changed": nothing}})


def run_with_events(*events: Any) -> Finished:
    dag = at_once("welcome_new_wabas")
    (asset,) = dag.schedule
    # What Airflow gives to the task in a run that these events have started.
    dag.get_task("added").op_kwargs = {"triggering_asset_events": {asset: events}}
    return run_dag(dag, logical_date=None)


@needs_state
def test_example_welcome_new_wabas(connected: GraphSandbox) -> None:
    with_two, without, with_one = connected.accounts[3], connected.accounts[4], connected.accounts[9]
    with_two["phone_numbers"] = [{"id": str(n), "display_phone_number": f"+{n}"} for n in (1, 2)]
    without["phone_numbers"] = []
    with_one["phone_numbers"] = [{"id": "3", "display_phone_number": "+3"}]
    finished = run_with_events(added(with_two["id"], without["id"]), added(), added(with_one["id"], with_two["id"]))
    assert finished.state == "success"
    assert finished.xcom("welcome") == [
        f"Welcome, {with_two['id']}! Your numbers: +1, +2",
        f"Welcome, {without['id']}! Your numbers: ",
        f"Welcome, {with_one['id']}! Your numbers: +3",
    ]
    # One task reads the new accounts, each once, and nothing else.
    asked = [request.path.split("/")[-2:] for request in connected.requests]
    assert sorted(asked) == sorted([account["id"], "phone_numbers"] for account in (with_two, without, with_one))


@needs_state
def test_example_welcome_new_wabas_of_a_run_without_events(connected: GraphSandbox) -> None:
    assert run_dag("welcome_new_wabas", logical_date=None).xcom("welcome") == []
    assert connected.requests == []


@needs_state
def test_example_welcome_new_wabas_leaves_nobody_out(connected: GraphSandbox) -> None:
    finished = run_with_events(added(connected.accounts[0]["id"], count=1001))
    assert finished.state == "failed"
    assert connected.requests == []
