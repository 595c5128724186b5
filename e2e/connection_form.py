"""Checks the connection form, its masking, its Test button and the link of a task in the web pages of a real Airflow.

It starts ``airflow standalone`` 3.3 or later on SQLite, against its own sandbox.
"""

from __future__ import annotations

import json

from browser import browsing
from playwright.sync_api import Locator, Page, Response
from playwright.sync_api import expect as expect_on_page
from running_airflow import Airflow, dag_file, expect, run_check, say

from airflow_provider_whatsapp.get_provider_info import get_provider_info
from airflow_provider_whatsapp.sandbox import GraphSandbox

CONN_ID = "whatsapp_ui"
APP_SECRET = "5e0f1c2b3a49587766554433221100ff"
WRONG_TOKEN = "EAAwrongWRONGwrongWRONGwrongWRONG"
WRONG_APP_SECRET = "ffee00112233445566778899aabbccdd"
UNKNOWN_BUSINESS = "999999999999999"
MANAGER = "https://business.facebook.com/latest/whatsapp_manager/overview/?business_id="
FORM = get_provider_info()["connection-types"][0]
BEHAVIOUR = FORM["ui-field-behaviour"]
DAG_ID = "linked"
RUN = "checked"
TASK = f"""
WhatsAppListWabasOperator(task_id="accounts", whatsapp_conn_id="{CONN_ID}", fields="id")
"""
# Returns the type, the placeholder and the visible label of each input, by its name.
READ_INPUTS = """form => Object.fromEntries([...form.querySelectorAll("[name]")].map(input => [input.name, {
    type: input.type,
    placeholder: input.placeholder,
    label: input.closest("[role=group]").querySelector("label").textContent.replace("*", "").trim(),
}]))"""


