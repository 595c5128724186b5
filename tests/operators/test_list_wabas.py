"""The list operator against the sandbox. Tests that need a running Airflow are in test_dags.py."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lazy_object_proxy
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias, BaseOperator
from task_instance import TaskInstance

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_whatsapp.graph import GraphError, GraphPermissionError, GraphRateLimitError
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.storage.errors import StoreError
from airflow_provider_whatsapp.storage.local import LocalStore
from airflow_provider_whatsapp.tasks import progress
from airflow_provider_whatsapp.transport.sync import GraphClient


@pytest.fixture(autouse=True)
def _no_real_waits() -> Iterator[None]:
    with no_waits():
        yield


def run(context: Any = None, **arguments: Any) -> Any:
    given: Any = context or {}
    return WhatsAppListWabasOperator(task_id="accounts", **arguments).execute(given)


def rows_of(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()]


def test_rows_to_xcom(connected: GraphSandbox) -> None:
    rows = run(fields="id,name,country")
    wanted = ("id", "name", "country")
    assert rows == [{key: account[key] for key in wanted if key in account} for account in connected.accounts]
    assert any(len(row) < 3 for row in rows)
    assert json.loads(json.dumps(rows)) == rows


def test_owned_accounts(connected: GraphSandbox) -> None:
    assert [row["id"] for row in run(relationship="owned")] == [account["id"] for account in connected.owned_accounts]


@pytest.mark.parametrize("name", ["wabas.ndjson", "wabas.jsonl.gz"])
def test_rows_to_an_object_with_its_manifest(connected: GraphSandbox, tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    manifest = run(fields=["id", "phone_numbers.limit(2){id}"], output_path=path.as_uri())
    assert rows_of(path) == WhatsAppHook().list_wabas(fields="id,phone_numbers{id}")
    assert manifest == {
        "uri": path.as_uri(),
        "conn_id": None,
        "format": "ndjson",
        "count": 250,
        "bytes": path.stat().st_size,
        "sha256": manifest["sha256"],
        "pages": 3,
        "business_id": connected.business_id,
        "relationship": "client",
        "fields": ["id", "phone_numbers.limit(2){id}"],
        "truncated": False,
    }
    assert list(manifest)[:3] == ["uri", "conn_id", "format"]
    assert json.loads(json.dumps(manifest)) == manifest


def test_the_manifest_tells_what_was_listed(connected: GraphSandbox, tmp_path: Path) -> None:
    manifest = run(relationship="owned", fields="id", page_size=20, output_path=str(tmp_path / "a.csv"))
    told = {
        name: manifest[name]
        for name in ("format", "count", "pages", "business_id", "relationship", "fields", "truncated")
    }
    assert told == {
        "format": "csv",
        "count": 30,
        "pages": 2,
        "business_id": connected.business_id,
        "relationship": "owned",
        "fields": ["id"],
        "truncated": False,
    }


@pytest.mark.parametrize("fault", [None, Fault.no_advanced_access(), Fault.server_error().times(99)])
def test_the_client_is_closed_however_the_task_ends(
    connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    closed: list[GraphClient] = []
    close = GraphClient.close
    monkeypatch.setattr(GraphClient, "close", lambda self: closed.append(self) or close(self))
    if fault is not None:
        connected.fail_next(fault)
    with contextlib.suppress(AirflowFailException, GraphError):
        run()
    assert len(closed) == 1


def test_csv_has_the_columns_that_were_asked_for(connected: GraphSandbox, tmp_path: Path) -> None:
    path = tmp_path / "wabas.csv"
    run(fields="name,id,country,phone_numbers.limit(1).as(phones){id}", output_path=str(path), max_items=3)
    assert path.read_text().splitlines()[0] == "name,id,country,phones"


@pytest.mark.parametrize(("max_items", "truncated"), [(249, True), (250, False), (251, False), ("7", True)])
def test_truncated_means_that_max_items_cut_the_list(
    connected: GraphSandbox, tmp_path: Path, max_items: int | str, truncated: bool
) -> None:
    manifest = run(output_path=str(tmp_path / "a.json"), max_items=max_items)
    assert manifest["truncated"] is truncated
    assert manifest["count"] == min(int(max_items), 250)


class TestIfExists:
    def test_overwrite(self, connected: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        run(output_path=str(path))
        assert len(rows_of(path)) == 250

    @pytest.mark.parametrize(("if_exists", "error"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_fail_and_skip(
        self, connected: GraphSandbox, tmp_path: Path, if_exists: str, error: type[Exception]
    ) -> None:
        path = tmp_path / "a.ndjson"
        assert run(output_path=str(path), if_exists=if_exists)["count"] == 250
        before = path.read_bytes()
        connected.reset()
        with pytest.raises(error, match="already exists"):
            run(output_path=str(path), if_exists=if_exists)
        assert path.read_bytes() == before
        assert connected.requests == []

    def test_an_object_that_appears_meanwhile_is_not_overwritten(
        self, connected: GraphSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.ndjson"
        monkeypatch.setattr(progress, "_describe_usage", lambda page: str(path.write_text("theirs")))
        with pytest.raises(AirflowFailException, match="already exists"):
            run(output_path=str(path), if_exists="fail")
        assert path.read_text() == "theirs"

    @pytest.mark.parametrize(("if_exists", "error"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_an_object_that_appears_in_the_last_moment_is_not_overwritten(
        self,
        connected: GraphSandbox,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        if_exists: str,
        error: type[Exception],
    ) -> None:
        path = tmp_path / "a.ndjson"
        upload = LocalStore.upload

        def upload_late(*args: Any, **kwargs: Any) -> None:
            path.write_text("theirs")
            upload(*args, **kwargs)

        monkeypatch.setattr(LocalStore, "upload", upload_late)
        with pytest.raises(error, match="appeared while the rows were read, and if_exists is"):
            run(output_path=str(path), if_exists=if_exists)
        assert path.read_text() == "theirs"


class TestStoreThatFails:
    @pytest.mark.parametrize(
        ("failure", "error", "advice"),
        [
            (PermissionError(13, "not shown"), AirflowFailException, "the credentials lack this permission; grant it"),
            (OSError(5, "not shown"), StoreError, "Airflow retries if the task has `retries`"),
        ],
    )
    def test_the_log_says_in_one_line_what_to_do(
        self,
        connected: GraphSandbox,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        failure: OSError,
        error: type[Exception],
        advice: str,
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise failure

        monkeypatch.setattr(LocalStore, "upload", fail)
        with pytest.raises(error, match="^output_path: file://.* cannot be written") as caught:
            run(output_path=str(tmp_path / "a.ndjson"))
        assert advice in str(caught.value)
        (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
        assert line.startswith("output_path: file://")
        assert "not shown" not in caplog.text + str(caught.value)


class TestIfEmpty:
    @pytest.fixture(autouse=True)
    def _no_accounts(self, connected: GraphSandbox) -> None:
        connected.accounts.clear()

    def test_succeed(self, tmp_path: Path) -> None:
        assert run() == []
        manifest = run(output_path=str(tmp_path / "a.ndjson"))
        assert (manifest["count"], manifest["pages"]) == (0, 1)
        assert (tmp_path / "a.ndjson").read_bytes() == b""

    @pytest.mark.parametrize(("if_empty", "error"), [("skip", AirflowSkipException), ("fail", AirflowException)])
    def test_skip_and_fail_leave_what_was_there(self, tmp_path: Path, if_empty: str, error: type[Exception]) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        for arguments in ({}, {"output_path": str(path)}):
            with pytest.raises(error, match="the listing is empty") as caught:
                run(if_empty=if_empty, **arguments)
            # Accounts may come later, so that "fail" leaves the task to its retries.
            assert not isinstance(caught.value, AirflowFailException)
        assert path.read_text() == "before"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"business_id": "../me"}, "business_id"),
        ({"business_id": ""}, "business_id"),
        ({"business_id": "None"}, "business_id"),
        ({"relationship": "other"}, "relationship"),
        ({"fields": ","}, "fields"),
        ({"filtering": [{}]}, "filtering"),
        ({"created_after": "soon"}, "created_after"),
        ({"page_size": 0}, "page_size"),
        ({"max_items": "all"}, "max_items"),
        ({"sort": "by name"}, "sort"),
        ({"if_exists": "other"}, "if_exists"),
        ({"if_empty": False}, "if_empty"),
        ({"output_path": ""}, "output_path"),
        ({"output_path": "None"}, "output_path"),
        ({"output_path": "s3://bucket/a.ndjson"}, "output_path"),
        ({"output_path": "/tmp/a.xml"}, "output_path"),
        ({"output_format": "csv"}, "output_path"),
        ({"output_conn_id": "lake"}, "output_path"),
        ({"output_path": "/tmp/a.ndjson", "output_format": "xml"}, "output_format"),
    ],
)
def test_bad_input_fails_at_once_before_anything_is_sent(
    connected: GraphSandbox, arguments: dict[str, Any], name: str
) -> None:
    with pytest.raises(AirflowFailException, match=f"^{name}: ") as caught:
        run(**arguments)
    assert isinstance(caught.value.__cause__, ValueError)
    assert connected.connections == 0


@pytest.mark.parametrize("blank", ["", " ", "None"])
def test_a_template_without_a_value_counts_as_not_given(connected: GraphSandbox, tmp_path: Path, blank: str) -> None:
    without_default = {"task_id", "business_id", "output_path"}
    optional = [name for name in WhatsAppListWabasOperator.template_fields if name not in without_default]
    path = tmp_path / "a.ndjson"
    plain = run(output_path=str(path))
    assert plain["count"] == 250
    assert run(output_path=str(path), **dict.fromkeys(optional, blank)) == plain
    assert len(run(**dict.fromkeys(optional, blank))) == 250


def test_a_value_that_airflow_looks_up_late_counts_as_not_given_when_it_is_none(connected: GraphSandbox) -> None:
    with DAG("native", schedule=None, render_template_as_native_obj=True):
        operator: Any = WhatsAppListWabasOperator(task_id="accounts", created_after="{{ prev_start_date_success }}")
    operator.render_template_fields({"prev_start_date_success": lazy_object_proxy.Proxy(lambda: None)})
    assert operator.created_after is not None
    assert len(operator.execute({})) == 250


@pytest.mark.parametrize("argument", ["business_id", "relationship", "fields", "sort", "if_exists", "if_empty"])
def test_a_token_in_the_wrong_argument_is_not_shown(connected: GraphSandbox, argument: str) -> None:
    with pytest.raises(AirflowFailException, match=f"^{argument}: ") as caught:
        run(**{argument: f"{connected.token}!"})
    assert connected.token not in str(caught.value)
    assert connected.connections == 0


def test_an_unusable_connection_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", '{"conn_type": "whatsapp", "extra": {"business_id": "1"}}')
    for business_id in (None, "1"):
        with pytest.raises(AirflowFailException, match="^connection 'whatsapp_default', password: empty"):
            run(business_id=business_id)


def test_what_a_retry_cannot_mend_fails_at_once(connected: GraphSandbox, tmp_path: Path) -> None:
    connected.fail_next(Fault.no_advanced_access().after(1))
    path = tmp_path / "a.ndjson"
    path.write_text("before")
    with pytest.raises(AirflowFailException, match="lacks Advanced access") as caught:
        run(output_path=str(path))
    assert isinstance(caught.value.__cause__, GraphPermissionError)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.ndjson"]


def test_what_may_pass_is_left_to_the_retries_of_the_task(connected: GraphSandbox, tmp_path: Path) -> None:
    connected.fail_next(Fault.throttle(minutes=5).after(2))
    with pytest.raises(GraphRateLimitError, match="asks to wait 0:05:00"):
        run(output_path=str(tmp_path / "a.ndjson"))
    assert os.listdir(tmp_path) == []


class TestLog:
    def lines(self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> list[str]:
        operator = WhatsAppListWabasOperator(task_id="accounts", **arguments)
        monkeypatch.setattr(type(operator), "log", logging.getLogger("progress"))
        with caplog.at_level(logging.INFO, logger="progress"):
            operator.execute({})
        lines = [record.getMessage() for record in caplog.records if record.name == "progress"]
        return [line for line in lines if "Task Runner" not in line]

    def test_what_is_listed_and_what_came_of_it(
        self, connected: GraphSandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        query = {"fields": "id,name", "sort": "creation_time_ascending", "page_size": 10, "max_items": 100}
        assert self.lines(caplog, monkeypatch, **query) == [
            f"Listing the client accounts of business {connected.business_id}, fields id,name, sort creation_time_ascending",
            "Listed 100 accounts on 10 pages, cut by max_items, API usage 1 %",
        ]

    def test_an_empty_listing_has_a_closing_line_too(
        self, connected: GraphSandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connected.accounts.clear()
        assert self.lines(caplog, monkeypatch)[-1].startswith("Listed 0 accounts on 1 pages")

    def test_progress_at_a_bounded_rate(
        self, connected: GraphSandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter(range(0, 10_000, 12))
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
        lines = self.lines(caplog, monkeypatch, page_size=25)
        assert [line.partition(",")[0] for line in lines[1:-1]] == ["3 pages", "6 pages", "9 pages"]
        assert lines[2].startswith("6 pages, 150 accounts so far")


class TestTooLongToMapOver:
    @pytest.fixture(params=[WhatsAppListWabasOperator, WhatsAppWabasSensor])
    def mapped_over(self, request: pytest.FixtureRequest, connected: GraphSandbox) -> BaseOperator:
        """A task that a later task is mapped over."""
        with DAG("mapping", schedule=None):
            operator: BaseOperator = request.param(task_id="accounts", page_size=20)
            EmptyOperator.partial(task_id="later").expand(doc=operator.output)
        return operator

    def execute(self, operator: BaseOperator, *, is_mapped: bool = False) -> Any:
        context: Any = {"ti": TaskInstance(lambda: operator).ti}
        context["ti"].is_mapped = is_mapped
        return operator.execute(context)

    @pytest.mark.parametrize(("longest", "requests"), [("1", 1), ("19", 1), ("20", 2), ("249", 13)])
    def test_it_fails_at_once_at_the_first_row_too_many(
        self,
        connected: GraphSandbox,
        mapped_over: BaseOperator,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        longest: str,
        requests: int,
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", longest)
        monkeypatch.setattr(type(mapped_over), "log", logging.getLogger("mapping"))
        with pytest.raises(AirflowFailException, match=f"mapped over at most {longest} accounts .* give output_path"):
            self.execute(mapped_over)
        assert len(connected.requests) == requests
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(line) < 150

    def test_it_passes_at_the_limit(self, mapped_over: BaseOperator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "250")
        assert len(self.execute(mapped_over)) == 250

    def test_only_lists_that_airflow_refuses_fail(
        self, connected: GraphSandbox, mapped_over: BaseOperator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "15")
        # Airflow does not limit the length of the list that one instance of a mapped task returns.
        assert len(self.execute(mapped_over, is_mapped=True)) == 250
        mapped_over.do_xcom_push = False
        assert len(self.execute(mapped_over)) == 250
        mapped_over.do_xcom_push = True
        mapped_over.output_path = str(tmp_path / "a.ndjson")
        assert self.execute(mapped_over)["count"] == 250
        with DAG("not_mapping", schedule=None):
            assert len(self.execute(WhatsAppListWabasOperator(task_id="accounts"))) == 250


def test_an_asset_learns_what_was_written(connected: GraphSandbox, tmp_path: Path) -> None:
    asset = Asset("accounts")

    events: dict[str, SimpleNamespace] = defaultdict(lambda: SimpleNamespace(extra={}, added=[]))
    events["lists"].add = lambda asset, extra: events["lists"].added.append((asset.uri, extra))

    class Accessors:
        def __getitem__(self, key: Asset) -> SimpleNamespace:
            return events[key.name]

    outlets = [asset, AssetAlias("lists")]
    manifest = run({"outlet_events": Accessors()}, outlets=outlets, output_path=str(tmp_path / "a.json"))
    assert events["accounts"].extra == manifest
    # The asset behind an alias is the object.
    assert events["lists"].added == [(manifest["uri"], manifest)]


WORKER = """
import sys
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
operator = WhatsAppListWabasOperator(task_id="t", output_path=sys.argv[1], page_size=5)
print("ready", flush=True)
operator.execute({})
print("done", flush=True)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("requests_before_kill", [1, 7, 30, 49])
def test_a_killed_worker_leaves_what_was_there(
    connected: GraphSandbox, tmp_path: Path, requests_before_kill: int
) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text("before")
    connected.latency = 0.01
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True)
    with worker:
        wait_for(lambda: len(connected.requests) >= requests_before_kill)
        worker.send_signal(signal.SIGKILL)
        assert worker.stdout is not None
        assert "done" not in worker.stdout.read()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.ndjson"]
    connected.latency = 0
    assert run(output_path=str(path))["count"] == 250
