"""DAGs that list an edge of many accounts, run by a real Airflow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dag_runs import run_dag
from numbered_accounts import LONG_ACCOUNT, asked_for, give_numbers, ids_of, names_in, numbers_of

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=12) as sandbox:
        give_numbers(sandbox)
        yield sandbox


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def only_ids(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"waba_id": row["waba_id"], "id": row["id"]} for row in rows]


def test_every_field_can_be_a_template(connected: GraphSandbox, tmp_path: Path) -> None:
    ids = ids_of(connected)
    connected.fail_next(Fault.wrong_business().on(ids[0]))
    params = {
        "ids": ids[:3],
        "edge": "pricing_analytics",
        "start": 1793491200,
        "end": 1793577600,
        "on_error": "skip",
        "many": 2,
        "size": 70,
        "folder": str(tmp_path),
        "exists": "fail",
        "empty": "fail",
        "conn": "default",
    }
    finished = run_dag("edges_templated", conf=params)
    assert finished.state == "success"
    manifest = finished.xcom("numbers")
    assert manifest["uri"] == (tmp_path / "2026-11-22.json").as_uri()
    assert [one["waba_id"] for one in manifest["skipped"]] == ids[:1]
    assert {request.params["start"] for request in connected.requests} == {"1793491200"}
    assert {request.params["limit"] for request in connected.requests} == {"70"}
    rendered = finished.rendered("numbers")
    assert rendered["edge"] == "pricing_analytics"
    assert "1793491200" in str(rendered["edge_params"])


def test_accounts_come_through_xcom_in_every_way(connected: GraphSandbox, tmp_path: Path) -> None:
    finished = run_dag("edges_from_xcom", conf={"folder": str(tmp_path)})
    assert finished.state == "success"
    wanted = only_ids(numbers_of(connected))
    for task_id in ("of_rows", "of_manifest", "of_text"):
        assert finished.xcom(task_id) == wanted
    assert finished.xcom("of_address")["accounts"] == 12
    assert rows_of(tmp_path / "numbers.ndjson") == wanted


def test_with_native_templates(connected: GraphSandbox) -> None:
    finished = run_dag("edges_native")
    assert finished.state == "success"
    assert finished.xcom("numbers") == only_ids(numbers_of(connected))


def test_mapped_over_groups_and_over_edges(connected: GraphSandbox, tmp_path: Path) -> None:
    finished = run_dag("edges_mapped", conf={"folder": str(tmp_path), "ids": ids_of(connected)})
    assert finished.state == "success"
    wanted = only_ids(numbers_of(connected))
    groups = [finished.xcom("groups_of", index) for index in range(3)]
    ids = ids_of(connected)
    assert groups[0] == [row for row in wanted if row["waba_id"] in ids[:3]]
    assert groups[1] == [row for row in wanted if row["waba_id"] in ids[3:5]]
    assert groups[2] == []
    assert [finished.xcom("count", index) for index in range(3)] == [len(group) for group in groups]
    assert rows_of(tmp_path / "phone_numbers.ndjson") == numbers_of(connected)
    assert finished.xcom("edges_of", 1)["edge"] == "message_templates"
    assert {row["waba_id"] for row in rows_of(tmp_path / "message_templates.ndjson")} <= set(ids)


def test_default_args(connected: GraphSandbox) -> None:
    gone = ids_of(connected)[0]
    connected.fail_next(Fault.wrong_business().on(gone))
    finished = run_dag("edges_default_args", conf={"ids": ids_of(connected)})
    assert finished.state == "success"
    assert finished.xcom("numbers") == only_ids(numbers_of(connected, gone))


def test_a_retry_resumes(connected: GraphSandbox, tmp_path: Path) -> None:
    ids = ids_of(connected)
    connected.fail_next(Fault.throttle(code=4, minutes=9).on(ids[LONG_ACCOUNT]).after(1))
    finished = run_dag("edges_retried", conf={"folder": str(tmp_path), "ids": ids})
    assert finished.state == "success"
    assert rows_of(tmp_path / "numbers.ndjson") == numbers_of(connected)
    asked = Counter(asked_for(connected))
    assert (asked.pop(ids[LONG_ACCOUNT]), set(asked.values())) == (4, {1})
    assert names_in(tmp_path / "numbers.ndjson") == {"numbers.ndjson", "_numbers.ndjson.airflow-record"}


def test_it_waits_without_a_slot(connected: GraphSandbox, tmp_path: Path) -> None:
    ids = ids_of(connected)
    connected.fail_next(Fault.throttle(minutes=5).on(ids[0]))
    with no_waits() as skipped:
        finished = run_dag("edges_deferred", conf={"folder": str(tmp_path), "ids": ids})
    assert finished.state == "success"
    assert rows_of(tmp_path / "numbers.ndjson") == numbers_of(connected)
    assert asked_for(connected)[-1] == ids[0]
    assert len(connected.requests) == 14
    assert 295 <= skipped.total <= 330


def test_bad_input_is_not_retried(connected: GraphSandbox, tmp_path: Path) -> None:
    finished = run_dag("edges_retried", conf={"folder": str(tmp_path), "ids": ["1", "x"]})
    assert finished.states == {("numbers", -1): "failed"}
    assert connected.connections == 0
