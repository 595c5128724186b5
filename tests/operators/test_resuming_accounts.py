"""The edges of many accounts: a listing that is throttled or interrupted goes on with the accounts that are left."""

from __future__ import annotations

import gzip
import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numbered_accounts import LONG_ACCOUNT, asked_for, give_numbers, ids_of, names_in, numbers_of
from task_instance import TaskInstance

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException
from airflow_provider_whatsapp.graph import GraphError, GraphRateLimitError, GraphServerError
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, SkippedWaits, no_waits

RECORD = "_numbers.ndjson.airflow-record"
PARTS = "_numbers.ndjson.airflow-parts"
ALWAYS = 1_000_000
#: A limit of the app, which all accounts wait for.
# Longer than the operator waits in its worker slot.
OF_APP = Fault.throttle(code=4, minutes=9)


@pytest.fixture(autouse=True)
def skipped() -> Iterator[SkippedWaits]:
    with no_waits() as skipped:
        yield skipped


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    """A sandbox with twenty accounts. The sixth has two pages of phone numbers, and every fourth has none."""
    with GraphSandbox(accounts=20) as sandbox:
        give_numbers(sandbox)
        yield sandbox


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the operator and the package log."""
    monkeypatch.setattr(WhatsAppListWabaEdgeOperator, "log", logging.getLogger("task"))
    caplog.set_level(logging.INFO, logger="task")
    caplog.set_level(logging.INFO, logger="airflow_provider_whatsapp")
    return caplog


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "lake" / "numbers.ndjson"


def task(
    waba_ids: Any, path: Path | None = None, *, retries: int = 0, run_id: str = "run", **arguments: Any
) -> TaskInstance:
    given = {"edge": "phone_numbers", "max_concurrency": 1, **arguments}
    if path is not None:
        given["output_path"] = str(path)
    return TaskInstance(
        lambda: WhatsAppListWabaEdgeOperator(task_id="numbers", waba_ids=waba_ids, **given),
        retries=retries,
        run_id=run_id,
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def interrupted(sandbox: GraphSandbox, target: Path, waba_ids: Any = None, **arguments: Any) -> TaskInstance:
    """A task whose first try was throttled at the second page of the sixth account, so that five accounts are kept."""
    sandbox.fail_next(OF_APP.on(ids_of(sandbox)[LONG_ACCOUNT]).after(1))
    instance = task(ids_of(sandbox) if waba_ids is None else waba_ids, target, retries=2, **arguments)
    with pytest.raises(GraphRateLimitError):
        instance.build().execute({"ti": instance.ti})
    instance.ti.try_number = 2
    assert [request.status for request in sandbox.requests if "after" in request.params] == [403]
    sandbox.requests.clear()
    return instance


def parts_of(target: Path) -> list[Path]:
    return sorted((target.parent / PARTS).iterdir())


def lines_of(part: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(part.read_bytes()).splitlines()]


def write_lines(part: Path, lines: list[Any]) -> None:
    part.write_bytes(gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))


class TestRetries:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (OF_APP, GraphRateLimitError),
            (Fault.too_many_requests(), GraphRateLimitError),
        ],
    )
    def test_accounts_that_were_kept_are_not_asked_for_again(
        self, connected: GraphSandbox, target: Path, fault: Fault, error: type[GraphError]
    ) -> None:
        ids = ids_of(connected)
        whole = task(ids, target).run()
        data = target.read_bytes()
        connected.reset()
        connected.fail_next(fault.after(6))
        retried = task(ids, target, retries=1, run_id="other")
        assert retried.run() == whole
        assert [type(failure) for failure in retried.failures] == [error]
        assert target.read_bytes() == data
        assert names_in(target) == {"numbers.ndjson", RECORD}
        answered = [waba_id for waba_id, one in zip(asked_for(connected), connected.requests) if one.status == 200]  # noqa: B905
        # The sixth account was read in part only, so that it is read again.
        assert answered == [*ids[:6], *[ids[LONG_ACCOUNT]] * 2, *ids[6:]]

    def test_accounts_that_failed_are_asked_for_again(self, connected: GraphSandbox, target: Path) -> None:
        ids = ids_of(connected)
        connected.fail_next(*[Fault.server_error().on(waba_id).times(6) for waba_id in (ids[2], ids[9])])
        retried = task(ids, target, retries=2)
        retried.run()
        assert [type(failure) for failure in retried.failures] == [GraphServerError] * len(retried.failures)
        assert rows_of(target) == numbers_of(connected)
        asked = Counter(asked_for(connected))
        assert (asked.pop(ids[2]), asked.pop(ids[9]), asked.pop(ids[LONG_ACCOUNT])) == (7, 7, 2)
        assert set(asked.values()) == {1}

    @pytest.mark.parametrize("suffix", ["json", "csv", "ndjson.gz", "csv.gz"])
    def test_every_format(self, connected: GraphSandbox, tmp_path: Path, suffix: str) -> None:
        whole = task(ids_of(connected), tmp_path / f"a.{suffix}").run()
        connected.fail_next(OF_APP.after(9))
        retried = task(ids_of(connected), tmp_path / f"b.{suffix}", retries=1)
        assert retried.run()["sha256"] == whole["sha256"]
        assert len(retried.failures) == 1

    def test_side_by_side(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(OF_APP.after(12))
        retried = task(ids_of(connected), target, retries=1, max_concurrency=10)
        manifest = retried.run()
        assert rows_of(target) == numbers_of(connected)
        assert (manifest["accounts"], manifest["pages"]) == (20, 21)
        # What is asked for again are those that were on their way, and that with two pages.
        asked = Counter(asked_for(connected))
        assert set(asked) == set(ids_of(connected))
        assert sum(asked.values()) <= 21 + 1 + 11

    def test_another_concurrency_goes_on_too(self, connected: GraphSandbox, target: Path) -> None:
        instance = interrupted(connected, target)
        other = task(ids_of(connected), target, max_concurrency=4)
        other.ti = instance.ti
        other.run()
        assert set(asked_for(connected)) == set(ids_of(connected)[5:])
        assert rows_of(target) == numbers_of(connected)

    def test_the_log_says_what_was_kept(
        self, connected: GraphSandbox, target: Path, log: pytest.LogCaptureFixture
    ) -> None:
        left_out = ids_of(connected)[1]
        connected.fail_next(*[Fault.wrong_business().on(left_out)] * 2)
        instance = interrupted(connected, target, on_account_error="skip")
        instance.run()
        # The account that was left out was not kept.
        assert "Resuming after 4 accounts that an earlier try has read" in log.text
        assert "Listed 160 rows of 19 accounts on 20 pages, 1 accounts left out" in log.text

    def test_accounts_that_were_left_out_are_tried_again(self, connected: GraphSandbox, target: Path) -> None:
        left_out = ids_of(connected)[2]
        connected.fail_next(Fault.wrong_business().on(left_out))
        instance = interrupted(connected, target, on_account_error="skip")
        manifest = instance.run()
        assert (manifest["accounts"], manifest["skipped_count"]) == (20, 0)
        assert rows_of(target) == numbers_of(connected)

    def test_a_try_that_reads_nothing_keeps_nothing(self, connected: GraphSandbox, target: Path) -> None:
        instance = interrupted(connected, target)
        (part,) = parts_of(target)
        connected.fail_next(OF_APP)
        with pytest.raises(GraphRateLimitError):
            instance.build().execute({"ti": instance.ti})
        assert parts_of(target) == [part]

    def test_progress_counts_the_kept_accounts(
        self, connected: GraphSandbox, target: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance = interrupted(connected, target)
        monkeypatch.setattr("airflow_provider_whatsapp.tasks.progress._SECONDS_BETWEEN_LINES", 0.0)
        log.clear()
        instance.run()
        lines = [record.getMessage() for record in log.records if record.getMessage()[0].isdigit()]
        assert "5 of 20 accounts, 8 rows" in lines
        assert lines[-1].startswith("20 of 20 accounts, 160 rows, API usage ")

    def test_without_a_retry_nothing_is_kept(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(WhatsAppListWabaEdgeOperator, "checkpoint_interval", 0.0)
        kept: list[Any] = []
        monkeypatch.setattr(
            "airflow_provider_whatsapp.resume.files.CheckpointFiles.keep", lambda *args: kept.append(args)
        )
        task(ids_of(connected), target).run()
        assert rows_of(target) == numbers_of(connected)
        assert kept == []

    def test_it_is_kept_once_a_minute(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow_provider_whatsapp.resume.files import CheckpointFiles

        kept: list[int] = []
        keep = CheckpointFiles.keep
        monkeypatch.setattr(
            CheckpointFiles, "keep", lambda self, state: (kept.append(state["progress"]), keep(self, state))
        )
        waited = ids_of(connected)[3:6]
        connected.fail_next(*[Fault.throttle(minutes=1).on(waba_id) for waba_id in waited])
        task(ids_of(connected), target, retries=1, max_concurrency=10).run()
        # These accounts are read again at the end, when a minute has passed, and then within a few seconds.
        assert kept == [18]

    @pytest.mark.parametrize(
        "fault", [Fault.expired_token(), Fault.no_capability(), Fault.blocked(), Fault.no_permission()]
    )
    def test_an_error_that_a_retry_cannot_mend_leaves_nothing(
        self, connected: GraphSandbox, target: Path, fault: Fault
    ) -> None:
        instance = interrupted(connected, target, on_account_error="skip")
        connected.fail_next(fault)
        with pytest.raises(AirflowFailException):
            instance.run()
        assert names_in(target) == set()

    def test_an_empty_list_leaves_nothing(self, connected: GraphSandbox, target: Path) -> None:
        for account in connected.accounts:
            account["phone_numbers"] = []
        connected.fail_next(OF_APP.after(6))
        retried = task(ids_of(connected), target, retries=1, if_empty="fail")
        with pytest.raises(AirflowException, match="the listing is empty"):
            retried.run()
        assert names_in(target) == set()

    def test_the_last_try_leaves_nothing(self, connected: GraphSandbox, target: Path) -> None:
        connected.fail_next(OF_APP.after(3), OF_APP.after(3))
        with pytest.raises(GraphRateLimitError):
            task(ids_of(connected), target, retries=1).run()
        assert names_in(target) == set()

    def test_what_was_there_stays_until_the_end(self, connected: GraphSandbox, target: Path) -> None:
        target.parent.mkdir()
        target.write_text("before")
        instance = interrupted(connected, target)
        assert target.read_text() == "before"
        found = [path for path in target.parent.rglob("*") if path.is_file() and path != target]
        assert found
        # Those who read the lake do not see what is kept.
        assert all(path.name.startswith("_") and not path.name.endswith((".ndjson", ".gz")) for path in found)
        instance.run()
        assert rows_of(target) == numbers_of(connected)

    def test_a_list_that_goes_to_xcom_is_read_again(self, connected: GraphSandbox) -> None:
        connected.fail_next(OF_APP.after(6))
        assert task(ids_of(connected), retries=1).run() == numbers_of(connected)
        assert len(connected.requests) == 7 + 21

    def test_without_a_task_instance(self, connected: GraphSandbox, target: Path) -> None:
        task(ids_of(connected), target).build().execute({})
        assert rows_of(target) == numbers_of(connected)
        assert names_in(target) == {"numbers.ndjson"}


class TestRateLimits:
    def test_an_account_waits_alone(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits, log: pytest.LogCaptureFixture
    ) -> None:
        ids = ids_of(connected)
        connected.fail_next(Fault.throttle(minutes=1).on(ids[3]))
        waited = task(ids, target, deferrable=True)
        waited.run()
        # The others are read meanwhile, and its rows keep their place.
        assert asked_for(connected) == [*ids[:5], ids[5], *ids[5:], ids[3]]
        assert rows_of(target) == numbers_of(connected)
        assert waited.deferrals == 0
        assert 55 <= skipped.total <= 62
        (line,) = [record.getMessage() for record in log.records if "retrying in" in record.getMessage()]
        assert line.startswith(f"Account {ids[3]}: Too many calls")

    def test_an_account_may_wait_long_while_others_are_read(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        # Another account makes the time pass, a minute at a time.
        ids = ids_of(connected)
        connected.fail_next(
            Fault.throttle(minutes=5).on(ids[0]), *[Fault.throttle(minutes=1).on(waba_id) for waba_id in ids[2:8]]
        )
        waited = task(ids, target, max_wait_in_place=70)
        with pytest.raises(GraphRateLimitError):
            waited.run()

    def test_a_long_throttle_of_one_account_is_waited_for_without_a_slot(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits, log: pytest.LogCaptureFixture
    ) -> None:
        ids = ids_of(connected)
        connected.fail_next(Fault.throttle(minutes=5).on(ids[3]))
        deferred = task(ids, target, deferrable=True)
        manifest = deferred.run()
        assert deferred.deferrals == 1
        # All others are kept before the wait, so that only this one is left after it.
        assert asked_for(connected) == [*ids[:5], ids[5], *ids[5:], ids[3]]
        assert rows_of(target) == numbers_of(connected)
        assert (manifest["accounts"], manifest["pages"], manifest["skipped_count"]) == (20, 21, 0)
        (wait,) = skipped.seconds
        assert 295 <= wait <= 330
        assert names_in(target) == {"numbers.ndjson", RECORD}
        lines = [record.getMessage() for record in log.records]
        (line,) = [line for line in lines if line.startswith("Waiting without a worker slot until 20")]
        assert f" UTC: Account {ids[3]}: Too many calls: wait" in line
        assert "Resuming after 19 accounts that an earlier try has read" in lines

    @pytest.mark.parametrize("fault", [Fault.throttle(code=4), Fault.throttle(code=17), Fault.throttle(code=613)])
    def test_a_limit_of_the_app_holds_back_all(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits, fault: Fault
    ) -> None:
        ids = ids_of(connected)
        whole = task(ids, target).run()
        connected.reset()
        connected.fail_next(fault.after(4))
        deferred = task(ids, target, deferrable=True, run_id="other")
        assert deferred.run() == whole
        assert deferred.deferrals == 1
        # No account was asked for after the refusal, and none of those before it again.
        assert asked_for(connected) == [*ids[:5], ids[4], ids[5], *ids[5:]]
        (wait,) = skipped.seconds
        assert 295 <= wait <= 330

    def test_five_accounts_that_are_refused_stand_for_the_app(self, connected: GraphSandbox, target: Path) -> None:
        ids = ids_of(connected)
        connected.fail_next(*[Fault.throttle(minutes=9).on(waba_id) for waba_id in ids[2:]])
        with pytest.raises(GraphRateLimitError):
            task(ids, target).run()
        assert asked_for(connected) == ids[:7]

    def test_a_throttle_without_a_named_time(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.throttle(minutes=None).on(ids_of(connected)[3]))
        deferred = task(ids_of(connected), target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 1
        assert 295 <= skipped.total <= 330

    @pytest.mark.parametrize("with_object", [True, False])
    def test_without_deferrable_a_long_throttle_is_an_error(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits, with_object: bool
    ) -> None:
        failing = ids_of(connected)[3]
        connected.fail_next(Fault.throttle(minutes=9).on(failing))
        with pytest.raises(GraphRateLimitError, match=f"^Account {failing}: Too many calls") as caught:
            task(ids_of(connected), target if with_object else None).run()
        assert caught.value.retry_after is not None
        # The wait began when the account was refused, before the others were read.
        assert 510 <= caught.value.retry_after.total_seconds() <= 540
        assert caught.value.retry_after.microseconds == 0
        assert caught.value.waba_id == failing
        assert skipped.seconds == []
        assert len(connected.requests) == 21

    @pytest.mark.parametrize(("longest", "deferrals"), [("30", 1), (61, 0)])
    def test_max_wait_in_place(self, connected: GraphSandbox, target: Path, longest: int | str, deferrals: int) -> None:
        connected.fail_next(Fault.throttle(minutes=1).on(ids_of(connected)[3]))
        deferred = task(ids_of(connected), target, deferrable=True, max_wait_in_place=longest)
        deferred.run()
        assert deferred.deferrals == deferrals

    def test_five_waits_in_a_row_that_do_not_help(self, connected: GraphSandbox, target: Path) -> None:
        failing = ids_of(connected)[3]
        connected.fail_next(Fault.throttle(minutes=5).on(failing).times(ALWAYS))
        deferred = task(ids_of(connected), target, deferrable=True)
        with pytest.raises(GraphRateLimitError, match=f"^Account {failing}: "):
            deferred.run()
        # The first of them comes behind the others' accounts, which were read in the same process.
        assert deferred.deferrals == 5
        assert Counter(asked_for(connected))[failing] == 6
        assert names_in(target) == set()

    def test_a_retry_counts_its_own_waits(self, connected: GraphSandbox, target: Path) -> None:
        ids = ids_of(connected)[:2]
        connected.fail_next(Fault.throttle(minutes=5).on(ids[0]).times(ALWAYS))
        deferred = task(ids, target, deferrable=True, retries=1)
        with pytest.raises(GraphRateLimitError):
            deferred.run()
        assert deferred.deferrals == 10
        assert Counter(asked_for(connected)) == {ids[0]: 12, ids[1]: 1}

    @pytest.mark.parametrize("max_concurrency", [1, 10])
    def test_waits_that_help_are_not_counted(self, connected: GraphSandbox, target: Path, max_concurrency: int) -> None:
        # In each process, one of the first eight accounts can be read. All others were read in the first process.
        ids = ids_of(connected)
        connected.fail_next(
            *[Fault.throttle(minutes=5).on(waba_id).times(times) for times, waba_id in enumerate(ids[:8], start=1)]
        )
        deferred = task(list(reversed(ids)), target, deferrable=True, max_concurrency=max_concurrency)
        deferred.run()
        assert deferred.deferrals == 8
        connected.accounts.reverse()
        assert rows_of(target) == numbers_of(connected)

    def test_waits_that_help_are_not_counted_when_the_first_accounts_are_slow(
        self, connected: GraphSandbox, target: Path
    ) -> None:
        # The kept accounts come behind those that are read in the next process.
        ids = ids_of(connected)
        connected.fail_next(
            *[Fault.throttle(minutes=5).on(waba_id).times(times) for times, waba_id in enumerate(ids[:4], start=1)],
            *[Fault.throttle(minutes=5).on(waba_id).times(5 + times) for times, waba_id in enumerate(ids[4:8])],
        )
        deferred = task(ids, target, deferrable=True)
        deferred.run()
        assert deferred.deferrals > 6
        assert rows_of(target) == numbers_of(connected)

    def test_a_list_that_goes_to_xcom_begins_anew_once(self, connected: GraphSandbox) -> None:
        connected.fail_next(OF_APP.after(6))
        deferred = task(ids_of(connected), deferrable=True)
        assert deferred.run() == numbers_of(connected)
        assert deferred.deferrals == 1
        assert len(connected.requests) == 7 + 21
        connected.fail_next(OF_APP.after(6), OF_APP.after(6))
        deferred = task(ids_of(connected), deferrable=True)
        with pytest.raises(GraphRateLimitError, match="set output_path"):
            deferred.run()
        assert deferred.deferrals == 1

    def test_high_usage_is_waited_for_before_the_api_refuses(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.high_usage(95).after(3))
        deferred = task(ids_of(connected), target, deferrable=True)
        deferred.run()
        assert deferred.deferrals == 1
        assert 300 <= skipped.total <= 330
        assert rows_of(target) == numbers_of(connected)
        # The account whose answer said so is kept.
        assert len(connected.requests) == 21

    def test_max_usage(self, connected: GraphSandbox, target: Path, skipped: SkippedWaits) -> None:
        connected.fail_next(Fault.high_usage(94).times(21))
        task(ids_of(connected), target, deferrable=True).run()
        assert skipped.seconds == []
        connected.fail_next(Fault.high_usage(60).after(1))
        deferred = task(ids_of(connected), target, deferrable=True, max_usage="60", run_id="other")
        deferred.run()
        assert deferred.deferrals == 1

    def test_a_list_that_goes_to_xcom_waits_for_high_usage_in_place(
        self, connected: GraphSandbox, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.high_usage(99).times(ALWAYS))
        waited = task(ids_of(connected), deferrable=True)
        assert waited.run() == numbers_of(connected)
        assert waited.deferrals == 0
        assert skipped.total == pytest.approx(300, abs=1)

    def test_in_place_high_usage_is_waited_for_five_minutes_in_all(
        self, connected: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        connected.fail_next(Fault.high_usage(99).times(ALWAYS))
        task(ids_of(connected), target, max_concurrency=5).run()
        assert skipped.total == pytest.approx(300, abs=1)
        assert rows_of(target) == numbers_of(connected)


class TestQuotas:
    def test_an_account_with_more_pages_than_its_quota(
        self, monkeypatch: pytest.MonkeyPatch, target: Path, skipped: SkippedWaits
    ) -> None:
        with GraphSandbox(accounts=8, calls_per_hour_and_account=4) as sandbox:
            give_numbers(sandbox)
            monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
            # The account has seven pages of twenty.
            ids = ids_of(sandbox)
            task(ids, target, page_size=20, max_wait_in_place=3700).run()
            assert rows_of(target) == numbers_of(sandbox)
            assert Counter(asked_for(sandbox))[ids[LONG_ACCOUNT]] == 7
            assert all(request.status == 200 for request in sandbox.requests)
            # The others do not wait for it.
            assert asked_for(sandbox)[-3:] == [ids[LONG_ACCOUNT]] * 3
            assert 3590 <= skipped.total <= 3700

    def test_it_cannot_be_read_in_parts(
        self, monkeypatch: pytest.MonkeyPatch, target: Path, log: pytest.LogCaptureFixture
    ) -> None:
        with GraphSandbox(accounts=8, calls_per_hour_and_account=4) as sandbox:
            give_numbers(sandbox)
            monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
            failing = ids_of(sandbox)[LONG_ACCOUNT]
            deferred = task(ids_of(sandbox), target, page_size=20, deferrable=True)
            with pytest.raises(GraphRateLimitError):
                deferred.run()
            assert deferred.deferrals == 5
            assert names_in(target) == set()
            assert Counter(asked_for(sandbox)).most_common(2)[0][0] == failing
            assert Counter(asked_for(sandbox)).most_common(2)[1][1] == 1
            waits = [line for line in log.text.splitlines() if "Waiting without a worker slot" in line]
            assert len(waits) == 5
            assert all(f"Account {failing}: " in line for line in waits)

    def test_more_accounts_than_the_quota_of_the_app(
        self, monkeypatch: pytest.MonkeyPatch, target: Path, skipped: SkippedWaits
    ) -> None:
        with GraphSandbox(accounts=60, calls_per_hour=20, calls_per_hour_and_account=2) as sandbox:
            give_numbers(sandbox)
            monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
            deferred = task(ids_of(sandbox), target, deferrable=True, max_concurrency=5)
            manifest = deferred.run()
            assert rows_of(target) == numbers_of(sandbox)
            assert (manifest["accounts"], manifest["pages"]) == (60, 61)
            refused = sum(request.status != 200 for request in sandbox.requests)
            again = len(sandbox.requests) - refused - 61
            print(f"{len(sandbox.requests)} calls, {refused} refused, {again} again, {deferred.deferrals} deferrals")
            assert len(sandbox.requests) <= 20 * (skipped.total / 3600 + 1)
            assert again <= 5 * deferred.deferrals


class TestWhenToBeginAnew:
    @pytest.mark.parametrize("harm", ["missing", "cut", "garbled", "no gzip"])
    @pytest.mark.parametrize("which", [0, 1])
    def test_a_part_is_lost(self, connected: GraphSandbox, target: Path, harm: str, which: int) -> None:
        instance = interrupted(connected, target)
        connected.fail_next(OF_APP.after(5))
        with pytest.raises(GraphRateLimitError):
            instance.build().execute({"ti": instance.ti})
        part = parts_of(target)[which]
        data = part.read_bytes()
        harmed = {
            "cut": data[:-20],
            "garbled": gzip.compress(gzip.decompress(data).replace(b"{", b"[", 1)),
            "no gzip": b"something else",
        }
        part.unlink() if harm == "missing" else part.write_bytes(harmed[harm])
        connected.requests.clear()
        instance.run()
        assert instance.failures == []
        # Without the second part, the first one is as if it had been the last.
        kept = 5 if (harm, which) == ("missing", 1) else 0
        assert set(asked_for(connected)) == set(ids_of(connected)[kept:])
        assert rows_of(target) == numbers_of(connected)
        assert names_in(target) == {"numbers.ndjson", RECORD}

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda lines: [*lines[:-2], lines[-1]], id="a row less"),
            pytest.param(lambda lines: [*lines[:2], lines[1], *lines[2:]], id="a row more"),
            pytest.param(lambda lines: lines[1:], id="rows without an account"),
            pytest.param(lambda lines: [*lines[:-1], *lines[:3], lines[-1]], id="an account twice"),
            pytest.param(lambda lines: [{**lines[0], "count": 1}, *lines[1:]], id="another count"),
            pytest.param(lambda lines: [{**lines[0], "more": 1}, *lines[1:]], id="of another version"),
            pytest.param(lambda lines: [{}, *lines], id="an empty line"),
            pytest.param(lambda lines: [{**lines[0], "count": -1}, *lines[1:]], id="a negative count"),
            pytest.param(lambda lines: [{**lines[0], "count": "1"}, *lines[1:]], id="a count that is no number"),
            pytest.param(lambda lines: [{**lines[0], "waba_id": ["1"]}, *lines[1:]], id="an id that is no text"),
        ],
    )
    def test_a_part_holds_something_else(
        self, connected: GraphSandbox, target: Path, change: Any, log: pytest.LogCaptureFixture
    ) -> None:
        instance = interrupted(connected, target)
        (part,) = parts_of(target)
        write_lines(part, change(lines_of(part)))
        instance.run()
        assert instance.failures == []
        assert rows_of(target) == numbers_of(connected)
        assert asked_for(connected) == [*ids_of(connected)[:6], *ids_of(connected)[5:]]
        assert log.text.count("; the listing starts again") == 1

    @pytest.mark.parametrize("name", ["position", "progress", "fruitless_waits", "progress_at_last_wait"])
    def test_another_version_of_the_package_kept_the_rows(
        self, connected: GraphSandbox, target: Path, name: str
    ) -> None:
        instance = interrupted(connected, target)
        (part,) = parts_of(target)
        *lines, state = lines_of(part)
        del state[name]
        write_lines(part, [*lines, state])
        instance.run()
        assert len(connected.requests) == 21
        assert rows_of(target) == numbers_of(connected)

    @pytest.mark.parametrize(
        "changed",
        [
            {"page_size": 50},
            {"fields": "id"},
            {"edge": "message_templates"},
            {"edge": "subscribed_apps"},
            {"edge_params": {"name": "x"}},
            {"on_account_error": "skip"},
            {"output_format": "json"},
            {"max_items": 150},
        ],
    )
    def test_another_query(self, connected: GraphSandbox, target: Path, changed: dict[str, Any]) -> None:
        instance = interrupted(connected, target)
        other = task(ids_of(connected), target, retries=2, **changed)
        other.ti = instance.ti
        other.run()
        assert asked_for(connected)[0] == ids_of(connected)[0]
        assert names_in(target) == {"numbers.ndjson", RECORD}

    @pytest.mark.parametrize("change", ["another order", "fewer", "a part of them as rows"])
    def test_other_accounts(self, connected: GraphSandbox, target: Path, change: str) -> None:
        instance = interrupted(connected, target)
        ids = ids_of(connected)
        others: Any = {"another order": ids[::-1], "fewer": ids[:5], "a part of them as rows": [{"id": ids[0]}]}[change]
        other = task(others, target, retries=2)
        other.ti = instance.ti
        other.run()
        assert set(asked_for(connected)) == set(ids[:1] if "part" in change else others)

    def test_the_same_accounts_in_another_spelling_go_on(self, connected: GraphSandbox, target: Path) -> None:
        instance = interrupted(connected, target)
        ids = ids_of(connected)
        other = task(",".join(ids), target, retries=2)
        other.ti = instance.ti
        other.run()
        assert asked_for(connected) == [ids[5], *ids[5:]]

    @pytest.mark.parametrize(
        "changed", [{"max_tries": 3}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 1}, {"dag_id": "x"}]
    )
    def test_another_task_instance(self, connected: GraphSandbox, target: Path, changed: dict[str, Any]) -> None:
        instance = interrupted(connected, target)
        vars(instance.ti).update(changed)
        instance.run()
        assert len(connected.requests) == 21
        assert names_in(target) == {"numbers.ndjson", RECORD}

    @pytest.mark.parametrize(("hours", "goes_on"), [(23.9, True), (24.1, False)])
    def test_accounts_are_kept_for_a_day(
        self, connected: GraphSandbox, target: Path, hours: float, goes_on: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance = interrupted(connected, target)
        now = time.time() + hours * 3600
        monkeypatch.setattr("airflow_provider_whatsapp.resume.files.time.time", lambda: now)
        instance.run()
        assert len(connected.requests) == (16 if goes_on else 21)
        assert rows_of(target) == numbers_of(connected)

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
        connected.fail_next(OF_APP.after(6))
        task(ids_of(connected), target, retries=1, deferrable=method == "rm").run()
        assert rows_of(target) == numbers_of(connected)
        assert "Nothing can be stored beside the object (PermissionError)" in log.text
        assert "Access Denied" not in log.text


class TestAccountsThatChange:
    """The object that names the accounts is written anew between two tries."""

    @pytest.fixture
    def accounts(self, connected: GraphSandbox, tmp_path: Path) -> Path:
        path = tmp_path / "accounts.ndjson"
        self.write(path, ids_of(connected))
        return path

    def write(self, path: Path, ids: list[str]) -> None:
        path.write_text("".join(json.dumps({"id": waba_id}) + "\n" for waba_id in ids))

    def test_others_come_and_go_and_move(self, connected: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(connected, target, accounts.as_uri())
        # Of those that were kept, the second is gone and the fourth is the first now.
        moved = connected.accounts.pop(3)
        del connected.accounts[1]
        connected.accounts.insert(0, moved)
        connected.accounts.insert(
            2, {**moved, "id": "4242", "phone_numbers": [{**moved["phone_numbers"][0], "id": "7"}]}
        )
        self.write(accounts, ids_of(connected))
        manifest = instance.run()
        ids = ids_of(connected)
        assert rows_of(target) == numbers_of(connected)
        assert (manifest["accounts"], manifest["count"]) == (20, len(numbers_of(connected)))
        assert set(asked_for(connected)) == {"4242", *ids[5:]}

    def test_all_that_were_kept_are_gone(self, connected: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(connected, target, str(accounts))
        del connected.accounts[:5]
        self.write(accounts, ids_of(connected))
        manifest = instance.run()
        assert rows_of(target) == numbers_of(connected)
        assert (manifest["accounts"], manifest["pages"]) == (15, 16)

    def test_no_account_is_left(self, connected: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(connected, target, str(accounts), if_empty="fail")
        accounts.write_text("")
        with pytest.raises(AirflowException, match="the listing is empty"):
            instance.run()
        assert names_in(target) == set()

    def test_the_object_is_broken_when_it_is_read_again(
        self, connected: GraphSandbox, target: Path, accounts: Path
    ) -> None:
        instance = interrupted(connected, target, str(accounts))
        accounts.write_text(json.dumps({"id": ids_of(connected)[0]}) + "\nbroken\n")
        with pytest.raises(AirflowFailException, match="^waba_ids: .*cannot be read as ndjson after row 1"):
            instance.run()
        assert names_in(target) == set()

    def test_another_object(self, connected: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(connected, target, str(accounts))
        other = task(str(accounts.rename(accounts.with_name("others.ndjson"))), target, retries=2)
        other.ti = instance.ti
        other.run()
        assert len(connected.requests) == 21


class TestMaxItems:
    @pytest.mark.parametrize("most", [3, 7, 50, 159, 160])
    def test_kept_rows_count(self, connected: GraphSandbox, target: Path, most: int) -> None:
        whole = task(ids_of(connected), target, max_items=most).run()
        connected.reset()
        connected.fail_next(OF_APP.after(3))
        resumed = task(ids_of(connected), target, max_items=most, retries=1, run_id="other").run()
        assert {**resumed, "pages": 0} == {**whole, "pages": 0}
        assert rows_of(target) == numbers_of(connected)[:most]

    def test_an_account_that_was_cut_is_kept_so(self, connected: GraphSandbox, target: Path) -> None:
        ids = ids_of(connected)
        connected.fail_next(Fault.server_error().on(ids[0]).times(6))
        instance = task([ids[0], ids[LONG_ACCOUNT]], target, max_items=20, retries=1, max_concurrency=2)
        manifest = instance.run()
        assert len(instance.failures) == 1
        assert (manifest["count"], manifest["truncated"], manifest["accounts"]) == (20, True, 1)
        assert Counter(asked_for(connected))[ids[LONG_ACCOUNT]] == 1


class TestAfterPublishing:
    @pytest.mark.parametrize("if_exists", ["overwrite", "fail", "skip"])
    def test_a_retry_gives_the_manifest_without_a_call(
        self, connected: GraphSandbox, target: Path, if_exists: str, log: pytest.LogCaptureFixture
    ) -> None:
        left_out = ids_of(connected)[2:5]
        connected.fail_next(*[Fault.no_account_permission().on(waba_id) for waba_id in left_out])
        published = task(ids_of(connected), target, retries=1, if_exists=if_exists, on_account_error="skip")
        manifest = published.run()
        assert [one["waba_id"] for one in manifest["skipped"]] == left_out
        connected.reset()
        published.ti.try_number = 2
        assert published.run() == manifest
        assert connected.requests == []
        assert "An earlier try of this task has already published" in log.text

    def test_a_cleared_task_lists_anew(self, connected: GraphSandbox, target: Path) -> None:
        published = task(ids_of(connected), target, retries=1)
        published.run()
        published.ti.max_tries = 3
        connected.reset()
        published.run()
        assert len(connected.requests) == 21

    def test_a_hundred_accounts_that_were_left_out_fit_into_the_record(
        self, monkeypatch: pytest.MonkeyPatch, target: Path
    ) -> None:
        with GraphSandbox(accounts=130) as sandbox:
            give_numbers(sandbox)
            monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
            sandbox.fail_next(*[Fault.no_account_permission().on(waba_id) for waba_id in ids_of(sandbox)[10:]])
            published = task(ids_of(sandbox), target, retries=1, on_account_error="skip", max_concurrency=10)
            manifest = published.run()
            assert (len(manifest["skipped"]), manifest["skipped_count"]) == (100, 120)
            sandbox.requests.clear()
            published.ti.try_number = 2
            assert published.run() == manifest
            assert sandbox.requests == []

    def test_a_process_that_is_killed_before_airflow_knows(
        self, connected: GraphSandbox, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance = interrupted(connected, target)

        def kill(parts: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("airflow_provider_whatsapp.resume.files.CheckpointFiles.clear", kill)
            with pytest.raises(KeyboardInterrupt):
                instance.build().execute({"ti": instance.ti})
        assert names_in(target) == {"numbers.ndjson", RECORD, PARTS}
        instance.ti.try_number = 3
        connected.requests.clear()
        instance.run()
        assert connected.requests == []
        assert names_in(target) == {"numbers.ndjson", RECORD}


WORKER = """
import sys
from types import SimpleNamespace
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator
WhatsAppListWabaEdgeOperator.checkpoint_interval = 0.0
instance = SimpleNamespace(
    dag_id="dag", run_id="run", task_id="t", map_index=-1, is_mapped=False, try_number=int(sys.argv[3]), max_tries=99
)
WhatsAppListWabaEdgeOperator(
    task_id="t", waba_ids=sys.argv[1], edge="phone_numbers", output_path=sys.argv[2], if_exists="fail", max_concurrency=4
).execute({"ti": instance})
"""


def test_a_worker_that_is_killed_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: Path) -> None:
    seed = random.randrange(1000)  # noqa: S311  # not for cryptography
    rng = random.Random(seed)  # noqa: S311  # not for cryptography
    print(f"seed {seed}")
    with GraphSandbox(accounts=150, latency=0.005) as sandbox:
        give_numbers(sandbox)
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        accounts = tmp_path / "accounts.csv"
        accounts.write_text("id\n" + "".join(f"{waba_id}\n" for waba_id in ids_of(sandbox)))
        kills = 0
        for try_number in range(1, 100):
            enough = len(sandbox.requests) + rng.randint(1, 25)
            arguments = [sys.executable, "-c", WORKER, str(accounts), str(target), str(try_number)]
            with subprocess.Popen(arguments) as worker:
                while worker.poll() is None and (kills == 10 or len(sandbox.requests) < enough):
                    time.sleep(0.001)
                # The kill comes while accounts are on their way, or while a part is written.
                time.sleep(rng.random() * 0.02 if kills < 10 else 0)
                if worker.poll() is None:
                    worker.kill()
            if worker.returncode == 0:
                break
            assert worker.returncode == -signal.SIGKILL
            kills += 1
        assert kills >= 3
        assert rows_of(target) == numbers_of(sandbox)
        assert names_in(target) == {"numbers.ndjson", RECORD}
        asked = Counter(asked_for(sandbox))
        assert set(asked) == set(ids_of(sandbox))
        again = sum(asked.values()) - 151
        print(f"{kills} kills, {again} calls of 151 were made again")
        # After each kill, the accounts that were on their way are asked for again, and the last few that were read.
        assert again <= 12 * kills
