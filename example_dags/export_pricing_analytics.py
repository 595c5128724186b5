"""Exports what each client's messages cost on each day: one row for each data point of `pricing_analytics`.

Set the param `lake`. One listing reads the accounts together with their analytics into `_raw/`. The rows made of it go
to `pricing_analytics/<day>.ndjson`. A rerun writes the same object again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import Manifest, read_rows

FOLDER = "{{ params.lake }}/pricing_analytics"
START = "{{ ti.xcom_pull(task_ids='window')['start'] }}"
END = "{{ ti.xcom_pull(task_ids='window')['end'] }}"
DAY = "{{ ti.xcom_pull(task_ids='window')['day'] }}"


def data_points(listing: Manifest) -> Iterator[dict[str, Any]]:
    """Yield one row for each data point of the listed accounts."""
    for account in read_rows(listing):
        # If an account has no data, the API may leave the field out.
        for split in account.get("pricing_analytics", {}).get("data", []):
            for point in split.get("data_points", []):
                # Accounts on the credit line of a partner have no cost.
                yield {"waba_id": account["id"], "name": account.get("name"), "cost": None, **point}


def write_rows(rows: Iterator[dict[str, Any]], address: str) -> int:
    """Write an NDJSON object and return the number of rows. If that fails, an earlier object is unchanged."""
    path = ObjectStoragePath(address)
    draft = path.parent / f"_{path.name}"
    path.fs.makedirs(path.parent.path, exist_ok=True)
    count = 0
    with draft.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    draft.move(path)
    return count


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once could write the same object.
    max_active_runs=1,
    default_args={"retries": 3},
    params={"lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp")},
    tags=["whatsapp"],
)
def export_pricing_analytics() -> None:
    @task(multiple_outputs=False)
    def window(
        data_interval_start: datetime | None = None, data_interval_end: datetime | None = None, dag_run: Any = None
    ) -> dict[str, Any]:
        """Return the days to read, in UTC: those of the data interval, and at least the last day that has ended."""
        # A run that an asset or a person starts may have no data interval. That of a daily run may have no length.
        end = pendulum.instance(data_interval_end or dag_run.run_after).in_timezone("UTC").start_of("day")
        start = pendulum.instance(data_interval_start or end).in_timezone("UTC").start_of("day")
        start = min(start, end.subtract(days=1))
        return {"start": int(start.timestamp()), "end": int(end.timestamp()), "day": start.to_date_string()}

    @task
    def flatten(listing: Manifest, address: str) -> int:
        return write_rows(data_points(listing), address)

    listing = WhatsAppListWabasOperator(
        task_id="listing",
        fields=(
            f"id,name,pricing_analytics.start({START}).end({END}).granularity(DAILY)"
            '.dimensions(["PRICING_CATEGORY","PRICING_TYPE","COUNTRY","PHONE"])'
        ),
        output_path=f"{FOLDER}/_raw/{DAY}.ndjson",
    )
    window() >> listing
    flatten(listing.output, f"{FOLDER}/{DAY}.ndjson")


export_pricing_analytics()
