"""Checks in a real scheduler and triggerer that the edges of many accounts are listed through a quota and kills.

It starts ``airflow standalone`` on SQLite, against its own sandbox. A DAG lists the accounts, then their phone numbers,
while the quota of the app is used up again and again and processes of the second task are killed. The first argument is
the seed of the moments of the kills; a random one is printed by default.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from datetime import timedelta

from resuming import RUN, count_refused, lives, run_and_kill
from running_airflow import SECONDS_BETWEEN_PARTS, Airflow, dag_file, expect, run_check, say

from airflow_provider_whatsapp.sandbox import GraphSandbox

ACCOUNTS = 1000
CALLS_PER_HOUR = 300
# The API names its waits in whole minutes, so a shorter hour would not shorten them.
HOUR = timedelta(seconds=60)
KILLS = 5
LONGEST_LIFE = 8.0
# Seconds that each answer takes. Otherwise the listing would be over after a few kills.
LATENCY = 0.2
MAX_CONCURRENCY = 5
DAG_ID, TASK = "account_edges", "phone_numbers"
TASKS = f"""
accounts = WhatsAppListWabasOperator(
    task_id="accounts", fields="id", output_path=f"{{LAKE}}/accounts.json.gz", retries=1,
    retry_delay=timedelta(seconds=1),
)
WhatsAppListWabaEdgeOperator(
    task_id="{TASK}", waba_ids=accounts.output, edge="phone_numbers", max_concurrency={MAX_CONCURRENCY},
    output_path=f"{{LAKE}}/phone_numbers.ndjson", deferrable=True, max_wait_in_place=10, max_usage=100, retries={KILLS},
    retry_delay=timedelta(seconds=1),
)
"""


def check_account_edges(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """List the phone numbers of all accounts through a quota and kills, and compare them with those of the API."""
    airflow.start_standalone()
    say(f"{ACCOUNTS} accounts, {CALLS_PER_HOUR} calls in an hour of {HOUR.total_seconds():g} s")

    def on_deferral() -> None:
        say(f"deferred after {len(sandbox.requests)} calls")

    deferrals = run_and_kill(airflow, sandbox, DAG_ID, TASK, lives(KILLS, LONGEST_LIFE), on_deferral)
    calls = Counter(request.path for request in sandbox.requests if request.path.endswith("/phone_numbers"))
    repeated, refused = calls.total() - len(calls), count_refused(sandbox)
    say(f"{calls.total()} calls, {refused} of them refused, {repeated} accounts asked for again, {deferrals} deferrals")
    # Those that were read since the last checkpoint, and those in flight.
    lost_by_a_kill = MAX_CONCURRENCY * (SECONDS_BETWEEN_PARTS / LATENCY + 2)
    allowed = KILLS * lost_by_a_kill + deferrals * MAX_CONCURRENCY
    expect(repeated <= allowed, "accounts were read again that a checkpoint had")
    expect(refused <= (deferrals + KILLS) * MAX_CONCURRENCY, "calls were made after one was refused")
    check_object(airflow, sandbox)
    airflow.expect_no_secret(sandbox.token)


def check_object(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Compare the object with the API, account by account and in order, and see that nothing else is left."""
    with GraphSandbox(accounts=ACCOUNTS) as twin:
        expected = [
            (account["id"], number["id"])
            for account in sandbox.accounts
            for number in read_numbers(twin, account["id"])
        ]
    with (airflow.lake / "phone_numbers.ndjson").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    expect([(row["waba_id"], row["id"]) for row in rows] == expected, "the rows are not those of the API")
    manifest = airflow.xcom(DAG_ID, RUN, TASK)
    expect((manifest["accounts"], manifest["skipped_count"]) == (ACCOUNTS, 0), f"the manifest is {manifest}")
    left = {str(path.relative_to(airflow.lake)) for path in airflow.lake.rglob("*")}
    objects = {"accounts.json.gz", "phone_numbers.ndjson"}
    expect(left == objects | {f"_{name}.airflow-record" for name in objects}, f"the folder holds {left}")
    say(f"the object holds the {len(rows)} phone numbers of {ACCOUNTS} accounts in order; only the records are left")


def read_numbers(sandbox: GraphSandbox, waba_id: str) -> list[dict[str, str]]:
    """Return the phone numbers of an account, which fit on one page."""
    request = urllib.request.Request(
        f"{sandbox.url}/{waba_id}/phone_numbers?limit=100", headers={"Authorization": f"Bearer {sandbox.token}"}
    )
    with urllib.request.urlopen(request) as answer:
        rows: list[dict[str, str]] = json.load(answer)["data"]
    return rows


if __name__ == "__main__":
    sandbox = GraphSandbox(accounts=ACCOUNTS, calls_per_hour=CALLS_PER_HOUR, hour=HOUR, latency=LATENCY)
    run_check(check_account_edges, sandbox, {DAG_ID: dag_file(DAG_ID, TASKS)})
