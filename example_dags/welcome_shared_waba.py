"""Welcomes an account that a client has shared. A receiver of Meta's webhooks starts a run for each (docs/webhooks.md).

The run does not trust what started it: it waits until the account is in the list of the Graph API. If the account is
not shared, the run only waits until its timeout.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    # Airflow refuses to start a run without an id, or with anything else as the id.
    params={"waba_id": Param("", type="string", pattern="^[0-9]{1,32}$", description="id of the shared account")},
    # Waiting runs count too. With the default of 16, a few early deliveries would hold up all others.
    max_active_runs=200,
    tags=["whatsapp"],
)
def welcome_shared_waba() -> None:
    shared = WhatsAppWabasSensor(
        task_id="shared",
        waba_ids="{{ params.waba_id }}",
        fields=["id", "name"],
        # All waiting runs share one reading of the list per interval.
        deferrable=True,
        poke_interval=timedelta(minutes=1),
        timeout=timedelta(hours=6),
    )
    phone_numbers = WhatsAppListWabaEdgeOperator(
        task_id="phone_numbers",
        waba_ids=shared.output,
        edge="phone_numbers",
        fields=["id", "display_phone_number"],
        retries=3,
    )

    @task
    def welcome(accounts: list[dict[str, Any]], numbers: list[dict[str, Any]]) -> str:
        return f"Welcome, {accounts[0].get('name', accounts[0]['id'])}, with {len(numbers)} phone numbers!"

    welcome(shared.output, phone_numbers.output)


welcome_shared_waba()
