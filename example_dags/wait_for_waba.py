"""Waits until a client has shared its account with your business and Meta has approved it, then uses the account."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    params={"waba_id": Param("", type="string", description="id of the account that the client is about to share")},
    tags=["whatsapp"],
)
def wait_for_waba() -> None:
    shared = WhatsAppWabasSensor(
        task_id="shared",
        waba_ids="{{ params.waba_id }}",
        fields=["id", "name", "account_review_status"],
        where={"account_review_status": "APPROVED"},
        # Clients may take days. A deferred sensor holds no worker slot.
        deferrable=True,
        poke_interval=timedelta(minutes=5),
        timeout=timedelta(days=7),
    )

    @task
    def welcome(accounts: list[dict[str, Any]]) -> str:
        return f"Welcome, {accounts[0]['name']}!"

    welcome(shared.output)


wait_for_waba()
