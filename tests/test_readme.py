"""Runs the snippets of the README, because users copy them, and the demo. ``docs/`` has the tests of the other pages."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from documentation import PAGES, PROJECT, snippet

from airflow_provider_whatsapp.hooks._connection import load_connection
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

README = PAGES["README.md"]


def run(name: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(snippet(name, "README.md"), namespace)  # noqa: S102  # the project's own text
    return namespace


def value_of(name: str, **names: Any) -> Any:
    return eval(snippet(name, "README.md"), names)  # noqa: S307  # the project's own text


def test_every_python_snippet_has_a_test() -> None:
    named = re.findall(r"<!-- ([\w ]+) -->\n```python", README)
    assert README.count("```python") == len(named)
    assert set(named) == {"first DAG", "operator", "edge", "sensor", "hook", "sandbox"}


def test_the_two_commands() -> None:
    for session in ("demo", "tests"):
        assert f'\npython3 -m pip install "nox[uv]" && python3 -m nox -s {session}\n' in README


def test_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    (assignment,) = shlex.split(snippet("connection", "README.md"))[1:]
    variable, _, value = assignment.partition("=")
    assert variable == "AIRFLOW_CONN_WHATSAPP_DEFAULT"
    monkeypatch.setenv(variable, value)
    assert load_connection(WhatsAppHook(), "whatsapp_default").waba_query().node_id == "1906385232743451"


def test_first_dag(connected: GraphSandbox, capsys: pytest.CaptureFixture[str]) -> None:
    dag = run("first DAG")["client_accounts"]()
    assert set(dag.task_dict) == {"accounts", "greet"}
    rows = dag.get_task("accounts").execute({})
    dag.get_task("greet").python_callable(rows[0])
    assert "Hello " in capsys.readouterr().out


def test_operator(connected: GraphSandbox, tmp_path: Path) -> None:
    operator = value_of("operator", WhatsAppListWabasOperator=WhatsAppListWabasOperator)
    # The store of the snippet is not reachable from a test.
    operator.output_path, operator.output_conn_id = str(tmp_path / "a.ndjson.gz"), None
    assert operator.execute({})["count"] > 0


def test_edge(connected: GraphSandbox, tmp_path: Path) -> None:
    operator = value_of("edge", WhatsAppListWabaEdgeOperator=WhatsAppListWabaEdgeOperator)
    # The store of the snippet is not reachable from a test.
    accounts = WhatsAppListWabasOperator(task_id="accounts", output_path=str(tmp_path / "accounts.ndjson"))
    manifest: Any = accounts.execute({})
    operator.waba_ids = manifest["uri"]
    operator.output_path, operator.output_conn_id = str(tmp_path / "phone_numbers.ndjson"), None
    assert operator.execute({})["accounts"] == len(connected.accounts)


def test_sensor(connected: GraphSandbox) -> None:
    connected.accounts[5].update(id="102290129340398", account_review_status="APPROVED")
    sensor = value_of("sensor", WhatsAppWabasSensor=WhatsAppWabasSensor, timedelta=timedelta)
    assert [row["id"] for row in sensor.execute({})] == ["102290129340398"]


def test_hook(connected: GraphSandbox) -> None:
    del connected.accounts[2:]
    assert isinstance(run("hook")["phones"], list)


def test_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    run("sandbox")["test_every_account_arrives"](monkeypatch)


def output_of_the_demo(folder: Path, **environment: str) -> str:
    # The demo writes to its own folder. With a copy, no two tests write the same object.
    shutil.copy(PROJECT / "demo.py", folder)
    shutil.copytree(PROJECT / "example_dags", folder / "example_dags")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return subprocess.run(
        [sys.executable, "demo.py"],
        cwd=folder,
        env={**inherited, **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


# The first release of Airflow 3.1 tests only DAGs that are in the database. `nox -s demo` installs a later one.
needs_later_airflow = pytest.mark.skipif(version("apache-airflow") == "3.1.0", reason="not with Airflow 3.1.0")


@needs_later_airflow
def test_demo(tmp_path: Path) -> None:
    shown = output_of_the_demo(tmp_path)
    assert "Listed 2500 accounts on 25 pages" in shown
    assert re.search(r"^id +name +country +ownership_type +account_review_status$", shown, re.MULTILINE)
    assert "2,500 accounts in all; these are the first 10." in shown
    assert '"count": 2500' in shown
    assert Path(shown.strip().splitlines()[-1].strip()).is_file()


@needs_later_airflow
def test_demo_lists_the_business_of_the_connection(sandbox: GraphSandbox, tmp_path: Path) -> None:
    shown = output_of_the_demo(tmp_path, AIRFLOW_CONN_WHATSAPP_DEFAULT=sandbox.connection)
    assert "Listing the business of the connection whatsapp_default." in shown
    assert "250 accounts in all" in shown
    assert sandbox.token not in shown
