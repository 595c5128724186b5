"""Compares the reference tables in ``docs/`` with the code, so that neither changes without the other."""

from __future__ import annotations

import inspect
import logging
import re
from typing import Any

import pytest
from documentation import PAGES, PROJECT, code_in, names_in_first_column, section, tables

from airflow_provider_whatsapp import graph
from airflow_provider_whatsapp.get_provider_info import get_provider_info
from airflow_provider_whatsapp.graph import GraphApiError, GraphError, GraphPermissionError
from airflow_provider_whatsapp.graph.answer_errors import find_error
from airflow_provider_whatsapp.graph.app_limit import ACCOUNTS_OF_A_WIDER_LIMIT, SLOWING_DOWN
from airflow_provider_whatsapp.graph.arguments import parse_concurrency
from airflow_provider_whatsapp.graph.edges import EDGES_OF_ACCOUNT, find_edge
from airflow_provider_whatsapp.graph.error_codes import CODES, concerns_one_account
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT, Patience
from airflow_provider_whatsapp.graph.query import WABA_ONLY_ARGUMENTS, build_edge_query
from airflow_provider_whatsapp.graph.versions import DEFAULT_VERSION
from airflow_provider_whatsapp.hooks._waba_edge import _MOST_SKIPPED
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.resume.checkpoint import MAX_FRUITLESS_WAITS
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, main, no_waits
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.tasks.waiting import SHORTEST_SPREAD
from airflow_provider_whatsapp.triggers._stored import StoredClock, StoredCondition, StoredPace
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

WHAT = names_in_first_column(tables(section("## What to list", "operators.md"))[0])
QUERY = names_in_first_column(tables(section("## Query arguments", "operators.md"))[0])
OUTPUT = names_in_first_column(tables(section("## Output", "operators.md"))[0])
PATIENCE = names_in_first_column(tables(section("## Rate limits", "operators.md"))[0])


def keywords(of: Any) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: it for name, it in inspect.signature(of).parameters.items() if it.kind in kinds}


def check_defaults(table: list[list[str]], parameters: dict[str, inspect.Parameter]) -> None:
    """A default in backticks is the one of the code. Other words describe None, or what the code looks up."""
    for row in table:
        names, defaults = code_in(row[0]), re.findall(r"(?:^|, )`([^`]+)`", row[2])
        if defaults:
            assert [repr(parameters[name].default).replace("'", '"') for name in names] == defaults, row
        else:
            assert {parameters[name].default for name in names} <= {None}, row


class TestOperator:
    def test_arguments(self) -> None:
        documented = {*WHAT, *QUERY, *OUTPUT, *PATIENCE}
        assert documented == {*WhatsAppListWabasOperator.template_fields, "deferrable"}

    def test_query_arguments(self) -> None:
        parameters = keywords(build_edge_query)
        assert [name for name in parameters if name not in ("path", "params")] == QUERY
        (table,) = tables(section("## Query arguments", "operators.md"))
        check_defaults([row if row[2] != "see below" else [*row[:2], ""] for row in table], parameters)

    def test_no_other_page_repeats_the_query_arguments(self) -> None:
        for page, text in PAGES.items():
            if page != "operators.md":
                rows = [row for table in tables(text) for row in table]
                assert not {name for row in rows for name in code_in(row[0])} & {*QUERY} - {"fields"}, page

    def test_other_defaults(self) -> None:
        operator = WhatsAppListWabasOperator(task_id="a")
        for heading in ("## What to list", "## Output"):
            for row in tables(section(heading, "operators.md"))[0]:
                (name,), default = code_in(row[0]), getattr(operator, code_in(row[0])[0])
                assert row[2] == f'`"{default}"`' if default is not None else not row[2].startswith("`"), name

    def test_default_fields(self) -> None:
        _, _, text = section("## Query arguments", "operators.md").partition("the default `fields` are")
        query = build_edge_query("1/client_whatsapp_business_accounts")
        assert code_in(text.partition(".")[0]) == [field.key for field in query.fields]

    def test_manifest(self, connected: GraphSandbox, tmp_path: Any) -> None:
        manifest = WhatsAppListWabasOperator(task_id="a", output_path=str(tmp_path / "a.csv")).execute({})
        assert names_in_first_column(tables(section("## Manifest", "operators.md"))[0]) == list(manifest)

    def test_formats(self) -> None:
        from airflow_provider_whatsapp.storage.formats import _FORMATS

        suffixes = [suffix for row in tables(section("## Output", "operators.md"))[1] for suffix in code_in(row[1])]
        assert suffixes == [f".{name}" for name in _FORMATS]

    def test_patience(self) -> None:
        operator = WhatsAppListWabasOperator(task_id="a")
        for row in tables(section("## Rate limits", "operators.md"))[0]:
            (name,) = code_in(row[0])
            assert row[2] == f"`{getattr(operator, name)}`" or name == "deferrable", name


