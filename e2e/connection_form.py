"""Checks the connection form, its masking, its Test button and the link of a task in the web pages of a real Airflow.

It needs Airflow 3.3 or later, playwright and Chromium, which it looks for in ``$CHROMIUM`` and on the ``PATH``. It
saves a picture of the form for the documentation, and removes everything else that it creates.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from browser import SIZE, browsing
from playwright.sync_api import Locator, Page, Response, expect

from airflow_provider_whatsapp.get_provider_info import get_provider_info
from airflow_provider_whatsapp.sandbox import GraphSandbox

STARTED = time.monotonic()
TIME_LIMIT = 360
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "connection-form.png"
CONN_ID = "whatsapp_ui"
APP_SECRET = "5e0f1c2b3a49587766554433221100ff"  # noqa: S105  # made up
WRONG_TOKEN = "EAAwrongWRONGwrongWRONGwrongWRONG"  # noqa: S105  # made up
WRONG_APP_SECRET = "ffee00112233445566778899aabbccdd"  # noqa: S105  # made up
UNKNOWN_BUSINESS = "999999999999999"
MANAGER = "https://business.facebook.com/latest/whatsapp_manager/overview/?business_id="
FORM = get_provider_info()["connection-types"][0]
BEHAVIOUR = FORM["ui-field-behaviour"]
DAG_FILE = f"""
from airflow.sdk import dag
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

@dag(schedule=None)
def linked():
    WhatsAppListWabasOperator(task_id="accounts", whatsapp_conn_id="{CONN_ID}", fields="id")

linked()
"""
# Returns the type, the placeholder and the visible label of each input, by its name.
READ_INPUTS = """form => Object.fromEntries([...form.querySelectorAll("[name]")].map(input => [input.name, {
    type: input.type,
    placeholder: input.placeholder,
    label: input.closest("[role=group]").querySelector("label").textContent.replace("*", "").trim(),
}]))"""


class Airflow:
    """A temporary Airflow: its settings, its web server and its REST API."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        }
        self._headers = {"Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        (home / "dags").mkdir()
        (home / "dags" / "linked.py").write_text(DAG_FILE, encoding="utf-8")

    def run(self, *arguments: str) -> str:
        """The output of a command of Airflow."""
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, cwd=self.home, env=self.env, capture_output=True, text=True, timeout=120)  # noqa: S603  # our own interpreter
        printed = done.stdout + done.stderr
        check(done.returncode == 0, f"{arguments}: {printed[-3000:]}")
        return printed

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the web pages and the REST API within the block. All processes of the server end with it."""
        with (self.home / "api.log").open("ab") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", "airflow", "api-server"],
                cwd=self.home, env=self.env, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            self._log_in()
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                    os.killpg(server.pid, number)
                    server.wait(15)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the REST API answers with."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)  # noqa: S310  # http, our own server
        with self._opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def _log_in(self) -> None:
        while "Authorization" not in self._headers:
            check(time.monotonic() - STARTED < 120, "the API server does not answer in time")
            with suppress(OSError):
                self._headers["Authorization"] = f"Bearer {self.call('GET', '/auth/token')['access_token']}"
            time.sleep(0.5)


def main() -> None:
    """Run the check, and exit with a message if it fails."""
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"FAILED: not done after {TIME_LIMIT} s"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))
    signal.alarm(TIME_LIMIT)
    with (
        tempfile.TemporaryDirectory(prefix="airflow-whatsapp-e2e-", ignore_cleanup_errors=True) as folder,
        GraphSandbox(accounts=25, app_secret=APP_SECRET) as sandbox,
    ):
        airflow = Airflow(Path(folder))
        airflow.run("db", "migrate")
        with airflow.serving(), browsing(airflow.home, airflow.env) as page:
            say("Airflow serves its pages")
            check_form(page, airflow, sandbox)
            check_masking(page, airflow, sandbox)
            check_test_button(page, airflow, sandbox)
            check_link(page, airflow, sandbox)
        files = [path for path in airflow.home.rglob("*") if path.is_file() and "browser" not in path.parts]
        for path in files:
            check_no_secret(path.read_bytes().decode("latin-1"), sandbox)
        say(f"no secret is in any of Airflow's {len(files)} files, nor in what the task logged")
    say("The check has passed")


def check_form(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Add a connection, and check that the form has the declared fields and none that are hidden."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=connection_id]").fill(CONN_ID)
    form.get_by_role("combobox").first.fill(FORM["hook-name"])
    page.get_by_role("option", name=FORM["hook-name"], exact=True).click()
    form.locator("[name=element_business_id]").wait_for(state="attached")
    inputs = form.evaluate(READ_INPUTS)
    shown = {"connection_id", "description", "host", "password", *(f"element_{name}" for name in FORM["conn-fields"])}
    check(inputs.keys() == shown, f"the form has {sorted(inputs)}")
    for name, label in BEHAVIOUR["relabeling"].items():
        check(inputs[name]["label"] == label, f"{name} is labelled {inputs[name]['label']!r}")
        check(inputs[name]["placeholder"] == BEHAVIOUR["placeholders"][name], f"{name} has another placeholder")
    for name, field in FORM["conn-fields"].items():
        label, kind = inputs[f"element_{name}"]["label"], inputs[f"element_{name}"]["type"]
        check(label == field["label"], f"{name} is labelled {label!r}")
        check((kind == "password") == (field["schema"].get("format") == "password"), f"{name} is of type {kind}")
    check(inputs["password"]["type"] == "password", "the token can be read while it is typed")
    say(f"the form has {', '.join(entry['label'] for entry in inputs.values())}; not {BEHAVIOUR['hidden-fields']}")

    fill(form, host=sandbox.url, password=sandbox.token, business_id=sandbox.business_id, app_secret=APP_SECRET)
    picture(page, form)
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()
    expect(row_of(page)).to_contain_text(sandbox.url)
    say(f"the connection is in the list; {PICTURE.name} shows its form")


def check_masking(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Check that the saved connection shows no secret."""
    form = reopen(page, airflow)
    for section in ("Standard Fields", "Extra Fields JSON", "Extra Fields"):
        show(form, section)
        values = form.locator("[name]").evaluate_all("inputs => inputs.map(input => input.value)")
        check_no_secret(page.content() + json.dumps(values), sandbox)
    for name in ("password", "element_app_secret"):
        expect(form.locator(f"[name={name}]")).to_have_value("***")
    answer = airflow.call("GET", f"/api/v2/connections/{CONN_ID}")
    check_no_secret(json.dumps(answer), sandbox)
    extra = json.loads(answer["extra"])
    check((answer["password"], extra["app_secret"]) == ("***", "***"), f"not masked: {answer}")
    check(extra["business_id"] == sandbox.business_id, "the business is not in the extra")
    say("token and app secret are *** in the form and in the REST API")


