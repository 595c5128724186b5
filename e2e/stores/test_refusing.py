"""What is known before the first call of the API: the right connection, the bucket and the right to write."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers import SECRET, SftpStore, Store
from stores_support import connect, on, write_object

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.storage.errors import ObjectExistsError, StoreError, StoreRefusedError
from airflow_provider_whatsapp.storage.target import Target

SMALL = [{"id": "1", "name": "small"}]
LARGE = [{"id": str(number), "name": os.urandom(4096).hex()} for number in range(2_200)]
COLUMNS = ["id", "name"]

pytestmark = pytest.mark.quick


@pytest.fixture
def run(store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the operator, and gives the requests that the API got."""
    with GraphSandbox(accounts=3) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)

        def run(path: str, conn_id: str, **arguments: Any) -> Any:
            task = WhatsAppListWabasOperator(
                task_id="export", output_path=path, output_conn_id=conn_id, fields="id,name", **arguments
            )
            return task.execute({})

        run.sandbox = sandbox  # type: ignore[attr-defined]
        yield run


def assert_fails_at_once(run: Any, path: str, conn_id: str, *words: str, **arguments: Any) -> str:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException) as caught:
        run(path, conn_id, **arguments)
    assert not run.sandbox.requests
    message = str(caught.value)
    assert message.startswith("output_path: ")
    for word in words:
        assert word in message
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return message


@on("s3", "azure")
def test_an_address_with_a_version(store: Store, run: Any) -> None:
    version = {"s3": "?versionId=1", "abfs": "?versionid=1"}[store.url("").partition(":")[0]]
    address = store.url("refused/a.csv") + version
    assert_fails_at_once(run, address, store.conn_id, "is not the plain address of an object", output_format="csv")


@on()
def test_a_task_writes_and_leaves_the_loggers_of_the_libraries_alone(store: Store, run: Any) -> None:
    manifest = run(store.url("task/a.ndjson.gz"), store.conn_id)
    assert manifest["count"] == 3
    assert manifest["uri"] == store.url("task/a.ndjson.gz")
    assert store.names("task") == ["task/a.ndjson.gz"]
    names = ("aiobotocore", "airflow.providers.amazon", "asyncssh", "azure", "boto3", "botocore", "gcsfs", "google")
    assert [name for name in names if logging.getLogger(name).level != logging.NOTSET] == []


