"""Checks in a real triggerer that deferred sensors share readings, write logs and survive the end of the triggerer.

It starts ``airflow standalone`` on SQLite in a temporary folder, against its own sandbox. It needs no network beyond
loopback, and it runs on Linux only.
"""

from __future__ import annotations

import os
import signal
import time

from running_airflow import Airflow, descendants, expect, run_check, say, send, wait_until

from airflow_provider_whatsapp.sandbox import GraphSandbox

INTERVAL = 5
WATCHED_FOR = 20
RUNS = [f"wait_{number}" for number in range(1, 6)]
NEWCOMER = {"id": "777000111222333", "name": "Café Newcomer"}
DAG = "deferral"
DAG_FILE = f"""
from airflow.sdk import Param, dag, task
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

@dag(schedule=None, params={{"waba_id": Param("", type="string")}})
def deferral():
    shared = WhatsAppWabasSensor(
        task_id="shared", waba_ids=["{{{{ params.waba_id }}}}"], fields="id,name", deferrable=True,
        poke_interval={INTERVAL}, timeout=300,
    )

    @task
    def name(accounts):
        return accounts[0]["name"]

    name(shared.output)

deferral()
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


def main() -> None:
    """Run the check, and exit with a message if it fails."""
    # Seconds until another triggerer takes over from one that was killed.
    settings = {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15"}
    run_check(check_deferral, GraphSandbox(accounts=150), {DAG: DAG_FILE}, settings)


def check_deferral(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Defer five runs, kill and replace their triggerer, add the account, and check what the runs got."""
    airflow.start_standalone()
    airflow.unpause(DAG)
    for run_id in RUNS:
        airflow.trigger(DAG, run_id, {"waba_id": NEWCOMER["id"]})
    wait_until(f"{len(RUNS)} sensors are deferred", lambda: all_deferred(airflow))

    wait_for_readings(sandbox, 2)
    seen = count_readings(sandbox, WATCHED_FOR)
    say(f"{seen} readings in {WATCHED_FOR} s for {len(RUNS)} waits that look every {INTERVAL} s")
    expect(1 < seen <= WATCHED_FOR / INTERVAL + 1, "readings are not shared, or there are none")

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
    wait_until("the account came and all runs succeeded", lambda: all_succeeded(airflow))
    for run_id in RUNS:
        got = airflow.xcom(DAG, run_id, "shared"), airflow.xcom(DAG, run_id, "name")
        expect(got == ([NEWCOMER], NEWCOMER["name"]), f"{run_id} has something else in XCom: {got}")
        log = airflow.log(DAG, run_id, "shared")
        for line in (
            "0 accounts match; condition not met yet - looking",
            "1 accounts match; condition met",
        ):
            expect(line in log, f"the log of {run_id} does not say: {line}")
    say("every run has the one account in XCom that it waited for, and the log of its task tells of the wait")
    airflow.expect_no_token(sandbox)


def all_deferred(airflow: Airflow) -> bool:
    """Whether the sensor of every run is deferred."""
    tasks = airflow.task_instances(DAG)
    return all_are("deferred", [task["state"] for task in tasks if task["task_id"] == "shared"])


def all_succeeded(airflow: Airflow) -> bool:
    """Whether every run has succeeded."""
    return all_are("success", [airflow.run_state(DAG, run_id) for run_id in RUNS])


def deadlines_of(airflow: Airflow) -> dict[str, float]:
    """The deadlines of the triggers in the database in unix seconds, by the id of the trigger."""
    deadlines: dict[str, float] = airflow.read_database(PRINT_DEADLINES)
    return deadlines


def readings(sandbox: GraphSandbox) -> int:
    """The number of times that the listing was started. Later pages do not count."""
    return sum("after" not in request.params for request in sandbox.requests)


def count_readings(sandbox: GraphSandbox, seconds: float) -> int:
    """The number of readings within some seconds from now."""
    before = readings(sandbox)
    time.sleep(seconds)
    return readings(sandbox) - before


def wait_for_readings(sandbox: GraphSandbox, count: int) -> None:
    """Return after ``count`` more readings."""
    enough = readings(sandbox) + count
    wait_until(f"{count} more readings", lambda: readings(sandbox) >= enough)


def all_are(state: str, states: list[str]) -> bool:
    """Whether all of the states are this one; raises an error if one of them is ``failed``."""
    expect("failed" not in states, f"waiting for {state}, but found {states}")
    return states == [state] * len(RUNS)


def kill_triggerer() -> None:
    """Kill the triggerer with all its child processes, as the failure of its machine would."""
    triggerers = [pid for pid, command in descendants(os.getpid()).items() if "airflow triggerer" in command]
    expect(bool(triggerers), "no triggerer was found")
    send(signal.SIGKILL, {pid for triggerer in triggerers for pid in (triggerer, *descendants(triggerer))})
    # Requests that it sent before may still arrive.
    time.sleep(1)


if __name__ == "__main__":
    main()
