"""Exports the accounts that clients share with your business to object storage, and tells who waits for them."""

from __future__ import annotations

import pendulum
from airflow.sdk import Asset, Param, dag

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

# A DAG with `schedule=[CLIENT_WABAS]` starts after each export and finds the object's address in the event's extra.
CLIENT_WABAS = Asset("whatsapp_client_wabas")


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    params={"lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp")},
    tags=["whatsapp"],
)
def export_client_wabas() -> None:
    WhatsAppListWabasOperator(
        task_id="export",
        # Not {{ ds }}: a run that an asset or a person starts may have no logical date.
        output_path="{{ params.lake }}/client_wabas/{{ dag_run.run_after | ds }}.ndjson.gz",
        outlets=[CLIENT_WABAS],
    )


export_client_wabas()