@on("gcs")
def test_the_address_of_an_upload_is_not_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has it could write to the bucket. gcsfs logs it for each chunk."""
    caplog.set_level(logging.DEBUG)
    target = Target(store.url("logged/a.ndjson"), conn_id=store.conn_id)
    with target.stage(LARGE, COLUMNS) as staged:
        store.proxy.fault = lambda request: "403" if "upload_id=" in request.path else None
        with pytest.raises(StoreRefusedError, match="403"):
            staged.publish()
    ids = {found[1] for request in store.proxy.requests if (found := re.search("upload_id=([^&]+)", request.path))}
    assert ids
    assert [id_ for id_ in ids if id_ in caplog.text] == []
    lines = [record.getMessage() for record in caplog.records if record.name == "gcsfs"]
    assert any("POST: http" in line and "upload_id=***" in line for line in lines)


@on()
def test_a_connection_that_does_not_exist(store: Store, run: Any) -> None:
    message = assert_fails_at_once(
        run, store.url("a.ndjson"), "no_such", "there is no Airflow connection 'no_such'", store.url("a.ndjson")
    )
    assert "installed" not in message


@on("s3", "gcs", "azure")
def test_a_bucket_that_does_not_exist(store: Store, run: Any) -> None:
    assert store.missing_bucket is not None
    words = (store.missing_bucket, repr(store.conn_id), "there is no such bucket or container; create it")
    assert_fails_at_once(run, store.missing_bucket, store.conn_id, *words)


@on("s3", "gcs", "azure")
@pytest.mark.parametrize("status", ["401", "403"])
def test_credentials_that_the_store_refuses(store: Store, run: Any, status: str) -> None:
    store.proxy.fault = lambda request: status
    if store.name == "Azure Blob" and status == "403":
        # Without the code AuthenticationFailed, these may be credentials that may only write.
        pytest.skip("the right to write is not probed on Azure")
    assert_fails_at_once(run, store.url("a.ndjson"), store.conn_id, store.url("a.ndjson"), repr(store.conn_id), status)


@on("azure")
def test_a_wrong_key(store: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = store.connection_string(store.proxy.port).replace("Eby8vdM0", "aaaaaaaa")
    conn_id = connect(monkeypatch, {"conn_type": "wasb", "extra": {"connection_string": wrong}})
    message = assert_fails_at_once(run, store.url("a.ndjson"), conn_id, "cannot be looked for", "403")
    assert "aaaaaaaa" not in message


@on("sftp")
def test_a_wrong_password(store: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {**store.connection, "password": SECRET, "extra": {"no_host_key_check": "true"}}
    conn_id = connect(monkeypatch, connection)
    assert_fails_at_once(run, store.url("a.ndjson"), conn_id, "the store does not accept the credentials")


@on("s3", "gcs")
def test_credentials_that_may_only_write(store: Store, run: Any) -> None:
    store.proxy.fault = lambda request: "403" if request.method in ("GET", "HEAD", "DELETE") else None
    assert run(store.url("write-only/a.ndjson"), store.conn_id)["count"] == 3
    target = Target(store.url("write-only/a.ndjson"), conn_id=store.conn_id)
    assert write_object(target, LARGE).count == len(LARGE)
    assert len((store.read("write-only/a.ndjson") or b"").splitlines()) == len(LARGE)


@on("s3")
def test_credentials_that_may_not_abort_an_upload(store: Store) -> None:
    """The error is that of the upload, not that of the abort, so that a retry is decided by the former."""
    target = Target(store.url("no-abort/a.ndjson"), conn_id=store.conn_id)
    with target.stage(LARGE, COLUMNS) as staged:
        store.proxy.fault = lambda request: {
            "DELETE": "403",
            "POST": "500" if "uploadId=" in request.path else None,
        }.get(request.method)
        with pytest.raises(StoreError, match="500"):
            staged.publish()
        store.write("no-abort/a.ndjson", b"of somebody else")
        store.proxy.fault = lambda request: "403" if request.method == "DELETE" else None
        with pytest.raises(ObjectExistsError):
            staged.publish(replace=False)


@on("azure")
def test_a_token_that_may_only_write(store: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    conn_id = connect(monkeypatch, store.connect_with_rights("cw"))
    for _ in range(2):
        assert run(store.url("write-only/a.ndjson"), conn_id)["count"] == 3
    assert len((store.read("write-only/a.ndjson") or b"").splitlines()) == 3


@on("azure")
def test_a_token_that_may_only_read_is_found_out_when_it_writes(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    conn_id = connect(monkeypatch, store.connect_with_rights("rl"))
    target = Target(store.url("read-only/a.ndjson"), conn_id=conn_id)
    with pytest.raises(StoreRefusedError, match="403 .*the credentials lack this permission"):
        write_object(target, SMALL)


@on("sftp")
def test_a_server_without_posix_rename(store: Store, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airflow-stores-")))
        other = SftpStore(folder, "-P posix-rename")
        stack.callback(other.stop)
        conn_id = connect(monkeypatch, other.direct_connection)
        assert_fails_at_once(
            run, other.url("a.ndjson"), conn_id, "half an object could be seen", "does not support posix-rename"
        )
        assert other.names("") == []


@on("sftp")
def test_a_folder_that_must_not_be_written_to(store: Any) -> None:
    store.write("locked/a.ndjson", b"before")
    (store.folder / "locked").chmod(0o555)
    target = Target(store.url("locked/a.ndjson"), conn_id=store.conn_id)
    with pytest.raises(StoreRefusedError, match="the credentials lack this permission"):
        write_object(target, SMALL)
    assert store.read("locked/a.ndjson") == b"before"


@on("sftp")
def test_a_server_that_was_restarted(store: Any) -> None:
    target = Target(store.url("restarted/a.ndjson"), conn_id=store.conn_id)
    store.proxy.cut_after = 0
    with target.stage(SMALL, COLUMNS) as staged:
        # The connection is cut with the next byte, and the next one works.
        with pytest.raises(StoreError):
            target.exists()
        store.proxy.heal()
        staged.publish()
    assert store.names("restarted") == ["restarted/a.ndjson"]


@on()
@pytest.mark.parametrize("rows", [SMALL, LARGE], ids=["small", "large"])
def test_an_object_that_appears_at_the_last_moment_is_not_replaced(store: Store, rows: Any) -> None:
    if store.name == "GCS" and rows is LARGE:
        pytest.skip("fake-gcs-server knows the condition only for uploads in one request")
    key = f"race/{len(rows)}.ndjson"
    target = Target(store.url(key), conn_id=store.conn_id)
    with target.stage(rows, COLUMNS) as staged:
        store.write(key, b"of somebody else")
        with pytest.raises(ObjectExistsError, match="appeared while the rows were read"):
            staged.publish(replace=False)
    assert store.read(key) == b"of somebody else"
    assert set(store.names("race")) <= {"race/1.ndjson", "race/2200.ndjson"}


@on("s3", "gcs", "azure")
@pytest.mark.parametrize("rows", [SMALL, LARGE], ids=["small", "large"])
def test_an_object_whose_answer_was_lost_is_our_own(store: Store, rows: Any) -> None:
    """The request that makes the object appear is sent again, and finds the object that it has made itself."""
    if store.name == "GCS" and len(rows) > 1:
        pytest.skip("fake-gcs-server takes a chunk that is sent twice for two chunks")
    key = f"lost/{len(rows)}.ndjson"
    target = Target(store.url(key), conn_id=store.conn_id)
    lost: list[object] = []

    def lose(request: Any) -> str | None:
        is_last = (
            request.method == "PUT" and ("partNumber" not in request.path) and ("comp=block&" not in request.path)
        ) or (request.method == "POST" and ("uploadId=" in request.path or "uploadType=multipart" in request.path))
        if is_last and not lost:
            lost.append(request)
            return "lost"
        return None

    with target.stage(rows, COLUMNS) as staged:
        store.proxy.fault = lose
        staged.publish(replace=False)
    assert len(lost) == 1
