"""Checks in a real triggerer that deferred sensors share readings, write logs and survive the end of the triggerer.

It starts ``airflow standalone`` on SQLite, against its own sandbox.
"""

from __future__ import annotations

import time

from running_airflow import LIMIT, Airflow, dag_file, expect, find_processes, kill, run_check, say, wait_until

from airflow_provider_whatsapp.sandbox import GraphSandbox

INTERVAL = 5
WATCHED_FOR = 20
RUNS = [f"wait_{number}" for number in range(1, 6)]
NEWCOMER = {"id": "777000111222333", "name": "Café Newcomer"}
DAG = "deferral"
TASKS = f"""
shared = WhatsAppWabasSensor(
    task_id="shared", waba_ids=["{NEWCOMER["id"]}"], fields="id,name", deferrable=True, poke_interval={INTERVAL},
    timeout={LIMIT},
)

@task
def name(accounts):
    return accounts[0]["name"]

name(shared.output)
"""
# The REST API does not show the arguments of triggers, and the database holds them encrypted. Airflow's model decrypts
# them.
PRINT_DEADLINES = """
import json
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
with create_session() as session:
    print(json.dumps({trigger.id: trigger.kwargs["clock"]["deadline"] for trigger in session.query(Trigger)}))
"""


def check_deferral(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Defer five runs, kill and replace their triggerer, add the account, and check what the runs got."""
    airflow.start_standalone()
    airflow.unpause(DAG)
    for run_id in RUNS:
        airflow.trigger(DAG, run_id)
    wait_until(f"{len(RUNS)} sensors are deferred", lambda: all_deferred(airflow))

    wait_for_readings(sandbox, 2)
    began = time.monotonic()
    seen = count_readings(sandbox, WATCHED_FOR)
    lasted = time.monotonic() - began
    say(f"{seen} readings in {lasted:.0f} s for {len(RUNS)} waits that look every {INTERVAL} s")
    expect(seen <= lasted / INTERVAL + 1, "readings are not shared")

    deadlines = deadlines_of(airflow)
    expect(len(deadlines) == len(RUNS), f"{len(deadlines)} triggers for {len(RUNS)} runs")
    kill_triggerer()
    expect(count_readings(sandbox, 2 * INTERVAL) == 0, "somebody reads although the triggerer was killed")
    expect(all_deferred(airflow), "tasks are no longer deferred after the triggerer was killed")
    say("the triggerer is killed: nobody reads, all sensors are still deferred")
    airflow.start("triggerer")
    wait_for_readings(sandbox, 2)
    expect(all_deferred(airflow), "tasks are no longer deferred under the new triggerer")
    expect(deadlines_of(airflow) == deadlines, "the deadlines moved")
    say("the new triggerer reads on, towards the same deadlines")

    sandbox.accounts.append(dict(NEWCOMER))
    airflow.wait_for_success(DAG, *RUNS)
    for run_id in RUNS:
        got = airflow.xcom(DAG, run_id, "shared"), airflow.xcom(DAG, run_id, "name")
        expect(got == ([NEWCOMER], NEWCOMER["name"]), f"{run_id} has something else in XCom: {got}")
        log = airflow.log(DAG, run_id, "shared")
        for line in (
            f"0 accounts match; condition not met yet: {NEWCOMER['id']} is not shared - looking",
            "1 accounts match; condition met",
        ):
            expect(line in log, f"the log of {run_id} does not say: {line}")
    say("every run has the one account in XCom that it waited for, and the log of its task reports the wait")
    airflow.expect_no_secret(sandbox.token)


def all_deferred(airflow: Airflow) -> bool:
    """Return whether the sensor of every run is deferred."""
    states = [task["state"] for task in airflow.task_instances(DAG) if task["task_id"] == "shared"]
    expect("failed" not in states, f"the sensors are {states}")
    return states == ["deferred"] * len(RUNS)


def deadlines_of(airflow: Airflow) -> dict[str, float]:
    """Return the deadlines of the triggers in the database in unix seconds, by the id of the trigger."""
    deadlines: dict[str, float] = airflow.read_database(PRINT_DEADLINES)
    return deadlines


def readings(sandbox: GraphSandbox) -> int:
    """Return how often the listing was started. Later pages do not count."""
    return sum("after" not in request.params for request in sandbox.requests)


def count_readings(sandbox: GraphSandbox, seconds: float) -> int:
    """Return how often the listing is started within some seconds from now."""
    before = readings(sandbox)
    time.sleep(seconds)
    return readings(sandbox) - before


def wait_for_readings(sandbox: GraphSandbox, count: int) -> None:
    """Return after ``count`` more readings."""
    enough = readings(sandbox) + count
    wait_until(f"{count} more readings", lambda: readings(sandbox) >= enough)


def kill_triggerer() -> None:
    """Kill the triggerer with all its child processes, as the failure of its machine would."""
    kill(*find_processes("airflow triggerer"))
    # Requests that it sent before may still arrive.
    time.sleep(10)


if __name__ == "__main__":
    run_check(check_deferral, GraphSandbox(accounts=150), {DAG: dag_file(DAG, TASKS)})
