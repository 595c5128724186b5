"""Checks in a real scheduler when GraphRetryPolicy retries a task, and what ten mapped exports show if three fail.

It starts ``airflow standalone`` 3.3 or later on SQLite, against its own sandbox, and looks at the pages of the failed
run in Chromium. It saves pictures of them if a folder is given as its argument.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from browser import browsing
from playwright.sync_api import Page
from playwright.sync_api import expect as expect_on_page
from running_airflow import Airflow, dag_file, expect, run_check, say, wait_until

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

EXAMPLE = Path(__file__).resolve().parent.parent / "example_dags" / "export_businesses.py"
RUN = "checked"
# Longer than the hook waits within its task, and than the operator does with its `max_wait_in_place`.
MINUTES = 2
POLICY = "retried_by_policy"
POLICY_ARGUMENTS = """schedule=None, params={"throttled": "", "forbidden": ""},
    default_args={"retries": 2, "retry_policy": GraphRetryPolicy()}"""
POLICY_TASKS = """
WhatsAppListWabasOperator.partial(
    task_id="operator", fields="id", max_wait_in_place=60
).expand(business_id=["{{ params.throttled }}"])

@task
def hook(business_id):
    try:
        return len(WhatsAppHook().list_wabas(business_id, fields="id"))
    except Exception as error:
        raise RuntimeError("cannot count the accounts") from error

hook.override(task_id="hook")("{{ params.throttled }}")
hook.override(task_id="forbidden")("{{ params.forbidden }}")
"""
# The REST API does not show the delays of retries.
PRINT_RETRIES = f"""
import json
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
with create_session() as session:
    print(json.dumps({{
        ti.task_id: {{
            "delay": ti.retry_delay_override,
            "reason": ti.retry_reason,
            "failed_at": str(ti.end_date),
            "next_try": str(ti.next_retry_datetime()),
        }}
        for ti in session.query(TaskInstance).filter_by(dag_id="{POLICY}", state="up_for_retry")
    }}))
"""


def check_failures(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Throttle two tasks, look at ten exports while they wait, and see when they are tried again."""
    airflow.start_standalone()
    airflow.unpause(POLICY)
    airflow.unpause(EXAMPLE.stem)
    retries = check_recorded_delays(airflow, sandbox)
    check_ten_exports(airflow, sandbox)
    check_next_tries(airflow, retries)
    airflow.expect_no_secret(sandbox.token)


def check_recorded_delays(airflow: Airflow, sandbox: GraphSandbox) -> dict[str, Any]:
    """Check which delays Airflow has recorded for the throttled tasks, and return them by task id."""
    throttled, forbidden = (business["id"] for business in sandbox.businesses[:2])
    sandbox.fail_next(
        Fault.throttle(minutes=MINUTES).on(throttled).times(2), Fault.no_permission().on(forbidden).times(100)
    )
    airflow.trigger(POLICY, RUN, {"throttled": throttled, "forbidden": forbidden})
    retries: dict[str, Any] = {}

    def have_failed() -> bool:
        # On a busy machine, the first task is retried before the last one fails.
        retries.update(airflow.read_database(PRINT_RETRIES))
        return retries.keys() == {"operator", "hook"} and airflow.states(POLICY, RUN)["forbidden"] == "failed"

    wait_until("two tasks are up for retry, and one has failed", have_failed)
    for task_id, retry in retries.items():
        say(f"{task_id}: {json.dumps(retry)}")
        expect(MINUTES * 60 <= retry["delay"] <= MINUTES * 60 + 60, f"{task_id}: not the wait that the API named")
        due = datetime.fromisoformat(retry["failed_at"]) + timedelta(seconds=retry["delay"])
        expect(datetime.fromisoformat(retry["next_try"]) == due, f"{task_id}: the next try is not due then")
    tries = {task["task_id"]: task["try_number"] for task in airflow.task_instances(POLICY, RUN)}
    expect(tries["forbidden"] == 1, "a task was retried although that could not help")
    sandbox.reset()
    return retries


