"""What is reported to Airflow's lineage collector and to the OpenLineage provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset
from listings import Listing
from task_instance import TaskInstance

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.tasks.lineage import Lineage, LineageInputs

lineage = pytest.importorskip("airflow.sdk.lineage")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The collector as it is when a plugin reads it."""
    collector = lineage.HookLineageCollector()
    monkeypatch.setattr(lineage, "get_hook_lineage_collector", lambda: collector)
    return collector


def uris(assets: list[Any]) -> list[str]:
    return [info.asset.uri for info in assets]


def test_an_object(listing: Listing, target: Path, collector: Any) -> None:
    task = listing.task(target)
    calls = []
    for _ in range(2):
        # The second time, an operator only gives the manifest of the first.
        task.run()
        calls.append(len(listing.sandbox.requests))
        found = collector.collected_assets
        expected = {f"https://graph.facebook.com/{listing.source}"}, {Asset(f"file://{target}").uri}
        assert (set(uris(found.inputs)), set(uris(found.outputs))) == expected
    assert (calls[0] == calls[1]) is (listing.kind is not WhatsAppWabasSensor)


def test_the_object_that_names_the_accounts(connected: GraphSandbox, tmp_path: Path, collector: Any) -> None:
    accounts: Any = WhatsAppListWabasOperator(task_id="accounts", output_path=str(tmp_path / "a.ndjson")).execute({})
    path = str(tmp_path / "b.ndjson")
    TaskInstance(
        lambda: WhatsAppListWabaEdgeOperator(
            task_id="numbers", waba_ids=[accounts], edge="phone_numbers", output_path=path
        )
    ).run()
    found = collector.collected_assets
    edge = "https://graph.facebook.com/whatsapp_business_accounts/phone_numbers"
    assert (uris(found.inputs), uris(found.outputs)) == ([edge, accounts["uri"]], [f"file://{path}"])


def test_rows_in_xcom_are_no_dataset(listing: Listing, collector: Any) -> None:
    task = listing.build()
    listing.give(task, {})
    assert collector.collected_assets.outputs == []
    assert task.get_openlineage_facets_on_complete(None) is None


class TestOpenLineage:
    def test_an_object(self, listing: Listing, target: Path) -> None:
        fields = "id,verified_name.as(name)" if listing.noun == "rows" else "id,owner_business_info.as(owner){name}"
        task = listing.build(output_path=str(target), fields=fields)
        manifest = listing.give(task, {})
        told = task.get_openlineage_facets_on_complete(None)
        (read,), (written,) = told.inputs, told.outputs
        assert (read.namespace, read.name) == ("https://graph.facebook.com", listing.source)
        assert (written.namespace, written.name) == ("file", str(target))
        names = [field.name for field in written.facets["schema"].fields]
        assert names == (["waba_id", "id", "name"] if listing.noun == "rows" else ["id", "owner"])
        statistics = written.outputFacets["outputStatistics"]
        assert (statistics.rowCount, statistics.size) == (manifest["count"], manifest["bytes"])

    def test_it_extracts(self, connected: GraphSandbox, tmp_path: Path) -> None:
        from airflow.providers.openlineage.extractors.base import DefaultExtractor

        operator = WhatsAppListWabaEdgeOperator(
            task_id="apps", waba_ids=[connected.accounts[0]["id"]], edge="subscribed_apps",
            output_path=str(tmp_path / "a.ndjson"),
        )  # fmt: skip
        operator.execute({})
        told = DefaultExtractor(operator).extract_on_complete(None)
        assert [one.name for one in told.inputs] == ["whatsapp_business_accounts/subscribed_apps"]
        assert "schema" not in told.outputs[0].facets


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/a/b.ndjson", ("s3://bucket", "a/b.ndjson")),
        ("gs://bucket/b.csv", ("gs://bucket", "b.csv")),
        ("abfss://container@account.dfs.core.windows.net/b", ("abfss://container@account.dfs.core.windows.net", "b")),
        ("file:///data/b.json", ("file", "/data/b.json")),
    ],
)
def test_names_of_objects(uri: str, name: tuple[str, str]) -> None:
    told = Lineage(LineageInputs([]), {"uri": uri, "count": 0, "bytes": 0}, []).to_openlineage()
    (written,) = told.outputs
    assert (written.namespace, written.name) == name
