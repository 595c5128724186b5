"""Checks in a real scheduler what Airflow and OpenLineage record of an export, and the run that its asset starts.

It starts ``airflow standalone`` on SQLite, against its own sandbox. A DAG exports the accounts to an object that is an
asset, and to one that belongs to an alias. A second DAG, which the asset starts, exports to a path of its day; such a
run has no logical date. Its task is then cleared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from running_airflow import Airflow, dag_file, expect, run_check, say, wait_until

from airflow_provider_whatsapp.sandbox import GraphSandbox

EXPORT, FOLLOW = "export_accounts", "follow_the_asset"
ACCOUNTS = 250


EXPORT_TASKS = """
WhatsAppListWabasOperator(
    task_id="to_asset", fields="id,name", output_path=f"{LAKE}/accounts.ndjson", outlets=[Asset("accounts")]
) >> WhatsAppListWabasOperator(
    task_id="to_alias", fields="id,name", output_path=LAKE + "/alias/{{ run_id }}.ndjson",
    outlets=[AssetAlias("all_accounts")],
)
"""
FOLLOW_TASKS = """
WhatsAppListWabasOperator(
    task_id="export", fields="id", output_path=LAKE + "/by_day/ds={{ dag_run.run_after | ds }}/wabas.ndjson"
)
"""


def check_lineage(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Export the accounts, and compare what was recorded with the manifests."""
    lake, lineage = airflow.lake, airflow.home / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(lineage), "append": True}
    airflow.env |= {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "e2e",
    }
    airflow.start_standalone()
    for dag_id in (EXPORT, FOLLOW):
        airflow.unpause(dag_id)
    airflow.trigger(EXPORT, "first")
    airflow.wait_for_success(EXPORT, "first")

    events = airflow.call("GET", "/api/v2/assets/events")["asset_events"]
    recorded = {event["source_task_id"]: event for event in events}
    expect(len(events) == len(recorded) == 2, f"the asset events are {events}")
    for task_id, event in recorded.items():
        manifest = airflow.xcom(EXPORT, "first", task_id)
        extra = {key: value for key, value in event["extra"].items() if key in manifest}
        expect(extra == manifest and manifest["count"] == ACCOUNTS, f"the extra of {task_id} is {event['extra']}")
    say(f"the extra of the asset event is the manifest: {json.dumps(recorded['to_asset']['extra'])}")
    uri = airflow.call("GET", f"/api/v2/assets/{recorded['to_alias']['asset_id']}")["uri"]
    expect(uri == airflow.xcom(EXPORT, "first", "to_alias")["uri"], f"the asset of the alias is {uri}")
    say(f"the asset of the alias is {uri}")

    for task_id in recorded:
        check_event(lineage, task_id, airflow.xcom(EXPORT, "first", task_id), sandbox)

    wait_until("the asset has started a run", lambda: len(airflow.runs(FOLLOW)) == 1)
    (run,) = airflow.runs(FOLLOW)
    expect(run["run_type"] == "asset_triggered" and run["logical_date"] is None, f"the run is {run}")
    run_id, day = run["dag_run_id"], run["run_after"][:10]
    airflow.wait_for_success(FOLLOW, run_id)
    (written,) = (lake / "by_day").rglob("wabas.ndjson")
    expect(written.parent.name == f"ds={day}", f"{written} is not of {day}")
    say(f"the run that the asset started has no logical date and wrote {written.relative_to(lake)}")

    before = written.read_bytes()
    del sandbox.accounts[0]
    airflow.call(
        "POST",
        f"/api/v2/dags/{FOLLOW}/clearTaskInstances",
        {"dag_run_id": run_id, "dry_run": False, "only_failed": False},
    )
    wait_until("the cleared task has written its object again", lambda: written.read_bytes() != before)
    airflow.wait_for_success(FOLLOW, run_id)
    (again,) = (lake / "by_day").rglob("wabas.ndjson")
    expect(again == written, f"the cleared task wrote {again}")
    expect(len(again.read_bytes().splitlines()) == ACCOUNTS - 1, "the cleared task did not list the accounts again")
    airflow.expect_no_secret(sandbox.token)


def check_event(file: Path, task_id: str, manifest: dict[str, Any], sandbox: GraphSandbox) -> None:
    """Check the event that OpenLineage got when a task had succeeded."""

    def completed() -> list[dict[str, Any]]:
        events = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        name = f"{EXPORT}.{task_id}"
        return [event for event in events if event["eventType"] == "COMPLETE" and event["job"]["name"] == name]

    wait_until(f"OpenLineage has the end of {task_id}", lambda: len(completed()) == 1)
    (event,) = completed()
    (read,), (written,) = event["inputs"], event["outputs"]
    edge = f"{sandbox.business_id}/client_whatsapp_business_accounts"
    expect((read["namespace"], read["name"]) == ("https://graph.facebook.com", edge), f"read was {read}")
    address = ("file", manifest["uri"].removeprefix("file://"))
    expect((written["namespace"], written["name"]) == address, f"written was {written}")
    columns = [field["name"] for field in written["facets"]["schema"]["fields"]]
    statistics = written["outputFacets"]["outputStatistics"]
    expect(columns == ["id", "name"], f"the columns are {columns}")
    expect((statistics["rowCount"], statistics["size"]) == (manifest["count"], manifest["bytes"]), str(statistics))
    say(f"{task_id}: {read['namespace']}/{read['name']} -> {written['name']}, {columns}, {statistics['rowCount']} rows")


if __name__ == "__main__":
    dags = {
        EXPORT: dag_file(EXPORT, EXPORT_TASKS),
        FOLLOW: dag_file(FOLLOW, FOLLOW_TASKS, 'schedule=[Asset("accounts")]'),
    }
    run_check(check_lineage, GraphSandbox(accounts=ACCOUNTS), dags)
