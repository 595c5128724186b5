"""Compares what the documentation says with the code, where ``docs/tables.py`` cannot print it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documentation import PAGES, PROJECT, code_in, names_in_first_column, section, tables

from airflow_provider_whatsapp import graph
from airflow_provider_whatsapp.get_provider_info import get_provider_info
from airflow_provider_whatsapp.graph import GraphApiError, GraphError
from airflow_provider_whatsapp.graph.query import build_edge_query
from airflow_provider_whatsapp.graph.versions import DEFAULT_VERSION
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, main, no_waits
from airflow_provider_whatsapp.storage.formats import _FORMATS
from airflow_provider_whatsapp.triggers._stored import StoredClock, StoredCondition, StoredPace


class TestManifest:
    KEYS = names_in_first_column(tables(section("## Manifest", "operators-reference.md"))[0])

    def test_accounts(self, connected: GraphSandbox, tmp_path: Path) -> None:
        manifest = WhatsAppListWabasOperator(task_id="a", output_path=str(tmp_path / "a.csv")).execute({})
        assert list(manifest) == self.KEYS

    def test_edges(self, connected: GraphSandbox, tmp_path: Path) -> None:
        ids = [account["id"] for account in connected.accounts[:2]]
        operator = WhatsAppListWabaEdgeOperator(
            task_id="a", waba_ids=ids, edge="phone_numbers", output_path=str(tmp_path / "a.csv")
        )
        own = names_in_first_column(tables(section("## Manifest", "waba-edges.md"))[0])
        assert {*operator.execute({})} == {*self.KEYS, *own} - {"business_id", "relationship"}


def test_formats() -> None:
    suffixes = [
        suffix for row in tables(section("## Formats", "operators-reference.md"))[0] for suffix in code_in(row[1])
    ]
    assert suffixes == [f".{name}" for name in _FORMATS]


def test_groups_of_the_arguments_of_a_trigger() -> None:
    described = {code_in(row[0])[0]: row[1] for row in tables(section("## Trigger", "sensor.md"))[0]}
    groups = {"query": list(build_edge_query("1/b").to_json())}
    groups |= {"condition": list(StoredCondition.__struct_fields__), "pace": list(StoredPace.__struct_fields__)}
    groups |= {"clock": list(StoredClock.__struct_fields__)}
    for group, names in groups.items():
        assert not {*names} - {*code_in(described[group])}, group


class TestErrors:
    def test_classes(self) -> None:
        assert sorted(names_in_first_column(tables(PAGES["errors.md"])[0])) == sorted(graph.__all__)

    def test_what_a_task_does(self) -> None:
        for row in tables(PAGES["errors.md"])[0]:
            kind: type[GraphError] = getattr(graph, code_in(row[0])[0])
            if row[2]:
                assert row[2].startswith("retries" if kind("a").retryable else "fails"), kind

    def test_attributes(self) -> None:
        common, of_api_errors = tables(section("## Attributes", "errors.md"))
        assert sorted(names_in_first_column(common)) == sorted(vars(GraphError("a")))
        assert sorted(names_in_first_column(of_api_errors)) == sorted(
            {*vars(GraphApiError("a"))} - {*vars(GraphError("a"))}
        )


RESULTS = {
    code_in(row[0])[0].partition("(")[0]: row[2]
    for table in tables(section("## Faults", "testing.md"))
    for row in table
}


@pytest.mark.parametrize("name", RESULTS)
def test_result_of_a_fault(name: str, connected: GraphSandbox, caplog: pytest.LogCaptureFixture) -> None:
    connected.fail_next(Fault.catalogue()[name])
    with no_waits(), caplog.at_level(logging.WARNING, logger="airflow_provider_whatsapp.graph.flow"):
        try:
            listed = {row["id"] for row in WhatsAppHook().list_wabas(fields="id")}
        except GraphError as error:
            result = f"`{type(error).__name__}`"
        else:
            # account_removed is the one fault whose account the API no longer has to give.
            assert listed >= {account["id"] for account in connected.accounts}
            tried_again = any("again in" in line or "half the size" in line for line in caplog.messages)
            result = "retried" if tried_again else "complete"
    assert RESULTS[name] == result


def test_attributes_of_the_sandbox() -> None:
    _, attributes = tables(section("## GraphSandbox", "testing.md"))
    public = {name for name in (*vars(GraphSandbox), *vars(GraphSandbox())) if not name.startswith("_")}
    assert set(names_in_first_column(attributes)) == public - {"latency"}


def test_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    documented = names_in_first_column(tables(section("## The command", "testing.md"))[0])
    assert set(documented) == set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}


class TestCompatibility:
    def test_versions(self) -> None:
        (table, _) = tables(section("## Versions of Airflow and Python", "compatibility.md"))
        project = (PROJECT / "pyproject.toml").read_text()
        pythons = re.findall(r"Python :: (3\.\d+)", project)
        matrix = re.search(r'parametrize\("airflow", \[(.*?)\]', (PROJECT / "noxfile.py").read_text())
        assert matrix is not None
        assert table == [[airflow, ", ".join(pythons)] for airflow in re.findall(r"[\d.]+", matrix[1])]
        assert f'"apache-airflow>={table[0][0]}"' in project

    def test_version_of_the_api(self) -> None:
        assert f"The default is `{DEFAULT_VERSION}`" in PAGES["compatibility.md"]


def test_connection_has_every_field() -> None:
    declared = get_provider_info()["connection-types"][0]
    rows = tables(section("## Fields", "connection.md"))[0]
    documented = {code_in(row[1])[0]: row[0] for row in rows}
    labels = {name: field["label"] for name, field in declared["conn-fields"].items()}
    assert documented == {**labels, **declared["ui-field-behaviour"]["relabeling"]}


def test_which_rows_of_the_tables_name_no_page_of_meta() -> None:
    command = [sys.executable, str(PROJECT / "docs" / "tables.py")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines() == [
        "code -1",
        "column waba_id",
    ]
