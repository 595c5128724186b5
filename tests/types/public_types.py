"""Type-checking tests of the public API.

``mypy --strict`` reads this file, and nothing runs it. Each ``type: ignore`` marks a line that must be an error: with
``warn_unused_ignores``, mypy fails when it is none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from datetime import date, timedelta
from typing import Any

from airflow.sdk import RetryDecision
from typing_extensions import assert_type

from airflow_provider_whatsapp.graph import GraphApiError, GraphError, GraphRateLimitError
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.retry import GraphRetryPolicy
from airflow_provider_whatsapp.rows import Manifest, read_rows
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, ReceivedRequest, no_waits
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

Row = dict[str, Any]


def hook_methods(hook: WhatsAppHook) -> None:
    assert_type(hook.iter_wabas(), Iterator[Row])
    assert_type(hook.list_wabas(5, relationship="owned", fields=["id"], created_after=date(2026, 1, 1)), list[Row])
    assert_type(hook.iter_edge("1/phone_numbers", page_size=50, max_items=None), Iterator[Row])
    assert_type(hook.iter_businesses(fields="id"), Iterator[Row])
    assert_type(hook.get("me", params={"a": 1}), Row)
    assert_type(hook.debug_token(), Row)
    assert_type(hook.test_connection(), tuple[bool, str])
    assert_type(hook.aiter_wabas("5", sort="creation_time_ascending"), AsyncGenerator[Row, None])
    assert_type(hook.aiter_edge("1/phone_numbers"), AsyncGenerator[Row, None])
    assert_type(hook.aiter_businesses(), AsyncGenerator[Row, None])
    assert_type(hook.iter_waba_edge(["1"], "phone_numbers", params={"a": 1}, max_concurrency=5), Iterator[Row])


async def async_hook_methods(hook: WhatsAppHook) -> None:
    assert_type(await hook.aget("me"), Row)
    assert_type(await hook.adebug_token(), Row)


def rows(manifest: Manifest, from_xcom: dict[str, Any]) -> None:
    for source in (manifest, from_xcom, "s3://bucket/wabas.ndjson"):
        assert_type(read_rows(source), Iterator[Row])
    assert_type(read_rows(manifest, conn_id="lake"), Iterator[Row])
    assert_type(manifest["skipped"][0]["reason"], str)
    read_rows(["s3://bucket/wabas.ndjson"])  # type: ignore[arg-type]
    read_rows(manifest, format="csv")  # type: ignore[call-arg]


def wrong_arguments(hook: WhatsAppHook) -> None:
    hook.iter_wabas(field="id")  # type: ignore[call-arg]
    hook.list_wabas(fields=5)  # type: ignore[arg-type]
    hook.iter_edge()  # type: ignore[call-arg]
    hook.iter_wabas("5", "owned")  # type: ignore[call-arg]
    hook.iter_waba_edge(["1"])  # type: ignore[call-arg]
    WhatsAppListWabaEdgeOperator(task_id="t", edge="phone_numbers")  # type: ignore[call-arg]
    WhatsAppListWabaEdgeOperator(task_id="t", waba_ids=["1"], edge=5)  # type: ignore[arg-type]
    GraphRetryPolicy(retries=2)  # type: ignore[call-arg]
    Fault.server_error(times=2)  # type: ignore[call-arg]
    GraphSandbox(account=5)  # type: ignore[call-arg]


def errors(error: GraphError, api_error: GraphApiError, limit: GraphRateLimitError) -> None:
    assert_type(error.retryable, bool)
    assert_type(error.retry_after, timedelta | None)
    assert_type(api_error.code, int | None)
    assert_type(limit.retry_after, timedelta | None)


def tasks() -> None:
    operator = WhatsAppListWabasOperator(task_id="t", fields="id", retries=2)
    sensor = WhatsAppWabasSensor(task_id="t", waba_ids=["1"], page_size=5, poke_interval=60)
    assert_type(operator.execute({}), list[Row] | Manifest)
    numbers = WhatsAppListWabaEdgeOperator(
        task_id="t",
        waba_ids=operator.output,
        edge="phone_numbers",
        edge_params={"a": 1},
        fields=["id"],
        deferrable=True,
    )
    assert_type(numbers.execute({}), list[Row] | Manifest)
    assert_type(sensor.deferrable, bool)
    assert_type(GraphRetryPolicy().evaluate(ValueError(), 1, 3), RetryDecision)
    WhatsAppListWabasOperator(task_id="t", retries=2, retry_policy=GraphRetryPolicy())
    assert_type(WhatsAppWabasTrigger(query={"path": "1/x"}).serialize(), tuple[str, Row])


def sandbox_names() -> None:
    with GraphSandbox(accounts=5) as sandbox, no_waits() as skipped:
        assert_type(sandbox.connection, str)
        assert_type(sandbox.requests, list[ReceivedRequest])
        assert_type(Fault.expired_token().after(1).times(2), Fault)
        assert_type(skipped.seconds, list[float])
