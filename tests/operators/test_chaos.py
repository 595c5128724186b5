"""Random schedules of faults, throttles, kills and changes: the list is whole in the end, or the task fails."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar

import pytest
from airflow.sdk import BaseOperator
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
    Fault.wrong_business(),
    Fault.no_data(),
    Fault.repeated_cursor(),
]
FAULTS_OF_PAGES = [*FAULTS, Fault.account_added(), Fault.account_removed()]
FAULTS_OF_EDGES = [
    *FAULTS,
    Fault.throttle(minutes=5).times(3),
    Fault.throttle(code=4, minutes=5),
    Fault.throttle(code=4, minutes=1),
    Fault.too_many_requests(retry_after=20),
    Fault.expired_token(),
    Fault.no_permission(),
    Fault.no_account_permission(),
    Fault.insights_not_enabled(),
]
SKIPPABLE = {"wrong_business", "no_account_permission", "insights_not_enabled"}


@dataclass(frozen=True)
class Process:
    """What happens during one process of a task.

    :param faults: number of the fault, position of the account that it acts on or None for any, and number of requests
        before
    :param killed_at_request: number of the request at which the process is killed
    :param store_calls: whether the process is killed, or the store fails, at which call of the store
    :param added: whether there is another account from now on
    :param moved: position of an account that is the first one from now on
    :param removed: position of an account that is gone from now on
    """

    faults: list[tuple[int, int | None, int]] = field(default_factory=list)
    killed_at_request: int | None = None
    store_calls: dict[int, bool] = field(default_factory=dict)
    added: bool = False
    moved: int | None = None
    removed: int | None = None


def processes(faults: list[Fault], accounts: int, requests: int) -> st.SearchStrategy[list[Process]]:
    """Plans for a listing of about so many requests.

    :param faults: what can happen to a request
    :param accounts: number of accounts that a fault can act on; 0 if all act on any request
    """
    position = st.integers(0, 90)
    acts_on = st.none() | st.integers(0, accounts) if accounts else st.none()
    process = st.builds(
        Process,
        faults=st.lists(
            st.tuples(st.integers(0, len(faults) - 1), acts_on, st.integers(0, requests)), max_size=5 if accounts else 4
        ),
        killed_at_request=st.none() | st.integers(1, requests + requests // 4),
        store_calls=st.dictionaries(st.integers(1, 50), st.booleans(), max_size=2),
        added=st.sampled_from([False, False, False, True]),
        moved=st.none() | st.none() | position if accounts else st.none(),
        removed=st.none() | st.none() | position,
    )
    return st.lists(process, min_size=1, max_size=5)


class Chaos:
    """A task, to each process of which happens what is planned for it.

    :param patch: undoes at the end of the test what is replaced
    :param sandbox: what the task lists
    :param plan: what happens, process by process
    :param begin: makes the operator of the next process, after the faults and changes that it is given were made
    :param before_request: called before each request
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        sandbox: GraphSandbox,
        plan: list[Process],
        begin: Callable[[Process], BaseOperator],
        before_request: Callable[[], object] = bool,
    ) -> None:
        self.deferrals = 0
        self._patch = patch
        self._sandbox = sandbox
        self._left = iter(plan)
        self._begin = begin
        self._added = self._requests = 0
        self._kill_at: int | None = None
        send = RequestPool.send

        def send_or_die(pool: RequestPool, key: int, request: Any) -> None:
            before_request()
            self._requests += 1
            if self._requests == self._kill_at:
                Store.is_dead = True
            if Store.is_dead:
                raise KilledError
            send(pool, key, request)

        patch.setattr(RequestPool, "send", send_or_die)
        patch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        for kind in (WhatsAppListWabasOperator, WhatsAppListWabaEdgeOperator):
            patch.setattr(kind, "log", logging.getLogger("task"))

    def run(self, retries: int) -> dict[str, Any] | None:
        """The manifest, or None if the task failed."""
        task = TaskInstance(self._build, retries=retries)
        try:
            manifest: dict[str, Any] = task.run()
        except BaseException as error:
            if not isinstance(error, Exception | KilledError):
                raise
            event(f"failed: {type(error).__name__}")
            return None
        finally:
            Store.plan.clear()
            Store.is_dead = False
            self.deferrals = task.deferrals
        return manifest

    def run_undisturbed(self) -> Any:
        """The manifest of the next run of the target, which removes what a task left that failed, or whose store failed.

        An upload that was cut short is removed only after an hour, because another task instance could still be at it.
        """
        real_time = time.time
        self._patch.setattr(time, "time", lambda: real_time() + 2 * 3600)
        self._left = iter(())
        self._sandbox.reset()
        return TaskInstance(self._build, run_id="next").run()

    def _build(self) -> BaseOperator:
        Store.plan.clear()
        Store.is_dead = Store.has_failed = False
        self._kill_at = None
        process = next(self._left, Process())
        accounts = self._sandbox.accounts
        if process.added:
            self._added += 1
            accounts.insert(0, {**accounts[0], "id": str(10**15 + self._added)})
        if process.moved is not None:
            accounts.insert(0, accounts.pop(process.moved % len(accounts)))
        if process.removed is not None:
            del accounts[process.removed % len(accounts)]
        operator = self._begin(process)
        Store.calls = self._requests = 0
        self._kill_at = process.killed_at_request
        errors = {True: KilledError, False: OSError}
        Store.plan.update({call: errors[kills]() for call, kills in process.store_calls.items()})
        return operator


