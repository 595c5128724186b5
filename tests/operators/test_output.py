"""What every operator and sensor gives to XCom or writes to an object, and what it reports of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias
from listings import UNITS, Listing, rows_in
from numbered_accounts import names_in

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_whatsapp.graph import GraphError, GraphTokenError
from airflow_provider_whatsapp.sandbox import Fault
from airflow_provider_whatsapp.storage.errors import StoreError
from airflow_provider_whatsapp.transport.sync import GraphClient


def test_rows_to_xcom(listing: Listing) -> None:
    rows = listing.run()
    assert rows == listing.rows
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz"])
def test_rows_to_an_object_with_its_manifest(listing: Listing, tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    manifest = listing.run(output_path=path.as_uri())
    # A CSV has an empty cell for a field that the API left out.
    assert [{key: value for key, value in row.items() if value} for row in rows_in(path)] == listing.rows
    data = path.read_bytes()
    expected = {
        "uri": path.as_uri(),
        "conn_id": None,
        "format": name.split(".")[1].replace("jsonl", "ndjson"),
        "count": len(listing.rows),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **listing.facts,
    }
    assert manifest == expected
    assert list(manifest) == list(expected)
    assert json.loads(json.dumps(manifest)) == manifest
    assert names_in(path) == {name}


def test_output_format(listing: Listing, tmp_path: Path) -> None:
    listing.run(output_path=str(tmp_path / "a"), output_format="csv")
    listing.run(output_path=str(tmp_path / "a.csv"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "a.csv").read_bytes()


@pytest.mark.parametrize(("less", "truncated"), [(1, True), (0, False), (-1, False)])
def test_truncated_means_that_max_items_cut_the_list(
    operator: Listing, target: Path, less: int, truncated: bool
) -> None:
    most = len(operator.rows) - less
    manifest = operator.run(output_path=str(target), max_items=str(most))
    assert rows_in(target) == operator.rows[:most]
    assert (manifest["count"], manifest["truncated"]) == (len(operator.rows[:most]), truncated)


class TestIfExists:
    def test_overwrite(self, listing: Listing, target: Path) -> None:
        target.parent.mkdir()
        target.write_text("before")
        listing.run(output_path=str(target))
        assert rows_in(target) == listing.rows

    @pytest.mark.parametrize(("if_exists", "error"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_fail_and_skip(self, operator: Listing, target: Path, if_exists: str, error: type[Exception]) -> None:
        assert operator.run(output_path=str(target), if_exists=if_exists)["count"] == len(operator.rows)
        before = target.read_bytes()
        operator.sandbox.reset()
        with pytest.raises(error, match="already exists"):
            operator.run(output_path=str(target), if_exists=if_exists)
        assert target.read_bytes() == before
        assert operator.sandbox.requests == []

    def test_an_object_that_appears_meanwhile_is_not_overwritten(
        self, operator: Listing, tmp_path: Path, after_the_last_row: Callable[[Callable[[], object]], None]
    ) -> None:
        path = tmp_path / "a.ndjson"
        after_the_last_row(lambda: path.write_text("theirs"))
        with pytest.raises(AirflowFailException, match="already exists"):
            operator.run(output_path=str(path), if_exists="fail")
        assert path.read_text() == "theirs"

    @pytest.mark.parametrize(("if_exists", "error"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_an_object_that_appears_in_the_last_moment_is_not_overwritten(
        self, operator: Listing, target: Path, monkeypatch: pytest.MonkeyPatch, if_exists: str, error: type[Exception]
    ) -> None:
        link = os.link

        def link_late(source: Any, name: Path) -> None:
            name.write_text("theirs")
            link(source, name)

        monkeypatch.setattr(os, "link", link_late)
        with pytest.raises(error, match="appeared while the rows were read, and if_exists is"):
            operator.run(output_path=str(target), if_exists=if_exists)
        assert target.read_text() == "theirs"


class TestIfEmpty:
    @pytest.fixture(autouse=True)
    def _nothing_is_there(self, operator: Listing) -> None:
        operator.clear()

    def test_succeed(self, operator: Listing, target: Path) -> None:
        assert operator.run() == []
        assert operator.run(output_path=str(target))["count"] == 0
        assert target.read_bytes() == b""

    @pytest.mark.parametrize(("if_empty", "error"), [("skip", AirflowSkipException), ("fail", AirflowException)])
    def test_skip_and_fail_leave_what_was_there(
        self, operator: Listing, tmp_path: Path, if_empty: str, error: type[Exception]
    ) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        for arguments in ({}, {"output_path": str(path)}):
            with pytest.raises(error, match="the listing is empty") as caught:
                operator.run(if_empty=if_empty, **arguments)
            # Rows may come later, so that "fail" leaves the task to its retries.
            assert not isinstance(caught.value, AirflowFailException)
        assert path.read_text() == "before"
        assert names_in(path) == {"a.ndjson"}


class TestFailures:
    @pytest.mark.parametrize("fault", [None, Fault.no_advanced_access(), Fault.server_error().times(99)])
    def test_the_client_is_closed_however_the_task_ends(
        self, listing: Listing, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
    ) -> None:
        closed: list[GraphClient] = []
        close = GraphClient.close
        monkeypatch.setattr(GraphClient, "close", lambda self: closed.append(self) or close(self))
        if fault is not None:
            listing.sandbox.fail_next(fault)
        with contextlib.suppress(AirflowFailException, GraphError):
            listing.run()
        assert len(closed) == 1

    def test_what_a_retry_cannot_fix_fails_at_once(self, listing: Listing, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        listing.sandbox.fail_next(Fault.expired_token().after(1))
        with pytest.raises(AirflowFailException, match="The token has expired") as caught:
            listing.run(output_path=str(path))
        assert isinstance(caught.value.__cause__, GraphTokenError)
        assert path.read_text() == "before"
        assert names_in(path) == {"a.ndjson"}

    @pytest.mark.parametrize(
        ("failure", "error", "advice"),
        [
            (PermissionError(13, "not shown"), AirflowFailException, "the credentials lack this permission; grant it"),
            (OSError(5, "not shown"), StoreError, "Airflow retries if the task has `retries`"),
        ],
    )
    def test_the_log_says_in_one_line_what_to_do_about_a_store(
        self,
        listing: Listing,
        target: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        failure: OSError,
        error: type[Exception],
        advice: str,
    ) -> None:
        def fail(*args: Any) -> None:
            raise failure

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(error, match="^output_path: file://.* cannot be written") as caught:
            listing.run(output_path=str(target))
        assert advice in str(caught.value)
        (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
        assert line.startswith("output_path: file://")
        assert "not shown" not in caplog.text + str(caught.value)


def test_an_asset_gets_the_manifest(listing: Listing, target: Path) -> None:
    events: dict[str, SimpleNamespace] = defaultdict(lambda: SimpleNamespace(extra={}, added=[]))
    events["lists"].add = lambda asset, extra: events["lists"].added.append((asset.uri, extra))

    class Accessors:
        def __getitem__(self, key: Asset) -> SimpleNamespace:
            return events[key.name]

    outlets = [Asset("rows"), AssetAlias("lists")]
    manifest = listing.run({"outlet_events": Accessors()}, outlets=outlets, output_path=str(target))
    assert events["rows"].extra == manifest
    # The asset behind an alias is the object.
    assert events["lists"].added == [(manifest["uri"], manifest)]


class TestTooLongToMapOver:
    @pytest.fixture
    def mapped_over(self, listing: Listing) -> Any:
        """A task that a later task is mapped over."""
        with DAG("mapping", schedule=None):
            task = listing.build()
            EmptyOperator.partial(task_id="later").expand(doc=task.output)
        return task

    def give(self, listing: Listing, task: Any, *, is_mapped: bool = False) -> Any:
        context = {"ti": listing.task().ti}
        context["ti"].is_mapped = is_mapped
        return listing.give(task, context)

    @pytest.mark.parametrize(("longest", "units"), [(1, 1), (-1, UNITS)])
    def test_it_fails_at_once_at_the_first_row_too_many(
        self,
        listing: Listing,
        mapped_over: Any,
        monkeypatch: pytest.MonkeyPatch,
        log: pytest.LogCaptureFixture,
        longest: int,
        units: int,
    ) -> None:
        longest %= len(listing.rows)
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", str(longest))
        message = f"mapped over at most {longest} {listing.noun} .* give output_path"
        with pytest.raises(AirflowFailException, match=message):
            self.give(listing, mapped_over)
        assert listing.units() == list(range(1, units + 1))
        (line,) = [record.getMessage() for record in log.records if record.levelno >= logging.ERROR]
        assert len(line) < 150

    def test_it_passes_at_the_limit(self, listing: Listing, mapped_over: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", str(len(listing.rows)))
        assert self.give(listing, mapped_over) == listing.rows

    def test_only_lists_that_airflow_refuses_fail(
        self, listing: Listing, mapped_over: Any, monkeypatch: pytest.MonkeyPatch, target: Path
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
        # Airflow does not limit the length of the list that one instance of a mapped task returns.
        assert self.give(listing, mapped_over, is_mapped=True) == listing.rows
        mapped_over.do_xcom_push = False
        assert self.give(listing, mapped_over) == listing.rows
        mapped_over.do_xcom_push = True
        mapped_over.output_path = str(target)
        assert self.give(listing, mapped_over)["count"] == len(listing.rows)
        with DAG("not_mapping", schedule=None):
            assert self.give(listing, listing.build()) == listing.rows
