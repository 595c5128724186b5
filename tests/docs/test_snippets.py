"""Runs the snippets of the pages in ``docs/``, because users copy them. Those of the README have a file of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow.sdk
import pytest
import yaml
from documentation import PAGES, PROJECT, section, snippet, tables

from airflow_provider_whatsapp.graph import GraphRequestError, GraphTokenError
from airflow_provider_whatsapp.hooks._connection import load_connection
from airflow_provider_whatsapp.hooks._metrics import METRICS
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasChangeTrigger, WhatsAppWabasTrigger

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferred  # type: ignore[no-redef]

NAMES = {
    "WhatsAppHook": WhatsAppHook,
    "WhatsAppListWabaEdgeOperator": WhatsAppListWabaEdgeOperator,
    "WhatsAppListWabasOperator": WhatsAppListWabasOperator,
    "WhatsAppWabasSensor": WhatsAppWabasSensor,
    "WhatsAppWabasChangeTrigger": WhatsAppWabasChangeTrigger,
    "WhatsAppWabasTrigger": WhatsAppWabasTrigger,
    "timedelta": timedelta,
    "time": time,
}


def value_of(name: str, page: str) -> Any:
    return eval(snippet(name, page), dict(NAMES))  # noqa: S307  # the project's own text


def run(name: str, page: str) -> dict[str, Any]:
    namespace: dict[str, Any] = dict(NAMES)
    exec(snippet(name, page), namespace)  # noqa: S102  # the project's own text
    return namespace


def test_every_python_snippet_is_run() -> None:
    here = Path(__file__).read_text()
    for page, text in PAGES.items():
        named = re.findall(r"<!-- ([\w ]+) -->\n```python", text)
        assert text.count("```python") == len(named), page
        # The README, the receiver of webhooks and the partitions have test files of their own.
        if page not in {"README.md", "webhooks.md", "partitions.md"}:
            for name in named:
                assert f'"{name}", "{page}"' in here, (name, page)


def test_quick_start() -> None:
    # The README has a test that runs it.
    assert snippet("first DAG", "index.md") == snippet("first DAG", "README.md")
    assert snippet("first DAG", "index.md")


@pytest.mark.parametrize(("name", "page"), [("json", "connection.md"), ("uri", "connection.md")])
def test_connection(name: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (assignment,) = shlex.split(snippet(name, page))[1:]
    variable, _, value = assignment.partition("=")
    assert variable == "AIRFLOW_CONN_WHATSAPP_DEFAULT"
    monkeypatch.setenv(variable, value)
    connection = load_connection(WhatsAppHook(), "whatsapp_default")
    assert connection.waba_query().node_id == "1906385232743451"
    assert connection.config.timeout == 20


def test_operator(connected: GraphSandbox) -> None:
    rows = value_of("short list", "operators.md").execute({})
    assert [row["id"] for row in rows] == [account["id"] for account in connected.owned_accounts]


def test_edge_operator(connected: GraphSandbox, tmp_path: Path) -> None:
    from airflow.sdk import DAG

    code = snippet("edge operator", "waba-edges.md").replace("file:///tmp/lake", f"file://{tmp_path}")
    with DAG("edge_operator", schedule=None) as dag:
        exec(code, dict(NAMES))  # noqa: S102  # the project's own text
    manifest = dag.get_task("accounts").execute({})
    operator = dag.get_task("phone_numbers")
    operator.waba_ids = manifest
    assert operator.execute({})["accounts"] == manifest["count"]
    rows = [json.loads(line) for line in (tmp_path / "phone_numbers.ndjson").read_text().splitlines()]
    hook = WhatsAppHook()
    numbers_of = {account["id"]: hook.iter_edge(f"{account['id']}/phone_numbers") for account in connected.accounts}
    assert [row["id"] for row in rows] == [number["id"] for found in numbers_of.values() for number in found]


def test_edge_hook(connected: GraphSandbox) -> None:
    hook = WhatsAppHook()
    ratings = {
        account["id"]: [number["quality_rating"] for number in hook.iter_edge(f"{account['id']}/phone_numbers")]
        for account in connected.accounts
    }
    red = [waba_id for waba_id, values in ratings.items() for value in values if value == "RED"]
    assert run("edge hook", "waba-edges.md")["red"] == red != []


def test_rows_of_a_manifest(connected: GraphSandbox, tmp_path: Path) -> None:
    hook = WhatsAppHook()
    manifest = WhatsAppListWabaEdgeOperator(
        task_id="numbers",
        waba_ids=[account["id"] for account in connected.accounts],
        edge="phone_numbers",
        output_path=f"{tmp_path}/a.ndjson.gz",
    ).execute({})
    numbers = [number for account in connected.accounts for number in hook.iter_edge(f"{account['id']}/phone_numbers")]
    red = [number["id"] for number in numbers if number.get("quality_rating") == "RED"]
    assert run("rows of a manifest", "waba-edges.md")["red_numbers"](manifest) == red != []


def test_nested_edge(connected: GraphSandbox) -> None:
    red = run("edge hook", "waba-edges.md")["red"]
    assert run("nested", "waba-edges.md")["red"] == red != []


EDGES_OF_1000 = {
    "phone_numbers": ("{id}", None),
    "message_templates": ("{id}", None),
    "subscribed_apps": ("", None),
    "pricing_analytics": (
        ".start(1795564800).end(1795651200).granularity(DAILY)",
        {"start": 1795564800, "end": 1795651200, "granularity": "DAILY"},
    ),
}


def test_the_calls_for_1000_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    def calls(rows: Iterable[Any]) -> int:
        before = len(sandbox.requests)
        deque(rows, maxlen=0)
        return len(sandbox.requests) - before

    (table,) = tables(section("## Fewer calls", "waba-edges.md"))
    assert [row[0] for row in table] == [f"`{edge}`" for edge in EDGES_OF_1000]
    with GraphSandbox(accounts=1000) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        hook = WhatsAppHook()
        ids = [account["id"] for account in sandbox.accounts]
        pages = calls(hook.iter_wabas(fields="id"))
        for row, (edge, (below, params)) in zip(table, EDGES_OF_1000.items(), strict=True):
            arguments, braces = (below, "") if below.startswith(".") else ("", below)
            measured = [
                pages + 10 * calls(hook.iter_waba_edge(ids[:100], edge, params=params, max_concurrency=50)),
                calls(hook.iter_wabas(fields=f"id,{edge}{arguments}{braces}")),
                calls(hook.iter_wabas(fields=f"id,{edge}{arguments}.limit(100){braces}")),
            ]
            assert row[1:] == [f"{count:,}" for count in measured], edge


@pytest.mark.parametrize("above", [25, 10])
def test_the_calls_for_1000_accounts_if_pages_are_too_heavy(monkeypatch: pytest.MonkeyPatch, above: int) -> None:
    with GraphSandbox(accounts=1000) as sandbox, no_waits():
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        sandbox.fail_next(Fault.reduce_data(above=above))
        WhatsAppHook().list_wabas(fields="id,phone_numbers.limit(100){id}")
        refused = sum(request.status != 200 for request in sandbox.requests)
        text = " ".join(section("## Fewer calls", "waba-edges.md").split())
        shown = {25: "1,000 accounts cost {} calls, {} of them refused", 10: "they cost {} calls, {} of them refused"}
        assert shown[above].format(len(sandbox.requests), refused) in text


def test_one_account_fails_the_whole_nested_listing(connected: GraphSandbox) -> None:
    for account in connected.accounts:
        account["is_enabled_for_insights"] = account is not connected.accounts[120]
    now = int(time.time())
    window = f"template_analytics.start({now - 86_400}).end({now}).granularity(DAILY).template_ids([1])"
    with pytest.raises(GraphRequestError) as caught:
        WhatsAppHook().list_wabas(fields=f"id,{window}")
    assert caught.value.code == 200007


def test_the_quota_of_an_account_counts_only_further_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with GraphSandbox(accounts=50, calls_per_hour_and_account=1000) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        rows = WhatsAppHook().list_wabas(fields="id,phone_numbers{id}")
        many = [row["id"] for row in rows if len(row["phone_numbers"]["data"]) > 25]
        assert many
        assert [request.path.split("/")[-2] for request in sandbox.requests] == [sandbox.business_id, *many]


def test_window() -> None:
    window = run("window", "analytics.md")["window"].function
    day: dict[str, Any] = {"start": 1795564800, "end": 1795651200, "day": "2026-11-25"}
    midnight = datetime(2026, 11, 26, tzinfo=timezone.utc)
    run_at_noon = SimpleNamespace(run_after=midnight + timedelta(hours=12))
    assert window(dag_run=run_at_noon) == day
    assert window(midnight, midnight, run_at_noon) == day
    assert window(midnight - timedelta(days=1), midnight, run_at_noon) == day
    week = {**day, "start": day["start"] - 6 * 86_400, "day": "2026-11-19"}
    assert window(midnight - timedelta(days=7), midnight, run_at_noon) == week


def test_the_examples_have_the_window_of_the_page() -> None:
    lines = [line.strip() for line in snippet("window", "analytics.md").splitlines() if line.startswith("    ")]
    for name in ("export_pricing_analytics", "export_template_analytics"):
        text = (PROJECT / "example_dags" / f"{name}.py").read_text()
        assert all(line in text for line in lines), name


def test_pricing(connected: GraphSandbox) -> None:
    operator = value_of("pricing", "analytics.md")
    fields = re.sub(
        r"\{\{.*?'start'\] \}\}", "1795564800", re.sub(r"\{\{ [^}]*'end'\] \}\}", "1795651200", operator.fields)
    )
    assert "{{" not in fields
    (account, *_) = connected.accounts
    rows = WhatsAppHook().list_wabas(fields=fields, max_items=1)
    params = {
        "start": 1795564800,
        "end": 1795651200,
        "granularity": "DAILY",
        "dimensions": ["PRICING_CATEGORY", "COUNTRY", "PHONE"],
    }
    (split,) = WhatsAppHook().iter_edge(f"{account['id']}/pricing_analytics", params=params)
    points = list(run("data points", "analytics.md")["data_points"](rows[0]))
    assert points == [{"waba_id": account["id"], "cost": None, **point} for point in split["data_points"]] != []


def test_template_chunks(connected: GraphSandbox) -> None:
    account = connected.accounts[0]
    account["is_enabled_for_insights"] = True
    account["message_templates"] = [{"id": str(number), "name": "t"} for number in range(1, 26)]
    today = int(time.time()) // 86_400 * 86_400
    ids = [template["id"] for template in account["message_templates"]]
    points = run("chunks", "analytics.md")["template_points"](account["id"], ids, today - 86_400, today)
    assert [point["template_id"] for point in points] == ids
    assert len(connected.requests) == 3


@pytest.mark.skipif(
    find_spec("airflow.models.asset_state_store") is None, reason="needs the asset state store of Airflow 3.3"
)
def test_watcher() -> None:
    namespace = run("watcher", "changes.md")
    (watcher,) = namespace["shared_accounts"].watchers
    assert watcher.trigger.watch_fields == ["account_review_status"]
    assert set(namespace["welcome_clients"]().task_ids) == {"added", "phone_numbers"}


def test_compared(connected: GraphSandbox, tmp_path: Path) -> None:
    operator = value_of("compared", "changes.md")
    operator.output_path = operator.compare_with = str(tmp_path / "accounts.ndjson")
    assert operator.execute({})["added"] is None
    connected.accounts.pop()
    assert operator.execute({})["removed"]["count"] == 1


def test_mapped_operator() -> None:
    from airflow.sdk import DAG

    with DAG("mapped", schedule=None):
        mapped = value_of("mapped", "operators.md")
    assert mapped.partial_kwargs["output_path"].endswith("{{ task.business_id }}.ndjson")
    assert len(mapped.expand_input.value["business_id"]) == 2


def test_at_scale() -> None:
    from airflow.cli.cli_parser import get_parser
    from airflow.sdk import DAG

    with DAG("at_scale", schedule=None) as dag:
        run("at scale", "scale.md")
    command = shlex.split(snippet("create the pool", "scale.md"))
    assert command[0] == "airflow"
    pool = get_parser().parse_args(command[1:])
    assert pool.include_deferred
    assert {task.pool for task in dag.tasks} == {pool.pool}
    assert all(task.deferrable and task.retries and task.output_path.startswith("s3://") for task in dag.tasks)


@pytest.mark.parametrize("clients", [10, 1000])
def test_the_sizes_at_scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clients: int) -> None:
    _, table = tables(section("## What 10, 1,000 and 100,000 clients need", "scale.md"))
    sizes = {(row[0], row[1]): row[2:4] for row in table}
    with GraphSandbox(accounts=clients) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        path = f"file://{tmp_path}/accounts.ndjson"
        manifest: Any = WhatsAppListWabasOperator(task_id="accounts", output_path=path).execute({})
        rows = WhatsAppListWabasOperator(task_id="accounts").execute({})
    calls = f"{manifest['pages']:,}"
    assert sizes[f"{clients:,}", "`accounts.ndjson`"] == [calls, f"{manifest['bytes']:,}"]
    assert sizes[f"{clients:,}", "XCom"] == [calls, f"{len(json.dumps(rows)):,}"]


def test_sensor(connected: GraphSandbox) -> None:
    for account in connected.accounts:
        account["country"] = "DE"
    for account in connected.accounts[:10]:
        account["country"] = "BR"
    rows = value_of("at least ten", "sensor.md").execute({})
    assert [row["id"] for row in rows] == [account["id"] for account in connected.accounts[:10]]


def test_trigger(connected: GraphSandbox) -> None:
    trigger = value_of("trigger", "sensor.md")
    path = f"{connected.business_id}/{trigger.query['path'].partition('/')[2]}"
    again = WhatsAppWabasTrigger(**{**trigger.serialize()[1], "query": {**trigger.query, "path": path}})
    again.pace["poke_interval"] = 0.01

    async def events() -> list[Any]:
        return [event.payload async for event in again.run()]

    (event,) = asyncio.run(events())
    moments = {name: again.clock[name] for name in ("started", "deadline")}
    assert event == {"status": "met", "not_before": 0, **moments}


def test_parquet_files_as_one_table(connected: GraphSandbox, tmp_path: Path) -> None:
    for day, fields in (("2026-11-02", "id"), ("2026-11-03", "name,id")):
        path = tmp_path / "wabas" / f"ds={day}" / "wabas.parquet"
        WhatsAppListWabasOperator(task_id="a", fields=fields, output_path=str(path)).execute({})
    code = snippet("dataset", "parquet.md").replace("/tmp/lake", str(tmp_path))
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102  # the project's own text
    rows = namespace["table"].to_pylist()
    assert [row["id"] for row in rows] == [account["id"] for account in connected.accounts] * 2
    assert [row["name"] for row in rows] == [None] * 250 + [account.get("name") for account in connected.accounts]
    assert {row["ds"] for row in rows} == {"2026-11-02", "2026-11-03"}


def test_async_hook(connected: GraphSandbox) -> None:
    names = asyncio.run(run("async", "hook.md")["names_of_accounts"]())
    assert names == [account.get("name") for account in connected.accounts]


def test_edge_per_account(connected: GraphSandbox) -> None:
    del connected.accounts[3:]
    assert list(run("templates", "hook.md")["approved"]) == [account["id"] for account in connected.accounts]


def test_attributes_of_an_error(connected: GraphSandbox, capsys: pytest.CaptureFixture[str]) -> None:
    connected.fail_next(Fault.throttle(minutes=5))
    run("attributes", "errors.md")
    assert "Throttled with code 80008; come back in 0:05:00" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(airflow.sdk, "RetryPolicy"), reason="the module retry needs Airflow 3.3")
def test_retry_policy(connected: GraphSandbox) -> None:
    count = run("retry policy", "errors.md")["count_phone_numbers"]
    assert count.kwargs["retry_policy"].evaluate(GraphTokenError("no"), 1, 3).action.value == "fail"
    assert isinstance(count.function(connected.accounts[0]["id"]), int)


def test_alerts_name_metrics_that_are_sent() -> None:
    rules = yaml.safe_load(snippet("alerts", "metrics.md"))["groups"][0]["rules"]
    named = {name for rule in rules for name in re.findall(r"airflow_(whatsapp_\w+)", rule["expr"])}
    assert named <= {name.replace(".", "_") for name in METRICS}
    assert len(named) == 6


@pytest.mark.parametrize(("days", "is_well"), [(None, True), (15, True), (13, False)])
def test_token_check(connected: GraphSandbox, days: int | None, is_well: bool) -> None:
    check = run("token check", "metrics.md")["check_token"]().get_task("has_two_weeks_left").python_callable
    connected.token_info = {} if days is None else {"data_access_expires_at": int(time.time() + days * 86_400)}
    if is_well:
        check()
    else:
        with pytest.raises(ValueError, match="Create a new token"):
            check()


def test_waiting_for_a_rate_limit(connected: GraphSandbox, tmp_path: Path) -> None:
    operator = value_of("patient", "rate-limits.md")
    operator.output_path, operator.output_conn_id = str(tmp_path / "accounts.ndjson"), None
    connected.fail_next(Fault.high_usage(percent=80))
    with pytest.raises(TaskDeferred):
        operator.execute({})
    assert operator.execute_complete({}, is_kept=False)["count"] == len(connected.accounts)


def test_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    run("throttled", "testing.md")["test_a_short_throttle_is_waited_out"](monkeypatch)


@pytest.mark.skipif(version("apache-airflow") == "3.1.0", reason="the page says what else Airflow 3.1.0 needs")
def test_the_files_to_copy(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "conftest.py").write_text(snippet("conftest", "testing.md"))
    (tmp_path / "dags" / "export_accounts.py").write_text(snippet("tested DAG", "testing.md"))
    (tmp_path / "test_export_accounts.py").write_text(snippet("test of a DAG", "testing.md"))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST", "COV"))}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "3 passed" in done.stdout, done.stdout[-5000:]


def test_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    run("quota", "testing.md")["test_a_long_throttle_ends_the_listing"](monkeypatch)
