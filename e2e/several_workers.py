"""Checks on a CeleryExecutor with two workers that a list stays complete when one of them dies in the middle.

It starts PostgreSQL, Redis, an S3 server and all parts of Airflow on loopback, against its own sandbox, and prints a
table of what the tasks did.
"""

from __future__ import annotations

import json
import math
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from account_edges import read_numbers
from running_airflow import LIMIT, SECONDS_BETWEEN_PARTS, Airflow, dag_file, expect, kill, run_check, say, wait_until
from services import PostgreSQL, Redis

# The servers of the stores import their own neighbours.
sys.path.append(str(Path(__file__).parent / "stores"))

from servers import S3Store

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

ACCOUNTS, PAGE_SIZE = 3000, 100
PAGES = ACCOUNTS // PAGE_SIZE
WORKERS = ("worker-1", "worker-2")
# The API names its waits in whole minutes.
THROTTLED_AFTER, MINUTES = 12, 1
# Seconds that each answer takes in the listing whose worker is killed, and after how many pages that happens.
LATENCY, KILLED_AFTER = 0.5, 15
# A task whose worker does not report for this long is lost. Airflow's default is five minutes.
HEARTBEAT_TIMEOUT = 60
GOES_ON = "Resuming after"
MISSED_HEARTBEAT = "Detected a task instance without a heartbeat"
RUN, POOL = "checked", "whatsapp"
TASKS = {
    "everyday": f"""
        accounts = WhatsAppListWabasOperator(task_id="accounts", pool="{POOL}", **output("accounts"))
        WhatsAppListWabaEdgeOperator(
            task_id="phone_numbers", pool="{POOL}", waba_ids=accounts.output, edge="phone_numbers",
            **output("phone_numbers"),
        )
        WhatsAppWabasSensor(
            task_id="arrival", min_count={ACCOUNTS + 1}, deferrable=True, poke_interval=10, timeout={LIMIT},
            **output("arrival"),
        )
    """,
    "throttled": f"""
        WhatsAppListWabasOperator(
            task_id="resuming", pool="{POOL}", deferrable=True, max_wait_in_place=10, **output("resuming")
        )
    """,
    "killed": f"""
        WhatsAppListWabasOperator(task_id="retried", pool="{POOL}", **output("retried"))
    """,
}
OUTPUT = """
        def output(name):
            return {"output_path": "s3://lake/{{ dag.dag_id }}/" + name + ".ndjson", "output_conn_id": "lake"}
"""
RETRIES = 'schedule=None, default_args={"retries": 1, "retry_delay": timedelta(seconds=1)}'
HOSTNAME_FILE = """
import os
import socket

def name():
    return os.environ.get("NAME_OF_WORKER") or socket.gethostname()
"""


@dataclass
class Seen:
    """What a task did, a row of the printed table."""

    task: str
    tries: list[str] = field(default_factory=list)
    deferrals: int = 0
    seconds: int = 0
    calls: int = 0
    rows: int = 0
    result: str = ""


