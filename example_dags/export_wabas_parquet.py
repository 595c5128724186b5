"""Exports all accounts each night as Parquet, one partition a day, and says what is different from the day before.

Set the param `lake`. The object of a day is `wabas_parquet/ds=<day>/wabas.parquet`, so that DuckDB, Spark and Athena
read all days as one table with a column `ds`. The workers need `airflow-provider-whatsapp[parquet]`.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import AssetAlias, Param, dag, task

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

FOLDER = "{{ params.lake }}/wabas_parquet"
# `dag_run.run_after` instead of `ds`, because a run that an asset or a person starts may have no logical date.
DAY = "{{ dag_run.run_after | ds }}"
DAY_BEFORE = "{{ macros.ds_add(dag_run.run_after | ds, -1) }}"
# Each day has its own object, and therefore its own asset. A DAG with `schedule=[WABAS]` runs after each.
WABAS = AssetAlias("whatsapp_wabas_parquet")


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    params={"lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp")},
    tags=["whatsapp"],
)
def export_wabas_parquet() -> None:
    export = WhatsAppListWabasOperator(
        task_id="export",
        fields="id,name,country,currency,creation_time,account_review_status,ownership_type,owner_business_info",
        output_path=f"{FOLDER}/ds={DAY}/wabas.parquet",
        compare_with=f"{FOLDER}/ds={DAY_BEFORE}/wabas.parquet",
        outlets=[WABAS],
    )

    @task
    def report(exported: dict[str, Any]) -> str:
        # On the first day, there is nothing to compare with.
        if exported["added"] is None:
            return f"{exported['count']} accounts"
        changes = ", ".join(f"{exported[kind]['count']} {kind}" for kind in ("added", "removed", "changed"))
        return f"{exported['count']} accounts: {changes}"

    report(export.output)


export_wabas_parquet()
