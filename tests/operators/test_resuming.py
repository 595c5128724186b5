"""A listing of any operator that is throttled or interrupted resumes where it stopped, and is complete in the end.

What is about pages or about accounts alone is in test_resuming_pages.py and test_resuming_accounts.py.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from listings import (
    OPERATORS,
    THROTTLE,
    Listing,
    fail_once,
    lines_of,
    parts_of,
    record_of,
    rows_in,
    write_lines,
)
from numbered_accounts import names_in
from task_instance import TaskInstance
from workers import start_task

from airflow_provider_whatsapp._compat import AirflowFailException, AirflowSkipException
from airflow_provider_whatsapp.graph import GraphError, GraphRateLimitError, GraphServerError
from airflow_provider_whatsapp.sandbox import Fault, SkippedWaits
from airflow_provider_whatsapp.storage.errors import StoreError
from airflow_provider_whatsapp.storage.local import LocalStore

RECORD = "_rows.ndjson.airflow-record"
PARTS = "_rows.ndjson.airflow-parts"
A_MINUTE = Fault.throttle(code=4, minutes=1)
ALWAYS = 1_000_000


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were put in place, in order: parts, records and objects."""
    names: list[str] = []
    replace = os.replace

    def note(source: Any, target: Any) -> None:
        names.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    return names


