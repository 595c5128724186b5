"""Exports the accounts of every business that the token can see, and fails the run if an export is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # More tasks at once would only reach the app's rate limit sooner.
    max_active_tasks=8,
    default_args={"retries": 3},
    params={"lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp")},
    tags=["whatsapp"],
)
def export_businesses() -> None:
    @task
    def businesses() -> list[dict[str, Any]]:
        return list(WhatsAppHook().iter_businesses(fields="id,name"))

    @task
    def ids(found: list[dict[str, Any]]) -> list[str]:
        return [business["id"] for business in found]

    @task(trigger_rule="all_done")
    def exported(manifests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        # This task succeeds even if exports failed, so that later tasks can use the successful ones.
        return list(manifests)

    @task(retries=0)
    def check(found: list[dict[str, Any]], manifests: list[dict[str, Any]]) -> None:
        done = {manifest["business_id"] for manifest in manifests}
        missing = [business.get("name", business["id"]) for business in found if business["id"] not in done]
        if missing:
            raise RuntimeError(f"{len(missing)} of {len(found)} businesses were not exported: {', '.join(missing)}")

    found = businesses()
    export = WhatsAppListWabasOperator.partial(
        task_id="export",
        output_path="{{ params.lake }}/{{ dag_run.run_after | ds }}/{{ task.business_id }}.ndjson.gz",
        # All businesses share the rate limit of one app. An export that reaches it waits without a worker slot.
        deferrable=True,
        # The grid shows this name instead of a number.
        map_index_template="{{ ti.xcom_pull(task_ids='businesses')[ti.map_index].get('name', task.business_id) }}",
    ).expand(business_id=ids(found))
    check(found, exported(export.output))


export_businesses()