def check_test_button(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Press Test on a correct connection, and on connections with common mistakes."""
    if click_test(page, airflow).status == 400:
        # Before https://github.com/apache/airflow/pull/73298, the button sends port 0 if the connection has no port.
        # Airflow then takes the connection for one to another host and refuses to test it.
        say("this Airflow's Test button refuses connections without a port: port 0 is put into this one")
        port = {"connection_id": CONN_ID, "conn_type": FORM["connection-type"], "port": 0}
        airflow.call("PATCH", f"/api/v2/connections/{CONN_ID}?update_mask=port", port)
    press_test(page, airflow, sandbox, True, "Token: valid", "App secret: its proof is accepted", "accounts: readable")
    sandbox.token_info = {"is_valid": False, "error": {"code": 190, "message": "Session has expired"}}
    press_test(page, airflow, sandbox, False, "Token: not valid (Session has expired)")
    sandbox.token_info = {"scopes": ["whatsapp_business_messaging"]}
    press_test(page, airflow, sandbox, False, "lacks whatsapp_business_management")
    sandbox.token_info = {}
    for right, wrong, words in (
        ({"password": sandbox.token}, {"password": WRONG_TOKEN}, "Invalid OAuth access token"),
        ({"app_secret": APP_SECRET}, {"app_secret": WRONG_APP_SECRET}, "Invalid appsecret_proof"),
        ({"business_id": sandbox.business_id}, {"business_id": UNKNOWN_BUSINESS}, f"Business {UNKNOWN_BUSINESS}"),
    ):
        edit(page, airflow, **wrong)
        press_test(page, airflow, sandbox, False, words)
        edit(page, airflow, **right)
    # The secrets that were *** in the form while other fields were edited are still there.
    press_test(page, airflow, sandbox, True, "App secret: its proof is accepted")


def check_link(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Run a task over the connection, and check that its page links to the business that it listed."""
    check_no_secret(airflow.run("dags", "test", "linked"), sandbox)
    run = airflow.call("GET", "/api/v2/dags/linked/dagRuns")["dag_runs"][0]["dag_run_id"]
    links = airflow.call("GET", f"/api/v2/dags/linked/dagRuns/{run}/taskInstances/accounts/links")["extra_links"]
    check(links == {"WhatsApp Manager": MANAGER + sandbox.business_id}, f"the links are {links}")
    page.goto(f"{airflow.url}/dags/linked/runs/{run}/tasks/accounts/details")
    expect(page.get_by_role("link", name="WhatsApp Manager")).to_have_attribute("href", MANAGER + sandbox.business_id)
    say(f"the task's page links to {links['WhatsApp Manager']}")


def click_test(page: Page, airflow: Airflow) -> Response:
    """Airflow's answer to the Test button in the list of connections."""
    page.goto(f"{airflow.url}/connections")
    with page.expect_response("**/api/v2/connections/test") as answer:
        row_of(page).get_by_role("button", name="Test Connection").click()
    return answer.value


def press_test(page: Page, airflow: Airflow, sandbox: GraphSandbox, ok: bool, *words: str) -> None:
    """Press Test, and check that the message has these words and no secret."""
    answer = click_test(page, airflow)
    check(answer.ok, f"the test is refused: {answer.text()}")
    told = answer.json()
    say(f"Test: {'success' if told['status'] else 'failure'}: {told['message']}")
    check(told["status"] is ok, f"{'success' if ok else 'failure'} was expected")
    check(all(word in told["message"] for word in words), f"not in the message: {words}")
    expect(page.get_by_text(f"Test Connection {'Successful' if ok else 'Failed'}")).to_be_visible()
    expect(page.get_by_text(told["message"], exact=True)).to_be_visible()
    check_no_secret(answer.text() + page.content(), sandbox)


def reopen(page: Page, airflow: Airflow) -> Locator:
    """The form of the saved connection."""
    page.goto(f"{airflow.url}/connections")
    row_of(page).get_by_role("button", name="Edit Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=element_business_id]").wait_for(state="attached")
    return form


def edit(page: Page, airflow: Airflow, **values: str) -> None:
    """Change some fields of the saved connection in its form."""
    form = reopen(page, airflow)
    fill(form, **values)
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()


def fill(form: Locator, **values: str) -> None:
    """Type into fields of the form. Only one of its sections can be open at a time."""
    for name, value in values.items():
        is_extra = name in FORM["conn-fields"]
        show(form, "Extra Fields" if is_extra else "Standard Fields")
        form.locator(f"[name={'element_' if is_extra else ''}{name}]").fill(value)


def show(form: Locator, section: str) -> None:
    """Open a section of the form."""
    button = form.get_by_role("button", name=section, exact=True)
    if button.get_attribute("aria-expanded") != "true":
        button.click()
    expect(button).to_have_attribute("aria-expanded", "true")


def picture(page: Page, form: Locator) -> None:
    """Save a picture of the form with its open section, on a page that is tall enough for it."""
    height = int(form.evaluate("form => form.scrollHeight")) + 2 * 64
    page.set_viewport_size({"width": SIZE["width"], "height": height})
    form.get_by_role("heading", name="Add Connection").click()
    page.wait_for_timeout(500)
    PICTURE.parent.mkdir(exist_ok=True)
    page.screenshot(path=PICTURE, animations="disabled")
    page.set_viewport_size(SIZE)


def row_of(page: Page) -> Locator:
    """The connection's row in the list."""
    return page.get_by_role("row").filter(has_text=CONN_ID)


def check_no_secret(text: str, sandbox: GraphSandbox) -> None:
    """Raise an error if the text contains a secret."""
    secrets = {"token": (sandbox.token, WRONG_TOKEN), "app secret": (APP_SECRET, WRONG_APP_SECRET)}
    shown = [name for name, texts in secrets.items() if any(secret in text for secret in texts)]
    check(not shown, f"{' and '.join(shown)} in a text of {len(text)} characters")


def check(is_so: bool, otherwise: str) -> None:
    """Exit with the message if the condition does not hold."""
    if not is_so:
        sys.exit(f"FAILED: {otherwise}")


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.monotonic() - STARTED:4.0f} s  {text}", flush=True)


if __name__ == "__main__":
    main()
