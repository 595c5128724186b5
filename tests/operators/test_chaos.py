"""Random schedules of faults, throttles, kills and changes: the list is whole in the end, or the task fails."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from numbered_accounts import give_numbers, ids_of, numbers_of
from task_instance import TaskInstance

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.sending import RequestPool

# More than the quick tests run: CHAOS_EXAMPLES=1000 python -m pytest tests/operators/test_chaos.py
EXAMPLES = int(os.environ.get("CHAOS_EXAMPLES", "60"))
TARGET = "/lake/wabas.ndjson"
HIDDEN = {"/lake/_wabas.ndjson.airflow-record"}


class KilledError(BaseException):
    """The process ends here."""


class Store(MemoryFileSystem):
    """A store that fails, or kills the process that uses it, at the calls that are planned for it."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False
    #: "s3" shows uploads when they are complete. For any other store, they are moved into place.
    protocol = "s3"
    #: What happens at which further call.
    plan: ClassVar[dict[int, BaseException]] = {}
    calls = 0
    #: Whether a call of this process has failed.
    has_failed = False
    #: Whether the process was killed: the code that runs after that in the test would not run, so nothing it does counts.
    is_dead = False

    def _call(self) -> None:
        Store.calls += 1
        if error := Store.plan.pop(Store.calls, None):
            Store.has_failed = True
            Store.is_dead = isinstance(error, KilledError)
            raise error
        if Store.is_dead:
            raise KilledError

    def ls(self, path: str, **kwargs: Any) -> Any:
        self._call()
        return super().ls(path, **kwargs)

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> None:
        self._call()
        super().put_file(lpath, rpath, *args, **kwargs)
        self._call()

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        self._call()
        # In one step, as in each store that a target may lie in; fsspec's own store copies and then removes.
        self.store[path2] = self.store.pop(path1)
        self._call()

    def rm_file(self, path: str) -> None:
        self._call()
        super().rm_file(path)

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self._call()
        return super().open(path, mode, **kwargs)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    from airflow.sdk.io import attach

    store = Store()
    attach("memory", conn_id="chaos", fs=store)
    yield store
    Store.store.clear()


FAULTS = [
    Fault.throttle(minutes=5),
    Fault.throttle(minutes=1),
    Fault.throttle(minutes=None),
    Fault.high_usage(99),
    Fault.server_error().times(7),
    Fault.server_error(),
    Fault.half_json(),
    Fault.reset_mid_reply(),
    Fault.duplicated_row(),
    Fault.empty_page(),
    Fault.reduce_data(above=7),
    Fault.account_added(),
    Fault.account_removed(),
    Fault.wrong_business(),
    Fault.no_data(),
    Fault.repeated_cursor(),
]


@dataclass(frozen=True)
class Process:
    """What happens during one process of the task."""

    faults: list[tuple[int, int]]
    killed_at_request: int | None
    store_calls: dict[int, bool]
    added: int
    removed: list[int]


def processes() -> st.SearchStrategy[list[Process]]:
    number = st.integers(0, 12)
    process = st.builds(
        Process,
        faults=st.lists(st.tuples(st.integers(0, len(FAULTS) - 1), number), max_size=4),
        killed_at_request=st.none() | st.integers(1, 14),
        store_calls=st.dictionaries(st.integers(1, 40), st.booleans(), max_size=2),
        added=st.sampled_from([0, 0, 0, 1]),
        removed=st.lists(st.integers(0, 90), max_size=1),
    )
    return st.lists(process, min_size=1, max_size=5)


