"""The README's snippets are what users copy: each of them runs here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_whatsapp.hooks._connection import load_connection
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
CONNECTION = (PROJECT / "docs" / "connection.md").read_text()


def snippet(name: str, text: str = README) -> str:
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert match is not None, name
    return match[1]


def run(name: str, **names: Any) -> dict[str, Any]:
    namespace = {
        "WhatsAppHook": WhatsAppHook,
        "WhatsAppListWabasOperator": WhatsAppListWabasOperator,
        **names,
    }
    exec(snippet(name), namespace)  # noqa: S102  # our own text
    return namespace


def test_every_python_snippet_has_a_test() -> None:
    assert README.count("```python") == len(re.findall(r"<!-- [\w ]+ -->\n```python", README)) == 5


@pytest.mark.parametrize(("name", "text"), [("connection", README), ("json", CONNECTION), ("uri", CONNECTION)])
def test_the_connection(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (assignment,) = shlex.split(snippet(name, text))[1:]
    variable, _, value = assignment.partition("=")
    assert variable == "AIRFLOW_CONN_WHATSAPP_DEFAULT"
    monkeypatch.setenv(variable, value)
    assert load_connection(WhatsAppHook()).waba_query().node_id == "1906385232743451"


def test_the_first_dag(connected: GraphSandbox, capsys: pytest.CaptureFixture[str]) -> None:
    dag = run("first DAG")["client_accounts"]()
    assert set(dag.task_dict) == {"accounts", "greet"}
    rows = dag.get_task("accounts").execute({})
    dag.get_task("greet").python_callable(rows[0])
    assert "Hello " in capsys.readouterr().out


def test_the_operator(connected: GraphSandbox, tmp_path: Path) -> None:
    operator = eval(snippet("operator"), {"WhatsAppListWabasOperator": WhatsAppListWabasOperator})  # noqa: S307
    operator.output_path, operator.output_conn_id = str(tmp_path / "a.ndjson.gz"), None
    assert operator.execute({})["count"] > 0


def test_the_sensor(connected: GraphSandbox) -> None:
    from datetime import timedelta

    from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

    connected.accounts[5].update(id="102290129340398", account_review_status="APPROVED")
    names = {"WhatsAppWabasSensor": WhatsAppWabasSensor, "timedelta": timedelta}
    rows = eval(snippet("sensor"), names).execute({})  # noqa: S307
    assert [row["id"] for row in rows] == ["102290129340398"]


def test_the_hook(connected: GraphSandbox) -> None:
    del connected.accounts[2:]
    assert isinstance(run("hook")["phones"], list)


def test_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    run("sandbox")["test_every_account_arrives"](monkeypatch)


def test_the_arguments_in_the_table_are_those_of_the_operator() -> None:
    table = README[README.index("| argument |") : README.index("All of them are templated")]
    named = set(
        re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `")))
    )
    assert named == set(WhatsAppListWabasOperator.template_fields)


def test_the_commands_exist() -> None:
    sessions = set(re.findall(r"@nox\.session.*?\ndef (\w+)", (PROJECT / "noxfile.py").read_text(), re.DOTALL))
    for text in (README, (PROJECT / "CONTRIBUTING.md").read_text(), (PROJECT / ".ci" / "run").read_text()):
        for names in re.findall(r"nox -s ([a-z ]+)", text):
            assert set(names.split()) <= sessions


def test_the_links_lead_somewhere() -> None:
    for folder, text in ((PROJECT, README), (PROJECT / "docs", CONNECTION)):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (folder / target).exists(), target


def test_the_connection_page_names_every_field() -> None:
    from airflow_provider_whatsapp.get_provider_info import get_provider_info

    declared = get_provider_info()["connection-types"][0]
    for name, field in declared["conn-fields"].items():
        assert f"`{name}`" in CONNECTION
        assert field["label"] in CONNECTION
    for label in declared["ui-field-behaviour"]["relabeling"].values():
        assert label in CONNECTION


def test_the_connection_page_has_every_code() -> None:
    from airflow_provider_whatsapp.graph.error_codes import CODES

    table = CONNECTION[CONNECTION.index("| code | class |") :]
    for kind, codes in CODES:
        for code in codes:
            row = next((row for row in table.splitlines() if _names(row, code) and kind.__name__ in row), None)
            assert row is not None or code in (33, 506, 803), (code, kind)


def _names(row: str, code: int) -> bool:
    cell = row.split("|")[1] if row.startswith("|") else ""
    singles = {int(number) for number in re.findall(r"(?<![-/\d])\d+(?![-\d])", cell)}
    ranges = [(int(low), int(high)) for low, high in re.findall(r"(\d+)-(\d+)", cell)]
    return code in singles or any(low <= code <= high for low, high in ranges)


def test_the_demo_shows_what_a_user_gets() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    shown = subprocess.run(
        [sys.executable, "demo.py"], cwd=PROJECT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert "Listed 2500 accounts on 25 pages" in shown
    assert re.search(r"^id +name +country +ownership_type +account_review_status$", shown, re.MULTILINE)
    assert "2,500 accounts in all" in shown
    assert '"count": 2500' in shown
    assert Path(shown.strip().splitlines()[-1].strip()).is_file()


def test_the_demo_lists_the_business_of_the_connection(sandbox: GraphSandbox) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    shown = subprocess.run(
        [sys.executable, "demo.py"],
        cwd=PROJECT,
        env={**environment, "AIRFLOW_CONN_WHATSAPP_DEFAULT": sandbox.connection},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "Listing the business of the connection whatsapp_default." in shown
    assert "250 accounts in all" in shown
    assert sandbox.token not in shown
