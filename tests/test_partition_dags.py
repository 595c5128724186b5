"""Runs the snippets of ``docs/partitions.md`` in a real Airflow, in runs with and without a logical date."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import pendulum
import pytest
from dag_runs import NOON, Finished, load_dag, run_dag
from documentation import section, snippet

from airflow_provider_whatsapp.sandbox import GraphSandbox

# The first release of Airflow 3.1 tests only DAGs that are in the database.
pytestmark = pytest.mark.skipif(version("apache-airflow") == "3.1.0", reason="not with Airflow 3.1.0")

PAGE = "partitions.md"
BUSINESSES = ["1906385232743451", "1906385232743452"]
HEAD = """
import pendulum
from airflow.sdk import DAG
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

with DAG("{name}", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="{zone}")) as {name}:
"""
# The date that a run has when a person starts it with one, and what runs have that an asset starts.
LOGICAL_DATES = pytest.mark.parametrize("logical_date", [NOON, None], ids=["with_date", "without_date"])
Run = Callable[..., Finished]


@pytest.fixture
def run_code(airflow_db: None, tmp_path: Path) -> Run:
    """Runs a DAG of this code, which writes to ``tmp_path`` instead of the lake."""
    name = tmp_path.name
    file = tmp_path / f"{name}.py"

    def run(code: str, zone: str = "UTC", **when: Any) -> Finished:
        code = code.replace("s3://my-lake", f"file://{tmp_path}")
        file.write_text(HEAD.format(name=name, zone=zone) + textwrap.indent(code, "    "))
        return run_dag(load_dag(name, file), **when)

    return run


@pytest.fixture
def businesses(monkeypatch: pytest.MonkeyPatch) -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=3, businesses=2) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        yield sandbox


def objects(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!_]*.parquet")}


def templates() -> tuple[list[str], list[str]]:
    """The templates that the page says work in every run, and those that need a logical date."""
    lists = section("## Templates of the day", PAGE).split("These fail")
    good, bad = (re.findall(r"^- `(.*?)`", text, re.MULTILINE) for text in lists)
    return good, bad


def export_to(templates: list[str]) -> str:
    """A task for each template, which writes to an address with it."""
    paths = {f"export_{number}": f"s3://my-lake/{template}.ndjson" for number, template in enumerate(templates)}
    return "\n".join(
        f"WhatsAppListWabasOperator(task_id={task_id!r}, max_items=1, output_path={path!r})"
        for task_id, path in paths.items()
    )


@LOGICAL_DATES
def test_a_run_replaces_its_own_day_only(
    connected: GraphSandbox, run_code: Run, tmp_path: Path, logical_date: pendulum.DateTime | None
) -> None:
    code, days = snippet("daily", PAGE), ("2026-11-22", "2026-11-23")

    def run(**later: int) -> None:
        when = {"logical_date": logical_date and logical_date.add(**later), "run_after": NOON.add(**later)}
        assert run_code(code, **when).state == "success"

    run()
    run(days=1)
    first = objects(tmp_path)
    assert set(first) == {f"wabas/ds={day}/wabas.parquet" for day in days}
    del connected.accounts[0]
    run(hours=1)
    second = objects(tmp_path)
    changed = [name for name, data in second.items() if data != first[name]]
    assert (set(second), changed) == (set(first), ["wabas/ds=2026-11-22/wabas.parquet"])


def test_templates_that_work_in_every_run(connected: GraphSandbox, run_code: Run, tmp_path: Path) -> None:
    good, _ = templates()
    # In Berlin, this is the day after.
    late = pendulum.datetime(2026, 11, 22, 23, 30, tz="UTC")
    for logical_date in (late, None):
        finished = run_code(export_to(good), zone="Europe/Berlin", logical_date=logical_date, run_after=late)
        names = [
            finished.xcom(f"export_{number}")["uri"].removeprefix(f"file://{tmp_path}/").removesuffix(".ndjson")
            for number in range(len(good))
        ]
        assert names[:4] == ["2026-11-22", "2026-11-23", "2026-11-22", "20261122T233000"]
        # Without a logical date, Airflow adds letters at random.
        assert re.fullmatch(r"manual__2026-11-22T233000\+0000(_\w+)?", names[4])


def test_templates_that_need_a_logical_date(connected: GraphSandbox, run_code: Run) -> None:
    _, bad = templates()
    assert len(bad) == 5
    for logical_date, state in ((NOON, "success"), (None, "failed")):
        finished = run_code(export_to(bad), logical_date=logical_date)
        assert set(finished.states.values()) == {state}


@LOGICAL_DATES
def test_partitions_for_each_business(
    businesses: GraphSandbox, run_code: Run, tmp_path: Path, logical_date: pendulum.DateTime | None
) -> None:
    code = snippet("businesses", PAGE)
    for known, business in zip(BUSINESSES, businesses.businesses, strict=True):
        code = code.replace(known, business["id"])
    for day in (0, 1):
        when = {"logical_date": logical_date and logical_date.add(days=day), "run_after": NOON.add(days=day)}
        assert run_code(code, **when).state == "success"
    days = [date(2026, 11, 22), date(2026, 11, 23)]
    wanted = sorted(
        (business["id"], day, account["id"])
        for business in businesses.businesses
        for account in businesses.client_accounts_of(business["id"])
        for day in days
    )
    assert len(objects(tmp_path)) == 4

    namespace: dict[str, Any] = {}
    exec(snippet("pyarrow", PAGE).replace("/tmp/lake", str(tmp_path)), namespace)  # noqa: S102  # the project's own text
    rows = namespace["table"].to_pylist()
    assert sorted((row["business_id"], row["ds"], row["id"]) for row in rows) == wanted

    with duckdb.connect() as database:
        found = database.execute(snippet("duckdb", PAGE).replace("s3://my-lake", str(tmp_path))).fetchall()
    assert sorted(row[:3] for row in found) == wanted
