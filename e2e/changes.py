"""Checks in a real scheduler and triggerer that an asset that watches the accounts of a business tells every change.

It starts ``airflow standalone`` on SQLite in a temporary folder, against its own sandbox, and takes some four minutes.
Accounts are added, removed and changed, the triggerer is killed and restarted, and an account is added while it is
down. Each change must start one run of a DAG that is scheduled on the asset, with the ids in the event. It needs
Airflow 3.3 and no network beyond loopback, and it runs on Linux only.
"""

from __future__ import annotations

import time
from typing import Any

from deferral import kill_triggerer
from running_airflow import Airflow, expect, run_check, say, wait_until

from airflow_provider_whatsapp.sandbox import GraphSandbox

DAG_ID = "told_of_changes"
DAG_FILE = f"""
from airflow.sdk import Asset, AssetWatcher, dag, task
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasChangeTrigger

accounts = Asset("shared_accounts", watchers=[AssetWatcher(
    name="changes", trigger=WhatsAppWabasChangeTrigger(watch_fields="name", poke_interval=2),
)])

@dag(schedule=[accounts])
def {DAG_ID}():
    @task
    def changes(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[accounts]]

    changes()

{DAG_ID}()
"""


def main() -> None:
    """Run the check, and exit with a message if it fails."""
    # Seconds until another triggerer takes over from one that was killed.
    settings = {
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    }
    run_check(check_changes, GraphSandbox(accounts=250), {DAG_ID: DAG_FILE}, settings)


def check_changes(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Make changes, and look at the runs that they start."""
    airflow.start_standalone()
    airflow.unpause(DAG_ID)
    wait_until("the listing was read twice", lambda: len(sandbox.requests) >= 6)
    time.sleep(5)
    expect(not told(airflow), "the first reading is told as a change")

    new, gone, renamed = {**sandbox.accounts[0], "id": "7000000000000001"}, sandbox.accounts[5], sandbox.accounts[7]
    sandbox.accounts.append(new)
    expect_told(airflow, 1, added=[new["id"]])
    sandbox.accounts.remove(gone)
    expect_told(airflow, 2, removed=[gone["id"]])
    renamed["name"] = "Another name"
    # A change of a field that is not watched is none.
    sandbox.accounts[9]["currency"] = "XXX"
    expect_told(airflow, 3, changed=[renamed["id"]])

    time.sleep(35)
    kill_triggerer()
    later = {**new, "id": "7000000000000002"}
    sandbox.accounts.append(later)
    time.sleep(5)
    airflow.start("triggerer")
    expect_told(airflow, 4, added=[later["id"]])
    ids = [event["change_id"] for event in told(airflow)]
    expect(len(set(ids)) == len(ids) == 4, f"the ids of the changes are {ids}")
    airflow.expect_no_token(sandbox)


def told(airflow: Airflow) -> list[dict[str, Any]]:
    """What the events said that runs were started with, the oldest first."""
    runs = airflow.call("GET", f"/api/v2/dags/{DAG_ID}/dagRuns?order_by=run_after")["dag_runs"]
    done = [run["dag_run_id"] for run in runs if run["state"] == "success"]
    return [event["payload"] for run_id in done for event in airflow.xcom(DAG_ID, run_id, "changes")]


def expect_told(airflow: Airflow, count: int, **ids: list[str]) -> None:
    """Wait for one more event, and check the ids in it."""
    began = time.monotonic()
    wait_until(f"change {count} is told", lambda: len(told(airflow)) >= count)
    event = told(airflow)[count - 1]
    kinds = ("added", "removed", "changed")
    found = {kind: event[kind]["ids"] for kind in kinds}
    expect(found == {kind: ids.get(kind, []) for kind in kinds}, f"told was {found}")
    say(f"change {count}, {', '.join(ids)}: a run after {time.monotonic() - began:.0f} s, {event['change_id']}")


if __name__ == "__main__":
    main()