def check_next_tries(airflow: Airflow, retries: dict[str, Any]) -> None:
    """Check that the throttled tasks succeed at their second try, and that these did not start too early."""
    expected = {"operator": "success", "hook": "success", "forbidden": "failed"}
    wait_until("the second tries have succeeded", lambda: airflow.states(POLICY, RUN) == expected)
    for task in airflow.task_instances(POLICY, RUN):
        if retry := retries.get(task["task_id"]):
            late = parse_time(task["start_date"]) - parse_time(retry["next_try"])
            say(f"{task['task_id']}: try {task['try_number']} started {late.total_seconds():.1f} s after it was due")
            expect(task["try_number"] == 2, "there was another try")
            expect(late >= timedelta(0), "the API was called before it said that it would answer again")


def check_ten_exports(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Export ten businesses of which three fail, and check what the run, its tasks and their pages show."""
    failing = {2: Fault.no_permission(), 5: Fault.wrong_business(), 8: Fault.cursor_cycle()}
    for index, fault in failing.items():
        sandbox.fail_next(fault.on(sandbox.businesses[index]["id"]).times(1000))
    names = [business["name"] for business in sandbox.businesses]
    airflow.trigger(EXAMPLE.stem, RUN, {"lake": f"file://{airflow.lake}"})
    wait_until("the export has ended", lambda: airflow.has_ended(EXAMPLE.stem, RUN))
    objects = {path.name.partition(".")[0] for path in airflow.lake.rglob("*.gz")}
    expect(airflow.run_state(EXAMPLE.stem, RUN) == "failed", "the run is green although exports failed")
    worked = [business["id"] for index, business in enumerate(sandbox.businesses) if index not in failing]
    expect(objects == set(worked), f"there are objects of {objects}")
    tasks = airflow.task_instances(EXAMPLE.stem, RUN)
    exports = {
        task["map_index"]: (task["rendered_map_index"], task["state"]) for task in tasks if task["task_id"] == "export"
    }
    shown = {index: (name, "failed" if index in failing else "success") for index, name in enumerate(names)}
    expect(exports == shown, f"the exports are {exports}")
    manifests = airflow.xcom(EXAMPLE.stem, RUN, "exported")
    expect([manifest["business_id"] for manifest in manifests] == worked, f"the manifests are {manifests}")
    say(f"the run has failed; {len(worked)} of {len(names)} exports worked")
    with browsing(airflow.home, airflow.env) as page:
        look_at_run(page, airflow, [names[index] for index in failing], next(iter(failing)))


def look_at_run(page: Page, airflow: Airflow, failed: list[str], index: int) -> None:
    """Check that the pages of the run name the failed businesses.

    :param failed: names of the businesses whose export failed
    :param index: map index of the first of them
    """
    run = f"{airflow.url}/dags/{EXAMPLE.stem}/runs/{RUN}"
    for path, name in ((run, "grid"), (f"{run}/tasks/export/mapped", "exports")):
        page.goto(path)
        for business in failed:
            expect_on_page(page.get_by_role("row", name=f"{business} Failed").first).to_be_visible()
        picture(page, name)
    page.goto(f"{run}/tasks/export/mapped/{index}")
    expect_on_page(page.get_by_text("Application does not have permission").first).to_be_visible()
    picture(page, "log_of_a_failed_export")
    page.goto(f"{run}/tasks/check")
    expect_on_page(page.get_by_text(f"3 of 10 businesses were not exported: {', '.join(failed)}").first).to_be_visible()
    picture(page, "log_of_the_check")
    say("the pages name the failed businesses, and say why")


def picture(page: Page, name: str) -> None:
    """Save a picture of the page if a folder for it was given."""
    if sys.argv[1:]:
        page.wait_for_timeout(1000)
        page.screenshot(path=Path(sys.argv[1]) / f"{name}.png", animations="disabled")


def parse_time(text: str) -> datetime:
    """Return the time in a text of the REST API or of the database."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


if __name__ == "__main__":
    # With its schedule, the example would also run for today, and write to its default folder.
    example = EXAMPLE.read_text(encoding="utf-8").replace('schedule="@daily"', "schedule=None")
    dags = {POLICY: dag_file(POLICY, POLICY_TASKS, POLICY_ARGUMENTS), EXAMPLE.stem: example}
    run_check(check_failures, GraphSandbox(accounts=150, businesses=10), dags)