def disturbed(test: Any) -> Any:
    """The test with the requested number of examples."""
    return settings(
        max_examples=EXAMPLES,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )(test)


def clear_store(protocol: str) -> None:
    Store.store.clear()
    Store.pseudo_dirs[:] = [""]
    Store.protocol = protocol
    Store.plan.clear()
    Store.is_dead = False


def rows_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@disturbed
@given(
    plan=processes(FAULTS_OF_PAGES, accounts=0, requests=12),
    deferrable=st.booleans(),
    retries=st.integers(0, 3),
    if_exists=st.sampled_from(["overwrite", "fail"]),
    protocol=st.sampled_from(["s3", "moving"]),
)
def test_the_list_is_whole_or_the_task_fails(
    store: Store, plan: list[Process], deferrable: bool, retries: int, if_exists: str, protocol: str
) -> None:
    clear_store(protocol)
    with pytest.MonkeyPatch.context() as patch, GraphSandbox(accounts=100) as sandbox, no_waits():
        every = set(ids_of(sandbox))
        always = set(every)

        def note_accounts() -> None:
            every.update(ids_of(sandbox))
            always.intersection_update(ids_of(sandbox))

        def begin(process: Process) -> WhatsAppListWabasOperator:
            sandbox.fail_next(*[FAULTS_OF_PAGES[number].after(after) for number, _, after in process.faults])
            note_accounts()
            return WhatsAppListWabasOperator(
                task_id="accounts",
                page_size=10,
                output_path=f"memory:/{TARGET}",
                output_conn_id="chaos",
                deferrable=deferrable,
                if_exists=if_exists,
            )

        def check(manifest: dict[str, Any]) -> None:
            """Each account that was there all the time comes exactly once, and no other but those that were there."""
            note_accounts()
            listed = [row["id"] for row in rows_of(store.cat_file(TARGET))]
            assert len(set(listed)) == len(listed)
            assert always <= set(listed) <= every
            assert manifest["count"] == len(listed)

        chaos = Chaos(patch, sandbox, plan, begin, note_accounts)
        manifest = chaos.run(retries)
        if manifest is not None:
            check(manifest)
        if manifest is None or Store.has_failed:
            always = set(ids_of(sandbox))
            if store.exists(TARGET):
                store.rm_file(TARGET)
            check(chaos.run_undisturbed())
        assert set(store.find("/lake")) - {TARGET} <= HIDDEN


