"""The list of accounts resumes after its last page. What holds for every operator is in test_resuming.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listings import THROTTLE, fail_once, lines_of, parts_of, rows_in, write_lines
from task_instance import TaskInstance

from airflow_provider_whatsapp.graph import GraphRateLimitError, GraphServerError
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox


def task(path: Path, *, retries: int = 0, **arguments: Any) -> TaskInstance:
    return TaskInstance(
        lambda: WhatsAppListWabasOperator(task_id="accounts", output_path=str(path), **arguments), retries=retries
    )


def ids_in(path: Path) -> list[str]:
    return [row["id"] for row in rows_in(path)]


def all_of(sandbox: GraphSandbox) -> list[str]:
    return [account["id"] for account in sandbox.accounts]


def pages_of(sandbox: GraphSandbox) -> list[int]:
    """The pages that were read, in order, by their position in the listing."""
    cursors = [request.params.get("after") for request in sandbox.requests if request.status == 200]
    positions = list(dict.fromkeys(cursors))
    return [positions.index(cursor) + 1 for cursor in cursors]


@pytest.fixture
def throttled(connected: GraphSandbox, target: Path) -> TaskInstance:
    """A task whose first try was throttled after two of three pages."""
    connected.fail_next(THROTTLE.after(2))
    instance = task(target, retries=2)
    fail_once(instance)
    assert pages_of(connected) == [1, 2]
    return instance


class TestTheLastPage:
    def test_it_holds_other_accounts(
        self, connected: GraphSandbox, target: Path, log: pytest.LogCaptureFixture, throttled: TaskInstance
    ) -> None:
        del connected.accounts[150]
        throttled.run()
        assert ids_in(target) == all_of(connected)
        assert pages_of(connected)[2:] == [2, 1, 2, 3]
        assert "page 2 does not hold the same accounts as before; the listing starts again" in log.text

    def test_it_holds_them_in_another_order(
        self, connected: GraphSandbox, target: Path, throttled: TaskInstance
    ) -> None:
        accounts = connected.accounts
        accounts[150], accounts[151] = accounts[151], accounts[150]
        throttled.run()
        assert ids_in(target) == all_of(connected)

    @pytest.mark.parametrize(
        "fault", [Fault.nonexisting_field(), Fault.no_data(), Fault.wrong_business(), Fault.server_error().times(6)]
    )
    def test_its_cursor_is_refused(
        self, connected: GraphSandbox, target: Path, throttled: TaskInstance, fault: Fault
    ) -> None:
        connected.fail_next(fault)
        throttled.run()
        assert throttled.failures == []
        assert ids_in(target) == all_of(connected)
        assert pages_of(connected)[-3:] == [1, 2, 3]

    def test_it_has_become_too_large(self, connected: GraphSandbox, target: Path, throttled: TaskInstance) -> None:
        connected.fail_next(Fault.reduce_data(above=50).times(1000))
        throttled.run()
        assert ids_in(target) == all_of(connected)

    def test_an_api_that_is_down_costs_no_rows(self, connected: GraphSandbox, throttled: TaskInstance) -> None:
        connected.fail_next(Fault.server_error().times(12))
        throttled.run()
        assert [type(failure) for failure in throttled.failures] == [GraphServerError]
        assert pages_of(connected) == [1, 2, 2, 3]

    def test_a_kept_row_that_comes_again_is_not_listed_twice(
        self, connected: GraphSandbox, target: Path, throttled: TaskInstance
    ) -> None:
        connected.fail_next(Fault.duplicated_row().after(1))
        throttled.run()
        assert pages_of(connected)[2:] == [2, 3]
        assert ids_in(target) == all_of(connected)

    def test_an_account_that_came_after_it_is_found(
        self, connected: GraphSandbox, target: Path, throttled: TaskInstance
    ) -> None:
        connected.accounts.append({**connected.accounts[-1], "id": "17"})
        throttled.run()
        assert ids_in(target) == all_of(connected)
        assert pages_of(connected)[2:] == [2, 3]


def test_the_logged_rate_is_that_of_this_try(
    connected: GraphSandbox, log: pytest.LogCaptureFixture, throttled: TaskInstance
) -> None:
    connected.fail_next(Fault.throttle(minutes=1).after(1))
    throttled.run()
    (line,) = [line for line in log.messages if line.startswith("3 pages, 250 accounts so far, ")]
    # The 50 accounts of the third page came after a minute.
    assert 0 < int(line.split()[6]) <= 50


@pytest.mark.parametrize("removed", [False, True])
def test_an_empty_page_is_no_place_to_continue_from(connected: GraphSandbox, target: Path, removed: bool) -> None:
    # A cursor that has stopped working can lead to an empty page, too: here, since the accounts were removed.
    connected.fail_next(Fault.empty_page().after(1), THROTTLE)
    instance = task(target, retries=1)
    fail_once(instance)
    if removed:
        del connected.accounts[50:]
    manifest = instance.run()
    assert ids_in(target) == all_of(connected)
    assert manifest["pages"] == (1 if removed else 3)


@pytest.mark.parametrize("position", [{"page": 2}, ["2"]])
def test_another_version_of_the_package_kept_another_position(
    connected: GraphSandbox, target: Path, throttled: TaskInstance, position: Any
) -> None:
    (part,) = parts_of(target)
    *rows, state = lines_of(part)
    write_lines(part, [*rows, {**state, "position": position}])
    throttled.run()
    assert throttled.failures == []
    assert pages_of(connected)[2:] == [1, 2, 3]


@pytest.mark.parametrize("harm", ["one less", "one more", "another one"])
def test_a_part_holds_other_rows(connected: GraphSandbox, target: Path, throttled: TaskInstance, harm: str) -> None:
    (part,) = parts_of(target)
    first, second, *others = lines_of(part)
    beginnings = {"one less": [first], "one more": [first, first, second], "another one": [first, first]}
    write_lines(part, beginnings[harm] + others)
    throttled.run()
    assert ids_in(target) == all_of(connected)


def test_what_was_waited_for_before_the_listing_began_again_counts(connected: GraphSandbox, target: Path) -> None:
    connected.fail_next(THROTTLE.after(2))
    instance = task(target, retries=2, max_wait_in_place=100)
    fail_once(instance)
    del connected.accounts[150]
    connected.fail_next(Fault.throttle(minutes=1), Fault.throttle(minutes=1).after(2))
    instance.run()
    assert [type(failure) for failure in instance.failures] == [GraphRateLimitError]
    assert ids_in(target) == all_of(connected)
