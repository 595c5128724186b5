"""Finds the phone numbers of all clients whose quality or name needs attention, and fails the run if there are any.

Set the param `lake`. All numbers go to `phone_numbers/<day>.ndjson`. The task `findings` returns the number of findings
and the first hundred of them to XCom, and how many numbers have each messaging limit and each throughput. To report
findings without failing the run, set the param `fail` to false.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import Manifest, read_rows

# A new number has the quality UNKNOWN until it has sent some messages, and the name PENDING_REVIEW until Meta has
# reviewed it. If these were findings, the run would fail every day.
NEEDS_ATTENTION = {
    "quality_rating": ("RED",),
    "name_status": ("DECLINED", "EXPIRED"),
}
# `dag_run.run_after` instead of `ds`, because a run that an asset or a person starts may have no logical date.
FOLDER, DAY = "{{ params.lake }}/phone_numbers", "{{ dag_run.run_after | ds }}"


def problems_of(number: dict[str, Any]) -> list[str]:
    """Return what is wrong with a phone number."""
    return [f"{field} is {number[field]}" for field, values in NEEDS_ATTENTION.items() if number.get(field) in values]


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once could write the same object.
    max_active_runs=1,
    default_args={"retries": 3},
    params={
        "lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp"),
        "fail": Param(True, type="boolean", description="whether the run fails if there are findings"),
    },
    tags=["whatsapp"],
)
def audit_phone_numbers() -> None:
    @task(multiple_outputs=False)
    def findings(numbers: Manifest) -> dict[str, Any]:
        # Accounts that could not be read are findings too.
        count = numbers["skipped_count"]
        first: list[dict[str, Any]] = []
        limits: Counter[str] = Counter()
        throughput: Counter[str] = Counter()
        seen = set()
        for number in read_rows(numbers):
            if problems := problems_of(number):
                count += 1
                first += [{**number, "problems": problems}] if len(first) < 100 else []
            # A number that several accounts have counts once.
            if number["id"] not in seen:
                seen.add(number["id"])
                limits[number.get("whatsapp_business_manager_messaging_limit") or "unknown"] += 1
                throughput[(number.get("throughput") or {}).get("level") or "unknown"] += 1
        return {
            "count": count,
            "first": first,
            "skipped": numbers["skipped"],
            "limits": dict(limits),
            "throughput": dict(throughput),
        }

    @task(retries=0)
    def check(found: dict[str, Any], params: dict[str, Any] | None = None) -> None:
        if found["count"] and params and params["fail"]:
            raise RuntimeError(f"{found['count']} phone numbers or accounts need attention, see the task `findings`")

    accounts = WhatsAppListWabasOperator(
        task_id="accounts", fields="id,name", output_path=f"{FOLDER}/_accounts/{DAY}.ndjson"
    )
    numbers = WhatsAppListWabaEdgeOperator(
        task_id="phone_numbers",
        waba_ids=accounts.output,
        edge="phone_numbers",
        on_account_error="skip",
        output_path=f"{FOLDER}/{DAY}.ndjson",
    )
    check(findings(numbers.output))


audit_phone_numbers()
