"""DAGs that use the list operator in different ways. The tests fill in the params."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, task

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

COMMON: dict[str, Any] = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC"), "params": {"folder": "/nowhere"}}
AT_ONCE = pendulum.duration(seconds=0)

with DAG("templated", schedule=None, **COMMON) as templated:
    WhatsAppListWabasOperator(
        task_id="accounts",
        business_id="{{ params.business }}",
        relationship="{{ params.relationship }}",
        fields="id,{{ params.field }}",
        ownership_types="{{ params.types }}",
        created_after="{{ params.since }}",
        created_before="{{ logical_date }}",
        page_size="{{ params.size }}",
        max_items="{{ params.size }}",
        output_path="{{ params.folder }}/{{ ds }}.json",
        if_exists="{{ params.exists }}",
        if_empty="{{ params.empty }}",
        whatsapp_conn_id="whatsapp_{{ params.conn }}",
    )

with DAG("mapped", schedule=None, **COMMON) as mapped:

    @task
    def businesses() -> list[str]:
        return [business["id"] for business in WhatsAppHook().iter_businesses()]

    ids = businesses()
    WhatsAppListWabasOperator.partial(task_id="rows", fields="id").expand(business_id=ids)
    WhatsAppListWabasOperator.partial(
        task_id="objects", output_path="{{ params.folder }}/{{ task.business_id }}.ndjson"
    ).expand(business_id=ids)

with DAG("mapped_onto_one", schedule=None, **COMMON) as mapped_onto_one:
    for name, path in {"fixed": "/nowhere/a.ndjson", "templated": "{{ params.folder }}/a.ndjson"}.items():
        WhatsAppListWabasOperator.partial(task_id=name, output_path=path, retries=1, retry_delay=AT_ONCE).expand(
            relationship=["client", "owned"]
        )

with DAG("mapped_over", schedule=None, **COMMON) as mapped_over:

    @task
    def number_of(account: dict[str, str]) -> int:
        return int(account["id"])

    accounts = WhatsAppListWabasOperator(task_id="accounts", page_size=2, retries=1, retry_delay=AT_ONCE)
    number_of.expand(account=accounts.output)

with DAG("retried", schedule=None, **COMMON) as retried:
    WhatsAppListWabasOperator(
        task_id="accounts", output_path="{{ params.folder }}/a.ndjson", retries=1, retry_delay=AT_ONCE
    )

with DAG("deferred", schedule=None, **COMMON) as deferred:
    WhatsAppListWabasOperator(task_id="accounts", output_path="{{ params.folder }}/a.ndjson", deferrable=True)

with DAG("without_xcom", schedule=None, **COMMON) as without_xcom:
    WhatsAppListWabasOperator(
        task_id="object", output_path="{{ params.folder }}/a.ndjson", do_xcom_push=False
    ) >> WhatsAppListWabasOperator(task_id="rows", do_xcom_push=False)

with DAG("skipped", schedule=None, **COMMON) as skipped:
    WhatsAppListWabasOperator(task_id="accounts", if_empty="skip")

with DAG("two_tasks", schedule=None, **COMMON) as two_tasks:
    WhatsAppListWabasOperator(task_id="first", output_path="{{ params.folder }}/a.ndjson") >> WhatsAppListWabasOperator(
        task_id="second"
    )
