"""Lists the accounts that clients share with your business, and reads the phone numbers of each in a mapped task."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import dag, task

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # All tasks share the rate limit of one app, so more tasks at once would be throttled sooner.
    max_active_tasks=8,
    default_args={"retries": 3},
    tags=["whatsapp"],
)
def list_wabas() -> None:
    accounts = WhatsAppListWabasOperator(
        task_id="accounts",
        fields=["id", "name", "account_review_status"],
    )

    @task
    def phone_numbers(account: dict[str, Any]) -> list[str]:
        rows = WhatsAppHook().iter_edge(f"{account['id']}/phone_numbers", fields="id,display_phone_number")
        return [row["display_phone_number"] for row in rows]

    phone_numbers.expand(account=accounts.output)


list_wabas()
