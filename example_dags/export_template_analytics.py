"""Exports how often each client's message templates were sent, delivered, read and clicked, one row for each day.

Set the param `lake`. The rows of a day go to `template_analytics/<day>.ndjson`, and a rerun writes the same object
again. Meta has these numbers for the last 90 days, and only for accounts that have enabled template insights. The task
`analytics` leaves the other accounts out, with a warning for each, and returns their number and the first hundred ids
to XCom.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_whatsapp.graph import GraphApiError
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import Manifest, read_rows

log = logging.getLogger(__name__)

FOLDER = "{{ params.lake }}/template_analytics"
DAY = "{{ ti.xcom_pull(task_ids='window')['day'] }}"
# The API accepts at most this many template ids in one call, and has no older data.
MOST_TEMPLATES, DAYS_BACK = 10, 90
NO_INSIGHTS = (200005, 200006, 200007)


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


def data_points(
    hook: WhatsAppHook, waba_id: str, templates: list[dict[str, Any]], days: dict[str, Any]
) -> list[dict[str, Any]]:
    """Yield one row for each template of an account and each day."""
    names = {template["id"]: template.get("name") for template in templates}
    ids, found = list(names), []
    for first in range(0, len(ids), MOST_TEMPLATES):
        params = {**days, "granularity": "DAILY", "template_ids": ids[first : first + MOST_TEMPLATES]}
        for row in hook.iter_edge(f"{waba_id}/template_analytics", params=params):
            for point in row.get("data_points", []):
                name = names.get(point["template_id"])
                found.append({"waba_id": waba_id, "template_name": name, "clicked": [], "cost": [], **point})
    return found


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
def export_template_analytics() -> None:
    @task(multiple_outputs=False, retries=0)
    def window(
        data_interval_start: datetime | None = None, data_interval_end: datetime | None = None, dag_run: Any = None
    ) -> dict[str, Any]:
        """Return the days to read, in UTC: those of the data interval, and at least the last day that has ended."""
        # A run that an asset or a person starts may have no data interval. That of a daily run may have no length.
        end = pendulum.instance(data_interval_end or dag_run.run_after).in_timezone("UTC").start_of("day")
        start = pendulum.instance(data_interval_start or end).in_timezone("UTC").start_of("day")
        start = min(start, end.subtract(days=1))
        if start < pendulum.now("UTC").start_of("day").subtract(days=DAYS_BACK):
            raise RuntimeError(f"{start.to_date_string()} is more than {DAYS_BACK} days ago")
        return {"start": int(start.timestamp()), "end": int(end.timestamp()), "day": start.to_date_string()}

    @task(multiple_outputs=False)
    def analytics(days: dict[str, Any], accounts: Manifest, templates: Manifest, address: str) -> dict[str, Any]:
        """Write the rows of all accounts except those that have not enabled template insights."""
        enabled = {account["id"]: account.get("is_enabled_for_insights") for account in read_rows(accounts)}
        times = {"start": days["start"], "end": days["end"]}
        # One hook for all calls, because it keeps its connection to the API open.
        hook, left_out = WhatsAppHook(), []

        def rows() -> Iterator[dict[str, Any]]:
            # The templates of an account are consecutive rows.
            for waba_id, group in groupby(read_rows(templates), itemgetter("waba_id")):
                try:
                    if enabled[waba_id] is not False:
                        yield from data_points(hook, waba_id, list(group), times)
                        continue
                except GraphApiError as error:
                    # Any other error fails the task, because it would hide rows.
                    if error.code not in NO_INSIGHTS:
                        raise
                log.warning("Account %s has not enabled template insights", waba_id)
                left_out.append(waba_id)

        count = write_rows(rows(), address)
        return {"count": count, "left_out_count": len(left_out), "left_out": left_out[:100]}

    days = window()
    accounts = WhatsAppListWabasOperator(
        task_id="accounts",
        fields="id,name,is_enabled_for_insights",
        output_path=f"{FOLDER}/_accounts/{DAY}.ndjson",
    )
    templates = WhatsAppListWabaEdgeOperator(
        task_id="templates",
        waba_ids=accounts.output,
        edge="message_templates",
        fields="id,name",
        output_path=f"{FOLDER}/_templates/{DAY}.ndjson",
    )
    days >> accounts
    analytics(days, accounts.output, templates.output, f"{FOLDER}/{DAY}.ndjson")


export_template_analytics()
