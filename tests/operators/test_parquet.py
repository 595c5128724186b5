"""The operators and the sensor write Parquet as they write other formats."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import parquet as pq
from task_instance import TaskInstance

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor


def accounts(path: Path | str, **arguments: Any) -> Any:
    return WhatsAppListWabasOperator(task_id="accounts", output_path=str(path), **arguments).execute({})


def edge(path: Path | str, waba_ids: Any, edge: str = "phone_numbers", **arguments: Any) -> Any:
    operator = WhatsAppListWabaEdgeOperator(
        task_id="edge", waba_ids=waba_ids, edge=edge, output_path=str(path), **arguments
    )
    return operator.execute({})


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_accounts(connected: GraphSandbox, tmp_path: Path) -> None:
    path = tmp_path / "new" / "wabas.parquet"
    manifest = accounts(path)
    # Each of the default fields is missing in some accounts of the sandbox.
    expected = [
        {
            name: json.dumps(account[name], ensure_ascii=False, separators=(",", ":"))
            if name == "owner_business_info" and name in account
            else datetime.fromtimestamp(account[name], timezone.utc)
            if name == "creation_time" and name in account
            else account.get(name)
            for name in manifest["fields"]
        }
        for account in connected.accounts
    ]
    assert rows_of(path) == expected
    assert (manifest["format"], manifest["count"], manifest["bytes"]) == ("parquet", 250, path.stat().st_size)


def test_the_columns_are_the_fields_in_their_order(connected: GraphSandbox, tmp_path: Path) -> None:
    fields = "name,phone_numbers.limit(1).as(phones){id},id,owner_business_info{name}"
    accounts(tmp_path / "a.parquet", fields=fields)
    accounts(tmp_path / "a.csv", fields=fields)
    names = pq.read_schema(tmp_path / "a.parquet").names
    assert names == ["name", "phones", "id", "owner_business_info"]
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == ",".join(names)


def test_an_empty_list_has_all_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with GraphSandbox(accounts=0) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        assert accounts(tmp_path / "empty.parquet")["count"] == 0
    with GraphSandbox(accounts=3) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        accounts(tmp_path / "some.parquet")
    assert pq.read_schema(tmp_path / "empty.parquet") == pq.read_schema(tmp_path / "some.parquet")
    both = [str(tmp_path / "empty.parquet"), str(tmp_path / "some.parquet")]
    with duckdb.connect() as database:
        assert database.execute(
            "SELECT count(*), count(creation_time) > 0 FROM read_parquet(?)", [both]
        ).fetchall() == [(3, True)]


def test_phone_numbers_of_accounts_from_a_manifest_and_from_an_address(connected: GraphSandbox, tmp_path: Path) -> None:
    del connected.accounts[20:]
    manifest = accounts(tmp_path / "wabas.parquet", fields="name,id")
    fields = "id,display_phone_number,verified_name,quality_rating"
    numbers = edge(tmp_path / "numbers.parquet", manifest, fields=fields)
    assert edge(tmp_path / "again.parquet", manifest["uri"], fields=fields)["sha256"] == numbers["sha256"]
    edge(tmp_path / "numbers.ndjson", manifest, fields=fields)
    rows = [json.loads(line) for line in (tmp_path / "numbers.ndjson").read_bytes().splitlines()]
    assert rows_of(tmp_path / "numbers.parquet") == rows
    assert pq.read_schema(tmp_path / "numbers.parquet").names == ["waba_id", *numbers["fields"]]
    assert numbers["accounts"] == 20
    with pytest.raises(AirflowFailException, match="not an account"):
        edge(tmp_path / "c.parquet", numbers["uri"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("message_templates", {}),
        ("message_templates", {"fields": "id,components,quality_score,rejected_reason"}),
        ("phone_numbers", {"fields": "id,last_onboarded_time,throughput,is_pin_enabled,display_phone_number"}),
        ("flows", {"fields": "id,name,categories,updated_at,validation_errors"}),
        ("solutions", {}),
        ("schedules", {"fields": "id,delivery_time"}),
        ("product_catalogs", {"fields": "id,product_count,vertical"}),
        ("dataset", {}),
        ("template_groups", {"fields": "id,creation_time,whatsapp_business_templates"}),
        ("assigned_users", {"edge_params": {"business": "1906385232743451"}}),
        ("activities", {"fields": "id,activity_type,timestamp,actor_type"}),
    ],
)
def test_the_rows_of_every_edge_with_an_id_fit(
    connected: GraphSandbox, tmp_path: Path, name: str, arguments: dict[str, Any]
) -> None:
    ids = [account["id"] for account in connected.accounts[:15]]
    manifest = edge(tmp_path / "a.parquet", ids, name, **arguments)
    rows = rows_of(tmp_path / "a.parquet")
    assert len(rows) == manifest["count"] > 0
    assert all(any(row[field] is not None for row in rows) for field in manifest["fields"])


@pytest.mark.parametrize(("suffix", "name"), [("csv", "a CSV"), ("parquet", "Parquet")])
def test_an_edge_without_known_fields_needs_them(
    connected: GraphSandbox, tmp_path: Path, suffix: str, name: str
) -> None:
    ids = [connected.accounts[0]["id"]]
    day = {"start": 1793491200, "end": 1793577600, "granularity": "DAILY"}
    with pytest.raises(AirflowFailException, match=f"^fields: {name} needs the names of its columns; give fields"):
        edge(tmp_path / f"a.{suffix}", ids, "pricing_analytics", edge_params=day)
    assert not connected.requests
    edge(tmp_path / f"a.{suffix}", ids, "pricing_analytics", edge_params=day, fields="data_points")
    if suffix == "parquet":
        (row,) = rows_of(tmp_path / "a.parquet")
        assert row["waba_id"] == ids[0]
        assert "volume" in json.loads(row["data_points"])[0]


def test_without_pyarrow_nothing_is_sent(
    connected: GraphSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    with pytest.raises(AirflowFailException, match=r"^output_path: Parquet needs pyarrow; pip install .*\[parquet\]"):
        accounts(tmp_path / "a.parquet")
    with pytest.raises(AirflowFailException, match="^waba_ids: Parquet needs pyarrow"):
        edge(tmp_path / "a.ndjson", "/data/wabas.parquet")
    assert not connected.requests


def test_a_value_that_does_not_fit_fails_the_task_at_once(connected: GraphSandbox, tmp_path: Path) -> None:
    connected.accounts[130]["creation_time"] = "long ago"
    path = tmp_path / "a.parquet"
    path.write_text("before")
    task = TaskInstance(
        lambda: WhatsAppListWabasOperator(task_id="accounts", fields="id,creation_time", output_path=str(path)),
        retries=3,
    )
    message = f'^row 131 .id {connected.accounts[130]["id"]}.: creation_time: "long ago" is not a time'
    with pytest.raises(AirflowFailException, match=message):
        task.run()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.parquet"]
    # The ways out that the message names.
    accounts(tmp_path / "a.ndjson", fields="id,creation_time")
    accounts(path, fields="id,creation_time.as(created)")
    assert rows_of(path)[130]["created"] == '"long ago"'


def test_a_sensor_writes_parquet(connected: GraphSandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    wanted = connected.accounts[7]
    sensor = WhatsAppWabasSensor(task_id="a", waba_ids=[wanted["id"]], fields="id,name", output_path=str(path))
    assert sensor.poke({}).xcom_value["format"] == "parquet"
    assert rows_of(path) == [{"id": wanted["id"], "name": wanted.get("name")}]
    connected.accounts[7]["is_enabled_for_insights"] = "yes"
    sensor = WhatsAppWabasSensor(
        task_id="a", waba_ids=[wanted["id"]], fields="id,is_enabled_for_insights", output_path=str(path)
    )
    with pytest.raises(AirflowFailException, match="is_enabled_for_insights"):
        sensor.poke({})
