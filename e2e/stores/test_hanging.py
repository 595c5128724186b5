"""A store that accepts requests and never answers ends in an error, and a retry goes on from the kept rows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob._shared import base_client_async
from servers import SftpStore, Store
from stores_support import connect, on, write_object

from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.storage import sftp as storage_sftp
from airflow_provider_whatsapp.storage.errors import StoreError
from airflow_provider_whatsapp.storage.gcs import GcsStore
from airflow_provider_whatsapp.storage.target import Target

COLUMNS = ["id", "name"]
ROWS = [{"id": "1", "name": "a"}]
# The pages of the listing, and after how many kept parts something happens to it.
PAGES, PARTS = 12, 5
# A test that waits this long hangs. The waits of the tests themselves are below a minute.
_SECONDS_OF_A_HANG = 1200


@pytest.fixture
def impatient(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, reached with libraries that wait ten seconds for an answer. A busy machine may need a few of them."""
    monkeypatch.setattr(GcsStore, "seconds_for_a_request", 10)
    monkeypatch.setattr(base_client_async, "READ_TIMEOUT", 10)
    monkeypatch.setattr(storage_sftp.SftpStore, "seconds_between_signs_of_life", 1)
    connection = json.loads(json.dumps(store.connection))
    if store.name == "Azure Blob":
        # adlfs would give the client that it has for this connection, which is more patient.
        connection["extra"]["connection_string"] += ";DefaultEndpointsProtocol=http"
    if store.name == "S3":
        connection["extra"]["config_kwargs"] = {"read_timeout": 10, "retries": {"max_attempts": 0}}
    monkeypatch.setattr(store, "connection", connection)
    store.conn_id = connect(monkeypatch, connection)
    return store


def within_bounds(action: Callable[[], Any]) -> Any:
    """What the action gives. An action that never ends is an error."""
    executor = ThreadPoolExecutor(1)
    try:
        return executor.submit(action).result(timeout=_SECONDS_OF_A_HANG)
    finally:
        executor.shutdown(wait=False)


@on("s3", "gcs", "azure")
def test_a_store_hangs_before_the_listing(impatient: Store) -> None:
    impatient.proxy.fault = lambda request: "hang"
    with pytest.raises(StoreError, match="Airflow retries") as caught:
        within_bounds(lambda: Target(impatient.url("hang/a.ndjson"), conn_id=impatient.conn_id))
    assert impatient.url("hang/a.ndjson") in str(caught.value)


@on("sftp", "s3", "gcs", "azure")
def test_a_store_hangs_while_it_is_written_to(impatient: Store) -> None:
    impatient.write("hang/a.ndjson", b"before")
    target = Target(impatient.url("hang/a.ndjson"), conn_id=impatient.conn_id)
    with target.stage(ROWS, COLUMNS) as staged:
        if isinstance(impatient, SftpStore):
            impatient.proxy.hang_after = impatient.proxy.sent
        else:
            impatient.proxy.fault = lambda request: "hang"
        with pytest.raises(StoreError, match="cannot be written .*Airflow retries"):
            within_bounds(staged.publish)
    impatient.proxy.heal()
    assert impatient.read("hang/a.ndjson") == b"before"
    again = Target(impatient.url("hang/a.ndjson"), conn_id=impatient.conn_id)
    assert write_object(again, ROWS).count == 1
    assert impatient.read("hang/a.ndjson") == b'{"id":"1","name":"a"}\n'


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=100 * PAGES) as sandbox:
        yield sandbox


def run_try(store: Store, sandbox: GraphSandbox, key: str, number: int, on_start: Callable[[int], None]) -> Any:
    """What one try of the task gives: its exit status, its manifest or None, and what it printed of its errors."""
    env = {
        **os.environ,
        "AIRFLOW_CONN_LAKE": json.dumps(store.connection),
        "AIRFLOW_CONN_WHATSAPP_DEFAULT": sandbox.connection,
    }
    command = [sys.executable, str(Path(__file__).parent / "listing.py"), store.url(key), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        on_start(process.pid)
        out, err = process.communicate(timeout=_SECONDS_OF_A_HANG)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return process.returncode, json.loads(lines[-1]) if lines else None, out + err


def assert_goes_on(store: Store, sandbox: GraphSandbox, key: str) -> None:
    store.proxy.heal()
    asked = len(sandbox.requests)
    status, manifest, printed = run_try(store, sandbox, key, 2, lambda pid: None)
    assert status == 0, printed
    # It asks for the last kept page again.
    assert len(sandbox.requests) - asked <= PAGES - PARTS + 2
    data = (store.read(key) or b"").splitlines()
    assert [json.loads(line)["id"] for line in data] == [account["id"] for account in sandbox.accounts]
    assert manifest["count"] == len(data)
    folder, _, name = key.partition("/")
    assert store.names(folder) == [f"{folder}/_{name}.airflow-record", key]


def is_part(request: Any) -> bool:
    return request.method == "PUT" and ".airflow-parts" in request.path


def number_of_part(request: Any) -> int:
    found = re.search(r"airflow-parts.*-([0-9]{5})", request.path)
    return int(found[1]) if found and request.method == "PUT" else 0


@pytest.mark.quick
# Not on GCS, whose requests do not have the name of the object in their path.
@on("s3", "azure")
def test_a_killed_listing_goes_on_from_the_kept_rows(store: Store, sandbox: GraphSandbox) -> None:
    pids: list[int] = []

    def kill(request: Any) -> None:
        if number_of_part(request) > PARTS:
            os.kill(pids[0], signal.SIGKILL)

    store.write("kept/a.ndjson", b"before")
    store.proxy.forwarded = kill
    status, _, printed = run_try(store, sandbox, "kept/a.ndjson", 1, pids.append)
    assert status == -signal.SIGKILL, printed
    assert store.read("kept/a.ndjson") == b"before"
    assert len(sandbox.requests) < PAGES
    assert_goes_on(store, sandbox, "kept/a.ndjson")


@on("s3")
def test_a_store_hangs_while_rows_are_kept(impatient: Store, sandbox: GraphSandbox) -> None:
    """The listing is read to its end all the same, and its retry goes on from what was kept before."""
    store = impatient
    parts: list[Any] = []

    def hang(request: Any) -> str | None:
        if is_part(request):
            parts.append(request)
        return "hang" if len(parts) > PARTS else None

    store.write("slow/a.ndjson", b"before")
    store.proxy.fault = hang
    status, _, printed = run_try(store, sandbox, "slow/a.ndjson", 1, lambda pid: None)
    assert status == 1
    assert "Nothing can be stored beside the object" in printed
    assert "StoreError" in printed
    assert len(sandbox.requests) == PAGES
    assert store.read("slow/a.ndjson") == b"before"
    assert_goes_on(store, sandbox, "slow/a.ndjson")
