"""Random schedules of faults, throttles, kills and changes: the list is whole in the end, or the task fails."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_instance import TaskInstance

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.sending import Sender

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
        every, always = set(), {account["id"] for account in sandbox.accounts}
        requests = 0
        kill_at: int | None = None
        real_send = Sender.send

        def send(sender: Sender, request: Any) -> Any:
            nonlocal requests, kill_at
            requests += 1
            if requests == kill_at:
                kill_at = None
                Store.is_dead = True
                raise KilledError
            every.update(account["id"] for account in sandbox.accounts)
            outcome = real_send(sender, request)
            every.update(account["id"] for account in sandbox.accounts)
            always.intersection_update(account["id"] for account in sandbox.accounts)
            return outcome

        patch.setattr(Sender, "send", send)

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
