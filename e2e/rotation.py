"""Checks in a real Airflow that tasks go on with new credentials, and that a short quota lets all of them finish.

It starts ``airflow standalone`` on SQLite, against two sandboxes: one whose credentials are rotated, and one with a
quota that is shorter than a listing. The connections are in Airflow's database, and changed with its REST API.
"""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial

from running_airflow import LIMIT, Airflow, dag_file, expect, run_check, say, wait_until

from airflow_provider_whatsapp.sandbox import GraphSandbox

PAGES, PAGE_SIZE = 24, 100
ACCOUNTS = PAGES * PAGE_SIZE
# Seconds that each answer takes until the credentials are rotated. Otherwise an export would be over before.
LATENCY = 2.0
# Fewer calls than the listing has pages. The API names its waits in whole minutes, so a shorter hour would not help.
CALLS_PER_HOUR, HOUR = 20, timedelta(minutes=1)
CONNECTION, SLOW_CONNECTION = "whatsapp_default", "whatsapp_slow"
NEWCOMER = {"id": "777000111222333", "name": "Café Newcomer"}
EXPORT, SENSOR, SLOW = "export", "sensor", "slow"
# Arguments of the DAGs, by which their tasks use a connection. No try may be needed but the first.
ARGUMENTS = 'schedule=None, default_args={{"whatsapp_conn_id": "{conn_id}", "retries": 1}}'
EXPORT_TASK = f"""
WhatsAppListWabasOperator(
    task_id="{EXPORT}", fields="id,name", page_size={PAGE_SIZE}, output_path=LAKE + "/{{{{ run_id }}}}.ndjson",
    deferrable=True, max_wait_in_place=10, max_usage=100,
)
"""
SENSOR_TASK = f"""
WhatsAppWabasSensor(
    task_id="{SENSOR}", fields="id,name", page_size={PAGE_SIZE}, deferrable=True, poke_interval=5, timeout={LIMIT},
    %s,
)
"""
# Exports list the accounts of clients, so that the calls of this sensor can be told from theirs.
WAITS_FOR_NEWCOMER = f'relationship="owned", waba_ids="{NEWCOMER["id"]}"'
# Below `max_usage=100`, the header names no time, for which a look waits five minutes.
WAITS_FOR_ALL = f"min_count={ACCOUNTS}, max_usage=100"


