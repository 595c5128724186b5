"""A whole object or nothing, on each store: when it works, when anything fails, and when the worker is killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import sync
from servers import SftpStore, Store
from stores_support import Worker, connect, on, write_object

from airflow_provider_whatsapp.rows import read_rows
from airflow_provider_whatsapp.storage.errors import StoreError, StoreRefusedError
from airflow_provider_whatsapp.storage.names import temporary_name
from airflow_provider_whatsapp.storage.target import Target

Note = Callable[[str, str], None]
# More than one part of each store's uploads.
LARGE = [{"id": str(number), "name": os.urandom(4096).hex()} for number in range(2_200)]
SMALL = [{"id": "1", "name": "small"}]
COLUMNS = ["id", "name"]


def encoded(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def write(store: Store, key: str, rows: list[dict[str, Any]], *, owner: str = "a") -> Any:
    return write_object(Target(store.url(key), conn_id=store.conn_id), rows, owner=owner)


@pytest.mark.quick
@on()
def test_success(store: Store, result: Note) -> None:
    for name, rows in (("large.ndjson", LARGE), ("small.ndjson", SMALL), ("empty.ndjson", [])):
        stored = write(store, f"success/{name}", rows)
        data = store.read(f"success/{name}")
        assert data == encoded(rows)
        assert (stored.bytes, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert list(read_rows(asdict(stored))) == rows
    assert sorted(store.names("success")) == [f"success/{name}.ndjson" for name in ("empty", "large", "small")]
    result("success", f"{len(encoded(LARGE)) // 10**6} MB, 30 bytes and empty")


@pytest.mark.quick
@on()
@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.json", "a.csv.gz"])
def test_reading(store: Store, name: str) -> None:
    target = Target(store.url(f"reading/{name}"), conn_id=store.conn_id)
    stored = write_object(target, LARGE)
    assert list(read_rows(stored.uri, conn_id=store.conn_id)) == LARGE
    store.write(f"reading/{name}", (store.read(f"reading/{name}") or b"")[:-100])
    with pytest.raises(ValueError, match=f"^source: {re.escape(stored.uri)} cannot be read as "):
        list(read_rows(stored.uri, conn_id=store.conn_id))
    with pytest.raises(ValueError, match=f"^source: {re.escape(stored.uri)} has .* bytes, but its manifest says"):
        list(read_rows(asdict(stored)))
    with pytest.raises(ValueError, match="^source: there is no object "):
        list(read_rows(store.url("reading/none.ndjson"), conn_id=store.conn_id))


@pytest.mark.quick
@on()
def test_overwriting(store: Store, result: Note) -> None:
    for rows in (SMALL, LARGE, SMALL):
        write(store, "over/a.ndjson", rows)
        assert store.read("over/a.ndjson") == encoded(rows)
    assert store.names("over") == ["over/a.ndjson"]
    result("overwriting", "new bytes, nothing beside")


# Not on GCS, where gcsfs asks for the type of the bucket over gRPC for some minutes (see "Known problems of the
# libraries"), and not on SFTP, where Airflow keeps a connection that another test has broken.
@pytest.mark.quick
@on("local", "s3", "azure")
def test_a_file_that_a_task_opens_itself_is_published_half(store: Store) -> None:
    """Why docs/hook.md says to use the operator."""
    from airflow.sdk import ObjectStoragePath

    store.write("own/a.ndjson", encoded(SMALL))
    path = ObjectStoragePath(store.url("own/a.ndjson"), conn_id=store.conn_id)

    def write_half() -> None:
        with path.open("w") as file:  # type: ignore[no-untyped-call]  # of Airflow
            file.write("half")
            raise RuntimeError("no more pages")

    with pytest.raises(RuntimeError, match="no more pages"):
        write_half()
    assert store.read("own/a.ndjson") == b"half"


@on("s3", "gcs", "azure")
@pytest.mark.parametrize("rows", [SMALL, LARGE], ids=["small", "large"])
def test_a_request_fails(store: Store, rows: list[dict[str, Any]], result: Note) -> None:
    """Each request of a task fails in each way, once and for good."""
    proxy = store.proxy
    before = encoded([{"id": "before"}])
    store.write("fail/a.ndjson", before)
    write(store, "fail/a.ndjson", rows)
    count = len(proxy.requests)
    failed = 0
    # A refusal is not tried again, so that it makes no difference whether it lasts.
    faults = [("500", False), ("403", True), ("cut", True), ("cut", False), ("lost", True), ("lost", False)]
    if store.name == "GCS" and rows is LARGE:
        # fake-gcs-server takes a chunk that is sent twice for two chunks. Google ignores the second.
        faults = faults[:4]
    for number in range(count):
        for fault, once in faults:
            store.write("fail/a.ndjson", before)
            proxy.heal()
            proxy.fault = lambda request, number=number, fault=fault, once=once: (
                fault if request.number == number or (request.number > number and not once) else None
            )
            try:
                write(store, "fail/a.ndjson", rows)
            except (StoreError, StoreRefusedError) as error:
                failed += 1
                assert str(error).startswith(f"output_path: {store.url('fail/a.ndjson')} cannot be ")
                assert repr(store.conn_id) in str(error)
                # The request that makes the object appear may be answered and the answer be lost.
                assert store.read("fail/a.ndjson") in ([before, encoded(rows)] if fault == "lost" else [before])
            else:
                assert store.read("fail/a.ndjson") == encoded(rows)
            assert store.names("fail") == ["fail/a.ndjson"]
    assert failed
    result("failures", f"{count} requests x {len(faults)} faults: {failed} failed, all whole")


@on("sftp")
def test_a_connection_breaks(store: Store, result: Note, monkeypatch: pytest.MonkeyPatch) -> None:
    before = encoded([{"id": "before"}])
    write(store, "fail/a.ndjson", LARGE)
    size, failed = store.proxy.sent, 0
    for place in (*range(0, size, size // 12), *range(size - 4000, size, 500)):
        store.write("fail/a.ndjson", before)
        store.proxy.heal()
        store.proxy.cut_after = place
        store.conn_id = connect(monkeypatch, store.connection)
        try:
            write(store, "fail/a.ndjson", LARGE)
        except (StoreError, StoreRefusedError) as error:
            failed += 1
            assert str(error).startswith(f"output_path: {store.url('fail/a.ndjson')} cannot be ")
            assert store.read("fail/a.ndjson") in (before, encoded(LARGE))
        else:
            assert store.read("fail/a.ndjson") == encoded(LARGE)
    store.proxy.heal()
    store.conn_id = connect(monkeypatch, store.connection)
    write(store, "fail/a.ndjson", SMALL)
    assert store.names("fail") == ["fail/a.ndjson"]
    result("failures", f"cut at 21 places: {failed} failed, all whole")


@pytest.mark.quick
@on("local")
@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_a_disk_fails(store: Store, name: str, result: Note, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    write(store, "fail/a.ndjson", SMALL)
    target = Target(store.url("fail/a.ndjson"), conn_id=store.conn_id)
    with target.stage(LARGE, COLUMNS) as staged:
        monkeypatch.setattr(Path if name == "open" else os, name, full)
        with pytest.raises(StoreError, match=r"cannot be written .*\(OSError: No space left on device\)"):
            staged.publish()
    monkeypatch.undo()
    assert store.read("fail/a.ndjson") == encoded(SMALL)
    assert store.names("fail") == ["fail/a.ndjson"]
    result("failures", "open, fsync and rename fail, all whole")


@pytest.mark.quick
@on("s3", "gcs", "azure")
def test_a_task_times_out_while_it_publishes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow raises in the main thread, while the libraries send on an event loop in another one."""

    class TimedOutError(BaseException):
        pass

    def time_out(*args: object) -> None:
        is_raised.set()
        raise TimedOutError

    def interrupt(request: Any) -> None:
        # The first chunk of several has been received.
        if re.search("partNumber=1|upload_id=|comp=block&", request.path) and not is_raised.is_set():
            os.kill(os.getpid(), signal.SIGALRM)
            has_failed.wait()

    async def settle() -> None:
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=60)

    is_raised, has_failed = threading.Event(), threading.Event()
    before = encoded([{"id": "before"}])
    store.write("late/a.ndjson", before)
    target = Target(store.url("late/a.ndjson"), conn_id=store.conn_id)
    handler = signal.signal(signal.SIGALRM, time_out)
    try:
        with target.stage(LARGE, COLUMNS) as staged:
            store.proxy.forwarded = interrupt
            with pytest.raises(TimedOutError):
                staged.publish()
            has_failed.set()
            # What the library still does after the task has failed.
            sync(target.store.fs.loop, settle)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert store.read("late/a.ndjson") == before
    if store.name == "S3":
        # The others remove an unfinished upload themselves, after a week.
        assert store.unfinished("late/a.ndjson") == 0


