from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.io import attach, store
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_instance import TaskInstance

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.storage.errors import StoreError
from airflow_provider_whatsapp.storage.reader import ObjectReader
from airflow_provider_whatsapp.tasks.comparison import Comparison

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


class Replaced(MemoryFileSystem):
    """A store in memory that is read in many requests, during which an object is replaced: its record first."""

    protocol = "replaced"
    cachable = False

    def __init__(self, now: dict[str, bytes], later: dict[str, bytes], moments: dict[str, int]) -> None:
        super().__init__()
        self.now, self.later, self.moments, self.requests = now, later, moments, 0

    def content_of(self, path: str) -> bytes:
        self.requests += 1
        name = path.rpartition("/")[2]
        content = self.later if self.requests > self.moments[name] else self.now
        if name not in content:
            raise FileNotFoundError(path)
        return content[name]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        content = self.content_of(path)
        return {"name": path, "type": "file", "size": len(content), "etag": hashlib.sha256(content).hexdigest()}

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.content_of(path)
        return InRequests(lambda: self.content_of(path))


class InRequests(io.BytesIO):
    def __init__(self, get: Callable[[], bytes]) -> None:
        super().__init__()
        self.get = get

    def read(self, size: int | None = -1) -> bytes:
        self.seek((at := self.tell()) + 40)
        return self.get()[at : at + 40]

    read1 = read


RECORD = "_a.ndjson.airflow-record"
LISTED = st.tuples(
    st.dictionaries(st.sampled_from("123456"), st.sampled_from("ab"), max_size=6),
    st.sampled_from([["id", "name"], ["id", "name", "country"]]),
    st.booleans(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    before=LISTED,
    after=LISTED,
    now=st.dictionaries(st.sampled_from("123456"), st.sampled_from("ab"), max_size=6),
    moment=st.integers(0, 20),
    later=st.integers(0, 4),
)
def test_an_object_that_is_replaced_meanwhile_is_one_of_the_two(
    monkeypatch: pytest.MonkeyPatch, before: Any, after: Any, now: dict[str, str], moment: int, later: int
) -> None:
    def changes(content: dict[str, bytes], later: dict[str, bytes], moments: dict[str, int]) -> dict[str, Any]:
        monkeypatch.setattr(store, "_STORE_CACHE", {})
        attach("memory", conn_id="lake", fs=Replaced(content, later, moments))
        comparison = Comparison(
            ObjectReader("compare_with", "memory://lake@bucket/a.ndjson"), ["id", "name", "country"]
        )
        list(comparison.watch({"id": id_, "name": name, "country": "X"} for id_, name in now.items()))
        return comparison.describe(truncated=False)

    def listed(rows: dict[str, str], fields: list[str], has_record: bool) -> dict[str, bytes]:
        """An object and its record, which says whether a field was asked for that no row has."""
        data = "".join(json.dumps({"id": id_, "name": name}) + "\n" for id_, name in rows.items()).encode()
        manifest = {"fields": fields, "count": len(rows), "sha256": hashlib.sha256(data).hexdigest()}
        return {"a.ndjson": data, **({RECORD: json.dumps({"manifest": manifest}).encode()} if has_record else {})}

    forever = {"a.ndjson": 999, RECORD: 999}
    right = [
        changes(listed(rows, fields, knows), {}, forever)
        for rows, fields, has_record in (before, after)
        for knows in {False, has_record}
    ]
    with contextlib.suppress(StoreError):
        assert changes(listed(*before), listed(*after), {RECORD: moment, "a.ndjson": moment + later}) in right


class TestEdges:
    def export(self, sandbox: GraphSandbox, path: Path, edge: str = "phone_numbers", **arguments: Any) -> Any:
        ids = [account["id"] for account in sandbox.accounts[:20]]
        operator = WhatsAppListWabaEdgeOperator(
            task_id="numbers", waba_ids=ids, edge=edge, output_path=str(path), **arguments
        )
        return operator.execute({})

    def test_rows_are_distinguished_by_account_and_id(self, connected: GraphSandbox, tmp_path: Path) -> None:
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