def check_rotation(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Rotate token and app secret under exports and a deferred sensor, delete the connection, and use up a quota."""
    # A connection in the environment would hide the one in the database.
    del airflow.env["AIRFLOW_CONN_WHATSAPP_DEFAULT"]
    airflow.start_standalone()
    for dag_id in (EXPORT, SENSOR, SLOW):
        airflow.unpause(dag_id)
    with GraphSandbox(accounts=ACCOUNTS, calls_per_hour=CALLS_PER_HOUR, hour=HOUR) as slow:
        create_connection(airflow, SLOW_CONNECTION, slow)
        airflow.trigger(SLOW, SLOW)
        check_credentials(airflow, sandbox)
        airflow.wait_for_success(SLOW, SLOW)
        refused = sum(request.status != 200 for request in slow.requests)
        say(f"{CALLS_PER_HOUR} calls a minute: {len(slow.requests)} for lists of {PAGES} pages, {refused} too many")
        expect_whole_at_first_try(airflow, slow, SLOW, SLOW)
        expect(len(airflow.xcom(SLOW, SLOW, SENSOR)) == ACCOUNTS, "the sensor did not return every account")
        airflow.expect_no_secret(sandbox.token, str(sandbox.app_secret), slow.token)


def check_credentials(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Rotate token and app secret under exports and a deferred sensor, and delete the connection of another one."""
    create_connection(airflow, CONNECTION, sandbox)
    defer_sensor(airflow, sandbox, "rotated")
    old = []
    for name in ("token", "app_secret"):
        calls, sandbox.latency = len(sandbox.requests), LATENCY
        airflow.trigger(EXPORT, name)
        wait_until(f"the export {name} reads", lambda: len(of_edge(sandbox, "client", calls)) >= 3)  # noqa: B023
        old.append(getattr(sandbox, name))
        rotate(airflow, sandbox, name)
        calls, sandbox.latency = len(sandbox.requests), 0.0
        airflow.wait_for_success(EXPORT, name)
        expect(count_refused(sandbox, "client", calls) == 1, f"the export was not refused once with the old {name}")
        expect_whole_at_first_try(airflow, sandbox, EXPORT, name)
        wait_until("the sensor has looked again", lambda: of_edge(sandbox, "owned", calls)[-1:] == [200])  # noqa: B023
        # None if it has just read the connection, which it does every five minutes.
        refused = count_refused(sandbox, "owned", calls)
        expect(refused <= 1, f"the sensor looked {refused} times with the old {name}")
        say(f"{name}: the export was refused once, the sensor {refused} times, and both went on")

    expect(airflow.states(SENSOR, "rotated") == {SENSOR: "deferred"}, "the sensor does not wait any more")
    sandbox.owned_accounts.append(dict(NEWCOMER))
    airflow.wait_for_success(SENSOR, "rotated")
    expect(airflow.xcom(SENSOR, "rotated", SENSOR) == [NEWCOMER], "the sensor returned something else")
    expect_first_try(airflow, SENSOR, "rotated")

    sandbox.owned_accounts.pop()
    defer_sensor(airflow, sandbox, "orphaned")
    expect(airflow.start("connections", "delete", CONNECTION).wait(LIMIT) == 0, "the connection cannot be deleted")
    # The trigger reads the connection every five minutes, and after a look that failed.
    old.append(sandbox.token)
    sandbox.token = f"{sandbox.token}X"
    wait_until("the orphaned sensor has ended", partial(airflow.has_ended, SENSOR, "orphaned"))
    expect(airflow.states(SENSOR, "orphaned") == {SENSOR: "failed"}, "the sensor without a connection has not failed")
    expect_first_try(airflow, SENSOR, "orphaned")
    expect("there is no connection" in airflow.log(SENSOR, "orphaned", SENSOR), "the log does not say why")
    airflow.expect_no_secret(*old)


def create_connection(airflow: Airflow, conn_id: str, sandbox: GraphSandbox) -> None:
    """Store the connection to a sandbox in Airflow's database."""
    airflow.call("POST", "/api/v2/connections", connection_to(sandbox, conn_id))


def connection_to(sandbox: GraphSandbox, conn_id: str) -> dict[str, str]:
    """Return the connection to a sandbox, for the REST API."""
    connection = json.loads(sandbox.connection)
    return {**connection, "connection_id": conn_id, "extra": json.dumps(connection["extra"])}


def rotate(airflow: Airflow, sandbox: GraphSandbox, name: str) -> None:
    """Put a new token or app secret into the connection, and let the sandbox refuse the old one.

    :param name: ``"token"`` or ``"app_secret"``
    """
    old = getattr(sandbox, name)
    new = old[::-1] if name == "app_secret" else f"{old[:-8]}Rotated1"
    connection = json.dumps(connection_to(sandbox, CONNECTION)).replace(old, new)
    airflow.call("PATCH", f"/api/v2/connections/{CONNECTION}", json.loads(connection))
    setattr(sandbox, name, new)


def defer_sensor(airflow: Airflow, sandbox: GraphSandbox, run_id: str) -> None:
    """Start a run of the sensor, and return when its trigger has looked."""
    airflow.trigger(SENSOR, run_id)
    wait_until(f"the sensor {run_id} is deferred", lambda: airflow.states(SENSOR, run_id) == {SENSOR: "deferred"})
    calls = len(sandbox.requests)
    wait_until("its trigger has looked", lambda: bool(of_edge(sandbox, "owned", calls)))


def of_edge(sandbox: GraphSandbox, relationship: str, since: int) -> list[int | None]:
    """Return the statuses of the calls for ``"client"`` or ``"owned"`` accounts after the first ``since`` calls."""
    return [request.status for request in sandbox.requests[since:] if f"/{relationship}_whatsapp" in request.path]


def count_refused(sandbox: GraphSandbox, relationship: str, since: int) -> int:
    """Return how many of these calls were refused."""
    return sum(status != 200 for status in of_edge(sandbox, relationship, since))


def expect_whole_at_first_try(airflow: Airflow, sandbox: GraphSandbox, dag_id: str, run_id: str) -> None:
    """Raise an error if the object of an export lacks accounts, or a task of the run needed a second try."""
    expect_first_try(airflow, dag_id, run_id)
    with (airflow.lake / f"{run_id}.ndjson").open(encoding="utf-8") as rows:
        ids = [json.loads(row)["id"] for row in rows]
    expect(ids == [account["id"] for account in sandbox.accounts], f"the object of {run_id} is not the list of the API")
    say(f"{run_id}: all {len(ids)} accounts in order, at the first try")


def expect_first_try(airflow: Airflow, dag_id: str, run_id: str) -> None:
    """Raise an error if a task of the run needed a second try."""
    tries = {task["task_id"]: task["try_number"] for task in airflow.task_instances(dag_id, run_id)}
    expect(set(tries.values()) == {1}, f"the tries of {dag_id}, {run_id} are {tries}")


if __name__ == "__main__":
    fast, slow = (ARGUMENTS.format(conn_id=conn_id) for conn_id in (CONNECTION, SLOW_CONNECTION))
    dags = {
        EXPORT: dag_file(EXPORT, EXPORT_TASK, fast),
        SENSOR: dag_file(SENSOR, SENSOR_TASK % WAITS_FOR_NEWCOMER, fast),
        SLOW: dag_file(SLOW, EXPORT_TASK + SENSOR_TASK % WAITS_FOR_ALL, slow),
    }
    run_check(check_rotation, GraphSandbox(accounts=ACCOUNTS, app_secret="5ec4e7" * 5 + "ab"), dags)
