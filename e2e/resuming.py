"""Checks in a real scheduler and triggerer that a throttled or killed listing resumes at its last checkpoint.

It starts ``airflow standalone`` on SQLite, against its own sandbox. The first argument is the seed of the moments of
the kills; a random one is printed by default.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

from running_airflow import (
    LIMIT,
    SECONDS_BETWEEN_PARTS,
    Airflow,
    dag_file,
    expect,
    find_processes,
    kill,
    run_check,
    say,
    wait_until,
)

from airflow_provider_whatsapp.sandbox import GraphSandbox

ACCOUNTS, PAGE_SIZE = 60_000, 100
PAGES = ACCOUNTS // PAGE_SIZE
CALLS_PER_HOUR = 200
# The API names its waits in whole minutes, so a shorter hour would not shorten them.
HOUR = timedelta(seconds=60)
# How often a wait, which lasts a minute, is looked at.
LOOKS = 30
KILLS = 10
# Longest time in seconds that a process may live before it is killed. Some are killed before their first call.
LONGEST_LIFE = 12.0
# Seconds that each answer takes while processes are killed. Otherwise the listing would be over after a few kills.
LATENCY = 0.1
RUN = "checked"
OBJECT, RECORD = "wabas.ndjson", "_wabas.ndjson.airflow-record"
# At ``max_usage=100`` the header names a minute. Below it names no time, for which the operator waits five minutes.
TASKS = """
WhatsAppListWabasOperator(
    task_id="{task_id}", fields="id,name", page_size={page_size}, output_path=f"{{LAKE}}/{dag_id}/{object}",
    deferrable=True, max_wait_in_place=10, max_usage=100, retries={retries}, retry_delay=timedelta(seconds=1),
)
"""
THROTTLED, KILLED, TASK = "throttled", "killed", "export"


def check_resuming(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """List more accounts than the quota allows, once in peace, and once with kills."""
    airflow.start_standalone()
    say(f"{ACCOUNTS} accounts, {PAGES} pages, {CALLS_PER_HOUR} calls in an hour of {HOUR.total_seconds():g} s")

    deferrals = check_listing(airflow, sandbox, THROTTLED, [])
    expect(deferrals >= 2, "the quota did not make the listing wait several times")
    expect(count_refused(sandbox) == 0, "a call was made after a header had said that the quota is used")
    # Each resumption asks for the last page again to see whether it still has the same accounts.
    expect(count_repeated(sandbox) == deferrals, "a resumption asked for more than one page again")
    expect(len(sandbox.requests) == PAGES + deferrals, "there are calls that were not needed")

    sandbox.reset()
    sandbox.latency = LATENCY
    deferrals = check_listing(airflow, sandbox, KILLED, lives(KILLS, LONGEST_LIFE))
    # A process that is killed after the last call of the quota cannot pass that on to the next one.
    expect(count_refused(sandbox) <= KILLS, "calls were made after one was refused")
    # The pages read since the last checkpoint, the one in flight, the one that was being written, and the one that the
    # resumption checks.
    lost_by_a_kill = SECONDS_BETWEEN_PARTS / LATENCY + 3
    expect(count_repeated(sandbox) <= KILLS * lost_by_a_kill + deferrals, "pages were read again that a checkpoint had")
    left = len(list(airflow.staging.glob("airflow-whatsapp-*")))
    say(f"the killed processes left {left} folders with staged rows in the temporary folder of the worker")
    airflow.expect_no_secret(sandbox.token)


def check_listing(airflow: Airflow, sandbox: GraphSandbox, dag_id: str, lives: Sequence[float]) -> int:
    """Run the DAG, check that its object is whole and nothing else is left, and return how often the task deferred.

    :param lives: seconds after which a process of the task is killed, one for each kill
    """
    folder = airflow.lake / dag_id
    folder.mkdir()
    deferrals = run_and_kill(airflow, sandbox, dag_id, TASK, lives, lambda: check_wait(airflow, sandbox, dag_id))
    say(
        f"{dag_id}: {deferrals} deferrals, {len(sandbox.requests)} calls, {count_refused(sandbox)} of them refused, "
        f"{count_repeated(sandbox)} pages asked for again"
    )
    with (folder / OBJECT).open(encoding="utf-8") as rows:
        ids = [json.loads(row)["id"] for row in rows]
    expect(ids == [account["id"] for account in sandbox.accounts], "the list is not that of the API")
    manifest = airflow.xcom(dag_id, RUN, TASK)
    expect(manifest["count"] == ACCOUNTS and not manifest["truncated"], f"the manifest is {manifest}")
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    expect(left == {OBJECT, RECORD}, f"the folder of the object holds {left}")
    size = (folder / RECORD).stat().st_size
    expect(size < 1024, f"the record has {size} bytes")
    say(f"{dag_id}: the object holds all {len(ids)} accounts in order; beside it is only the record of {size} bytes")
    return deferrals


def lives(count: int, longest: float) -> list[float]:
    """Return the seconds after which processes are killed, by the seed in the command's arguments or a random one.

    :param count: number of kills
    :param longest: the most seconds that a process may live
    """
    seed = int(sys.argv[1]) if sys.argv[1:] else random.randrange(1_000_000)
    say(f"{count} kills with the seed {seed}")
    chance = random.Random(seed)
    return [chance.uniform(0, longest) for _ in range(count)]


def run_and_kill(
    airflow: Airflow,
    sandbox: GraphSandbox,
    dag_id: str,
    task_id: str,
    lives: Sequence[float],
    on_deferral: Callable[[], None],
) -> int:
    """Run a DAG while processes of a task are killed, check that it succeeds, and return how often the task deferred.

    :param lives: seconds after which a process of the task is killed, one for each kill
    :param on_deferral: called when the task has deferred
    """
    airflow.unpause(dag_id)
    airflow.trigger(dag_id, RUN)
    end = time.monotonic() + LIMIT
    deferrals, kills = 0, 0
    seen: dict[int, float] = {}
    was_deferred = False
    while not airflow.has_ended(dag_id, RUN):
        expect(time.monotonic() < end, f"the run of {dag_id} did not end in {LIMIT} s")
        for task in airflow.task_instances(dag_id, RUN):
            if task["task_id"] != task_id:
                continue
            is_deferred = task["state"] == "deferred"
            if is_deferred and not was_deferred:
                deferrals += 1
                on_deferral()
            was_deferred = is_deferred
            # The title of a process that runs a task ends with the id of the task instance.
            for pid in find_processes(f"airflow worker -- {task['id']}"):
                lived = time.monotonic() - seen.setdefault(pid, time.monotonic())
                if kills < len(lives) and lived >= lives[kills]:
                    kills += 1
                    say(f"kill {kills} after {lived:.1f} s and {len(sandbox.requests)} calls")
                    kill(pid)
        time.sleep(0.2)
    expect(airflow.run_state(dag_id, RUN) == "success", f"the run of {dag_id} has failed after {kills} kills")
    expect(kills == len(lives), f"the listing was over after {kills} of {len(lives)} kills")
    return deferrals


def check_wait(airflow: Airflow, sandbox: GraphSandbox, dag_id: str) -> None:
    """Check during a wait that it holds no worker and makes no call."""
    deferred = {TASK: "deferred"}
    # The state is deferred a moment before the process ends.
    busy_worker = "airflow worker -- (?!.*<idle>)"
    wait_until(
        "the workers are idle", lambda: not find_processes(busy_worker) or airflow.states(dag_id, RUN) != deferred
    )
    looks = 0
    while looks < LOOKS:
        calls, pool = len(sandbox.requests), airflow.call("GET", "/api/v2/pools/default_pool")
        slots, busy = (pool["occupied_slots"], pool["deferred_slots"]), find_processes(busy_worker)
        more = len(sandbox.requests) - calls
        if airflow.states(dag_id, RUN) != deferred:
            # On a busy machine, the wait is over sooner.
            break
        expect(slots == (0, 1), f"a slot is held during the wait: {pool}")
        expect(not busy, f"workers are busy during the wait: {busy}")
        expect(more == 0, "a call was made during the wait")
        looks += 1
        time.sleep(1)
    say(f"deferred after {calls} calls: at {looks} looks, no slot is held, all workers are idle, no call is made")


def count_refused(sandbox: GraphSandbox) -> int:
    """Return the number of calls that were refused because the app was throttled."""
    return sum(request.status != 200 for request in sandbox.requests)


def count_repeated(sandbox: GraphSandbox) -> int:
    """Return the number of calls for pages that had been read before."""
    pages = Counter(request.params.get("after") for request in sandbox.requests if request.status == 200)
    return pages.total() - len(pages)


if __name__ == "__main__":
    dags = {
        dag_id: dag_file(
            dag_id, TASKS.format(dag_id=dag_id, task_id=TASK, page_size=PAGE_SIZE, object=OBJECT, retries=retries)
        )
        for dag_id, retries in ((THROTTLED, 0), (KILLED, KILLS))
    }
    sandbox = GraphSandbox(accounts=ACCOUNTS, calls_per_hour=CALLS_PER_HOUR, hour=HOUR)
    run_check(check_resuming, sandbox, dags)
