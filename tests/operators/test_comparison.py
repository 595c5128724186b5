from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from task_instance import TaskInstance

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

KINDS = ("added", "removed", "changed")


def export(path: Path, **arguments: Any) -> Any:
    return WhatsAppListWabasOperator(task_id="export", output_path=str(path), **arguments).execute({})


def told(manifest: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    for kind in KINDS:
        assert manifest[kind]["count"] == len(manifest[kind]["ids"])
    return tuple(manifest[kind]["ids"] for kind in KINDS)


def change(sandbox: GraphSandbox) -> tuple[list[str], list[str], list[str]]:
    """Add, remove and change accounts, and give the ids."""
    gone = sandbox.accounts.pop(3)
    sandbox.accounts.append({**sandbox.accounts[0], "id": "71"})
    changed = [sandbox.accounts[5], sandbox.accounts[6]]
    changed[0]["creation_time"] += 1
    changed[1]["owner_business_info"] = {"id": "1", "name": "Another"}
    return ["71"], [gone["id"]], sorted((account["id"] for account in changed), key=int)


@pytest.mark.parametrize("name", ["a.ndjson", "a.json.gz", "a.csv", "a.csv.gz", "a.parquet"])
@pytest.mark.parametrize("new", ["b.ndjson", "b.csv", "b.parquet"])
def test_what_is_different_from_another_object(connected: GraphSandbox, tmp_path: Path, name: str, new: str) -> None:
    assert not {*KINDS} & export(tmp_path / name).keys()
    unchanged = export(tmp_path / new, compare_with=str(tmp_path / name))
    assert told(unchanged) == ([], [], [])
    expected = change(connected)
    assert told(export(tmp_path / new, compare_with=f"file://{tmp_path / name}")) == expected
    # The earlier object is the same as before.
    assert told(export(tmp_path / new, compare_with=str(tmp_path / name))) == expected


def test_the_target_itself(connected: GraphSandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    first = export(path, compare_with=str(path))
    assert [first[kind] for kind in KINDS] == [None, None, None]
    expected = change(connected)
    assert told(export(path, compare_with=str(path))) == expected
    assert told(export(path, compare_with=str(path))) == ([], [], [])


def test_only_fields_that_both_have_are_compared(connected: GraphSandbox, tmp_path: Path) -> None:
    export(tmp_path / "a.ndjson", fields="id,name,country")
    connected.accounts[1]["currency"] = "XXX"
    connected.accounts[2]["country"] = "XX"
    connected.accounts[3]["name"] = "Another"
    manifest = export(tmp_path / "b.ndjson", fields="id,name,currency", compare_with=str(tmp_path / "a.ndjson"))
    assert told(manifest) == ([], [], [connected.accounts[3]["id"]])


def test_a_field_that_an_account_no_longer_has_has_changed(connected: GraphSandbox, tmp_path: Path) -> None:
    export(tmp_path / "a.ndjson")
    del connected.accounts[4]["country"]
    manifest = export(tmp_path / "b.ndjson", compare_with=str(tmp_path / "a.ndjson"))
    assert told(manifest) == ([], [], [connected.accounts[4]["id"]])


@pytest.mark.parametrize("name", ["a.ndjson", "a.json", "a.csv", "a.parquet"])
def test_a_field_that_no_account_had_before_has_changed(connected: GraphSandbox, tmp_path: Path, name: str) -> None:
    fields = "id,name,purchase_order_number"
    # The API leaves out a field that has no value.
    for account in connected.accounts:
        account.pop("purchase_order_number", None)
    path = str(tmp_path / name)
    TaskInstance(lambda: WhatsAppListWabasOperator(task_id="export", output_path=path, fields=fields)).run()
    connected.accounts[4]["purchase_order_number"] = "PO-1"
    manifest = export(tmp_path / "b.ndjson", fields=fields, compare_with=path)
    assert told(manifest) == ([], [], [connected.accounts[4]["id"]])


def test_a_listing_that_fails_changes_nothing(connected: GraphSandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    export(path)
    before = path.read_bytes()
    connected.fail_next(Fault.wrong_business().after(1))
    with pytest.raises(AirflowFailException):
        export(path, compare_with=str(path), page_size=10)
    assert path.read_bytes() == before


def test_a_listing_that_is_cut_is_an_error(connected: GraphSandbox, tmp_path: Path) -> None:
    export(tmp_path / "a.ndjson")
    with pytest.raises(AirflowFailException, match="max_items has cut the listing"):
        export(tmp_path / "b.ndjson", max_items=5, compare_with=str(tmp_path / "a.ndjson"))
    assert not (tmp_path / "b.ndjson").exists()
    count = len(connected.accounts)
    manifest = export(tmp_path / "b.ndjson", max_items=count, compare_with=str(tmp_path / "a.ndjson"))
    assert told(manifest) == ([], [], [])


def test_an_earlier_object_that_was_cut_is_an_error(connected: GraphSandbox, tmp_path: Path) -> None:
    path = str(tmp_path / "a.ndjson")
    # Only the record of a task instance tells that the object was cut.
    TaskInstance(lambda: WhatsAppListWabasOperator(task_id="export", output_path=path, max_items=5)).run()
    calls = len(connected.requests)
    with pytest.raises(AirflowFailException, match=r"^compare_with: max_items has cut .*/a\.ndjson"):
        export(tmp_path / "b.ndjson", compare_with=str(tmp_path / "a.ndjson"))
    assert len(connected.requests) == calls


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "a"}\n', "the rows have no `id`"),
        ('{"id": ""}\n', "the rows have no `id`"),
        ("[1]\n", "cannot be read as ndjson"),
        ('{"id": "1"', "cannot be read as ndjson"),
    ],
)
def test_something_else(connected: GraphSandbox, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.ndjson").write_text(text)
    with pytest.raises(AirflowFailException, match=rf"^compare_with: .*{message}"):
        export(tmp_path / "b.ndjson", compare_with=str(tmp_path / "a.ndjson"))
    assert connected.requests == []


@pytest.mark.parametrize("address", ["wabas.ndjson", "s3://bucket/a.txt", "s3://user:secret@bucket/a.csv", 5])
def test_bad_addresses(connected: GraphSandbox, tmp_path: Path, address: Any) -> None:
    with pytest.raises(AirflowFailException, match="^compare_with: ") as caught:
        export(tmp_path / "b.ndjson", compare_with=address)
    assert "secret" not in str(caught.value)
    assert connected.requests == []


class TestEdges:
    def export(self, sandbox: GraphSandbox, path: Path, edge: str = "phone_numbers", **arguments: Any) -> Any:
        ids = [account["id"] for account in sandbox.accounts[:20]]
        operator = WhatsAppListWabaEdgeOperator(
            task_id="numbers", waba_ids=ids, edge=edge, output_path=str(path), **arguments
        )
        return operator.execute({})

    def test_rows_are_told_apart_by_account_and_id(self, connected: GraphSandbox, tmp_path: Path) -> None:
        number = {"id": "5", "display_phone_number": "1", "verified_name": "A", "quality_rating": "GREEN"}
        for account in connected.accounts[:20]:
            account["phone_numbers"] = [dict(number)]
        self.export(connected, tmp_path / "a.ndjson")
        connected.accounts[0]["phone_numbers"][0]["quality_rating"] = "RED"
        connected.accounts[1]["phone_numbers"].clear()
        connected.accounts[2]["phone_numbers"].append({**number, "id": "6"})
        manifest = self.export(connected, tmp_path / "b.ndjson", compare_with=str(tmp_path / "a.ndjson"))
        one, two, three = (account["id"] for account in connected.accounts[:3])
        assert told(manifest) == ([f"{three}/6"], [f"{two}/5"], [f"{one}/5"])

    def test_rows_without_an_id(self, connected: GraphSandbox, tmp_path: Path) -> None:
        rows = [{"waba_id": "1", "id": "2"}]
        (tmp_path / "a.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(AirflowException, match="the rows have no `id`"):
            self.export(
                connected, tmp_path / "b.ndjson", edge="subscribed_apps", compare_with=str(tmp_path / "a.ndjson")
            )
