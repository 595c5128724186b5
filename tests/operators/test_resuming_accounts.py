"""An edge of many accounts resumes after the accounts that were read. What holds for every operator is in
test_resuming.py."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from listings import THROTTLE, fail_once, lines_of, parts_of, rows_in, write_lines
from numbered_accounts import LONG_ACCOUNT, asked_for, ids_of, names_in, numbers_of
from task_instance import TaskInstance

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException
from airflow_provider_whatsapp.graph import GraphRateLimitError
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, SkippedWaits


def task(waba_ids: Any, path: Path, *, retries: int = 0, **arguments: Any) -> TaskInstance:
    given = {"edge": "phone_numbers", "max_concurrency": 1, "output_path": str(path), **arguments}
    return TaskInstance(
        lambda: WhatsAppListWabaEdgeOperator(task_id="numbers", waba_ids=waba_ids, **given), retries=retries
    )


def interrupted(sandbox: GraphSandbox, target: Path, waba_ids: Any = None, **arguments: Any) -> TaskInstance:
    """A task whose first try was throttled at the second page of the sixth account, so that five accounts are kept."""
    sandbox.fail_next(THROTTLE.on(ids_of(sandbox)[LONG_ACCOUNT]).after(1))
    instance = task(ids_of(sandbox) if waba_ids is None else waba_ids, target, retries=2, **arguments)
    fail_once(instance)
    assert [request.status for request in sandbox.requests if "after" in request.params] == [403]
    sandbox.requests.clear()
    return instance


class TestRetries:
    def test_side_by_side(self, numbered: GraphSandbox, target: Path) -> None:
        numbered.fail_next(THROTTLE.after(12))
        retried = task(ids_of(numbered), target, retries=1, max_concurrency=10)
        manifest = retried.run()
        assert rows_in(target) == numbers_of(numbered)
        assert (manifest["accounts"], manifest["pages"]) == (20, 21)
        # The accounts in flight are requested again, and the one with two pages.
        asked = Counter(asked_for(numbered))
        assert set(asked) == set(ids_of(numbered))
        assert sum(asked.values()) <= 21 + 1 + 11

    def test_another_concurrency_continues_too(self, numbered: GraphSandbox, target: Path) -> None:
        instance = interrupted(numbered, target)
        other = task(ids_of(numbered), target, max_concurrency=4)
        other.ti = instance.ti
        other.run()
        assert set(asked_for(numbered)) == set(ids_of(numbered)[5:])
        assert rows_in(target) == numbers_of(numbered)

    def test_the_log_says_what_was_kept(
        self, numbered: GraphSandbox, target: Path, log: pytest.LogCaptureFixture
    ) -> None:
        left_out = ids_of(numbered)[1]
        numbered.fail_next(*[Fault.wrong_business().on(left_out)] * 2)
        instance = interrupted(numbered, target, on_account_error="skip")
        instance.run()
        # The account that was left out was not kept.
        assert "Resuming after 4 accounts that an earlier try has read" in log.text
        assert "Listed 160 rows of 19 accounts on 20 pages, 1 accounts left out" in log.text

    def test_accounts_that_were_left_out_are_tried_again(self, numbered: GraphSandbox, target: Path) -> None:
        left_out = ids_of(numbered)[2]
        numbered.fail_next(Fault.wrong_business().on(left_out))
        instance = interrupted(numbered, target, on_account_error="skip")
        manifest = instance.run()
        assert (manifest["accounts"], manifest["skipped_count"]) == (20, 0)
        assert rows_in(target) == numbers_of(numbered)

    def test_progress_counts_the_kept_accounts(
        self, numbered: GraphSandbox, target: Path, log: pytest.LogCaptureFixture
    ) -> None:
        instance = interrupted(numbered, target)
        numbered.fail_next(Fault.throttle(minutes=1).on(ids_of(numbered)[LONG_ACCOUNT]))
        log.clear()
        instance.run()
        (line,) = [line for line in log.messages if line[0].isdigit()]
        assert line.startswith("19 of 20 accounts, 130 rows")


class TestRateLimits:
    def test_an_account_waits_alone(
        self, numbered: GraphSandbox, target: Path, skipped: SkippedWaits, log: pytest.LogCaptureFixture
    ) -> None:
        ids = ids_of(numbered)
        numbered.fail_next(Fault.throttle(minutes=1).on(ids[3]))
        waited = task(ids, target, deferrable=True)
        waited.run()
        # The others are read meanwhile, and its rows keep their place.
        assert asked_for(numbered) == [*ids[:5], ids[5], *ids[5:], ids[3]]
        assert rows_in(target) == numbers_of(numbered)
        assert waited.deferrals == 0
        assert 55 <= skipped.total <= 62
        (line,) = [line for line in log.messages if "sending it again" in line]
        assert line.startswith(f"Account {ids[3]}: The API said: (#80008) ")

    def test_a_long_throttle_of_one_account_is_waited_for_without_a_slot(
        self, numbered: GraphSandbox, target: Path, skipped: SkippedWaits, log: pytest.LogCaptureFixture
    ) -> None:
        ids = ids_of(numbered)
        numbered.fail_next(Fault.throttle(minutes=5).on(ids[3]))
        deferred = task(ids, target, deferrable=True)
        manifest = deferred.run()
        assert deferred.deferrals == 1
        # All others are kept before the wait, so that only this one is left after it.
        assert asked_for(numbered) == [*ids[:5], ids[5], *ids[5:], ids[3]]
        assert rows_in(target) == numbers_of(numbered)
        assert (manifest["accounts"], manifest["pages"], manifest["skipped_count"]) == (20, 21, 0)
        (wait,) = skipped.seconds
        assert 295 <= wait <= 330
        assert names_in(target) == {"rows.ndjson", "_rows.ndjson.airflow-record"}
        (line,) = [line for line in log.messages if line.startswith("Waiting without a worker slot until 20")]
        assert f" UTC: Account {ids[3]}: The API said: (#80008) " in line
        assert "Resuming after 19 accounts that an earlier try has read" in log.messages

    def test_without_deferrable_a_long_throttle_is_an_error(
        self, numbered: GraphSandbox, target: Path, skipped: SkippedWaits
    ) -> None:
        failing = ids_of(numbered)[3]
        numbered.fail_next(Fault.throttle(minutes=9).on(failing))
        with pytest.raises(GraphRateLimitError, match=rf"^Account {failing}: The API said: \(#80008\) ") as caught:
            task(ids_of(numbered), target).run()
        assert caught.value.retry_after is not None
        # The wait began when the account was refused, before the others were read.
        assert 510 <= caught.value.retry_after.total_seconds() <= 540
        assert caught.value.retry_after.microseconds == 0
        assert caught.value.waba_id == failing
        assert skipped.seconds == []
        assert len(numbered.requests) == 21

    def test_waits_that_help_are_not_counted_when_the_first_accounts_are_slow(
        self, numbered: GraphSandbox, target: Path
    ) -> None:
        # The kept accounts come after those that are read in the next process.
        ids = ids_of(numbered)
        numbered.fail_next(
            *[Fault.throttle(minutes=5).on(waba_id).times(times) for times, waba_id in enumerate(ids[:4], start=1)],
            *[Fault.throttle(minutes=5).on(waba_id).times(5 + times) for times, waba_id in enumerate(ids[4:8])],
        )
        deferred = task(ids, target, deferrable=True)
        deferred.run()
        assert deferred.deferrals > 6
        assert rows_in(target) == numbers_of(numbered)


class TestQuotas:
    def test_an_account_with_more_pages_than_its_quota(self, serve: Any, target: Path, skipped: SkippedWaits) -> None:
        with serve(accounts=8, calls_per_hour_and_account=4) as sandbox:
            # The account has seven pages of twenty.
            ids = ids_of(sandbox)
            task(ids, target, page_size=20, max_wait_in_place=3700).run()
            assert rows_in(target) == numbers_of(sandbox)
            assert Counter(asked_for(sandbox))[ids[LONG_ACCOUNT]] == 7
            assert all(request.status == 200 for request in sandbox.requests)
            # The others do not wait for it.
            assert asked_for(sandbox)[-3:] == [ids[LONG_ACCOUNT]] * 3
            assert 3590 <= skipped.total <= 3700

    def test_it_cannot_be_read_in_parts(self, serve: Any, target: Path, log: pytest.LogCaptureFixture) -> None:
        with serve(accounts=8, calls_per_hour_and_account=4) as sandbox:
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

    def test_more_accounts_than_the_quota_of_the_app(self, serve: Any, target: Path, skipped: SkippedWaits) -> None:
        with serve(accounts=60, calls_per_hour=20, calls_per_hour_and_account=2) as sandbox:
            deferred = task(ids_of(sandbox), target, deferrable=True, max_concurrency=5)
            manifest = deferred.run()
            assert rows_in(target) == numbers_of(sandbox)
            assert (manifest["accounts"], manifest["pages"]) == (60, 61)
            refused = sum(request.status != 200 for request in sandbox.requests)
            again = len(sandbox.requests) - refused - 61
            print(f"{len(sandbox.requests)} calls, {refused} refused, {again} again, {deferred.deferrals} deferrals")
            assert len(sandbox.requests) <= 20 * (skipped.total / 3600 + 1)
            assert again <= 5 * deferred.deferrals


class TestBeginningAgain:
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
        self, numbered: GraphSandbox, target: Path, change: Any, log: pytest.LogCaptureFixture
    ) -> None:
        instance = interrupted(numbered, target)
        (part,) = parts_of(target)
        write_lines(part, change(lines_of(part)))
        instance.run()
        assert instance.failures == []
        assert rows_in(target) == numbers_of(numbered)
        assert asked_for(numbered) == [*ids_of(numbered)[:6], *ids_of(numbered)[5:]]
        assert log.text.count("; the listing starts again") == 1

    @pytest.mark.parametrize("change", ["another order", "fewer", "a part of them as rows"])
    def test_other_accounts(self, numbered: GraphSandbox, target: Path, change: str) -> None:
        instance = interrupted(numbered, target)
        ids = ids_of(numbered)
        others: Any = {"another order": ids[::-1], "fewer": ids[:5], "a part of them as rows": [{"id": ids[0]}]}[change]
        other = task(others, target, retries=2)
        other.ti = instance.ti
        other.run()
        assert set(asked_for(numbered)) == set(ids[:1] if "part" in change else others)

    def test_the_same_accounts_in_another_spelling_continue(self, numbered: GraphSandbox, target: Path) -> None:
        instance = interrupted(numbered, target)
        ids = ids_of(numbered)
        other = task(",".join(ids), target, retries=2)
        other.ti = instance.ti
        other.run()
        assert asked_for(numbered) == [ids[5], *ids[5:]]


class TestAccountsThatChange:
    """The object that names the accounts is replaced between two tries."""

    @pytest.fixture
    def accounts(self, numbered: GraphSandbox, tmp_path: Path) -> Path:
        path = tmp_path / "accounts.ndjson"
        self.write(path, ids_of(numbered))
        return path

    def write(self, path: Path, ids: list[str]) -> None:
        path.write_text("".join(json.dumps({"id": waba_id}) + "\n" for waba_id in ids))

    def test_others_come_and_go_and_move(self, numbered: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(numbered, target, accounts.as_uri())
        # Of those that were kept, the second is gone and the fourth is the first now.
        moved = numbered.accounts.pop(3)
        del numbered.accounts[1]
        numbered.accounts.insert(0, moved)
        numbered.accounts.insert(
            2, {**moved, "id": "4242", "phone_numbers": [{**moved["phone_numbers"][0], "id": "7"}]}
        )
        self.write(accounts, ids_of(numbered))
        manifest = instance.run()
        ids = ids_of(numbered)
        assert rows_in(target) == numbers_of(numbered)
        assert (manifest["accounts"], manifest["count"]) == (20, len(numbers_of(numbered)))
        assert set(asked_for(numbered)) == {"4242", *ids[5:]}

    def test_all_that_were_kept_are_gone(self, numbered: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(numbered, target, str(accounts))
        del numbered.accounts[:5]
        self.write(accounts, ids_of(numbered))
        manifest = instance.run()
        assert rows_in(target) == numbers_of(numbered)
        assert (manifest["accounts"], manifest["pages"]) == (15, 16)

    def test_no_account_is_left(self, numbered: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(numbered, target, str(accounts), if_empty="fail")
        accounts.write_text("")
        with pytest.raises(AirflowException, match="the listing is empty"):
            instance.run()
        assert names_in(target) == set()

    def test_the_object_is_broken_when_it_is_read_again(
        self, numbered: GraphSandbox, target: Path, accounts: Path
    ) -> None:
        instance = interrupted(numbered, target, str(accounts))
        accounts.write_text(json.dumps({"id": ids_of(numbered)[0]}) + "\nbroken\n")
        with pytest.raises(AirflowFailException, match="^waba_ids: .*cannot be read as ndjson after row 1"):
            instance.run()
        assert names_in(target) == set()

    def test_another_object(self, numbered: GraphSandbox, target: Path, accounts: Path) -> None:
        instance = interrupted(numbered, target, str(accounts))
        other = task(str(accounts.rename(accounts.with_name("others.ndjson"))), target, retries=2)
        other.ti = instance.ti
        other.run()
        assert len(numbered.requests) == 21


class TestMaxItems:
    def test_an_account_that_was_cut_is_kept_so(self, numbered: GraphSandbox, target: Path) -> None:
        ids = ids_of(numbered)
        numbered.fail_next(Fault.server_error().on(ids[0]).times(6))
        instance = task([ids[0], ids[LONG_ACCOUNT]], target, max_items=20, retries=1, max_concurrency=2)
        manifest = instance.run()
        assert len(instance.failures) == 1
        assert (manifest["count"], manifest["truncated"], manifest["accounts"]) == (20, True, 1)
        assert Counter(asked_for(numbered))[ids[LONG_ACCOUNT]] == 1


class TestAfterPublishing:
    def test_a_hundred_accounts_that_were_left_out_fit_into_the_record(self, serve: Any, target: Path) -> None:
        with serve(accounts=130) as sandbox:
            sandbox.fail_next(*[Fault.no_account_permission().on(waba_id) for waba_id in ids_of(sandbox)[10:]])
            published = task(ids_of(sandbox), target, retries=1, on_account_error="skip", max_concurrency=10)
            manifest = published.run()
            assert (len(manifest["skipped"]), manifest["skipped_count"]) == (100, 120)
            sandbox.requests.clear()
            published.ti.try_number = 2
            assert published.run() == manifest
            assert sandbox.requests == []
