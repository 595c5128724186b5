"""Checks in a real scheduler and triggerer that a throttled or killed listing goes on behind its last kept page.

It starts ``airflow standalone`` on SQLite in a temporary folder, against its own sandbox, and takes about ten minutes.
The first argument is the seed of the moments of the kills; a random one is printed by default. It needs no network
beyond loopback, and it runs on Linux only.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from running_airflow import Airflow, descendants, expect, run_check, say, send, wait_until

from airflow_provider_whatsapp.sandbox import GraphSandbox

ACCOUNTS, PAGE_SIZE = 60_000, 100
PAGES = ACCOUNTS // PAGE_SIZE
CALLS_PER_HOUR = 200
# The API names its waits in whole minutes, so a shorter hour would not shorten them.
HOUR = timedelta(seconds=60)
# A wait lasts at least the minute that the API names. It is looked at for a part of that, so as to be over before.
WATCHED_FOR = 30
LIMIT = 1200
KILLS = 10
# Longest time in seconds that a process may live before it is killed. Some are killed before their first call.
LONGEST_LIFE = 12.0
# Seconds that each answer takes while processes are killed. Otherwise the listing would be over after a few kills.
LATENCY = 0.1
SECONDS_BETWEEN_PARTS = 2
RUN = "checked"
OBJECT, RECORD = "wabas.ndjson", "_wabas.ndjson.airflow-record"
# At ``max_usage=100`` the header names a minute. Below it names no time, for which the operator waits five minutes.
DAG_FILE = """
from datetime import timedelta
from airflow.sdk import dag
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

@dag(schedule=None, params={{"output_path": ""}})
def {dag_id}():
    WhatsAppListWabasOperator(
        task_id="export", fields="id,name", page_size={page_size}, output_path="{{{{ params.output_path }}}}",
        deferrable=True, max_wait_in_place=10, max_usage=100, retries={retries}, retry_delay=timedelta(seconds=1),
    )