class TestEdgeOperator:
    PAGE = "waba-edges.md"

    def test_arguments(self) -> None:
        (table,) = tables(section("## Arguments", self.PAGE))
        own = names_in_first_column(table)
        signature = keywords(WhatsAppListWabaEdgeOperator)
        assert set(own) == signature.keys() - keywords(WhatsAppListWabasOperator).keys()
        operator = WhatsAppListWabaEdgeOperator(task_id="a", waba_ids=["1"], edge="flows")
        for row in table:
            (name,) = code_in(row[0])
            default = signature[name].default
            if default is inspect.Parameter.empty:
                assert row[2] == "required", name
            else:
                assert getattr(operator, name) == default
                assert row[2] == (
                    "none" if default is None else f"`{default}`" if name == "max_concurrency" else f'`"{default}"`'
                ), name
        assert f"at most {parse_concurrency('50')}." in section("## Arguments", self.PAGE)
        with pytest.raises(ValueError, match="max_concurrency"):
            parse_concurrency(51)

    def test_arguments_that_it_shares(self) -> None:
        own = names_in_first_column(tables(section("## Arguments", self.PAGE))[0])
        also = (
            section("## Arguments", self.PAGE)
            .partition("The operator also takes")[2]
            .partition("all with the meaning")[0]
        )
        names = {name for name in code_in(also) if name in QUERY}
        assert names == {*QUERY} - {*WABA_ONLY_ARGUMENTS}
        # The others are named by links to their tables.
        shared = {*names, *OUTPUT, *PATIENCE, "whatsapp_conn_id", "api_version"}
        taken = {*WhatsAppListWabaEdgeOperator.template_fields, "deferrable"} - {*own}
        assert taken - {"api_version"} == shared - {"api_version"}

    def test_manifest(self, connected: GraphSandbox, tmp_path: Any) -> None:
        ids = [account["id"] for account in connected.accounts[:2]]
        operator = WhatsAppListWabaEdgeOperator(
            task_id="a", waba_ids=ids, edge="phone_numbers", output_path=str(tmp_path / "a.csv")
        )
        manifest = operator.execute({})
        own = names_in_first_column(tables(section("## Manifest", self.PAGE))[0])
        of_accounts = names_in_first_column(tables(section("## Manifest", "operators.md"))[0])
        assert {*manifest} == {*of_accounts, *own} - {"business_id", "relationship"}
        assert "Instead of `business_id` and\n`relationship` it has" in section("## Manifest", self.PAGE)
        assert f"first {_MOST_SKIPPED} accounts" in section("## Manifest", self.PAGE)

    def test_edges(self) -> None:
        (table,) = tables(section("## Edges", self.PAGE))
        documented = {code_in(row[0])[0]: ("".join(code_in(row[1])), code_in(row[2])) for row in table}
        of_accounts = {edge.name: edge for edge in EDGES_OF_ACCOUNT}
        assert list(documented) == list(of_accounts)
        assert documented == {name: (edge.fields, [*edge.required]) for name, edge in of_accounts.items()}
        # The text below the table says that these and no others have an id.
        assert all(find_edge(name).lists_nodes is bool(fields) for name, (fields, _) in documented.items())

    def test_codes_of_accounts_that_are_left_out(self) -> None:
        text = section("## Accounts that cannot be read", self.PAGE)
        skipped, _, never = text.partition("Every other error ends the listing")
        before, with_subcode, after = skipped.partition("100 with subcode 33")
        assert with_subcode
        assert concerns_one_account(self.error(100, 33))
        ranges = re.findall(r"(\d+)(?: to (\d+))?", before + after)
        documented = {code for first, last in ranges for code in range(int(first), int(last or first) + 1)}
        left_out = {code for row in CODES for code in row.codes if concerns_one_account(self.error(code))}
        assert documented == left_out
        # Every other refusal is named as well, because users could expect that it leaves out an account.
        of_the_app = {code for row in CODES if row.kind is GraphPermissionError for code in row.codes} - left_out
        assert {int(number) for number in re.findall(r"\d+", never)} == of_the_app

    def error(self, code: int, subcode: int | None = None) -> GraphError:
        error = find_error(400, {"error": {"code": code, "error_subcode": subcode}}, retry_after=None, redact=str)
        assert error is not None
        return error

    def test_a_limit_that_many_have_reached(self) -> None:
        assert ACCOUNTS_OF_A_WIDER_LIMIT == 5
        assert "If five accounts in a row are refused" in section("## Rate limits", self.PAGE)