@given(
    plan=processes(),
    deferrable=st.booleans(),
    retries=st.integers(0, 3),
    if_exists=st.sampled_from(["overwrite", "fail"]),
    protocol=st.sampled_from(["s3", "moving"]),
)
@settings(
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_list_is_whole_or_the_task_fails(
    store: Store, plan: list[Process], deferrable: bool, retries: int, if_exists: str, protocol: str
) -> None:
    Store.store.clear()
    Store.pseudo_dirs[:] = [""]
    Store.protocol = protocol
    with pytest.MonkeyPatch.context() as patch, GraphSandbox(accounts=100) as sandbox, no_waits():
        patch.setattr(WhatsAppListWabasOperator, "log", logging.getLogger("task"))
        patch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        left = iter(plan)
        every: set[str] = set()
        always = {account["id"] for account in sandbox.accounts}
        requests = 0
        kill_at: int | None = None
        real_answer = RequestPool.answer

        def answer(pool: RequestPool, request: Any) -> Any:
            nonlocal requests, kill_at
            requests += 1
            if requests == kill_at:
                kill_at = None
                Store.is_dead = True
                raise KilledError
            every.update(account["id"] for account in sandbox.accounts)
            outcome = real_answer(pool, request)
            every.update(account["id"] for account in sandbox.accounts)
            always.intersection_update(account["id"] for account in sandbox.accounts)
            return outcome

        patch.setattr(RequestPool, "answer", answer)

        def build() -> WhatsAppListWabasOperator:
            """Begin another process, in which the next things of the plan happen."""
            nonlocal kill_at, requests
            Store.plan.clear()
            Store.is_dead = False
            Store.calls = requests = 0
            Store.has_failed = False
            kill_at = None
            if (process := next(left, None)) is not None:
                sandbox.fail_next(*[FAULTS[number].after(after) for number, after in process.faults])
                kill_at = process.killed_at_request
                errors = {True: KilledError, False: OSError}
                Store.plan.update({call: errors[kills]() for call, kills in process.store_calls.items()})
                for number in range(process.added):
                    sandbox.accounts.insert(number, {**sandbox.accounts[0], "id": str(10**15 + len(every) + number)})
                for position in process.removed:
                    del sandbox.accounts[position % len(sandbox.accounts)]
            always.intersection_update(account["id"] for account in sandbox.accounts)
            return WhatsAppListWabasOperator(
                task_id="accounts",
                page_size=10,
                output_path=f"memory:/{TARGET}",
                output_conn_id="chaos",
                deferrable=deferrable,
                if_exists=if_exists,
            )

        task = TaskInstance(build, retries=retries)
        try:
            manifest = task.run()
        except BaseException as error:
            if not isinstance(error, Exception | KilledError):
                raise
            manifest = None
        Store.plan.clear()
        Store.is_dead = False
        if manifest is not None:
            check(manifest, always, every)
        if manifest is None or Store.has_failed:
            # What a task left that failed, or whose store did not let it remove it, the next run of the target removes.
            # An upload that was cut short is removed only after an hour, because another task instance could still be
            # at it.
            real_time = time.time
            patch.setattr(time, "time", lambda: real_time() + 2 * 3600)
            left = iter(())
            sandbox.reset()
            always = {account["id"] for account in sandbox.accounts}
            if store.exists(TARGET):
                store.rm_file(TARGET)
            task = TaskInstance(build, run_id="next")
            check(task.run(), always, every)
        assert set(store.find("/lake")) - {TARGET} <= HIDDEN


def check(manifest: dict[str, Any], always: set[str], every: set[str]) -> None:
    """The object holds each account that was there all the time exactly once, and no other but those that were there."""
    listed = [json.loads(line)["id"] for line in Store().cat_file(TARGET).splitlines()]
    assert len(set(listed)) == len(listed)
    assert always <= set(listed) <= every
    assert manifest["count"] == len(listed)


# The edges of many accounts

ACCOUNTS = "/in/accounts.ndjson"
EDGE_FAULTS = [
    Fault.throttle(minutes=5),
    Fault.throttle(minutes=1),
    Fault.throttle(minutes=None),
    Fault.throttle(minutes=5).times(3),
    Fault.throttle(code=4, minutes=5),
    Fault.throttle(code=4, minutes=1),
    Fault.too_many_requests(retry_after=20),
    Fault.high_usage(99),
    Fault.server_error().times(7),
    Fault.server_error(),
    Fault.half_json(),
    Fault.reset_mid_reply(),
    Fault.duplicated_row(),
    Fault.empty_page(),
    Fault.reduce_data(above=7),
    Fault.repeated_cursor(),
    Fault.no_data(),
    Fault.expired_token(),
    Fault.no_permission(),
    Fault.wrong_business(),
    Fault.no_account_permission(),
    Fault.insights_not_enabled(),
]
SKIPPABLE = {"wrong_business", "no_account_permission", "insights_not_enabled"}


@dataclass(frozen=True)
class EdgeProcess:
    """What happens during one process of a task that reads an edge of many accounts.

    :param faults: number of the fault, position of the account that it acts on or None for any, and number of requests
        before
    :param store_calls: whether the process is killed, or the store fails, at which call of the store
    :param moved: position of an account that is the first one from now on
    :param removed: position of an account that is no longer to be read
    """

    faults: list[tuple[int, int | None, int]]
    killed_at_request: int | None
    store_calls: dict[int, bool]
    moved: int | None
    removed: int | None


def edge_processes() -> st.SearchStrategy[list[EdgeProcess]]:
    position = st.integers(0, 30)
    process = st.builds(
        EdgeProcess,
        faults=st.lists(
            st.tuples(st.integers(0, len(EDGE_FAULTS) - 1), st.none() | position, st.integers(0, 25)), max_size=5
        ),
        killed_at_request=st.none() | st.integers(1, 40),
        store_calls=st.dictionaries(st.integers(1, 60), st.booleans(), max_size=2),
        moved=st.none() | st.none() | position,
        removed=st.none() | st.none() | position,
    )
    return st.lists(process, min_size=1, max_size=5)


@given(
    plan=edge_processes(),
    deferrable=st.booleans(),
    retries=st.integers(0, 6),
    skips=st.booleans(),
    max_concurrency=st.sampled_from([1, 3, 10]),
    seconds_between_parts=st.sampled_from([0.0, 60.0]),
    quotas=st.sampled_from([(None, None), (None, 5), (25, None), (40, 3)]),
    protocol=st.sampled_from(["s3", "moving"]),
    has_object=st.booleans(),
)
@settings(
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_edges_of_all_accounts_are_whole_or_the_task_fails(
    store: Store,
    plan: list[EdgeProcess],
    deferrable: bool,
    retries: int,
    skips: bool,
    max_concurrency: int,
    seconds_between_parts: float,
    quotas: tuple[int | None, int | None],
    protocol: str,
    has_object: bool,
) -> None:
    Store.store.clear()
    Store.pseudo_dirs[:] = [""]
    Store.protocol = protocol
    Store.plan.clear()
    Store.is_dead = False
    with (
        pytest.MonkeyPatch.context() as patch,
        GraphSandbox(accounts=30, calls_per_hour=quotas[0], calls_per_hour_and_account=quotas[1]) as sandbox,
        no_waits(),
    ):
        give_numbers(sandbox, most=23)
        patch.setattr(WhatsAppListWabaEdgeOperator, "log", logging.getLogger("task"))
        patch.setattr(WhatsAppListWabaEdgeOperator, "checkpoint_interval", seconds_between_parts)
        patch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        if has_object:
            store.pipe_file(TARGET, b"before")
        left = iter(plan)
        #: Rows of each account, for each version of the object that names the accounts.
        versions: list[dict[str, list[dict[str, Any]]]] = []
        refused: set[str] = set()
        requests = 0
        kill_at: int | None = None
        real_send = RequestPool.send

        def send(pool: RequestPool, key: int, request: Any) -> Any:
            nonlocal requests, kill_at
            requests += 1
            if requests == kill_at:
                kill_at = None
                Store.is_dead = True
            if Store.is_dead:
                raise KilledError
            return real_send(pool, key, request)

        patch.setattr(RequestPool, "send", send)

        def build() -> WhatsAppListWabaEdgeOperator:
            """Begin another process, in which the next things of the plan happen."""
            nonlocal kill_at, requests
            Store.plan.clear()
            Store.is_dead = Store.has_failed = False
            kill_at = None
            process = next(left, None)
            if process is not None:
                ids = ids_of(sandbox)
                for number, position, after in process.faults:
                    fault = EDGE_FAULTS[number].after(after if position is None else after % 3)
                    if position is not None:
                        fault = fault.on(ids[position % len(ids)])
                    if fault.kind in SKIPPABLE:
                        refused.update(ids if fault.node is None else {fault.node})
                    sandbox.fail_next(fault)
                if process.moved is not None:
                    sandbox.accounts.insert(0, sandbox.accounts.pop(process.moved % len(sandbox.accounts)))
                if process.removed is not None:
                    del sandbox.accounts[process.removed % len(sandbox.accounts)]
            accounts = "".join(json.dumps({"id": waba_id}) + "\n" for waba_id in ids_of(sandbox))
            store.pipe_file(ACCOUNTS, accounts.encode())
            versions.append(
                {account["id"]: [] for account in sandbox.accounts}
                | {
                    waba_id: list(rows)
                    for waba_id, rows in groupby(numbers_of(sandbox), key=lambda row: row["waba_id"])
                }
            )
            Store.calls = requests = 0
            if process is not None:
                kill_at = process.killed_at_request
                errors = {True: KilledError, False: OSError}
                Store.plan.update({call: errors[kills]() for call, kills in process.store_calls.items()})
            return WhatsAppListWabaEdgeOperator(
                task_id="numbers",
                waba_ids=f"memory://chaos@{ACCOUNTS}",
                edge="phone_numbers",
                page_size=10,
                max_concurrency=max_concurrency,
                on_account_error="skip" if skips else "fail",
                output_path=f"memory:/{TARGET}",
                output_conn_id="chaos",
                deferrable=deferrable,
            )

        def is_whole(rows: list[dict[str, Any]], left_out: set[str]) -> bool:
            """Whether the rows are those of some version of the accounts, but for those that were left out."""
            return any(
                rows == [row for waba_id, some in version.items() if waba_id not in left_out for row in some]
                for version in versions
            )

        task = TaskInstance(build, retries=retries)
        try:
            manifest = task.run()
        except BaseException as error:
            if not isinstance(error, Exception | KilledError):
                raise
            manifest = None
            event(f"failed: {type(error).__name__}")
        Store.plan.clear()
        Store.is_dead = False
        data = store.cat_file(TARGET) if store.exists(TARGET) else None
        if manifest is not None:
            event(f"whole: {len(versions)} processes, {task.deferrals} deferrals")
            skipped = [one["waba_id"] for one in manifest["skipped"]]
            rows = [json.loads(line) for line in (data or b"").splitlines()]
            assert is_whole(rows, set(skipped))
            assert set(skipped) <= (refused if skips else set())
            assert manifest["count"] == len(rows)
            assert manifest["skipped_count"] == len(skipped) == len(set(skipped))
            assert manifest["accounts"] + manifest["skipped_count"] in map(len, versions)
        elif data != (b"before" if has_object else None):
            # It was killed behind the moment at which the object appeared. Then the object is whole.
            rows = [json.loads(line) for line in (data or b"").splitlines()]
            there = {row["waba_id"] for row in rows}
            assert any(
                is_whole(rows, {id for id, some in version.items() if some and id not in there}) for version in versions
            )
            assert skips or any(is_whole(rows, set()) for _ in versions)
        if manifest is None or Store.has_failed:
            # The next run of the target removes what was left, as in the test above.
            real_time = time.time
            patch.setattr(time, "time", lambda: real_time() + 2 * 3600)
            left = iter(())
            sandbox.reset()
            # The run must wait for the quota as long as it takes.
            deferrable = True
            task = TaskInstance(build, run_id="next")
            task.run()
            assert [json.loads(line) for line in store.cat_file(TARGET).splitlines()] == numbers_of(sandbox)
        assert set(store.find("/lake")) - {TARGET} <= HIDDEN
