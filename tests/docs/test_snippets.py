"""Runs the snippets of the pages in ``docs/``, because users copy them. Those of the README have a file of their own."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import airflow.sdk
import pytest
from documentation import PAGES, snippet

from airflow_provider_whatsapp.graph import GraphTokenError
from airflow_provider_whatsapp.hooks._connection import load_connection
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

NAMES = {
    "WhatsAppHook": WhatsAppHook,
    "WhatsAppListWabaEdgeOperator": WhatsAppListWabaEdgeOperator,
    "WhatsAppListWabasOperator": WhatsAppListWabasOperator,
    "WhatsAppWabasSensor": WhatsAppWabasSensor,
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
        # The README and the receiver of webhooks have test files of their own.
        if page not in {"README.md", "webhooks.md"}:
            for name in named:
                assert f'"{name}", "{page}"' in here, (name, page)


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


def test_mapped_operator() -> None:
    from airflow.sdk import DAG

    with DAG("mapped", schedule=None):
        mapped = value_of("mapped", "operators.md")
    assert mapped.partial_kwargs["output_path"].endswith("{{ task.business_id }}.ndjson")
    assert len(mapped.expand_input.value["business_id"]) == 2


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
    moments = {name: again.clock[name] for name in ("started", "deadline", "not_before")}
    assert event == {"status": "met", **moments}


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


def test_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    run("throttled", "testing.md")["test_a_short_throttle_is_waited_out"](monkeypatch)


def test_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    run("quota", "testing.md")["test_a_long_throttle_ends_the_listing"](monkeypatch)
