"""Checks in a real scheduler and triggerer that the edges of many accounts are listed through a quota and kills.

It starts ``airflow standalone`` on SQLite in a temporary folder, against its own sandbox, and takes some six minutes.
A DAG lists the accounts, then their phone numbers, while the quota of the app is used up again and again and processes
of the second task are killed. The first argument is the seed of the moments of the kills; a random one is printed by
default. It needs no network beyond loopback, and it runs on Linux only.
"""

from __future__ import annotations

import json
import random
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from resuming import count_refused, kill, task_processes
from running_airflow import Airflow, expect, run_check, say

from airflow_provider_whatsapp.sandbox import GraphSandbox

ACCOUNTS = 1000
CALLS_PER_HOUR = 300
# The API names its waits in whole minutes, so a shorter hour would not shorten them.
HOUR = timedelta(seconds=60)
LIMIT = 1200
KILLS = 5
LONGEST_LIFE = 8.0
# Seconds that each answer takes. Otherwise the listing would be over after a few kills.
LATENCY = 0.2
MAX_CONCURRENCY = 5
SECONDS_BETWEEN_PARTS = 2
DAG_ID, RUN = "account_edges", "checked"
DAG_FILE = f"""
from datetime import timedelta
from airflow.sdk import dag
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator

# Parts are written once a minute, and no process lives that long here.
for operator in (WhatsAppListWabasOperator, WhatsAppListWabaEdgeOperator):
    operator.checkpoint_interval = {SECONDS_BETWEEN_PARTS}

@dag(schedule=None, params={{"folder": ""}})
def {DAG_ID}():
    accounts = WhatsAppListWabasOperator(
        task_id="accounts", fields="id", output_path="{{{{ params.folder }}}}/accounts.json.gz", retries=1,
        retry_delay=timedelta(seconds=1),
    )
    WhatsAppListWabaEdgeOperator(
        task_id="phone_numbers", waba_ids=accounts.output, edge="phone_numbers", max_concurrency={MAX_CONCURRENCY},
        output_path="{{{{ params.folder }}}}/phone_numbers.ndjson", deferrable=True, max_wait_in_place=10,
        max_usage=100, retries={KILLS}, retry_delay=timedelta(seconds=1),
    )

{DAG_ID}()
"""


def main() -> None:
    """Run the check, and exit with a message if it fails."""
    sandbox = GraphSandbox(accounts=ACCOUNTS, calls_per_hour=CALLS_PER_HOUR, hour=HOUR, latency=LATENCY)
    run_check(check_account_edges, sandbox, {DAG_ID: DAG_FILE})


def check_account_edges(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """List the phone numbers of all accounts through a quota and kills, and compare them with those of the API."""
    folder = airflow.home / "lake"
    folder.mkdir()
    airflow.start_standalone()
    seed = int(sys.argv[1]) if sys.argv[1:] else random.randrange(1_000_000)  # noqa: S311  # not for cryptography
    say(f"{ACCOUNTS} accounts, {CALLS_PER_HOUR} calls in an hour of {HOUR.total_seconds():g} s, seed {seed}")
    airflow.unpause(DAG_ID)
    airflow.trigger(DAG_ID, RUN, {"folder": f"file://{folder}"})
    chance = random.Random(seed)  # noqa: S311  # not for cryptography
    deferrals, kills = watch(airflow, sandbox, [chance.uniform(1, LONGEST_LIFE) for _ in range(KILLS)])
    state = airflow.run_state(DAG_ID, RUN)
    expect(state == "success", f"the run is {state} after {kills} kills")
    expect(kills == KILLS, f"the listing was over after {kills} of {KILLS} kills")
    calls = Counter(request.path for request in sandbox.requests if request.path.endswith("/phone_numbers"))
    repeated, refused = calls.total() - len(calls), count_refused(sandbox)
    say(f"{calls.total()} calls, {refused} of them refused, {repeated} accounts asked for again, {deferrals} deferrals")
    # Those that were read since the last part, and those on their way.
    lost_by_a_kill = MAX_CONCURRENCY * (SECONDS_BETWEEN_PARTS / LATENCY + 2)
    expect(repeated <= KILLS * lost_by_a_kill + deferrals * MAX_CONCURRENCY, "accounts that were kept were read again")
    expect(refused <= (deferrals + KILLS) * MAX_CONCURRENCY, "the listing went on calling after a call was refused")
    check_object(airflow, sandbox, folder)
    airflow.expect_no_token(sandbox)


def watch(airflow: Airflow, sandbox: GraphSandbox, lives: Sequence[float]) -> tuple[int, int]:
    """Kill processes of the second task until the run has ended, and return how often it deferred and was killed.

    :param lives: seconds after which a process of the task is killed, one for each kill
    """
    end = time.monotonic() + LIMIT
    deferrals, kills = 0, 0
    seen: dict[int, float] = {}
    was_deferred = False
    while airflow.run_state(DAG_ID, RUN) in {"queued", "running"}:
        expect(time.monotonic() < end, f"the run did not end in {LIMIT} s")
        states = {task["task_id"]: task["state"] for task in airflow.task_instances(DAG_ID, RUN)}
        is_deferred = states.get("phone_numbers") == "deferred"
        if is_deferred and not was_deferred:
            deferrals += 1
            say(f"deferred after {len(sandbox.requests)} calls")
        was_deferred = is_deferred
        for pid in task_processes() if states.get("phone_numbers") == "running" else ():
            lived = time.monotonic() - seen.setdefault(pid, time.monotonic())
            if kills < len(lives) and lived >= lives[kills]:
                kills += 1
                say(f"kill {kills} after {lived:.1f} s and {len(sandbox.requests)} calls")
                kill(pid)
        time.sleep(0.2)
    return deferrals, kills


def check_object(airflow: Airflow, sandbox: GraphSandbox, folder: Path) -> None:
    """Compare the object with the API, account by account and in order, and see that nothing else is left."""
    with GraphSandbox(accounts=ACCOUNTS) as twin:
        expected = [
            (account["id"], number["id"])
            for account in sandbox.accounts
            for number in read_numbers(twin, account["id"])
        ]
    with (folder / "phone_numbers.ndjson").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    expect([(row["waba_id"], row["id"]) for row in rows] == expected, "the rows are not those of the API")
    manifest = airflow.xcom(DAG_ID, RUN, "phone_numbers")
    expect((manifest["accounts"], manifest["skipped_count"]) == (ACCOUNTS, 0), f"the manifest is {manifest}")
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    objects = {"accounts.json.gz", "phone_numbers.ndjson"}
    expect(left == objects | {f"_{name}.airflow-record" for name in objects}, f"the folder holds {left}")
    say(f"the object holds the {len(rows)} phone numbers of {ACCOUNTS} accounts in order; only the records are left")


def read_numbers(sandbox: GraphSandbox, waba_id: str) -> list[dict[str, str]]:
    """The phone numbers of an account, which fit on one page."""
    request = urllib.request.Request(  # noqa: S310  # the sandbox is on loopback
        f"{sandbox.url}/{waba_id}/phone_numbers?limit=100", headers={"Authorization": f"Bearer {sandbox.token}"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310  # the same
        rows: list[dict[str, str]] = json.load(answer)["data"]
    return rows


if __name__ == "__main__":
    main()