@on()
def test_kills(store: Store, worker: Worker, result: Note, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty workers are killed, each at another moment, and the next one finds a whole object and removes all."""
    job = {"path": store.url("kill/a.ndjson"), "connection": store.connection, "count": 2_200, "size": 8000}
    assert worker.run(**job)["exit"] == 0
    whole = store.read("kill/a.ndjson")
    before = encoded([{"id": "before"}])
    steps, killed, published = _count_steps(store, worker, job), 0, 0
    for number in range(20):
        store.write("kill/a.ndjson", before)
        exit_status = _run_and_kill(store, worker, job, steps * number // 20)
        killed += exit_status == -signal.SIGKILL
        data = store.read("kill/a.ndjson")
        assert data in (before, whole)
        published += data == whole
    assert killed == 20
    if store.proxy is not None:
        store.proxy.heal()
    unfinished = store.unfinished("kill/a.ndjson")
    assert worker.run(**job)["exit"] == 0
    assert store.read("kill/a.ndjson") == whole
    assert store.names("kill") == ["kill/a.ndjson"]
    # The folders of the killed workers are gone, too.
    assert os.listdir(worker.folder) == []
    result("kills", f"{killed}, old object after {killed - published}, new after {published}")
    left = store.unfinished("kill/a.ndjson")
    result("left behind", f"{left} of {unfinished} uploads until they are a day old" if left else "nothing")


def _count_steps(store: Store, worker: Worker, job: dict[str, Any]) -> int:
    """How many requests, bytes or system calls a worker makes."""
    if store.proxy is not None:
        store.proxy.heal()
    printed = worker.run(**job)
    assert printed["exit"] == 0
    if store.proxy is None:
        return int(printed["events"])
    return store.proxy.sent if isinstance(store, SftpStore) else len(store.proxy.requests)


def _run_and_kill(store: Store, worker: Worker, job: dict[str, Any], step: int) -> int:
    if store.proxy is None:
        status: int = worker.run(**job, kill_at_event=step)["exit"]
        return status
    store.proxy.heal()
    worker.has_started.clear()

    def kill(*args: object) -> None:
        worker.has_started.wait()
        os.kill(worker.pid, signal.SIGKILL)

    if isinstance(store, SftpStore):
        store.proxy.on_cut, store.proxy.cut_after = kill, step
    else:
        store.proxy.forwarded = lambda request: kill() if request.number == step else None
    status = worker.run(**job)["exit"]
    return status


@on()
def test_memory(store: Store, worker: Worker, result: Note) -> None:
    """Publishing 130 MB takes at most 64 MB more memory than listing them."""
    job = {"path": store.url("memory/a.ndjson"), "connection": store.direct_connection}
    printed = worker.run(**job, count=130_000, size=1000)
    assert printed["exit"] == 0, printed
    assert printed["bytes"] > 130 * 10**6
    assert hashlib.sha256(store.read("memory/a.ndjson") or b"").hexdigest() == printed["sha256"]
    result("memory", f"{printed['memory'] / 2**20:.0f} MB")
    assert printed["memory"] <= 64 * 2**20


@pytest.mark.quick
@on("s3", "gcs", "azure")
def test_content_types(store: Store, result: Note) -> None:
    for suffix, content_type in (
        ("ndjson", "application/x-ndjson"),
        ("json", "application/json"),
        ("csv", "text/csv; charset=utf-8"),
        ("csv.gz", "application/gzip"),
    ):
        for rows in (SMALL, LARGE):
            write(store, f"types/a.{suffix}", rows)
            assert store.content_type(f"types/a.{suffix}") == content_type
    result("content type", "by format")


@pytest.mark.quick
@on("s3")
def test_abandoned_uploads_of_this_object_are_aborted(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from airflow_provider_whatsapp.storage.s3 import S3Store

    for key in ("mpu/a.ndjson", "mpu/a.ndjson.gz", "mpu/other"):
        store.client.create_multipart_upload(Bucket="lake", Key=key)
    # moto says of each upload that it was begun in 2010.
    monkeypatch.setattr(S3Store, "abandoned_after", timedelta(days=365 * 100))
    write(store, "mpu/a.ndjson", SMALL)
    assert store.unfinished("mpu/a.ndjson") == 1  # it may belong to a worker that is still writing it
    monkeypatch.setattr(S3Store, "abandoned_after", timedelta(days=1))
    write(store, "mpu/a.ndjson", SMALL)
    assert [store.unfinished(key) for key in ("mpu/a.ndjson", "mpu/a.ndjson.gz", "mpu/other")] == [0, 1, 1]


@pytest.mark.quick
@on("azure")
def test_two_uploads_of_one_object_are_not_mixed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    other = [dict(row, name=row["name"][::-1]) for row in LARGE]
    proxy = store.proxy
    target = Target(store.url("mixed/a.ndjson"), conn_id=store.conn_id)

    def stage_other(request: Any) -> None:
        # The other worker publishes after this one has sent its blocks and before it commits them.
        if "comp=blocklist" in request.path:
            proxy.heal()
            write(store, "mixed/a.ndjson", other)

    proxy.fault = lambda request: stage_other(request)
    try:
        write_object(target, LARGE)
    except StoreError:
        assert store.read("mixed/a.ndjson") == encoded(other)
    else:
        assert store.read("mixed/a.ndjson") == encoded(LARGE)


@pytest.mark.quick
@on("sftp")
def test_an_abandoned_upload_is_removed_after_an_hour(store: Any) -> None:
    name = temporary_name("a.ndjson", "")
    store.write(f"old/{name}", b"half")
    write(store, "old/a.ndjson", SMALL)
    assert f"old/{name}" in store.names("old")
    os.utime(store.folder / "old" / name, (0, 0))
    write(store, "old/a.ndjson", SMALL)
    assert store.names("old") == ["old/a.ndjson"]