ACCOUNTS = "/in/accounts.ndjson"


@disturbed
@given(
    plan=processes(FAULTS_OF_EDGES, accounts=30, requests=32),
    deferrable=st.booleans(),
    retries=st.integers(0, 6),
    skips=st.booleans(),
    max_concurrency=st.sampled_from([1, 3, 10]),
    checkpoint_interval=st.sampled_from([0.0, 60.0]),
    quotas=st.sampled_from([(None, None), (None, 5), (25, None), (40, 3)]),
    protocol=st.sampled_from(["s3", "moving"]),
    has_object=st.booleans(),
)
def test_the_edges_of_all_accounts_are_whole_or_the_task_fails(
    store: Store,
    plan: list[Process],
    deferrable: bool,
    retries: int,
    skips: bool,
    max_concurrency: int,
    checkpoint_interval: float,
    quotas: tuple[int | None, int | None],
    protocol: str,
    has_object: bool,
) -> None:
    clear_store(protocol)
    with (
        pytest.MonkeyPatch.context() as patch,
        GraphSandbox(accounts=30, calls_per_hour=quotas[0], calls_per_hour_and_account=quotas[1]) as sandbox,
        no_waits(),
    ):
        give_numbers(sandbox, most=23)
        patch.setattr(WhatsAppListWabaEdgeOperator, "checkpoint_interval", checkpoint_interval)
        if has_object:
            store.pipe_file(TARGET, b"before")
        #: Rows of each account, for each version of the object that names the accounts.
        versions: list[dict[str, list[dict[str, Any]]]] = []
        #: Ids of accounts that are refused; None stands for any.
        refused: set[str | None] = set()

        def begin(process: Process) -> WhatsAppListWabaEdgeOperator:
            ids = ids_of(sandbox)
            for number, position, after in process.faults:
                fault = FAULTS_OF_EDGES[number].after(after if position is None else after % 3)
                if position is not None:
                    fault = fault.on(ids[position % len(ids)])
                if fault.kind in SKIPPABLE:
                    refused.add(fault.node)
                sandbox.fail_next(fault)
            store.pipe_file(ACCOUNTS, "".join(json.dumps({"id": waba_id}) + "\n" for waba_id in ids).encode())
            rows = groupby(numbers_of(sandbox), key=lambda row: row["waba_id"])
            versions.append({waba_id: [] for waba_id in ids} | {waba_id: list(some) for waba_id, some in rows})
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

        chaos = Chaos(patch, sandbox, plan, begin)
        manifest = chaos.run(retries)
        data = store.cat_file(TARGET) if store.exists(TARGET) else None
        if manifest is not None:
            event(f"whole: {len(versions)} processes, {chaos.deferrals} deferrals")
            skipped = [one["waba_id"] for one in manifest["skipped"]]
            rows = rows_of(data or b"")
            assert is_whole(rows, set(skipped))
            assert not skipped or (skips and (None in refused or set(skipped) <= refused))
            assert manifest["count"] == len(rows)
            assert manifest["skipped_count"] == len(skipped) == len(set(skipped))
            assert manifest["accounts"] + manifest["skipped_count"] in map(len, versions)
        elif data != (b"before" if has_object else None):
            # It was killed after the moment at which the object appeared. Then the object is whole.
            rows = rows_of(data or b"")
            there = {row["waba_id"] for row in rows}
            assert any(
                is_whole(rows, {id for id, some in version.items() if some and id not in there}) for version in versions
            )
            assert skips or is_whole(rows, set())
        if manifest is None or Store.has_failed:
            # The run must wait for the quota as long as it takes.
            deferrable = True
            chaos.run_undisturbed()
            assert rows_of(store.cat_file(TARGET)) == numbers_of(sandbox)
        assert set(store.find("/lake")) - {TARGET} <= HIDDEN