class TestDeferring:
    def test_a_long_throttle_is_waited_for_without_a_slot(
        self, operator: Listing, target: Path, skipped: SkippedWaits, log: pytest.LogCaptureFixture
    ) -> None:
        whole = operator.task(target).run()
        operator.sandbox.reset()
        operator.sandbox.fail_next(THROTTLE.after(2))
        deferred = operator.task(target, deferrable=True, run_id="other")
        assert deferred.run() == whole
        assert rows_in(target) == operator.rows
        assert deferred.deferrals == 1
        (wait,) = skipped.seconds
        assert 530 <= wait <= 594
        assert operator.units() == [1, 2, *operator.continued_after(2)]
        assert names_in(target) == {"rows.ndjson", RECORD}
        (waiting,) = [line for line in log.messages if line.startswith("Waiting without a worker slot until 20")]
        assert " UTC: " in waiting
        assert "Too many calls: wait" in waiting
        (continuing,) = [line for line in log.messages if line.startswith(f"Resuming after 2 {operator.unit}")]
        assert continuing.endswith("that an earlier try has read")

    @pytest.mark.parametrize("suffix", ["json", "csv", "ndjson.gz", "csv.gz", "parquet"])
    def test_every_format(self, operator: Listing, tmp_path: Path, suffix: str) -> None:
        whole = operator.task(tmp_path / f"a.{suffix}").run()
        operator.sandbox.fail_next(THROTTLE.after(5))
        resumed = operator.task(tmp_path / f"b.{suffix}", deferrable=True)
        assert resumed.run()["sha256"] == whole["sha256"]
        assert resumed.deferrals == 1

    def test_a_throttle_without_a_named_time(self, operator: Listing, target: Path, skipped: SkippedWaits) -> None:
        operator.sandbox.fail_next(Fault.throttle(code=4, minutes=None).after(1))
        operator.task(target, deferrable=True).run()
        (wait,) = skipped.seconds
        assert 295 <= wait <= 330
        assert rows_in(target) == operator.rows

    def test_tasks_do_not_come_back_together(self, operator: Listing, target: Path, skipped: SkippedWaits) -> None:
        for run_id in map(str, range(5)):
            operator.sandbox.fail_next(THROTTLE)
            operator.task(target, deferrable=True, run_id=run_id).run()
        assert max(skipped.seconds) - min(skipped.seconds) > 1

    def test_a_throttle_before_the_first_unit(self, operator: Listing, target: Path) -> None:
        operator.sandbox.fail_next(THROTTLE)
        deferred = operator.task(target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 1
        assert operator.units() == operator.continued_after(0)

    @pytest.mark.parametrize(("longest", "deferrals"), [(None, 0), (61, 0), ("30", 1)])
    def test_max_wait_in_place(
        self, operator: Listing, target: Path, longest: int | str | None, deferrals: int
    ) -> None:
        operator.sandbox.fail_next(A_MINUTE.after(1))
        deferred = operator.task(target, deferrable=True, max_wait_in_place=longest)
        deferred.run()
        assert deferred.deferrals == deferrals

    def test_all_waits_in_place_count_together(self, operator: Listing, target: Path, skipped: SkippedWaits) -> None:
        operator.sandbox.fail_next(A_MINUTE, A_MINUTE.after(1), A_MINUTE.after(1))
        deferred = operator.task(target, deferrable=True, max_wait_in_place=130)
        deferred.run()
        # Two are waited for in the worker slot. The third, and what follows it, has a budget of its own.
        assert deferred.deferrals == 1
        assert len(skipped.seconds) == 3
        assert rows_in(target) == operator.rows

    def test_without_deferrable_a_longer_one_is_waited_for_too(
        self, operator: Listing, target: Path, skipped: SkippedWaits
    ) -> None:
        operator.sandbox.fail_next(Fault.throttle(code=4, minutes=4).after(1))
        operator.task(target).run()
        assert 235 <= skipped.total <= 241
        assert rows_in(target) == operator.rows

    @pytest.mark.parametrize("with_object", [True, False])
    def test_without_deferrable_a_long_throttle_is_an_error(
        self, operator: Listing, target: Path, with_object: bool
    ) -> None:
        operator.sandbox.fail_next(THROTTLE.after(1))
        with pytest.raises(GraphRateLimitError, match="asks to wait") as caught:
            operator.task(target if with_object else None).run()
        assert caught.value.retry_after is not None
        assert 530 <= caught.value.retry_after.total_seconds() <= 540
        assert names_in(target) == set()

    @pytest.mark.parametrize("retries", [0, 1])
    def test_five_waits_in_a_row_that_do_not_help(self, operator: Listing, target: Path, retries: int) -> None:
        operator.sandbox.fail_next(THROTTLE.after(1).times(ALWAYS))
        deferred = operator.task(target, deferrable=True, retries=retries)
        with pytest.raises(GraphRateLimitError):
            deferred.run()
        # A retry counts its own.
        assert deferred.deferrals == 5 * (1 + retries)
        assert names_in(target) == set()

    def test_waits_that_help_are_not_counted(self, operator: Listing, target: Path) -> None:
        operator.sandbox.fail_next(*[THROTTLE.after(1 + operator.read_again) for _ in range(7)])
        deferred = operator.task(target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 7
        assert rows_in(target) == operator.rows

    def test_a_list_that_goes_to_xcom_begins_again_once(self, operator: Listing) -> None:
        operator.sandbox.fail_next(THROTTLE.after(2))
        deferred = operator.task(deferrable=True)
        assert deferred.run() == operator.rows
        assert deferred.deferrals == 1
        assert operator.units() == [1, 2, *operator.continued_after(0)]

    def test_a_second_restart_is_an_error(self, operator: Listing) -> None:
        operator.sandbox.fail_next(THROTTLE.after(2), THROTTLE.after(2))
        deferred = operator.task(deferrable=True)
        with pytest.raises(GraphRateLimitError, match="set output_path") as caught:
            deferred.run()
        assert deferred.deferrals == 1
        assert caught.value.retry_after is not None

    def test_rows_that_are_lost_each_time_end_in_an_error(self, operator: Listing, target: Path) -> None:
        operator.sandbox.fail_next(*[THROTTLE.after(1) for _ in range(9)])
        deferred = operator.task(target, deferrable=True)
        build = deferred.build

        def build_on_a_worker_with_files_of_its_own() -> Any:
            shutil.rmtree(target.parent, ignore_errors=True)
            return build()

        deferred.build = build_on_a_worker_with_files_of_its_own
        with pytest.raises(GraphRateLimitError, match="every worker"):
            deferred.run()
        assert deferred.deferrals == 2


class TestPacing:
    def test_high_usage_is_waited_for_before_the_api_refuses(
        self, operator: Listing, target: Path, skipped: SkippedWaits
    ) -> None:
        operator.sandbox.fail_next(Fault.high_usage(95).after(1))
        deferred = operator.task(target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 1
        assert 300 <= skipped.total <= 330
        assert operator.units() == [1, 2, *operator.continued_after(2)]
        assert rows_in(target) == operator.rows

    @pytest.mark.parametrize(("usage", "most", "deferrals"), [(94, None, 0), (60, "60", 1)])
    def test_max_usage(
        self, operator: Listing, target: Path, skipped: SkippedWaits, usage: int, most: str | None, deferrals: int
    ) -> None:
        operator.sandbox.fail_next(Fault.high_usage(usage).after(1))
        deferred = operator.task(target, deferrable=True, max_usage=most)
        deferred.run()
        assert (deferred.deferrals, len(skipped.seconds)) == (deferrals, deferrals)

    def test_in_place_it_waits_for_five_minutes_in_all(
        self, operator: Listing, target: Path, skipped: SkippedWaits
    ) -> None:
        operator.sandbox.fail_next(Fault.high_usage(99).times(ALWAYS))
        operator.task(target).run()
        assert skipped.total == pytest.approx(300, abs=1)
        assert rows_in(target) == operator.rows

    def test_a_list_that_goes_to_xcom_waits_in_place(self, operator: Listing, skipped: SkippedWaits) -> None:
        operator.sandbox.fail_next(Fault.high_usage(99).times(ALWAYS))
        waited = operator.task(deferrable=True)
        assert waited.run() == operator.rows
        assert waited.deferrals == 0
        assert skipped.total == pytest.approx(300, abs=1)


class TestRetries:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (THROTTLE, GraphRateLimitError),
            (Fault.too_many_requests(), GraphRateLimitError),
            (Fault.server_error().times(6), GraphServerError),
        ],
    )
    def test_a_retry_continues(self, operator: Listing, target: Path, fault: Fault, error: type[GraphError]) -> None:
        whole = operator.task(target).run()
        operator.sandbox.reset()
        operator.sandbox.fail_next(operator.at(fault, 3))
        retried = operator.task(target, retries=1, run_id="other")
        assert retried.run() == whole
        assert [type(failure) for failure in retried.failures] == [error]
        assert rows_in(target) == operator.rows
        assert Counter(operator.units()) == Counter([1, 2, *operator.continued_after(2)])
        assert names_in(target) == {"rows.ndjson", RECORD}

    def test_a_list_that_goes_to_xcom_is_read_again(self, operator: Listing) -> None:
        operator.sandbox.fail_next(THROTTLE.after(2))
        assert operator.task(retries=1).run() == operator.rows
        assert operator.units() == [1, 2, *operator.continued_after(0)]

    def test_a_checkpoint_is_made_once_a_minute(self, operator: Listing, target: Path, replaced: list[str]) -> None:
        operator.sandbox.fail_next(A_MINUTE.after(1), A_MINUTE.after(3))
        operator.task(target, retries=1).run()
        # After each wait of a minute, and not after the units that were read within it.
        parts = [name[-5:] for name in replaced if name[-5:].isdigit()]
        assert parts == ["00001", "00002"]
        assert names_in(target) == {"rows.ndjson", RECORD}

    def test_without_a_retry_nothing_is_kept(
        self, operator: Listing, target: Path, replaced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(operator.kind, "checkpoint_interval", 0.0)
        operator.task(target).run()
        assert replaced == [RECORD, "rows.ndjson"]

    def test_a_try_that_reads_nothing_keeps_nothing(self, operator: Listing, target: Path) -> None:
        instance = operator.interrupted(target)
        parts = parts_of(target)
        assert len(parts) == 1
        operator.sandbox.fail_next(THROTTLE)
        fail_once(instance)
        assert parts_of(target) == parts

    def test_an_error_that_a_retry_cannot_fix_leaves_nothing(self, operator: Listing, target: Path) -> None:
        instance = operator.interrupted(target)
        operator.sandbox.fail_next(Fault.expired_token().after(1))
        with pytest.raises(AirflowFailException):
            instance.run()
        assert names_in(target) == set()

    def test_the_last_try_leaves_nothing(self, operator: Listing, target: Path) -> None:
        operator.sandbox.fail_next(THROTTLE.after(1), THROTTLE.after(1))
        with pytest.raises(GraphRateLimitError):
            operator.task(target, retries=1).run()
        assert names_in(target) == set()

    def test_what_is_kept_is_not_seen_by_those_who_read_the_lake(self, operator: Listing, target: Path) -> None:
        target.parent.mkdir()
        target.write_text("before")
        operator.interrupted(target)
        assert target.read_text() == "before"
        found = [path for path in target.parent.rglob("*") if path.is_file() and path != target]
        assert found
        for path in found:
            assert path.name.startswith("_")
            assert path.relative_to(target.parent).parts[0].startswith("_")
            assert not path.name.endswith((".ndjson", ".gz"))

    def test_max_items_count_kept_rows(self, operator: Listing, target: Path) -> None:
        most = len(operator.rows) - 1
        manifest = operator.interrupted(target, max_items=most).run()
        assert rows_in(target) == operator.rows[:most]
        assert (manifest["count"], manifest["truncated"]) == (most, True)

    def test_a_listing_without_a_task_instance(self, operator: Listing, target: Path) -> None:
        operator.run(output_path=str(target))
        assert rows_in(target) == operator.rows
        assert names_in(target) == {"rows.ndjson"}


class TestBeginningAgain:
    @pytest.mark.parametrize("harm", ["missing", "cut", "garbled", "no gzip", "unreadable"])
    @pytest.mark.parametrize("which", [0, 1])
    def test_a_part_is_lost(self, operator: Listing, target: Path, harm: str, which: int) -> None:
        instance = operator.interrupted(target)
        operator.sandbox.fail_next(THROTTLE.after(2))
        fail_once(instance)
        part = parts_of(target)[which]
        data = part.read_bytes()
        harmed = {
            "cut": data[:-20],
            "garbled": gzip.compress(gzip.decompress(data).replace(b"{", b"[", 1)),
            "no gzip": b"something else",
        }
        part.unlink()
        if harm == "unreadable":
            # As if the store refused it at every try.
            part.mkdir()
        elif harm != "missing":
            part.write_bytes(harmed[harm])
        before = len(operator.units())
        instance.run()
        assert instance.failures == []
        # Without the second part, the first one is as if it had been the last.
        assert (1 in operator.units()[before:]) is ((harm, which) != ("missing", 1))
        assert rows_in(target) == operator.rows
        assert names_in(target) == {"rows.ndjson", RECORD}

    @pytest.mark.parametrize(("hours", "continues"), [(23.9, True), (24.1, False)])
    def test_rows_are_kept_for_a_day(self, operator: Listing, target: Path, hours: float, continues: bool) -> None:
        instance = operator.interrupted(target)
        (part,) = parts_of(target)
        *rows, state = lines_of(part)
        write_lines(part, [*rows, {**state, "kept_at": state["kept_at"] - hours * 3600}])
        instance.run()
        assert operator.units()[2:] == operator.continued_after(2 if continues else 0)
        assert rows_in(target) == operator.rows

    @pytest.mark.parametrize("name", ["position", "progress", "fruitless_waits", "progress_at_last_wait", "part"])
    def test_another_version_of_the_package_kept_the_rows(self, operator: Listing, target: Path, name: str) -> None:
        instance = operator.interrupted(target)
        (part,) = parts_of(target)
        *rows, state = lines_of(part)
        del state[name]
        write_lines(part, [*rows, state])
        instance.run()
        assert instance.failures == []
        assert operator.units()[2:] == operator.continued_after(0)
        assert rows_in(target) == operator.rows

    def test_another_query(self, operator: Listing, tmp_path: Path) -> None:
        common: list[dict[str, Any]] = [
            {"page_size": 5},
            {"fields": "id"},
            {"output_format": "json"},
            {"max_items": 15},
        ]
        for number, changed in enumerate([*common, *operator.other_queries]):
            target = tmp_path / str(number) / "rows.ndjson"
            operator.sandbox.reset()
            instance = operator.interrupted(target)
            other = operator.task(target, retries=2, **changed)
            other.ti = instance.ti
            other.run()
            assert operator.units()[2] == 1, changed
            assert names_in(target) == {"rows.ndjson", RECORD}

    @pytest.mark.parametrize(
        "changed", [{"max_tries": 3}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 1}, {"dag_id": "x"}]
    )
    def test_another_task_instance(self, operator: Listing, target: Path, changed: dict[str, Any]) -> None:
        instance = operator.interrupted(target)
        vars(instance.ti).update(changed)
        instance.run()
        assert operator.units()[2:] == operator.continued_after(0)
        assert names_in(target) == {"rows.ndjson", RECORD}


class TestAfterPublishing:
    @pytest.mark.parametrize("if_exists", ["overwrite", "fail", "skip"])
    def test_a_retry_gives_the_manifest(
        self, operator: Listing, target: Path, if_exists: str, log: pytest.LogCaptureFixture
    ) -> None:
        published = operator.task(target, retries=1, if_exists=if_exists)
        manifest = published.run()
        operator.sandbox.reset()
        published.ti.try_number = 2
        assert published.run() == manifest
        assert operator.sandbox.requests == []
        assert "An earlier try of this task has already published" in log.text

    def test_a_cleared_task_lists_again(self, operator: Listing, target: Path) -> None:
        published = operator.task(target, retries=1)
        published.run()
        published.ti.max_tries = 3
        operator.sandbox.reset()
        published.run()
        assert operator.units() == operator.continued_after(0)

    def test_somebody_elses_object_is_not_taken_for_ones_own(self, operator: Listing, target: Path) -> None:
        published = operator.task(target, retries=1, if_exists="fail")
        published.run()
        data = target.read_bytes()
        for other in (data.replace(b'"id"', b'"di"', 1), data[:-1]):
            target.write_bytes(other)
            with pytest.raises(AirflowFailException, match="already exists"):
                published.run()
        target.unlink()
        published.run()
        assert target.read_bytes() == data

    @pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"owner": 1}', b"\xff", b"x" * 10_000_000])
    def test_a_record_that_means_nothing(self, operator: Listing, target: Path, record: bytes) -> None:
        target.parent.mkdir()
        record_of(target).write_bytes(record)
        operator.task(target, retries=1).run()
        assert rows_in(target) == operator.rows

    def test_the_record_is_small_and_replaced(self, operator: Listing, target: Path) -> None:
        records = set()
        for run_id in "ab":
            long = operator.task(target, run_id=run_id * 250)
            long.ti.dag_id = long.ti.task_id = "x" * 250
            long.run()
            assert names_in(target) == {"rows.ndjson", RECORD}
            records.add(record_of(target).read_bytes())
        assert len(records) == 2
        assert all(len(record) < 1024 for record in records)

    def test_it_is_killed_before_it_removes_what_was_kept(
        self, operator: Listing, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance = operator.interrupted(target)
        with monkeypatch.context() as patched:
            patched.setattr(LocalFileSystem, "rm", kill)
            with pytest.raises(KeyboardInterrupt):
                instance.build().execute({"ti": instance.ti})
        assert names_in(target) == {"rows.ndjson", RECORD, PARTS}
        instance.ti.try_number = 3
        operator.sandbox.reset()
        instance.run()
        assert operator.sandbox.requests == []
        assert names_in(target) == {"rows.ndjson", RECORD}

    def test_it_is_killed_while_it_publishes(
        self, operator: Listing, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed = operator.task(target, retries=1, if_exists="fail")
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", kill)
            patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)
            with pytest.raises(KeyboardInterrupt):
                killed.build().execute({"ti": killed.ti})
        assert any(name.endswith(".tmp") for name in names_in(target))
        killed.ti.try_number = 2
        killed.run()
        assert rows_in(target) == operator.rows
        assert names_in(target) == {"rows.ndjson", RECORD}

    @pytest.mark.parametrize(("if_exists", "outcome"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_an_object_that_came_during_the_wait(
        self, operator: Listing, target: Path, if_exists: str, outcome: type[Exception]
    ) -> None:
        instance = operator.interrupted(target, if_exists=if_exists)
        target.write_bytes(b"somebody else's")
        with pytest.raises(outcome, match="already exists"):
            instance.run()
        assert target.read_bytes() == b"somebody else's"
        assert names_in(target) == {"rows.ndjson"}


def kill(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["ls", "open", "rm_file", "rm"])
def test_what_a_store_refuses_costs_only_the_resuming(
    operator: Listing, target: Path, method: str, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError("Access Denied: secret")

    monkeypatch.setattr(LocalFileSystem, method, refuse)
    monkeypatch.setattr(operator.kind, "checkpoint_interval", 0.0)
    operator.sandbox.fail_next(THROTTLE.after(2))
    operator.task(target, retries=1, deferrable=method == "rm").run()
    assert rows_in(target) == operator.rows
    warnings = [line for line in log.messages if "Nothing can be stored" in line]
    assert set(warnings) == {
        "Nothing can be stored beside the object (PermissionError), so a retry starts with the first page; the "
        "credentials of the store must be allowed to list, read, write and delete there"
    }
    # There are two processes, and each warns only once.
    assert len(warnings) <= 2
    assert "Access Denied" not in log.text


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: str(kind.kind.__name__))
def test_a_worker_that_is_killed_again_and_again(
    kind: type[Listing], monkeypatch: pytest.MonkeyPatch, target: Path
) -> None:
    seed = random.randrange(1000)  # noqa: S311  # not for cryptography
    rng = random.Random(seed)  # noqa: S311  # not for cryptography
    print(f"seed {seed}")
    units, most_kills = 60, 6
    target.parent.mkdir()
    target.write_text("before")
    with kind.open(monkeypatch, units=units, latency=0.005) as operator:
        # The few accounts that are read at once are all requested again after a kill.
        side_by_side = {"max_concurrency": 4} if "max_concurrency" in operator.arguments else {}
        arguments = {**operator.arguments, **side_by_side, "output_path": str(target)}
        kills = 0
        for try_number in range(1, 100):
            enough = len(operator.sandbox.requests) + rng.randint(1, 14)
            worker = start_task(operator.kind, arguments, try_number)
            while worker.is_alive() and (kills == most_kills or len(operator.sandbox.requests) < enough):
                time.sleep(0.001)
            # The kill comes while a unit is on its way, or while a part is written.
            time.sleep(rng.random() * 0.02 if kills < most_kills else 0)
            worker.kill()
            worker.join()
            if worker.exitcode == 0:
                break
            assert worker.exitcode == -signal.SIGKILL
            assert target.read_text() == "before" or rows_in(target) == operator.rows
            kills += 1
        assert kills >= 3
        assert rows_in(target) == operator.rows
        assert names_in(target) == {"rows.ndjson", RECORD}
        read = operator.units()
        print(f"{kills} kills, {len(read) - units} of {units} {operator.unit} were requested again")
        assert set(read) == set(range(1, units + 1))
        # What was in flight is requested again, and the last few units that were read.
        assert len(read) - units <= 12 * kills


class TestMappedTasks:
    """Each mapped task of a DAG run needs an object of its own."""

    MESSAGE = "^output_path: another mapped task of this DAG run has written"

    def run(
        self, listing: Listing, path: Path, map_index: int, *, item: int | None = None, run_id: str = "run"
    ) -> dict[str, Any]:
        """Run a task that is mapped over two items, by default in their order."""
        task = listing.task(run_id=run_id)
        task.ti.map_index = map_index
        arguments = listing.other_item() if (map_index if item is None else item) else {}
        manifest: dict[str, Any] = listing.run({"ti": task.ti}, output_path=str(path), **arguments)
        return manifest

    def test_the_object_of_another_is_not_replaced(self, listing: Listing, target: Path) -> None:
        self.run(listing, target, 0)
        before = target.read_bytes()
        for map_index in (1, 2):
            with pytest.raises(AirflowFailException, match=self.MESSAGE):
                self.run(listing, target, map_index, item=1)
        assert target.read_bytes() == before
        # Other objects, runs and items are its own.
        self.run(listing, target.with_name("b.ndjson"), 1)
        self.run(listing, target, 1, run_id="another")

    def test_an_operator_fails_before_it_lists(self, operator: Listing, target: Path) -> None:
        self.run(operator, target, 0)
        operator.sandbox.reset()
        with pytest.raises(AirflowFailException, match=self.MESSAGE):
            self.run(operator, target, 1)
        assert operator.sandbox.requests == []

    def test_one_that_appears_meanwhile_is_not_replaced(
        self, operator: Listing, target: Path, after_the_last_row: Callable[[Callable[[], object]], None]
    ) -> None:
        after_the_last_row(lambda: self.run(operator, target, 0))
        with pytest.raises(AirflowFailException, match=self.MESSAGE):
            self.run(operator, target, 1)

    def test_cleared_tasks_may_have_their_items_in_another_order(self, listing: Listing, target: Path) -> None:
        other = target.with_name("b.ndjson")
        self.run(listing, target, 0)
        self.run(listing, other, 1)
        self.run(listing, target, 1, item=0)
        self.run(listing, other, 0, item=1)
        # A task that has been cleared more often than the others has no right to their objects.
        with pytest.raises(AirflowFailException, match=self.MESSAGE):
            self.run(listing, target, 0, item=1)

    def test_one_without_its_object_does_not_count(self, listing: Listing, target: Path) -> None:
        self.run(listing, target, 0)
        target.unlink()
        self.run(listing, target, 1)

    def test_a_store_that_keeps_no_record(self, listing: Listing, tmp_path: Path) -> None:
        record = record_of(tmp_path / "a.ndjson")
        record.mkdir()
        assert self.run(listing, tmp_path / "a.ndjson", 1)["count"]


class TestWhatIsBesideTheObject:
    """A checkpoint has files of its own, and never touches the record of the object that is there."""

    def test_the_record_of_an_earlier_object_outlives_a_checkpoint(self, operator: Listing, target: Path) -> None:
        operator.task(target, run_id="earlier").run()
        before = record_of(target).read_bytes()
        operator.sandbox.requests.clear()
        operator.interrupted(target)
        assert parts_of(target)
        assert record_of(target).read_bytes() == before
        assert names_in(target) == {"rows.ndjson", RECORD, PARTS}

    @pytest.mark.parametrize("if_exists", ["fail", "skip"])
    def test_a_record_that_cannot_be_read_once_is_no_strangers_object(
        self, operator: Listing, target: Path, if_exists: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance = operator.task(target, retries=1, if_exists=if_exists)
        manifest = instance.build().execute({"ti": instance.ti})
        # The worker was killed before Airflow knew.
        instance.ti.try_number += 1
        opened = LocalStore.open

        def fail_once(*args: Any) -> Any:
            monkeypatch.setattr(LocalStore, "open", opened)
            raise OSError("the store is away")

        monkeypatch.setattr(LocalStore, "open", fail_once)
        with pytest.raises(StoreError, match="cannot be read"):
            instance.build().execute({"ti": instance.ti})
        assert instance.build().execute({"ti": instance.ti}) == manifest

    def test_the_last_try_leaves_no_parts_when_it_runs_out_of_time(
        self, operator: Listing, target: Path, after_the_last_row: Callable[[Callable[[], object]], None]
    ) -> None:
        class OutOfTimeError(BaseException):
            """As Airflow's AirflowTaskTimeout, which is no Exception."""

        def stop() -> None:
            raise OutOfTimeError

        instance = operator.interrupted(target)
        instance.ti.try_number = instance.ti.max_tries + 1
        after_the_last_row(stop)
        with pytest.raises(OutOfTimeError):
            operator.run({"ti": instance.ti}, output_path=str(target), deferrable=True)
        assert parts_of(target) == []


def test_a_listing_that_moved_is_read_to_its_end_while_each_wait_helps(operator: Listing, target: Path) -> None:
    moved: list[Path] = []

    def build() -> Any:
        if not moved and parts_of(target):
            moved.extend(parts_of(target))
            write_lines(moved[0], lines_of(moved[0])[1:])
        return operator.build(output_path=str(target), deferrable=True)

    # After the first wait, the rows before it are lost. Then there are more waits than may follow each other without any
    # further unit, and each of them comes after one.
    operator.sandbox.fail_next(THROTTLE.after(7), *[THROTTLE.after(1 + operator.read_again) for _ in range(7)])
    deferred = TaskInstance(build)
    deferred.run()
    assert moved
    assert deferred.deferrals == 8
    assert rows_in(target) == operator.rows
