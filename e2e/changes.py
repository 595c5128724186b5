"""Checks in a real scheduler and triggerer that an asset that watches the accounts of a business reports every change.

It starts ``airflow standalone`` 3.3 or later on SQLite, against its own sandbox. Accounts are added, removed and
changed, the triggerer is killed and restarted, and an account is added while it is down. Each change must start one run
of a DAG that is scheduled on the asset, with the ids in the event.
"""

from __future__ import annotations

import time
from typing import Any

from deferral import kill_triggerer
from running_airflow import Airflow, dag_file, expect, run_check, say, wait_until

from airflow_provider_whatsapp.sandbox import GraphSandbox

DAG_ID = "reported_changes"
WATCHER = """schedule=Asset("shared_accounts", watchers=[AssetWatcher(
    name="changes", trigger=WhatsAppWabasChangeTrigger(watch_fields="name", poke_interval=2),
)])"""
TASKS = """
@task
def changes(triggering_asset_events=None):
    return [event.extra for events in triggering_asset_events.values() for event in events]

changes()
"""


def check_changes(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Make changes, and look at the runs that they start."""
    airflow.start_standalone()
    airflow.unpause(DAG_ID)
    wait_until("the listing was read twice", lambda: len(sandbox.requests) >= 6)
    time.sleep(5)
    expect(not reported(airflow), "the first reading is reported as a change")

    new, gone, renamed = {**sandbox.accounts[0], "id": "7000000000000001"}, sandbox.accounts[5], sandbox.accounts[7]
    sandbox.accounts.append(new)
    expect_reported(airflow, 1, added=[new["id"]])
    sandbox.accounts.remove(gone)
    expect_reported(airflow, 2, removed=[gone["id"]])
    renamed["name"] = "Another name"
    # A change of a field that is not watched is none.
    sandbox.accounts[9]["currency"] = "XXX"
    expect_reported(airflow, 3, changed=[renamed["id"]])

    # A change whose event was just sent is reported again after a restart.
    wait_until("the last change is stored", lambda: stored_version(airflow) == 4)
    kill_triggerer()
    later = {**new, "id": "7000000000000002"}
    sandbox.accounts.append(later)
    airflow.start("triggerer")
    expect_reported(airflow, 4, added=[later["id"]])
    ids = [event["change_id"] for event in reported(airflow)]
    expect(len(set(ids)) == len(ids) == 4, f"the ids of the changes are {ids}")
    airflow.expect_no_secret(sandbox.token)


def reported(airflow: Airflow) -> list[dict[str, Any]]:
    """Return the payloads of the events that have started runs, the oldest first."""
    done = [run["dag_run_id"] for run in airflow.runs(DAG_ID) if run["state"] == "success"]
    return [event["payload"] for run_id in done for event in airflow.xcom(DAG_ID, run_id, "changes")]


def stored_version(airflow: Airflow) -> int:
    """Return how many states the watcher has seen by what it has stored. The first one is the baseline."""
    (asset,) = airflow.call("GET", "/api/v2/assets")["assets"]
    states = airflow.call("GET", f"/api/v2/assets/{asset['id']}/state-store")["asset_state_store"]
    return max((int(state["value"]["version"]) for state in states), default=0)


def expect_reported(airflow: Airflow, count: int, **ids: list[str]) -> None:
    """Wait for one more event, and check the ids in it."""
    began = time.monotonic()
    wait_until(f"change {count} is reported", lambda: len(reported(airflow)) >= count)
    event = reported(airflow)[count - 1]
    kinds = ("added", "removed", "changed")
    found = {kind: event[kind]["ids"] for kind in kinds}
    expect(found == {kind: ids.get(kind, []) for kind in kinds}, f"the event has {found}")
    say(f"change {count}, {', '.join(ids)}: a run after {time.monotonic() - began:.0f} s, {event['change_id']}")


if __name__ == "__main__":
    run_check(check_changes, GraphSandbox(accounts=250), {DAG_ID: dag_file(DAG_ID, TASKS, WATCHER)})
