"""Checks that the receiver of ``docs/webhooks.md`` starts exactly one run of a real Airflow for each change.

It starts ``airflow standalone`` on SQLite and the receiver, and lets the sandbox deliver what Meta would.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from running_airflow import LIMIT, Airflow, expect, find_processes, kill, run_check, say, wait_until
from services import free_port

from airflow_provider_whatsapp.sandbox import GraphSandbox, WebhookDelivery
from airflow_provider_whatsapp.sandbox.webhook_examples import EXAMPLES
from airflow_provider_whatsapp.webhooks import ENTRY_IS_A_BUSINESS, TOPICS

PROJECT = Path(__file__).resolve().parent.parent
DAG = "welcome_shared_waba"
DAG_FILE = (PROJECT / "example_dags" / f"{DAG}.py").read_text(encoding="utf-8")
# The DAG of the page that any topic can start.
REPORT = "report_change"
PAGE = (PROJECT / "docs" / "webhooks.md").read_text(encoding="utf-8")
REPORT_FILE = PAGE.partition("<!-- any topic -->\n```python\n")[2].partition("```")[0]
DAGS = " ".join([f"account_update/PARTNER_ADDED={DAG}", *(f"{topic.field}={REPORT}" for topic in TOPICS)])
SECRET, VERIFY_TOKEN = "0123456789abcdef" * 2, "meatyhamhock"
MEASURED = 10
AT_ONCE = 8
MANY = 1000


def check_webhooks(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Deliver accounts on time, again, at once, forged, without an API server and by the thousand; and every topic."""
    airflow.start_standalone()
    for dag in (DAG, REPORT):
        airflow.unpause(dag)
    receiver = start_receiver(airflow)

    measure_starts(airflow, sandbox, receiver)

    delivery = share(sandbox, receiver)
    runs = len(airflow.runs(DAG))
    for _ in range(2):
        deliver_again(delivery)
    expect(len(airflow.runs(DAG)) == runs == MEASURED + 1, "a repeated delivery started a run")
    say("a delivery that is repeated twice starts nothing, and is answered with 200")

    # The receiver does not know this account, because the sandbox refuses its own deliveries.
    delivery = sandbox.share_account(sandbox.url)
    delivery.url = receiver
    start_together = threading.Barrier(AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as senders:
        statuses = list(senders.map(lambda _: (start_together.wait(), delivery.repeat())[1], range(AT_ONCE)))
    expect(set(statuses) <= {200, 503}, f"answered with {statuses}")
    deliver_again(delivery)
    expect(len(runs_of(airflow, delivery)) == 1, f"{len(runs_of(airflow, delivery))} runs of one account")
    say(f"{AT_ONCE} deliveries of one account at the same moment start one run, and are answered with {statuses}")

    forged = sandbox.share_account(receiver, forged=True)
    expect(forged.status == 403, f"a wrong signature is answered with {forged.status}")
    expect(runs_of(airflow, forged) == [], "a forged delivery started a run")
    say("a delivery with a wrong signature is answered with 403 and starts nothing")

    # The tasks need the API server, too.
    airflow.wait_for_success(DAG, *(run["dag_run_id"] for run in airflow.runs(DAG)))
    delivery = share_while_away(airflow, sandbox, receiver)
    expect(len(runs_of(airflow, delivery)) == 1, f"{len(runs_of(airflow, delivery))} runs of one account")
    say(f"the API server was away and is back: {delivery.statuses}, and exactly one run")

    run_ids = [run["dag_run_id"] for run in airflow.runs(DAG)]
    airflow.wait_for_success(DAG, *run_ids)
    for run_id in run_ids:
        welcomed = airflow.xcom(DAG, run_id, "welcome")
        expect(welcomed.startswith("Welcome, "), f"a run gave {welcomed}")
    say(f"each of {len(run_ids)} runs found its account and read its phone numbers")

    deliver_topics(airflow, sandbox, receiver)
    share_many(airflow, sandbox, receiver)
    lines = (airflow.home / "receiver.log").read_text(encoding="utf-8").splitlines()
    expect(not any("Traceback" in line for line in lines), "the receiver logged a traceback")
    for line in lines:
        if "ERROR" in line:
            say(f"the receiver logged: {line}")
    airflow.expect_no_secret(sandbox.token)


def start_receiver(airflow: Airflow) -> str:
    """Start the receiver, and return its address when it answers Meta's handshake."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/whatsapp"
    env = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_URL": airflow.url,
        # With `simple_auth_manager_all_admins`, this Airflow accepts any user.
        "AIRFLOW_USER": "receiver",
        "AIRFLOW_PASSWORD": "made up",
        "AIRFLOW_DAGS": DAGS,
        "META_APP_SECRET": SECRET,
        "META_VERIFY_TOKEN": VERIFY_TOKEN,
    }
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(PROJECT / "docs"), "webhook_receiver:app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    with (airflow.home / "receiver.log").open("ab") as output:
        subprocess.Popen(command, cwd=airflow.home, env=env, stdout=output, stderr=output)

    def answers(token: str) -> str:
        query = f"hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{address}?{query}", timeout=LIMIT) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as refusal:
            return str(refusal.code)

    wait_until("the receiver answers the handshake", lambda: answers(VERIFY_TOKEN) == "1158201444")
    expect(answers("wrong") == "403", "the receiver answers a handshake with a wrong token")
    return address


def measure_starts(airflow: Airflow, sandbox: GraphSandbox, receiver: str) -> None:
    """Share accounts one by one, and print the time from each delivery to the start of its run."""
    delays = []
    for _ in range(MEASURED):
        sent = time.time()
        delivery = share(sandbox, receiver)
        end = time.monotonic() + LIMIT
        while not (started := [run["start_date"] for run in runs_of(airflow, delivery) if run["start_date"]]):
            expect(time.monotonic() < end, "a run does not start")
            time.sleep(0.2)
        delays.append(datetime.fromisoformat(started[0].replace("Z", "+00:00")).timestamp() - sent)
    median, worst = statistics.median(delays), max(delays)
    say(f"from the delivery to the start of its run: median {median:.2f} s, worst {worst:.2f} s of {MEASURED}")


def share(sandbox: GraphSandbox, receiver: str) -> WebhookDelivery:
    """Share an account, and return its delivery after it was accepted."""
    delivery = sandbox.share_account(receiver)
    if delivery.status != 200:
        deliver_again(delivery)
    return delivery


def deliver_again(delivery: WebhookDelivery) -> None:
    """Deliver again until it is accepted, as Meta does. On a busy machine, Airflow may be too slow for the receiver."""
    wait_until("the delivery is accepted", lambda: delivery.repeat() == 200)


def share_while_away(airflow: Airflow, sandbox: GraphSandbox, receiver: str) -> WebhookDelivery:
    """Share an account while the API server is away, and deliver again after it is back."""
    kill(*find_processes("airflow api[-_]server"))
    delivery = sandbox.share_account(receiver)
    delivery.repeat()
    expect(delivery.statuses == [503, 503], f"without an API server, the answers are {delivery.statuses}")
    airflow.start("api-server")
    wait_until("the API server is back", lambda: bool(airflow.runs(DAG)))
    expect(runs_of(airflow, delivery) == [], "a run was started without an API server")
    for _ in range(2):
        deliver_again(delivery)
    return delivery


def deliver_topics(airflow: Airflow, sandbox: GraphSandbox, receiver: str) -> None:
    """Deliver each topic, and each event of ``account_update``, and check the runs that they start."""
    expected = set()
    for topic in EXAMPLES:
        if topic != "account_update/PARTNER_ADDED":
            delivery = sandbox.deliver(receiver, topic)
            if delivery.status != 200:
                deliver_again(delivery)
            field = topic.partition("/")[0]
            waba_id = None if field in ENTRY_IS_A_BUSINESS else sandbox.accounts[0]["id"]
            expected.add((field, waba_id, str(delivery.changes[0]["value"])))
    runs = airflow.runs(REPORT)
    found = {(run["conf"]["field"], run["conf"]["waba_id"], str(run["conf"]["value"])) for run in runs}
    expect(found == expected, f"the runs are of {found}, not of {expected}")
    expect(len(runs) == len(expected) == len(EXAMPLES) - 1, f"{len(runs)} runs of {len(EXAMPLES) - 1} deliveries")
    airflow.wait_for_success(REPORT, *(run["dag_run_id"] for run in runs))
    for run in runs:
        change = run["conf"]
        reported = f"{change['field']}: {change['event']} of {change['waba_id']}, {change['value']}"
        expect(airflow.xcom(REPORT, run["dag_run_id"], "report") == reported, f"a task did not report {reported}")
    say(f"each of {len(expected)} deliveries, of {len(TOPICS)} topics, started one run with what Meta sent")


def share_many(airflow: Airflow, sandbox: GraphSandbox, receiver: str) -> None:
    """Share as many accounts as one delivery can name. The runs are not started, which would take an hour here."""
    airflow.call("PATCH", f"/api/v2/dags/{DAG}", {"is_paused": True})
    before = count_runs(airflow)
    began = time.monotonic()
    delivery = sandbox.share_account(receiver, count=MANY)
    first = time.monotonic() - began
    if delivery.status != 200:
        deliver_again(delivery)
    expect(count_runs(airflow) == before + MANY, f"{count_runs(airflow) - before} runs of {MANY} accounts")
    began = time.monotonic()
    deliver_again(delivery)
    expect(count_runs(airflow) == before + MANY, "the repeated delivery started runs")
    again = time.monotonic() - began
    say(f"{MANY} accounts in one delivery start {MANY} runs")
    say(f"the answer to it takes {first:.0f} s, and that to the same delivery again {again:.0f} s")


def count_runs(airflow: Airflow) -> int:
    """Return the number of all runs of the DAG."""
    return int(airflow.call("GET", f"/api/v2/dags/{DAG}/dagRuns?limit=1")["total_entries"])


def runs_of(airflow: Airflow, delivery: WebhookDelivery) -> list[dict[str, Any]]:
    """Return the runs for the account of a delivery."""
    return [run for run in airflow.runs(DAG) if run["conf"]["waba_id"] == delivery.waba_ids[0]]


if __name__ == "__main__":
    run_check(check_webhooks, GraphSandbox(accounts=150, app_secret=SECRET), {DAG: DAG_FILE, REPORT: REPORT_FILE})