class Cluster:
    """All servers and the parts of an Airflow with several workers.

    :param airflow: an Airflow that is not started
    :param stack: what ends the servers
    """

    def __init__(self, airflow: Airflow, sandbox: GraphSandbox, stack: ExitStack) -> None:
        self.airflow = airflow
        self.sandbox = sandbox
        self.database = PostgreSQL()
        stack.callback(self.database.stop)
        redis = Redis()
        stack.callback(redis.stop)
        self.lake = S3Store()
        stack.callback(self.lake.stop)
        modules = airflow.home / "modules"
        modules.mkdir()
        (modules / "name_of_worker.py").write_text(HOSTNAME_FILE, encoding="utf-8")
        # The connections are in the database. A connection in the environment of each process would hide that.
        del airflow.env["AIRFLOW_CONN_WHATSAPP_DEFAULT"]
        airflow.env |= {
            "PYTHONPATH": str(modules),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__CELERY__BROKER_URL": redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{self.database.address}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "name_of_worker.name",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{self.database.address}",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        }
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        # Airflow ends before its servers. Otherwise its last lines would report their loss, and not what went wrong.
        stack.callback(self._stop_parts)

    def start(self) -> None:
        """Start all parts, and return when they are healthy and have their connections and their pool."""
        airflow = self.airflow
        expect(airflow.start("db", "migrate").wait(timeout=LIMIT) == 0, "the database cannot be created")
        say("PostgreSQL, Redis and S3 are running, and the database is created")
        for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
            self.parts[name] = airflow.start(name)
        for name in WORKERS:
            command = ("celery", "worker", "--celery-hostname", name, "--pid", str(airflow.home / f"{name}.pid"))
            # Both workers would serve their logs on the same port. The API server finds the files.
            self.parts[name] = airflow.start(*command, "--skip-serve-logs", env={"NAME_OF_WORKER": name})
        wait_until("both workers are ready", self._are_ready)
        airflow.wait_until_healthy()
        self._add_connection("whatsapp_default", json.loads(self.sandbox.connection))
        self._add_connection("lake", self.lake.direct_connection)
        # A task that waits for the rate limit keeps its slot. Otherwise another one would start and be throttled, too.
        pool = {"name": POOL, "slots": 1, "include_deferred": True}
        airflow.call("POST", "/api/v2/pools", pool)

    def run(self, dag_id: str, during: Callable[[dict[str, str]], None] | None = None) -> dict[str, Seen]:
        """Run a DAG to its end, and return what its tasks did.

        :param during: called again and again with the states of the tasks
        """
        airflow = self.airflow
        airflow.unpause(dag_id)
        airflow.trigger(dag_id, RUN)
        end = time.monotonic() + LIMIT
        before: dict[str, str] = {}
        deferrals: dict[str, int] = {}
        while not airflow.has_ended(dag_id, RUN):
            expect(time.monotonic() < end, f"the run of {dag_id} did not end in {LIMIT} s: {before}")
            states = airflow.states(dag_id, RUN)
            for task_id, now in states.items():
                if now == "deferred" and before.get(task_id) != now:
                    deferrals[task_id] = deferrals.get(task_id, 0) + 1
            before = states
            if during:
                during(states)
            time.sleep(0.3)
        expect(airflow.run_state(dag_id, RUN) == "success", f"the run of {dag_id} has failed")
        return {
            task["task_id"]: self._look_at(dag_id, task, deferrals.get(task["task_id"], 0))
            for task in airflow.task_instances(dag_id, RUN)
        }

    def rows(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        """Return the rows of the object that a task wrote, and check its manifest."""
        data = self.lake.read(f"{dag_id}/{task_id}.ndjson")
        expect(data is not None, f"there is no object of {task_id}")
        rows = [json.loads(line) for line in (data or b"").splitlines()]
        manifest = self.airflow.xcom(dag_id, RUN, task_id)
        expect(manifest["count"] == len(rows) and not manifest["truncated"], f"the manifest is {manifest}")
        left = set(self.lake.names(dag_id))
        parts = {name for name in left if ".airflow-parts" in name}
        expect(not parts, f"a checkpoint is left in the store: {parts}")
        return rows

    def _look_at(self, dag_id: str, task: dict[str, Any], deferrals: int) -> Seen:
        path = f"/api/v2/dags/{dag_id}/dagRuns/{RUN}/taskInstances/{task['task_id']}/tries"
        tries = self.airflow.call("GET", path)["task_instances"]
        started = [datetime.fromisoformat(one["start_date"]) for one in tries if one["start_date"]]
        lasted = datetime.fromisoformat(task["end_date"]) - min(started)
        return Seen(task["task_id"], [one["hostname"] for one in tries], deferrals, round(lasted.total_seconds()))

    def _stop_parts(self) -> None:
        if self.parts:
            kill(*(process.pid for process in self.parts.values()))

    def _are_ready(self) -> bool:
        ended = [name for name, process in self.parts.items() if process.poll() is not None]
        expect(not ended, f"these parts of Airflow have ended: {ended}")
        return self.airflow.output.read_bytes().count(b" ready.") >= len(WORKERS)

    def _add_connection(self, conn_id: str, connection: dict[str, Any]) -> None:
        body = {**connection, "connection_id": conn_id}
        if "extra" in body:
            body["extra"] = json.dumps(body["extra"])
        self.airflow.call("POST", "/api/v2/connections", body)


def check_several_workers(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Run all operators on two workers, kill one, and compare every object with the API."""
    with ExitStack() as stack:
        cluster = Cluster(airflow, sandbox, stack)
        cluster.start()
        seen = [*check_everyday(cluster), check_throttled(cluster), check_killed(cluster)]
        print_table(seen)
        leaks = cluster.database.holds(sandbox.token.encode())
        expect(not leaks, f"the access token is in the files {leaks} of PostgreSQL")
        airflow.expect_no_secret(sandbox.token)


def check_everyday(cluster: Cluster) -> list[Seen]:
    """A list, the phone numbers of its accounts, and a sensor that waits in the triggerer for one more account."""
    sandbox = cluster.sandbox
    known = [account["id"] for account in sandbox.accounts]

    def share_one_more(states: dict[str, str]) -> None:
        is_waiting = states.get("phone_numbers") == "success" and states.get("arrival") == "deferred"
        if is_waiting and len(sandbox.accounts) == ACCOUNTS:
            sandbox.accounts.append(dict(sandbox.accounts[0], id="999999999999999"))
            say("one more account is shared")

    seen = cluster.run("everyday", share_one_more)
    ids = [row["id"] for row in cluster.rows("everyday", "accounts")]
    expect(ids == known, "the list is not that of the API")
    numbers = [(row["waba_id"], row["id"]) for row in cluster.rows("everyday", "phone_numbers")]
    with GraphSandbox(accounts=ACCOUNTS) as twin:
        expected = [(waba_id, number["id"]) for waba_id in known for number in read_numbers(twin, waba_id)]
    expect(numbers == expected, "the phone numbers are not those of the API")
    arrived = [row["id"] for row in cluster.rows("everyday", "arrival")]
    expect(arrived == [account["id"] for account in sandbox.accounts], "the sensor's list is not that of the API")
    expect(seen["arrival"].deferrals >= 1, "the sensor was not deferred")
    calls = [request.path for request in sandbox.requests]
    of_accounts = sum(path.endswith("/phone_numbers") for path in calls)
    expect(of_accounts == ACCOUNTS, f"{of_accounts} calls for the phone numbers of {ACCOUNTS} accounts")
    seen["phone_numbers"].calls = of_accounts
    for name, rows in (("accounts", ids), ("phone_numbers", numbers), ("arrival", arrived)):
        seen[name].rows = len(rows)
        seen[name].result = "complete"
    seen["accounts"].calls = PAGES
    seen["arrival"].calls = len(calls) - of_accounts - PAGES
    return list(seen.values())


def check_throttled(cluster: Cluster) -> Seen:
    """A list that is throttled in the middle, releases its worker, and resumes at its last checkpoint."""
    sandbox = cluster.sandbox
    sandbox.reset()
    sandbox.fail_next(Fault.throttle(minutes=MINUTES).after(THROTTLED_AFTER))

    def look_at_the_pool(states: dict[str, str]) -> None:
        if states.get("resuming") == "deferred":
            pool = cluster.airflow.call("GET", f"/api/v2/pools/{POOL}")
            expect(pool["open_slots"] == 0, f"a slot of the pool is free during the wait: {pool}")

    seen = cluster.run("throttled", look_at_the_pool)["resuming"]
    ids = [row["id"] for row in cluster.rows("throttled", "resuming")]
    check_ids(sandbox, ids)
    expect(seen.deferrals == 1, f"the throttled task was deferred {seen.deferrals} times")
    seen.calls, seen.rows = len(sandbox.requests), len(ids)
    # The refused call, and the last page before the checkpoint, which the resumption asks for again.
    expect(seen.calls == pages_of(sandbox) + 2, f"the throttled list took {seen.calls} calls")
    seen.result = "complete; 1 call refused, 1 page again"
    return seen


def check_killed(cluster: Cluster) -> Seen:
    """A list whose worker dies in the middle, and which another worker resumes."""
    sandbox, airflow = cluster.sandbox, cluster.airflow
    sandbox.reset()
    sandbox.latency = LATENCY
    killed: dict[str, Any] = {}

    def kill_in_the_middle(states: dict[str, str]) -> None:
        if not killed and len(sandbox.requests) >= KILLED_AFTER:
            (task,) = airflow.task_instances("killed", RUN)
            processes = kill(cluster.parts[task["hostname"]].pid)
            killed.update(worker=task["hostname"], calls=len(sandbox.requests), at=time.monotonic())
            say(f"{task['hostname']} with {processes} processes is killed after {killed['calls']} calls")
        elif killed and "noticed" not in killed and states.get("retried") not in {"running", None}:
            killed["noticed"] = time.monotonic() - killed["at"]
            say(f"the task is {states['retried']} {killed['noticed']:.0f} s after its worker was killed")

    seen = cluster.run("killed", kill_in_the_middle)["retried"]
    expect(bool(killed), "the listing was over before its worker was killed")
    expect(len(seen.tries) == 2, f"the killed task had {len(seen.tries)} tries")
    expect(set(seen.tries) == set(WORKERS), f"the tries were on {seen.tries}")
    ids = [row["id"] for row in cluster.rows("killed", "retried")]
    check_ids(sandbox, ids)
    seen.calls, seen.rows = len(sandbox.requests), len(ids)
    again = seen.calls - pages_of(sandbox)
    # The pages since the last checkpoint, the one in flight, the one that was being written, and the one that the retry
    # checks.
    expect(1 <= again <= SECONDS_BETWEEN_PARTS / LATENCY + 3, f"{again} pages were read again after the kill")
    log = airflow.log("killed", RUN, "retried", try_number=2)
    expect(GOES_ON in log, f"the log of the retry does not say that it resumes: {log}")
    printed = airflow.output.read_text(encoding="utf-8", errors="replace")
    expect(MISSED_HEARTBEAT in printed, "the scheduler says nothing of a missing heartbeat")
    seen.result = f"complete; lost worker noticed after {killed.get('noticed', math.nan):.0f} s, {again} pages again"
    return seen


def pages_of(sandbox: GraphSandbox) -> int:
    """Return the number of pages that the list of accounts has."""
    return math.ceil(len(sandbox.accounts) / PAGE_SIZE)


def check_ids(sandbox: GraphSandbox, ids: list[str]) -> None:
    """Raise an error if the ids are not those of all accounts, in the order of the API."""
    expect(ids == [account["id"] for account in sandbox.accounts], "the list is not that of the API")


def print_table(seen: list[Seen]) -> None:
    """Print what the tasks did."""
    header = ("task", "tries on", "deferrals", "seconds", "calls", "rows", "result")
    lines = [
        (one.task, ", ".join(one.tries), *map(str, (one.deferrals, one.seconds, one.calls, one.rows)), one.result)
        for one in seen
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in (header, tuple("-" * width for width in widths), *lines):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |", flush=True)


if __name__ == "__main__":
    dags = {dag_id: dag_file(dag_id, OUTPUT + tasks, RETRIES) for dag_id, tasks in TASKS.items()}
    run_check(check_several_workers, GraphSandbox(accounts=ACCOUNTS), dags)
