"""Exports the accounts that clients share with your business to object storage, and announces each export."""

from __future__ import annotations

import pendulum
from airflow.sdk import Asset, Param, dag

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

# A DAG with `schedule=[WABAS]` runs after each export. The `extra` of the asset event has the object's address.
WABAS = Asset("whatsapp_wabas")


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    params={"lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp")},
    tags=["whatsapp"],
)
def export_wabas() -> None:
    WhatsAppListWabasOperator(
        task_id="export",
        # `dag_run.run_after` instead of `ds`, because a run that an asset or a person starts may have no logical date.
        output_path="{{ params.lake }}/wabas/{{ dag_run.run_after | ds }}.ndjson.gz",
        outlets=[WABAS],
    )


export_wabas()
