"""A listing that is throttled or interrupted goes on where it stopped, and is whole in the end."""

from __future__ import annotations

import gzip
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numbered_accounts import names_in
from task_instance import TaskInstance

from airflow_provider_whatsapp._compat import AirflowFailException, AirflowSkipException
from airflow_provider_whatsapp.graph import GraphRateLimitError, GraphServerError
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, SkippedWaits, no_waits
from airflow_provider_whatsapp.storage.local import LocalStore
from airflow_provider_whatsapp.tasks.jobs import AccountsJob

RECORD = "_wabas.ndjson.airflow-record"
PARTS = "_wabas.ndjson.airflow-parts"
THROTTLE = Fault.throttle(minutes=5)


@pytest.fixture(autouse=True)
def skipped() -> Iterator[SkippedWaits]:
    with no_waits() as skipped:
        yield skipped


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the operator logs."""
    monkeypatch.setattr(WhatsAppListWabasOperator, "log", logging.getLogger("task"))
    return caplog


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "lake" / "wabas.ndjson"


def task(path: Path | str | None = None, *, retries: int = 0, run_id: str = "run", **arguments: Any) -> TaskInstance:
    if path is not None:
        arguments["output_path"] = str(path)
    return TaskInstance(
        lambda: WhatsAppListWabasOperator(task_id="accounts", **arguments), retries=retries, run_id=run_id
    )


def rows_of(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def all_of(sandbox: GraphSandbox) -> list[str]:
    return [account["id"] for account in sandbox.accounts]


def pages_of(sandbox: GraphSandbox) -> list[int]:
    """The pages that were read, in order, by their position in the listing."""
    cursors = [request.params.get("after") for request in sandbox.requests if request.status == 200]
    positions = list(dict.fromkeys(cursors))
    return [positions.index(cursor) + 1 for cursor in cursors]


class TestWaiting:
    def test_a_long_throttle_is_waited_for_without_a_slot(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(THROTTLE.after(2))
        deferred = task(target, deferrable=True)
        manifest = deferred.run()
        assert rows_of(target) == all_of(connected)
        assert (manifest["count"], manifest["pages"], manifest["truncated"]) == (250, 3, False)
        assert deferred.deferrals == 1
        (wait,) = skipped.seconds
        assert 300 <= wait <= 330
        # The last kept page is read twice, and no other.
        assert pages_of(connected) == [1, 2, 2, 3]
        assert names_in(target) == {"wabas.ndjson", RECORD}

    def test_the_object_is_the_same_as_without_a_wait(self, connected: GraphSandbox, target: Path) -> None:
        whole = task(target).run()
        connected.fail_next(THROTTLE.after(1), THROTTLE.after(3))
        resumed = task(target, deferrable=True, run_id="other").run()
        assert resumed == whole

    @pytest.mark.parametrize("suffix", ["json", "csv", "ndjson.gz", "csv.gz"])
    def test_every_format(self, connected: GraphSandbox, tmp_path: Path, suffix: str) -> None:
        whole = task(tmp_path / f"a.{suffix}").run()
        connected.fail_next(THROTTLE.after(1))
        resumed = task(tmp_path / f"b.{suffix}", deferrable=True).run()
        assert resumed["sha256"] == whole["sha256"]

    def test_a_throttle_without_a_named_time(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.throttle(minutes=None).after(1))
        task(target, deferrable=True).run()
        (wait,) = skipped.seconds
        assert 300 <= wait <= 330
        assert rows_of(target) == all_of(connected)

    def test_the_log_says_what_the_task_waits_for_and_what_was_kept(
        self, connected: GraphSandbox, target: Path, log: pytest.LogCaptureFixture
    ) -> None:
        connected.fail_next(THROTTLE.after(2))
        with log.at_level(logging.INFO, logger="task"):
            task(target, deferrable=True).run()
        lines = [record.getMessage() for record in log.records if record.name == "task"]
        (waiting,) = [line for line in lines if line.startswith("Waiting without a worker slot until 20")]
        assert " UTC: Too many calls: wait" in waiting
        assert "Resuming after 2 pages with 200 accounts that an earlier try has read" in lines
        assert lines[-2].startswith("Listed 250 accounts on 3 pages")

    def test_a_throttle_before_the_first_page(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(THROTTLE)
        deferred = task(target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 1
        assert pages_of(connected) == [1, 2, 3]

    def test_a_short_throttle_is_waited_for_in_place(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(Fault.throttle(minutes=1).after(1))
        deferred = task(target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 0

    def test_max_wait_in_place(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(Fault.throttle(minutes=1).after(1))
        deferred = task(target, deferrable=True, max_wait_in_place="30")
        deferred.run()
        assert deferred.deferrals == 1

    def test_all_waits_in_place_count_together(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        a_minute = Fault.throttle(minutes=1)
        connected.fail_next(a_minute, a_minute.after(1), a_minute.after(1))
        deferred = task(target, deferrable=True, max_wait_in_place=130)
        deferred.run()
        # Two are waited for in the worker slot. The third, and what follows it, has a budget of its own.
        assert deferred.deferrals == 1
        assert len(skipped.seconds) == 3
        assert rows_of(target) == all_of(connected)

    def test_without_deferrable_a_longer_one_is_waited_for_too(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.throttle(minutes=4).after(1))
        task(target).run()
        assert 240 <= skipped.total <= 241
        assert rows_of(target) == all_of(connected)

    def test_without_deferrable_a_long_throttle_is_an_error(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(Fault.throttle(minutes=6).after(1))
        with pytest.raises(GraphRateLimitError) as caught:
            task(target).run()
        assert caught.value.retry_after is not None
        assert caught.value.retry_after.total_seconds() == 360
        assert names_in(target) == set()

    def test_five_waits_in_a_row_that_do_not_help(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(THROTTLE.after(1).times(100))
        deferred = task(target, deferrable=True)
        with pytest.raises(GraphRateLimitError):
            deferred.run()
        assert deferred.deferrals == 5

    def test_waits_that_help_are_not_counted(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(*[THROTTLE.after(2) for _ in range(6)])
        deferred = task(target, deferrable=True, page_size=10)
        deferred.run()
        assert deferred.deferrals == 6
        assert rows_of(target) == all_of(connected)

    def test_a_list_that_goes_to_xcom_begins_anew_once(self, connected: GraphSandbox) -> None:
        connected.fail_next(THROTTLE.after(2))
        deferred = task(deferrable=True)
        assert [row["id"] for row in deferred.run()] == all_of(connected)
        assert deferred.deferrals == 1
        assert pages_of(connected) == [1, 2, 1, 2, 3]

    def test_a_second_restart_is_an_error(self, connected: GraphSandbox) -> None:
        connected.fail_next(THROTTLE.after(2), THROTTLE.after(2))
        deferred = task(deferrable=True)
        with pytest.raises(GraphRateLimitError, match="set output_path") as caught:
            deferred.run()
        assert deferred.deferrals == 1
        assert caught.value.retry_after is not None

    def test_rows_that_are_lost_each_time_end_in_an_error(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As with a file:// path when each process runs on a worker of its own.
        connected.fail_next(*[THROTTLE.after(1) for _ in range(9)])
        deferred = task(target, deferrable=True)
        monkeypatch.setattr("airflow_provider_whatsapp.resume.files.CheckpointFiles.find", lambda self: None)
        with pytest.raises(GraphRateLimitError, match="every worker"):
            deferred.run()
        assert deferred.deferrals == 2


class TestPacing:
    def test_high_usage_is_waited_for_before_the_api_refuses(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.high_usage(95).after(1))
        deferred = task(target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 1
        assert 300 <= skipped.total <= 330
        assert pages_of(connected) == [1, 2, 2, 3]
        assert rows_of(target) == all_of(connected)

    def test_usage_below_the_limit_is_not_waited_for(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.high_usage(94).times(3))
        task(target, deferrable=True).run()
        assert skipped.seconds == []

    def test_max_usage(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(Fault.high_usage(60).after(1))
        deferred = task(target, deferrable=True, max_usage="60")
        deferred.run()
        assert deferred.deferrals == 1

    def test_in_place_it_waits_for_five_minutes_in_all(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.high_usage(99).times(10))
        task(target).run()
        assert skipped.seconds == [300]
        assert rows_of(target) == all_of(connected)

    def test_a_list_that_goes_to_xcom_waits_in_place(self, connected: GraphSandbox, skipped: SkippedWaits) -> None:
        connected.fail_next(Fault.high_usage(99).times(10))
        deferred = task(deferrable=True)
        assert len(deferred.run()) == 250
        assert deferred.deferrals == 0
        assert skipped.seconds == [300]

    @pytest.mark.parametrize("arguments", [{"max_usage": 0}, {"max_usage": "many"}, {"max_wait_in_place": -1}])
    def test_bad_input(self, connected: GraphSandbox, arguments: dict[str, Any]) -> None:
        with pytest.raises(AirflowFailException, match=rf"^{next(iter(arguments))}: .* for example"):
            task(**arguments).run()


class TestRetries:
    def test_a_retry_goes_on_after_a_throttle(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(THROTTLE.after(2))
        retried = task(target, retries=1)
        retried.run()
        assert [type(failure) for failure in retried.failures] == [GraphRateLimitError]
        assert pages_of(connected) == [1, 2, 2, 3]
        assert rows_of(target) == all_of(connected)
        assert names_in(target) == {"wabas.ndjson", RECORD}

    def test_a_retry_goes_on_after_a_fault(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(Fault.server_error().after(2).times(6))
        retried = task(target, retries=1)
        retried.run()
        assert [type(failure) for failure in retried.failures] == [GraphServerError]
        assert pages_of(connected) == [1, 2, 2, 3]

    def test_nothing_is_kept_within_the_first_minute(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connected.fail_next(Fault.throttle(minutes=1).after(1))
        kept: list[int] = []
        upload = LocalStore.upload

        def note(self: LocalStore, file: Path, key: str, **more: Any) -> None:
            if ".airflow-parts/" in key:
                kept.append(len(connected.requests))
            upload(self, file, key, **more)

        monkeypatch.setattr(LocalStore, "upload", note)
        task(target, retries=1, page_size=50).run()
        # Only once, after the page behind the wait of a minute.
        assert kept == [3]
        assert names_in(target) == {"wabas.ndjson", RECORD}

    def test_without_a_retry_nothing_is_kept(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connected.fail_next(Fault.throttle(minutes=1).after(1))
        monkeypatch.setattr("airflow_provider_whatsapp.resume.files.CheckpointFiles.keep", None)
        task(target, page_size=50).run()
        assert rows_of(target) == all_of(connected)

    def test_an_error_that_a_retry_cannot_mend_leaves_nothing(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(THROTTLE.after(1), Fault.expired_token().after(1))
        with pytest.raises(AirflowFailException):
            task(target, deferrable=True, retries=3).run()
        assert names_in(target) <= {PARTS}
        assert not (target.parent / PARTS).exists()

    def test_the_last_try_leaves_nothing(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(THROTTLE.after(1), THROTTLE.after(1))
        with pytest.raises(GraphRateLimitError):
            task(target, retries=1).run()
        assert names_in(target) == set()

    def test_what_is_kept_is_not_seen_by_those_who_read_the_lake(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(THROTTLE.after(1))
        first = task(target, retries=1)
        with pytest.raises(GraphRateLimitError):
            first.build().execute({"ti": first.ti})
        found = [path for path in target.parent.rglob("*") if path.is_file()]
        assert found
        for path in found:
            assert path.name.startswith("_")
            assert path.relative_to(target.parent).parts[0].startswith("_")
            assert not path.name.endswith((".ndjson", ".gz"))


def throttled(target: Path, sandbox: GraphSandbox, **arguments: Any) -> TaskInstance:
    """A task whose first try was throttled after two pages, so that it goes on from there."""
    sandbox.fail_next(THROTTLE.after(2))
    instance = task(target, retries=2, **arguments)
    with pytest.raises(GraphRateLimitError):
        instance.build().execute({"ti": instance.ti})
    instance.ti.try_number = 2
    assert pages_of(sandbox) == [1, 2]
    return instance


class TestWhenToBeginAnew:
    def test_the_last_page_holds_other_accounts(
        self, connected: GraphSandbox, target: Path, log: pytest.LogCaptureFixture
    ) -> None:
        instance = throttled(target, connected)
        del connected.accounts[150]
        instance.run()
        assert rows_of(target) == all_of(connected)
        assert pages_of(connected)[2:] == [2, 1, 2, 3]
        assert "page 2 does not hold the same accounts as before; the listing starts again" in log.text

    def test_the_last_page_holds_them_in_another_order(self, connected: GraphSandbox, target: Path) -> None:
        instance = throttled(target, connected)
        accounts = connected.accounts
        accounts[150], accounts[151] = accounts[151], accounts[150]
        instance.run()
        assert rows_of(target) == all_of(connected)

    @pytest.mark.parametrize("fault", [Fault.nonexisting_field(), Fault.no_data(), Fault.wrong_business()])
    def test_the_cursor_is_refused(self, connected: GraphSandbox, target: Path, fault: Fault) -> None:
        instance = throttled(target, connected)
        connected.fail_next(fault)
        instance.run()
        assert rows_of(target) == all_of(connected)
        assert pages_of(connected)[-3:] == [1, 2, 3]

    def test_the_cursor_leads_to_a_failure_each_time(self, connected: GraphSandbox, target: Path) -> None:
        instance = throttled(target, connected)
        connected.fail_next(Fault.server_error().times(6))
        instance.run()
        assert instance.failures == []
        assert rows_of(target) == all_of(connected)
        assert pages_of(connected)[-3:] == [1, 2, 3]

    def test_the_last_page_has_become_too_large(self, connected: GraphSandbox, target: Path) -> None:
        instance = throttled(target, connected)
        connected.fail_next(Fault.reduce_data(above=50).times(1000))
        instance.run()
        assert rows_of(target) == all_of(connected)

    def test_an_api_that_is_down_costs_no_rows(self, connected: GraphSandbox, target: Path) -> None:
        instance = throttled(target, connected)
        connected.fail_next(Fault.server_error().times(12))
        instance.run()
        assert [type(failure) for failure in instance.failures] == [GraphServerError]
        assert pages_of(connected) == [1, 2, 2, 3]

    def test_an_empty_page_is_no_place_to_go_on_from(self, connected: GraphSandbox, target: Path) -> None:
        # A cursor that has stopped working can lead to an empty page, too: here, since the accounts were removed.
        connected.fail_next(Fault.empty_page().after(1), THROTTLE)
        instance = task(target, retries=1)
        with pytest.raises(GraphRateLimitError):
            instance.build().execute({"ti": instance.ti})
        del connected.accounts[50:]
        instance.ti.try_number = 2
        instance.run()
        assert rows_of(target) == all_of(connected)

    def test_an_empty_page_is_read_again(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(Fault.empty_page().after(1), THROTTLE)
        manifest = task(target, retries=1).run()
        assert rows_of(target) == all_of(connected)
        assert manifest["pages"] == 3

    @pytest.mark.parametrize(
        "changed", [{"position": {"page": 2}}, {"position": ["2"]}, {"fruitless_waits": None}, {"part": None}]
    )
    def test_another_version_of_the_package_kept_the_rows(
        self, connected: GraphSandbox, target: Path, changed: dict[str, Any]
    ) -> None:
        instance = throttled(target, connected)
        (part,) = (target.parent / PARTS).iterdir()
        *rows, last = gzip.decompress(part.read_bytes()).splitlines(keepends=True)
        state = {name: value for name, value in {**json.loads(last), **changed}.items() if value is not None}
        part.write_bytes(gzip.compress(b"".join(rows) + json.dumps(state).encode() + b"\n"))
        instance.run()
        assert instance.failures == []
        assert pages_of(connected)[2:] == [1, 2, 3]
        assert rows_of(target) == all_of(connected)

    def test_an_account_that_came_behind_is_found(self, connected: GraphSandbox, target: Path) -> None:
        instance = throttled(target, connected)
        connected.accounts.append({**connected.accounts[-1], "id": "17"})
        instance.run()
        assert rows_of(target) == all_of(connected)
        assert pages_of(connected)[2:] == [2, 3]

    @pytest.mark.parametrize("harm", ["missing", "cut", "garbled", "no gzip"])
    @pytest.mark.parametrize("which", [0, 1])
    def test_a_part_is_lost(self, connected: GraphSandbox, target: Path, harm: str, which: int) -> None:
        instance = throttled(target, connected, page_size=50)
        connected.fail_next(THROTTLE.after(2))
        with pytest.raises(GraphRateLimitError):
            instance.build().execute({"ti": instance.ti})
        part = sorted((target.parent / PARTS).iterdir())[which]
        data = part.read_bytes()
        harmed = {
            "cut": data[:-20],
            "garbled": gzip.compress(gzip.decompress(data).replace(b"{", b"[", 1)),
            "no gzip": b"something else",
        }
        part.unlink() if harm == "missing" else part.write_bytes(harmed[harm])
        instance.run()
        assert rows_of(target) == all_of(connected)
        assert names_in(target) == {"wabas.ndjson", RECORD}

    @pytest.mark.parametrize("rows", [0, 2])
    def test_a_part_holds_other_rows(self, connected: GraphSandbox, target: Path, rows: int) -> None:
        instance = throttled(target, connected)
        (part,) = (target.parent / PARTS).iterdir()
        first, *others = gzip.decompress(part.read_bytes()).splitlines(keepends=True)
        part.write_bytes(gzip.compress(first * rows + b"".join(others)))
        instance.run()
        assert rows_of(target) == all_of(connected)

    @pytest.mark.parametrize(("hours", "goes_on"), [(23.9, True), (24.1, False)])
    def test_rows_are_kept_for_a_day(
        self, connected: GraphSandbox, target: Path, hours: float, goes_on: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance = throttled(target, connected)
        now = time.time() + hours * 3600
        monkeypatch.setattr("airflow_provider_whatsapp.resume.files.time.time", lambda: now)
        instance.run()
        assert pages_of(connected)[2:] == ([2, 3] if goes_on else [1, 2, 3])
        assert rows_of(target) == all_of(connected)

    @pytest.mark.parametrize(
        "changed",
        [{"page_size": 50}, {"fields": "id"}, {"relationship": "owned"}, {"output_format": "json"}, {"max_items": 240}],
    )
    def test_another_query(self, connected: GraphSandbox, target: Path, changed: dict[str, Any]) -> None:
        instance = throttled(target, connected)
        other = task(target, retries=2, **changed)
        other.ti = instance.ti
        other.run()
        assert "after" not in connected.requests[3].params

    @pytest.mark.parametrize(
        "changed", [{"max_tries": 3}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 1}, {"dag_id": "x"}]
    )
    def test_another_task_instance(self, connected: GraphSandbox, target: Path, changed: dict[str, Any]) -> None:
        instance = throttled(target, connected)
        vars(instance.ti).update(changed)
        instance.run()
        assert pages_of(connected)[2:] == [1, 2, 3]
        assert names_in(target) == {"wabas.ndjson", RECORD}

    def test_a_kept_row_that_comes_again_is_not_listed_twice(self, connected: GraphSandbox, target: Path) -> None:
        instance = throttled(target, connected)
        connected.fail_next(Fault.duplicated_row().after(1))
        instance.run()
        assert pages_of(connected)[2:] == [2, 3]
        assert rows_of(target) == all_of(connected)

    def test_max_items_count_kept_rows(self, connected: GraphSandbox, target: Path) -> None:
        instance = throttled(target, connected, max_items=230)
        manifest = instance.run()
        assert rows_of(target) == all_of(connected)[:230]
        assert (manifest["count"], manifest["truncated"], manifest["pages"]) == (230, True, 3)


class TestAfterPublishing:
    @pytest.mark.parametrize("if_exists", ["overwrite", "fail", "skip"])
    def test_a_retry_gives_the_manifest(self, connected: GraphSandbox, target: Path, if_exists: str) -> None:
        published = task(target, retries=1, if_exists=if_exists)
        manifest = published.run()
        connected.requests.clear()
        published.ti.try_number = 2
        assert published.run() == manifest
        assert connected.requests == []

    def test_a_retry_removes_the_rows_that_were_kept(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connected.fail_next(THROTTLE.after(1))
        published = task(target, retries=1, deferrable=True)
        with monkeypatch.context() as patched:
            patched.setattr("airflow_provider_whatsapp.resume.files.CheckpointFiles.clear", lambda self: self.close())
            published.run()
        assert names_in(target) == {"wabas.ndjson", RECORD, PARTS}
        published.run()
        assert names_in(target) == {"wabas.ndjson", RECORD}

    @pytest.mark.parametrize(("if_exists", "outcome"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_a_cleared_task_lists_anew(
        self, connected: GraphSandbox, target: Path, if_exists: str, outcome: type[Exception]
    ) -> None:
        published = task(target, retries=1)
        published.run()
        published.ti.max_tries = 3
        connected.requests.clear()
        published.run()
        assert len(connected.requests) == 3
        with pytest.raises(outcome):
            task(target, if_exists=if_exists).run()

    def test_somebody_elses_object_is_not_taken_for_ones_own(self, connected: GraphSandbox, target: Path) -> None:
        published = task(target, retries=1, if_exists="fail")
        published.run()
        data = target.read_bytes()
        target.write_bytes(data.replace(b"CLIENT", b"TNEILC", 1))
        with pytest.raises(AirflowFailException, match="already exists"):
            published.run()
        target.write_bytes(data[:-1])
        with pytest.raises(AirflowFailException, match="already exists"):
            published.run()
        target.unlink()
        published.run()
        assert target.read_bytes() == data

    @pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"owner": 1}', b"\xff", b"x" * 10_000_000])
    def test_a_record_that_means_nothing(self, connected: GraphSandbox, target: Path, record: bytes) -> None:
        target.parent.mkdir()
        (target.parent / RECORD).write_bytes(record)
        task(target, retries=1).run()
        assert rows_of(target) == all_of(connected)

    def test_the_record_is_small_and_replaced(self, connected: GraphSandbox, target: Path) -> None:
        records = set()
        for run_id in "ab":
            long = task(target, run_id=run_id * 250)
            long.ti.dag_id = long.ti.task_id = "x" * 250
            long.run()
            assert names_in(target) == {"wabas.ndjson", RECORD}
            records.add((target.parent / RECORD).read_bytes())
        assert len(records) == 2
        assert all(len(record) < 1024 for record in records)

    def test_it_is_killed_before_it_removes_what_was_kept(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance = throttled(target, connected)

        def kill(parts: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("airflow_provider_whatsapp.resume.files.CheckpointFiles.clear", kill)
            with pytest.raises(KeyboardInterrupt):
                instance.build().execute({"ti": instance.ti})
        assert names_in(target) == {"wabas.ndjson", RECORD, PARTS}
        instance.ti.try_number = 3
        connected.requests.clear()
        instance.run()
        assert connected.requests == []
        assert names_in(target) == {"wabas.ndjson", RECORD}

    @pytest.mark.parametrize(("if_exists", "outcome"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_an_object_that_came_during_the_wait(
        self, connected: GraphSandbox, target: Path, if_exists: str, outcome: type[Exception]
    ) -> None:
        instance = throttled(target, connected, if_exists=if_exists)
        target.write_bytes(b"somebody else's")
        with pytest.raises(outcome, match="already exists"):
            instance.run()
        assert target.read_bytes() == b"somebody else's"
        assert names_in(target) == {"wabas.ndjson"}

    def test_it_is_killed_while_it_publishes(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def kill(*args: Any) -> None:
            raise KeyboardInterrupt

        killed = task(target, retries=1, if_exists="fail")
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", kill)
            patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)
            with pytest.raises(KeyboardInterrupt):
                killed.build().execute({"ti": killed.ti})
        assert any(name.endswith(".tmp") for name in names_in(target))
        killed.ti.try_number = 2
        killed.run()
        assert rows_of(target) == all_of(connected)
        assert names_in(target) == {"wabas.ndjson", RECORD}


class TestStoresThatRefuse:
    @pytest.mark.parametrize("method", ["ls", "open", "rm_file", "rm"])
    def test_what_a_store_refuses_costs_only_the_resuming(
        self,
        connected: GraphSandbox,
        target: Path,
        method: str,
        monkeypatch: pytest.MonkeyPatch,
        log: pytest.LogCaptureFixture,
    ) -> None:
        from fsspec.implementations.local import LocalFileSystem

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise PermissionError("Access Denied: secret")

        monkeypatch.setattr(LocalFileSystem, method, refuse)
        connected.fail_next(THROTTLE.after(2))
        instance = task(target, retries=1, deferrable=method == "rm")
        instance.run()
        assert rows_of(target) == all_of(connected)
        warnings = [record.getMessage() for record in log.records if "Nothing can be stored" in record.getMessage()]
        assert set(warnings) == {
            "Nothing can be stored beside the object (PermissionError), so a retry starts with the first page; the "
            "credentials of the store must be allowed to list, read, write and delete there"
        }
        # There are two processes, and each warns only once.
        assert len(warnings) <= 2

    def test_a_listing_without_a_task_instance(self, connected: GraphSandbox, target: Path) -> None:
        WhatsAppListWabasOperator(task_id="a", output_path=str(target)).execute({})
        assert rows_of(target) == all_of(connected)
        assert names_in(target) == {"wabas.ndjson"}


WORKER = """
import sys
from types import SimpleNamespace
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
WhatsAppListWabasOperator.checkpoint_interval = 0.0
instance = SimpleNamespace(
    dag_id="dag", run_id="run", task_id="t", map_index=-1, is_mapped=False, try_number=int(sys.argv[2]), max_tries=99
)
WhatsAppListWabasOperator(task_id="t", output_path=sys.argv[1], page_size=5, if_exists="fail").execute({"ti": instance})
"""


def test_a_worker_that_is_killed_again_and_again(connected: GraphSandbox, target: Path) -> None:
    seed = random.randrange(1000)  # noqa: S311  # not for cryptography
    rng = random.Random(seed)  # noqa: S311  # not for cryptography
    print(f"seed {seed}")
    connected.latency = 0.005
    kills = 0
    for try_number in range(1, 100):
        enough = len(connected.requests) + rng.randint(1, 12)
        with subprocess.Popen([sys.executable, "-c", WORKER, str(target), str(try_number)]) as worker:
            while worker.poll() is None and (kills == 10 or len(connected.requests) < enough):
                time.sleep(0.001)
            # The kill comes while a page is on its way, or while a part is written.
            time.sleep(rng.random() * 0.02 if kills < 10 else 0)
            if worker.poll() is None:
                worker.kill()
        if worker.returncode == 0:
            break
        assert worker.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert rows_of(target) == all_of(connected)
    assert names_in(target) == {"wabas.ndjson", RECORD}
    pages = pages_of(connected)
    print(f"{kills} kills, {len(pages) - len(set(pages))} of {len(set(pages))} pages were asked for again")
    assert set(pages) == set(range(1, 51))
    # After each kill, the last kept page is asked for again, and the pages that came after it.
    assert len(pages) - len(set(pages)) <= 4 * kills


class TestMappedTasks:
    """Each mapped task of a DAG run needs an object of its own."""

    def task(self, path: Path, map_index: int, *, cleared: int = 0, run_id: str = "run") -> TaskInstance:
        task = TaskInstance(lambda: WhatsAppListWabasOperator(task_id="accounts", output_path=str(path)), run_id=run_id)
        task.ti.map_index = map_index
        # Airflow raises both when a task is cleared.
        task.ti.max_tries += cleared
        task.ti.try_number += cleared
        return task

    def test_the_object_of_another_is_not_replaced(self, connected: GraphSandbox, target: Path) -> None:
        self.task(target, 0).run()
        before, calls = target.read_bytes(), len(connected.requests)
        with pytest.raises(AirflowFailException, match="^output_path: another mapped task of this DAG run has written"):
            self.task(target, 1).run()
        assert (target.read_bytes(), len(connected.requests)) == (before, calls)

    def test_one_that_appears_meanwhile_is_not_replaced(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = AccountsJob.read

        def read_after_the_other(*args: Any) -> Any:
            monkeypatch.setattr(AccountsJob, "read", read)
            self.task(target, 0).run()
            return read(*args)

        task = TaskInstance(lambda: WhatsAppListWabasOperator(task_id="accounts", output_path=str(target)))
        task.ti.map_index = 1
        monkeypatch.setattr(AccountsJob, "read", read_after_the_other)
        with pytest.raises(AirflowFailException, match="^output_path: another mapped task of this DAG run has written"):
            task.run()

    def test_that_of_another_dag_run_is(self, connected: GraphSandbox, target: Path) -> None:
        self.task(target, 0).run()
        self.task(target, 1, run_id="another").run()

    def test_that_from_before_the_tasks_were_cleared_is(self, connected: GraphSandbox, target: Path) -> None:
        # The businesses that are mapped over may have another order the second time.
        self.task(target, 0).run()
        self.task(target, 1, cleared=1).run()
        with pytest.raises(AirflowFailException):
            self.task(target, 0, cleared=1).run()

    def test_its_own_is(self, connected: GraphSandbox, target: Path) -> None:
        self.task(target, 1).run()
        connected.accounts.pop()
        self.task(target, 1, cleared=1).run()
        assert len(target.read_bytes().splitlines()) == len(connected.accounts)

    def test_one_without_its_object_does_not_count(self, connected: GraphSandbox, target: Path) -> None:
        self.task(target, 0).run()
        target.unlink()
        self.task(target, 1).run()
