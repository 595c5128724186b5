"""Welcomes each account that a client shares, without webhooks: an asset watches the list and starts this DAG.

Airflow stores what the watcher has seen, which needs version 3.3 and a running triggerer. Accounts that exist at the
first look are not new. All accounts that were added at once get one run, and their phone numbers one listing.

After a crash of the triggerer, a change can be reported twice (docs/changes.md), and a task can be retried. So it must
be safe to run `welcome` twice.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasChangeTrigger

CLIENT_WABAS = Asset(
    "whatsapp_client_wabas",
    watchers=[AssetWatcher(name="changes", trigger=WhatsAppWabasChangeTrigger(poke_interval=300))],
)


@dag(
    schedule=[CLIENT_WABAS],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={"retries": 3},
    tags=["whatsapp"],
)
def welcome_new_wabas() -> None:
    @task
    def added(triggering_asset_events: Any = None) -> list[str]:
        """Return the ids of the accounts that were added. A run can have several events."""
        ids: dict[str, None] = {}
        for event in triggering_asset_events[CLIENT_WABAS]:
            change = event.extra["payload"]["added"]
            if change["count"] > len(change["ids"]):
                # An event names at most 1,000 accounts. The others must not go unnoticed.
                raise RuntimeError(f"{change['count']} accounts were added, but the event names {len(change['ids'])}")
            ids.update(dict.fromkeys(change["ids"]))
        return list(ids)

    @task
    def welcome(waba_ids: list[str], numbers: list[dict[str, Any]]) -> list[str]:
        numbers_of: dict[str, list[str]] = {waba_id: [] for waba_id in waba_ids}
        for number in numbers:
            numbers_of[number["waba_id"]].append(number["display_phone_number"])
        return [f"Welcome, {waba_id}! Your numbers: {', '.join(own)}" for waba_id, own in numbers_of.items()]

    new = added()
    phone_numbers = WhatsAppListWabaEdgeOperator(
        task_id="phone_numbers", waba_ids=new, edge="phone_numbers", fields=["id", "display_phone_number"]
    )
    welcome(new, phone_numbers.output)


welcome_new_wabas()
