"""Takes the pictures of the documentation from the pages of a real Airflow, and saves them in ``docs/``.

It starts ``airflow standalone`` 3.3 or later on SQLite, against its own sandbox.
"""

from __future__ import annotations

from pathlib import Path

from browser import SIZE, browsing
from connection_form import APP_SECRET, click_test, fill_in, give_port, open_new, save
from playwright.sync_api import FloatRect, Page
from playwright.sync_api import expect as expect_on_page
from running_airflow import Airflow, dag_file, expect, run_check, say, wait_until

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

FOLDER = Path(__file__).resolve().parent.parent / "docs"
LARGEST = 150_000  # bytes
# Pixels from the left and from the top at which the panel of a task begins.
PANEL, HEADER = 320, 62
CONN_ID = "whatsapp_clients"
DAG_ID = "client_accounts"
FAILING = "failing_tasks"
FAILING_TASKS = """
WhatsAppListWabasOperator(task_id="throttled")
WhatsAppListWabaEdgeOperator(
    task_id="wrong_field", waba_ids="{{ params.waba_id }}", edge="phone_numbers", fields="id,quality"
)
"""
RUNS = ["monday", "tuesday", "wednesday", "thursday"]
TASKS = """
accounts = WhatsAppListWabasOperator(
    task_id="accounts",
    fields="id,name,country",
    output_path="file://" + LAKE + "/accounts/{{ run_id }}.ndjson",
    deferrable=True,
    max_wait_in_place=10,
    outlets=[Asset("client_accounts")],
)
WhatsAppListWabaEdgeOperator(
    task_id="phone_numbers",
    waba_ids=accounts.output,
    edge="phone_numbers",
    output_path="file://" + LAKE + "/phone_numbers/{{ run_id }}.ndjson",
    deferrable=True,
)
"""


def take_pictures(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Run the DAG some times, the last time throttled, and take a picture of each page."""
    airflow.start_standalone()
    airflow.unpause(DAG_ID)
    with browsing(airflow.home, airflow.env) as page:
        take_connection(page, airflow, sandbox)
        for run_id in RUNS:
            if run_id == RUNS[-1]:
                sandbox.fail_next(Fault.throttle(minutes=1).after(2))
            airflow.trigger(DAG_ID, run_id)
            airflow.wait_for_success(DAG_ID, run_id)
        take_log(page, airflow)
        take_asset(page, airflow)
        take_grid(page, airflow)
        take_errors(page, airflow, sandbox)


def take_connection(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Take the form of a connection, and the result of its test."""
    form = open_new(page, airflow, CONN_ID)
    fill_in(form, sandbox)
    # Make the page tall enough for the open section of the form.
    resize(page, int(form.evaluate("form => form.scrollHeight")) + 2 * 64)
    form.get_by_role("heading", name="Add Connection").click()
    take(page, "connection-form")
    resize(page, 560)
    save(form)
    give_port(page, airflow, CONN_ID)
    click_test(page, airflow, CONN_ID)
    expect_on_page(page.get_by_text("Test Connection Successful")).to_be_visible()
    take(page, "connection-test")


def take_log(page: Page, airflow: Airflow) -> None:
    """Take the log of the listing that was throttled."""
    resize(page, 720)
    page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{RUNS[-1]}/tasks/accounts")
    expect_on_page(page.get_by_text("Waiting without a worker slot").first).to_be_visible()
    take(page, "log-of-a-listing", left=PANEL, top=HEADER)


def take_asset(page: Page, airflow: Airflow) -> None:
    """Take the asset with its events."""
    (asset,) = airflow.call("GET", "/api/v2/assets")["assets"]
    resize(page, 820)
    page.goto(f"{airflow.url}/assets/{asset['id']}")
    page.locator(".codicon-folding-collapsed").first.click()
    expect_on_page(page.get_by_text("sha256").first).to_be_visible()
    take(page, "asset-event")


def take_grid(page: Page, airflow: Airflow) -> None:
    """Take the grid of all runs beside the tasks of the last one."""
    # On a narrower page, the grid has no room for all runs.
    resize(page, 560, width=1600)
    page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{RUNS[-1]}")
    expect_on_page(page.get_by_role("row", name="phone_numbers").first).to_be_visible()
    take(page, "grid")


def take_errors(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Take the ERROR lines of two tasks that have failed."""
    sandbox.fail_next(Fault.throttle(minutes=30))
    airflow.unpause(FAILING)
    airflow.trigger(FAILING, "friday", {"waba_id": sandbox.accounts[0]["id"]})
    wait_until("the tasks have failed", lambda: airflow.has_ended(FAILING, "friday"))
    # Not tall enough for the traceback, which names folders of this machine.
    resize(page, 535)
    for task_id in ("wrong_field", "throttled"):
        page.goto(f"{airflow.url}/dags/{FAILING}/runs/friday/tasks/{task_id}")
        # The page shows the end of the log first.
        line = page.get_by_text("The API said: ").first
        line.scroll_into_view_if_needed()
        expect_on_page(line).to_be_visible()
        take(page, f"log-of-a-failure-{task_id.replace('_', '-')}", left=PANEL, top=HEADER)


def resize(page: Page, height: int, *, width: int = SIZE["width"]) -> None:
    """Make the page as large as its picture.

    :param height: pixels
    :param width: pixels
    """
    page.set_viewport_size({"width": width, "height": height})


def take(page: Page, name: str, *, left: int = 0, top: int = 0) -> None:
    """Save a picture of the page.

    :param page: the page, of which everything that the picture shows is loaded
    :param name: name of the file without its suffix
    :param left: how many pixels to leave out at the left
    :param top: how many pixels to leave out at the top
    """
    page.wait_for_timeout(1000)
    path = FOLDER / f"{name}.png"
    shown = page.viewport_size or SIZE
    clip = FloatRect(x=left, y=top, width=shown["width"] - left, height=shown["height"] - top)
    page.screenshot(path=path, animations="disabled", clip=clip)
    size = path.stat().st_size
    expect(size < LARGEST, f"{path.name} has {size} bytes")
    say(f"{path.name}: {size} bytes")


if __name__ == "__main__":
    sandbox = GraphSandbox(accounts=400, app_secret=APP_SECRET, seed=7)
    dags = {
        DAG_ID: dag_file(DAG_ID, TASKS),
        FAILING: dag_file(FAILING, FAILING_TASKS, 'schedule=None, params={"waba_id": ""}'),
    }
    run_check(take_pictures, sandbox, dags)
