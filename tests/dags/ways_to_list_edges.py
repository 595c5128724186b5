"""DAGs that list an edge of many accounts in different ways. The tests fill in the params."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, Asset, task

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator

COMMON: dict[str, Any] = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC"), "params": {"folder": "/nowhere"}}
AT_ONCE = pendulum.duration(seconds=0)

with DAG("edges_templated", schedule=None, **COMMON) as edges_templated:
    WhatsAppListWabaEdgeOperator(
        task_id="numbers",
        waba_ids="{{ params.ids }}",
        edge="{{ params.edge }}",
        edge_params={"start": "{{ params.start }}", "end": "{{ params.end }}", "granularity": "DAILY"},
        on_account_error="{{ params.on_error }}",
        max_concurrency="{{ params.many }}",
        page_size="{{ params.size }}",
        max_items="{{ params.size }}",
        output_path="{{ params.folder }}/{{ ds }}.json",
        if_exists="{{ params.exists }}",
        if_empty="{{ params.empty }}",
        max_wait_in_place="{{ params.size }}",
        max_usage="{{ params.size }}",
        whatsapp_conn_id="whatsapp_{{ params.conn }}",
    )

# The same accounts in each way that a task can hand them on.
with DAG("edges_from_xcom", schedule=None, **COMMON) as edges_from_xcom:
    rows = WhatsAppListWabasOperator(task_id="rows", fields="id,name")
    manifest = WhatsAppListWabasOperator(task_id="manifest", output_path="{{ params.folder }}/accounts.csv.gz")
    common = {"edge": "phone_numbers", "fields": "id"}
    WhatsAppListWabaEdgeOperator(task_id="of_rows", waba_ids=rows.output, **common)
    WhatsAppListWabaEdgeOperator(task_id="of_manifest", waba_ids=manifest.output, **common)
    WhatsAppListWabaEdgeOperator(task_id="of_text", waba_ids="{{ ti.xcom_pull('manifest') }}", **common)
    of_address = WhatsAppListWabaEdgeOperator(
        task_id="of_address",
        waba_ids="{{ ti.xcom_pull('manifest')['uri'] }}",
        output_path="{{ params.folder }}/numbers.ndjson",
        outlets=[Asset("phone_numbers")],
        **common,
    )
    manifest >> of_address
    for task_id in ("of_text", "of_address"):
        manifest.dag.get_task(task_id).set_upstream(manifest)

with DAG("edges_native", schedule=None, render_template_as_native_obj=True, **COMMON) as edges_native:
    native = WhatsAppListWabasOperator(task_id="rows", fields="id")
    numbers = WhatsAppListWabaEdgeOperator(
        task_id="numbers", waba_ids="{{ ti.xcom_pull('rows') }}", edge="phone_numbers", fields="id"
    )
    native >> numbers

with DAG("edges_mapped", schedule=None, **COMMON) as edges_mapped:

    @task
    def groups() -> list[list[str]]:
        ids = [account["id"] for account in WhatsAppHook().iter_wabas(fields="id")]
        return [ids[:3], ids[3:5], []]

    @task
    def count(rows: list[dict[str, str]]) -> int:
        return len(rows)

    mapped = WhatsAppListWabaEdgeOperator.partial(task_id="groups_of", edge="phone_numbers", fields="id").expand(
        waba_ids=groups()
    )
    count.expand(rows=mapped.output)
    WhatsAppListWabaEdgeOperator.partial(
        task_id="edges_of", waba_ids="{{ params.ids }}", output_path="{{ params.folder }}/{{ task.edge }}.ndjson"
    ).expand(edge=["phone_numbers", "message_templates"])

with DAG(
    "edges_default_args",
    schedule=None,
    default_args={"fields": "id", "max_concurrency": 2, "on_account_error": "skip", "business_id": "x"},
    **COMMON,
) as edges_default_args:
    WhatsAppListWabaEdgeOperator(task_id="numbers", waba_ids="{{ params.ids }}", edge="phone_numbers")

with DAG("edges_retried", schedule=None, **COMMON) as edges_retried:
    WhatsAppListWabaEdgeOperator(
        task_id="numbers",
        waba_ids="{{ params.ids }}",
        edge="phone_numbers",
        max_concurrency=1,
        output_path="{{ params.folder }}/numbers.ndjson",
        retries=1,
        retry_delay=AT_ONCE,
    )

with DAG("edges_deferred", schedule=None, **COMMON) as edges_deferred:
    WhatsAppListWabaEdgeOperator(
        task_id="numbers",
        waba_ids="{{ params.ids }}",
        edge="phone_numbers",
        output_path="{{ params.folder }}/numbers.ndjson",
        deferrable=True,
    )