class TestSensor:
    def test_arguments(self) -> None:
        own = names_in_first_column(tables(section("## Arguments", "sensor.md"))[0])
        shared = set(WhatsAppWabasSensor.template_fields) - set(own)
        assert {*own} - {"deferrable"} <= set(WhatsAppWabasSensor.template_fields)
        also = set(code_in(section("## Arguments", "sensor.md").partition("also takes")[2].partition("It replaces")[0]))
        assert shared - also == set(QUERY)

    def test_trigger_arguments(self) -> None:
        trigger = WhatsAppWabasTrigger(query={})
        rows = tables(section("## Trigger", "sensor.md"))[0]
        assert sorted(code_in(row[0])[0] for row in rows) == sorted(trigger.serialize()[1])
        groups = {code_in(row[0])[0]: list(dict.fromkeys(code_in(row[1]))) for row in rows}
        for name, kind in {"condition": StoredCondition, "pace": StoredPace, "clock": StoredClock}.items():
            assert groups[name] == list(kind.__struct_fields__)
        assert groups["query"] == list(build_edge_query("1/b").to_json())


class TestHook:
    def methods(self) -> dict[str, str]:
        rows = [*tables(section("## Methods", "hook.md"))[0], *tables(section("## Async methods", "hook.md"))[0]]
        return {code.partition("(")[0]: code.partition("(")[2] for row in rows for code in code_in(row[0])}

    def test_methods(self) -> None:
        own = {name for name in vars(WhatsAppHook) if not name.startswith("_")}
        for_airflow = {name for name in own if not callable(getattr(WhatsAppHook, name)) or name.startswith("get_")}
        assert set(self.methods()) == own - for_airflow

    def test_signatures(self) -> None:
        for name, documented in self.methods().items():
            signature = inspect.signature(getattr(WhatsAppHook, name))
            bare = [it.replace(annotation=inspect.Parameter.empty) for it in signature.parameters.values()]
            text = str(signature.replace(parameters=bare[1:], return_annotation=inspect.Signature.empty))
            assert text.replace("'", '"') == f"({documented}", name

    def test_async_twins(self) -> None:
        for row in tables(section("## Async methods", "hook.md"))[0]:
            name, twin = code_in(row[0])[0].partition("(")[0], code_in(row[1])[0]
            assert name == f"a{twin}"

    def test_arguments(self) -> None:
        documented = names_in_first_column(tables(PAGES["hook.md"])[0])
        assert documented == list(inspect.signature(WhatsAppHook).parameters)


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

    def test_codes(self) -> None:
        (rows,) = tables(section("## Error codes", "errors.md"))
        documented = {code: code_in(row[1]) for row in rows for code in codes_in(row[0])}
        assert documented == {code: [row.kind.__name__] for row in CODES for code in row.codes}
        for code, (name,) in documented.items():
            error = find_error(400, {"error": {"code": code}}, retry_after=None, redact=str)
            assert type(error).__name__ == name


def codes_in(cell: str) -> list[int]:
    codes: list[int] = []
    for part in cell.split(", "):
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
            codes += range(int(match[1]), int(match[2] or match[1]) + 1)
    return codes


FAULT_ROWS = {
    code_in(row[0])[0].partition("(")[0]: row for table in tables(section("## Faults", "testing.md")) for row in table
}


class TestFaults:
    def test_catalogue(self) -> None:
        assert set(FAULT_ROWS) == set(Fault.catalogue())

    @pytest.mark.parametrize("name", FAULT_ROWS)
    def test_arguments(self, name: str) -> None:
        # What has no options is made by a callable without a signature of its own.
        maker = getattr(Fault, name)
        parameters = keywords(maker) if inspect.isfunction(maker) else {}
        given = ", ".join(f"{it.name}={it.default!r}" for it in parameters.values())
        assert code_in(FAULT_ROWS[name][0])[0].replace('"', "'").replace("100_000", "100000") == f"{name}({given})"

    @pytest.mark.parametrize("name", FAULT_ROWS)
    def test_result(self, name: str, connected: GraphSandbox, caplog: pytest.LogCaptureFixture) -> None:
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
        assert FAULT_ROWS[name][2] == result


class TestSandbox:
    def test_arguments(self) -> None:
        table, attributes = tables(section("## GraphSandbox", "testing.md"))
        parameters = keywords(GraphSandbox)
        assert sorted(names_in_first_column(table)) == sorted(parameters)
        check_defaults([row for row in table if code_in(row[0]) != ["hour"]], parameters)
        sandbox = GraphSandbox()
        public = {name for name in (*vars(GraphSandbox), *vars(sandbox)) if not name.startswith("_")}
        assert set(names_in_first_column(attributes)) == public - {"latency"}

    def test_options_of_the_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])
        documented = names_in_first_column(tables(section("## The command", "testing.md"))[0])
        assert set(documented) == set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}


def test_numbers_of_the_page_on_rate_limits() -> None:
    text, patience = " ".join(PAGES["rate-limits.md"].split()), Patience()
    for fact in (
        f"({patience.max_usage:g} by default)" if patience.longest_named_wait == 60 else "another wait",
        {300: "or else for five minutes"}[UNNAMED_WAIT],
        f"From {SLOWING_DOWN:g} percent below `max_usage`",
        {10: "spread over at least ten seconds"}[SHORTEST_SPREAD],
        {5: "If five waits in a row bring no further page"}[MAX_FRUITLESS_WAITS],
    ):
        assert fact in text


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