{dag_id}()
"""
# Parts are written once a minute, and no process lives that long here.
MORE_PARTS = f"WhatsAppListWabasOperator.checkpoint_interval = {SECONDS_BETWEEN_PARTS}\n"
THROTTLED, KILLED = "throttled", "killed"


def main() -> None:
    """Run the check, and exit with a message if it fails."""
    dags = {
        THROTTLED: DAG_FILE.format(dag_id=THROTTLED, page_size=PAGE_SIZE, retries=0),
        KILLED: DAG_FILE.format(dag_id=KILLED, page_size=PAGE_SIZE, retries=KILLS) + MORE_PARTS,
    }
    sandbox = GraphSandbox(accounts=ACCOUNTS, calls_per_hour=CALLS_PER_HOUR, hour=HOUR)
    run_check(check_resuming, sandbox, dags)


def check_resuming(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """List more accounts than the quota allows, once in peace, and once with kills."""
    # A killed process leaves the files that it staged, which must go with the other files of this Airflow.
    staging = airflow.home / "staging"
    staging.mkdir()
    airflow.env["TMPDIR"] = str(staging)
    airflow.start_standalone()
    say(f"{ACCOUNTS} accounts, {PAGES} pages, {CALLS_PER_HOUR} calls in an hour of {HOUR.total_seconds():g} s")

    deferrals = check_listing(airflow, sandbox, THROTTLED, [])
    expect(deferrals >= 2, "the quota did not make the listing wait several times")
    expect(count_refused(sandbox) == 0, "the listing went on calling after a header had said that the quota is used")
    # Each resumption asks for the last kept page again to see whether it still holds the same accounts.
    expect(count_repeated(sandbox) == deferrals, "a resumption asked for more than one page again")
    expect(len(sandbox.requests) == PAGES + deferrals, "there are calls that were not needed")

    seed = int(sys.argv[1]) if sys.argv[1:] else random.randrange(1_000_000)  # noqa: S311  # not for cryptography
    say(f"{KILLS} kills with the seed {seed}")
    chance = random.Random(seed)  # noqa: S311  # not for cryptography
    sandbox.reset()
    sandbox.latency = LATENCY
    deferrals = check_listing(airflow, sandbox, KILLED, [chance.uniform(0, LONGEST_LIFE) for _ in range(KILLS)])
    # A process that is killed behind the last call of the quota cannot tell the next one of it.
    expect(count_refused(sandbox) <= KILLS, "the listing went on calling after a call was refused")
    # The pages read since the last part, the one on its way, the one whose part was being written, and the one that
    # the resumption checks.
    lost_by_a_kill = SECONDS_BETWEEN_PARTS / LATENCY + 3
    expect(count_repeated(sandbox) <= KILLS * lost_by_a_kill + deferrals, "kept pages were read again")
    left = len(list(staging.glob("airflow-whatsapp-*")))
    say(f"the killed processes left {left} folders with staged rows in the temporary folder of the worker")
    airflow.expect_no_token(sandbox)


def check_listing(airflow: Airflow, sandbox: GraphSandbox, dag_id: str, lives: Sequence[float]) -> int:
    """Run the DAG, check that its object is whole and nothing else is left, and return how often the task deferred.

    :param lives: seconds after which a process of the task is killed, one for each kill
    """
    folder = airflow.home / "lakes" / dag_id
    folder.mkdir(parents=True)
    airflow.unpause(dag_id)
    airflow.trigger(dag_id, RUN, {"output_path": f"file://{folder}/{OBJECT}"})
    began = time.monotonic()
    deferrals, kills = watch(airflow, sandbox, dag_id, lives)
    state = airflow.run_state(dag_id, RUN)
    expect(state == "success", f"the run of {dag_id} is {state} after {kills} kills")
    expect(kills == len(lives), f"the listing was over after {kills} of {len(lives)} kills")
    say(
        f"{dag_id}: {time.monotonic() - began:.0f} s, {deferrals} deferrals, {kills} kills, {len(sandbox.requests)} "
        f"calls, {count_refused(sandbox)} of them refused, {count_repeated(sandbox)} pages asked for again"
    )
    with (folder / OBJECT).open(encoding="utf-8") as rows:
        ids = [json.loads(row)["id"] for row in rows]
    expect(ids == [account["id"] for account in sandbox.accounts], "the list is not that of the API")
    manifest = airflow.xcom(dag_id, RUN, "export")
    expect(manifest["count"] == ACCOUNTS and not manifest["truncated"], f"the manifest is {manifest}")
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    expect(left == {OBJECT, RECORD}, f"the folder of the object holds {left}")
    size = (folder / RECORD).stat().st_size
    expect(size < 1024, f"the record has {size} bytes")
    say(f"{dag_id}: the object holds all {len(ids)} accounts in order; beside it is only the record of {size} bytes")
    return deferrals


def watch(airflow: Airflow, sandbox: GraphSandbox, dag_id: str, lives: Sequence[float]) -> tuple[int, int]:
    """Kill processes of the task until its run has ended, and return how often it deferred and was killed.

    :param lives: seconds after which a process of the task is killed, one for each kill
    """
    end = time.monotonic() + LIMIT
    deferrals, kills = 0, 0
    seen: dict[int, float] = {}
    was_deferred = False
    while airflow.run_state(dag_id, RUN) in {"queued", "running"}:
        expect(time.monotonic() < end, f"the run of {dag_id} did not end in {LIMIT} s")
        is_deferred = states_of(airflow, dag_id) == ["deferred"]
        if is_deferred and not was_deferred:
            deferrals += 1
            check_wait(airflow, sandbox, dag_id)
        was_deferred = is_deferred
        for pid in task_processes():
            lived = time.monotonic() - seen.setdefault(pid, time.monotonic())
            if kills < len(lives) and lived >= lives[kills]:
                kills += 1
                say(f"kill {kills} after {lived:.1f} s and {len(sandbox.requests)} calls")
                kill(pid)
        time.sleep(0.2)
    return deferrals, kills


def check_wait(airflow: Airflow, sandbox: GraphSandbox, dag_id: str) -> None:
    """Check during a part of a wait that the task is deferred, holds no worker and makes no call."""
    # The state is deferred a moment before the process ends.
    wait_until("the workers are idle", lambda: not busy_workers(), limit=20)
    calls = len(sandbox.requests)
    for _ in range(WATCHED_FOR):
        pool = airflow.call("GET", "/api/v2/pools/default_pool")
        expect((pool["occupied_slots"], pool["deferred_slots"]) == (0, 1), f"a slot is held during the wait: {pool}")
        expect(states_of(airflow, dag_id) == ["deferred"], "the task is not deferred during the wait")
        expect(not busy_workers(), f"a worker is busy during the wait: {busy_workers()}")
        expect(len(sandbox.requests) == calls, "a call was made during the wait")
        time.sleep(1)
    say(f"deferred after {calls} calls: for {WATCHED_FOR} s no slot is held, all workers are idle, no call is made")


def states_of(airflow: Airflow, dag_id: str) -> list[str]:
    """The states of the tasks of the run, of which there is one."""
    return [task["state"] for task in airflow.task_instances(dag_id, RUN)]


def busy_workers() -> list[str]:
    """The command lines of the workers that have a task, and of the processes of these tasks."""
    commands = descendants(os.getpid()).values()
    return [command for command in commands if "airflow worker -- " in command and "<idle>" not in command]


def task_processes() -> list[int]:
    """The ids of the processes that run tasks. Their titles end with the id of the task instance."""
    commands = descendants(os.getpid()).items()
    return [pid for pid, command in commands if re.search(r"airflow worker -- [0-9a-f]{8}-", command)]


def kill(pid: int) -> None:
    """Kill a process, and return when it is gone."""
    send(signal.SIGKILL, [pid])
    wait_until("the process is gone", lambda: pid not in task_processes())


def count_refused(sandbox: GraphSandbox) -> int:
    """The number of calls that were made while the app was throttled."""
    return sum(request.status != 200 for request in sandbox.requests)


def count_repeated(sandbox: GraphSandbox) -> int:
    """The number of calls for pages that had been read before."""
    pages = Counter(request.params.get("after") for request in sandbox.requests if request.status == 200)
    return pages.total() - len(pages)


if __name__ == "__main__":
    main()