def check_pages(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Check the pages of a connection and of a task, and that no file of this Airflow has a secret."""
    airflow.start_standalone()
    airflow.unpause(DAG_ID)
    with browsing(airflow.home, airflow.env) as page:
        check_form(page, airflow, sandbox)
        check_masking(page, airflow, sandbox)
        check_test_button(page, airflow, sandbox)
        check_link(page, airflow, sandbox)
    airflow.expect_no_secret(sandbox.token, WRONG_TOKEN, APP_SECRET, WRONG_APP_SECRET)


def check_form(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Add a connection, and check that the form has the declared fields and none that are hidden."""
    form = open_new(page, airflow, CONN_ID)
    inputs = form.evaluate(READ_INPUTS)
    shown = {"connection_id", "description", "host", "password", *(f"element_{name}" for name in FORM["conn-fields"])}
    expect(inputs.keys() == shown, f"the form has {sorted(inputs)}")
    for name, label in BEHAVIOUR["relabeling"].items():
        expect(inputs[name]["label"] == label, f"{name} is labelled {inputs[name]['label']!r}")
        expect(inputs[name]["placeholder"] == BEHAVIOUR["placeholders"][name], f"{name} has another placeholder")
    for name, field in FORM["conn-fields"].items():
        label, kind = inputs[f"element_{name}"]["label"], inputs[f"element_{name}"]["type"]
        expect(label == field["label"], f"{name} is labelled {label!r}")
        expect((kind == "password") == (field["schema"].get("format") == "password"), f"{name} is of type {kind}")
    expect(inputs["password"]["type"] == "password", "the token can be read while it is typed")
    say(f"the form has {', '.join(entry['label'] for entry in inputs.values())}; not {BEHAVIOUR['hidden-fields']}")

    fill_in(form, sandbox)
    save(form)
    expect_on_page(row_of(page)).to_contain_text(sandbox.url)
    say("the connection is in the list")


def check_masking(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Check that the saved connection shows no secret."""
    form = reopen(page, airflow)
    for section in ("Standard Fields", "Extra Fields JSON", "Extra Fields"):
        show(form, section)
        values = form.locator("[name]").evaluate_all("inputs => inputs.map(input => input.value)")
        expect_no_secret(page.content() + json.dumps(values), sandbox)
    for name in ("password", "element_app_secret"):
        expect_on_page(form.locator(f"[name={name}]")).to_have_value("***")
    answer = airflow.call("GET", f"/api/v2/connections/{CONN_ID}")
    expect_no_secret(json.dumps(answer), sandbox)
    extra = json.loads(answer["extra"])
    expect((answer["password"], extra["app_secret"]) == ("***", "***"), f"not masked: {answer}")
    expect(extra["business_id"] == sandbox.business_id, "the business is not in the extra")
    say("token and app secret are *** in the form and in the REST API")


def check_test_button(page: Page, airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Press Test on a correct connection, and on connections with common mistakes."""
    give_port(page, airflow, CONN_ID)
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
    airflow.trigger(DAG_ID, RUN)
    airflow.wait_for_success(DAG_ID, RUN)
    expect_no_secret(airflow.log(DAG_ID, RUN, "accounts"), sandbox)
    path = f"/api/v2/dags/{DAG_ID}/dagRuns/{RUN}/taskInstances/accounts/links"
    links = airflow.call("GET", path)["extra_links"]
    expect(links == {"WhatsApp Manager": MANAGER + sandbox.business_id}, f"the links are {links}")
    page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{RUN}/tasks/accounts/details")
    expect_on_page(page.get_by_role("link", name="WhatsApp Manager")).to_have_attribute(
        "href", MANAGER + sandbox.business_id
    )
    say(f"the task's page links to {links['WhatsApp Manager']}")


def open_new(page: Page, airflow: Airflow, conn_id: str) -> Locator:
    """Open the form of a new connection of our type, and return it."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=connection_id]").fill(conn_id)
    form.get_by_role("combobox").first.fill(FORM["hook-name"])
    page.get_by_role("option", name=FORM["hook-name"], exact=True).click()
    form.locator("[name=element_business_id]").wait_for(state="attached")
    return form


def fill_in(form: Locator, sandbox: GraphSandbox) -> None:
    """Type what the sandbox needs into the form."""
    fill(form, host=sandbox.url, password=sandbox.token, business_id=sandbox.business_id, app_secret=APP_SECRET)


def save(form: Locator) -> None:
    """Save the connection, and return when its form is closed."""
    form.get_by_role("button", name="Save").click()
    expect_on_page(form).to_be_hidden()


def give_port(page: Page, airflow: Airflow, conn_id: str) -> None:
    """Give a port to the saved connection if this Airflow's Test button needs one."""
    if click_test(page, airflow, conn_id).status == 400:
        # Before https://github.com/apache/airflow/pull/73298, the button sends port 0 if the connection has no port.
        # Airflow then takes the connection for one to another host and refuses to test it.
        say("this Airflow's Test button refuses connections without a port: port 0 is put into this one")
        port = {"connection_id": conn_id, "conn_type": FORM["connection-type"], "port": 0}
        airflow.call("PATCH", f"/api/v2/connections/{conn_id}?update_mask=port", port)


def click_test(page: Page, airflow: Airflow, conn_id: str = CONN_ID) -> Response:
    """Press the Test button in the list of connections, and return Airflow's answer."""
    page.goto(f"{airflow.url}/connections")
    with page.expect_response("**/api/v2/connections/test") as answer:
        row_of(page, conn_id).get_by_role("button", name="Test Connection").click()
    return answer.value


def press_test(page: Page, airflow: Airflow, sandbox: GraphSandbox, ok: bool, *words: str) -> None:
    """Press Test, and check that the message has these words and no secret."""
    answer = click_test(page, airflow)
    expect(answer.ok, f"the test is refused: {answer.text()}")
    result = answer.json()
    say(f"Test: {'success' if result['status'] else 'failure'}: {result['message']}")
    expect(result["status"] is ok, f"{'success' if ok else 'failure'} was expected")
    expect(all(word in result["message"] for word in words), f"not in the message: {words}")
    expect_on_page(page.get_by_text(f"Test Connection {'Successful' if ok else 'Failed'}")).to_be_visible()
    expect_on_page(page.get_by_text(result["message"], exact=True)).to_be_visible()
    expect_no_secret(answer.text() + page.content(), sandbox)


def reopen(page: Page, airflow: Airflow) -> Locator:
    """Open the form of the saved connection, and return it."""
    page.goto(f"{airflow.url}/connections")
    row_of(page).get_by_role("button", name="Edit Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=element_business_id]").wait_for(state="attached")
    return form


def edit(page: Page, airflow: Airflow, **values: str) -> None:
    """Change some fields of the saved connection in its form."""
    form = reopen(page, airflow)
    fill(form, **values)
    save(form)


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
    expect_on_page(button).to_have_attribute("aria-expanded", "true")


def row_of(page: Page, conn_id: str = CONN_ID) -> Locator:
    """Return the connection's row in the list."""
    return page.get_by_role("row").filter(has_text=conn_id)


def expect_no_secret(text: str, sandbox: GraphSandbox) -> None:
    """Raise an error if the text contains a secret."""
    secrets = {"token": (sandbox.token, WRONG_TOKEN), "app secret": (APP_SECRET, WRONG_APP_SECRET)}
    shown = [name for name, texts in secrets.items() if any(secret in text for secret in texts)]
    expect(not shown, f"{' and '.join(shown)} in a text of {len(text)} characters")


if __name__ == "__main__":
    run_check(check_pages, GraphSandbox(accounts=25, app_secret=APP_SECRET), {DAG_ID: dag_file(DAG_ID, TASK)})
