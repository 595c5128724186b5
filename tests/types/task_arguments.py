"""Right and wrong arguments of operators and sensors, on each supported version of Airflow.

``mypy --strict`` reads this file, and nothing runs it. Each ``type: ignore`` marks a line that must be an error: with
``warn_unused_ignores``, mypy fails when it is none.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, XComArg
from typing_extensions import assert_type

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import Manifest
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

Row = dict[str, Any]


def right(dag: DAG, from_xcom: XComArg) -> None:
    accounts = WhatsAppListWabasOperator(
        task_id="a",
        business_id=1906385232743451,
        relationship="{{ params.relationship }}",
        fields=["id", "name"],
        created_after=date(2026, 1, 1),
        created_before=datetime(2026, 2, 1),
        filtering=[{"field": "ownership_type", "operator": "IN", "value": ["SELF"]}],
        page_size="{{ params.page_size }}",
        max_items=None,
        output_path=from_xcom,
        if_exists="skip",
        deferrable=True,
        max_wait_in_place=30,
        dag=dag,
        retries=3,
        retry_delay=timedelta(minutes=5),
        outlets=[Asset("accounts")],
        on_failure_callback=print,
        trigger_rule="all_done",
        doc_md="Lists accounts.",
    )
    assert_type(accounts.execute({}), list[Row] | Manifest)
    WhatsAppListWabasOperator(task_id="b", business_id=from_xcom, fields=from_xcom, max_usage=from_xcom)
    WhatsAppListWabaEdgeOperator(
        task_id="c", waba_ids=accounts.output, edge="phone_numbers", edge_params={"a": 1}, max_concurrency="5"
    )
    WhatsAppListWabaEdgeOperator(task_id="d", waba_ids=["1", {"id": "2"}], edge=from_xcom, owner="data")
    sensor = WhatsAppWabasSensor(
        task_id="e",
        waba_ids=["1"],
        min_count="{{ params.count }}",
        where={"country": ["BR"]},
        mode="reschedule",
        poke_interval=60,
        timeout=timedelta(days=1),
        soft_fail=True,
        max_wait=timedelta(minutes=10),
        pool="whatsapp",
    )
    assert_type(sensor.deferrable, bool)
    WhatsAppListWabasOperator.partial(task_id="f", fields="id").expand(business_id=["1", "2"])
    later: list[BaseOperator] = [accounts, sensor]
    accounts >> later


def wrong() -> None:
    WhatsAppListWabasOperator(task_id="a", feilds="id")  # type: ignore[call-arg]
    WhatsAppListWabasOperator(task_id="a", fields=5)  # type: ignore[arg-type]
    WhatsAppListWabasOperator(task_id="a", output_path=7)  # type: ignore[arg-type]
    WhatsAppListWabasOperator(task_id="a", page_size=[1])  # type: ignore[arg-type]
    WhatsAppListWabasOperator(task_id="a", retires=3)  # type: ignore[call-arg]
    WhatsAppListWabasOperator(task_id="a", retries="3")  # type: ignore[arg-type]
    WhatsAppListWabasOperator(task_id="a", poke_interval=3)  # type: ignore[call-arg]
    WhatsAppListWabasOperator(fields="id")  # type: ignore[call-arg]
    WhatsAppListWabasOperator("a")  # type: ignore[call-arg]
    WhatsAppListWabasOperator(task_id="a", edge="owned")  # type: ignore[call-arg]
    WhatsAppListWabaEdgeOperator(task_id="a", edge="phone_numbers")  # type: ignore[call-arg]
    WhatsAppListWabaEdgeOperator(task_id="a", waba_ids=["1"])  # type: ignore[call-arg]
    WhatsAppListWabaEdgeOperator(task_id="a", waba_ids=None, edge="flows")  # type: ignore[arg-type]
    WhatsAppListWabaEdgeOperator(task_id="a", waba_ids=["1"], edge=5)  # type: ignore[arg-type]
    WhatsAppListWabaEdgeOperator(task_id="a", waba_ids=["1"], edge="flows", output_pat="a")  # type: ignore[call-arg]
    WhatsAppListWabaEdgeOperator(task_id="a", waba_ids=["1"], edge="flows", created_after=1)  # type: ignore[call-arg]
    WhatsAppWabasSensor(task_id="a", min_cout=3)  # type: ignore[call-arg]
    WhatsAppWabasSensor(task_id="a", min_count=[3])  # type: ignore[arg-type]
    WhatsAppWabasSensor(task_id="a", poke_interval="often")  # type: ignore[arg-type]
    WhatsAppWabasSensor(task_id="a", max_usage=[80])  # type: ignore[arg-type]
