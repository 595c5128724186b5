from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workers import start_publishing
from written_objects import write_object

from airflow_provider_whatsapp.rows import read_rows
from airflow_provider_whatsapp.storage.address import open_store
from airflow_provider_whatsapp.storage.errors import ObjectExistsError, StoreError
from airflow_provider_whatsapp.storage.formats import content_type_of, parse_format
from airflow_provider_whatsapp.storage.names import temporary_name
from airflow_provider_whatsapp.storage.reader import ObjectReader
from airflow_provider_whatsapp.storage.target import Target

ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "plain", "owner": {"id": "9", "name": 'a "b", c'}, "n": 5, "ok": True},
    {"id": "2", "name": "line\nbreak\r\nand \x85 \u2028 \u2029 tab\t", "list": ["x", None, 1.5]},
    {"id": "3", "name": "Ünïcode 東京 😀 مرحبا", "n": None, "ok": False},
    {"id": "4", "name": ""},
]
COLUMNS = ["id", "name"]


def read_back(path: Path, format: str) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()
    if format == "ndjson":
        assert text.endswith("\n") or not text
        return [json.loads(line) for line in text.splitlines()]
    if format == "json":
        rows: list[dict[str, Any]] = json.loads(text)
        return rows
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("name", "format"), [("a.ndjson", "ndjson"), ("a.jsonl", "ndjson"), ("a.json", "json")])
def test_json_survives_a_round_trip(tmp_path: Path, name: str, format: str, suffix: str) -> None:
    path = tmp_path / f"{name}{suffix}"
    stored = write_object(Target(path.as_uri()), iter(ROWS), COLUMNS)
    assert read_back(path, format) == ROWS
    assert (stored.uri, stored.format, stored.count) == (path.as_uri(), format, 4)
    assert stored.bytes == path.stat().st_size
    assert stored.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_csv_survives_a_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.csv{suffix}"
    write_object(Target(path.as_uri()), iter(ROWS), ["id", "name", "owner", "n", "ok", "list"])
    read = read_back(path, "csv")
    assert list(read[0]) == ["id", "name", "owner", "n", "ok", "list"]
    assert [row["name"] for row in read] == [row["name"] for row in ROWS]
    assert json.loads(read[0]["owner"]) == ROWS[0]["owner"]
    assert json.loads(read[1]["list"]) == ROWS[1]["list"]
    assert [row["ok"] for row in read] == ["true", "", "false", ""]
    assert [row["n"] for row in read] == ["5", "", "", ""]


def test_a_csv_has_only_the_requested_columns(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": str(number), f"key{number}": 1} for number in range(1000)]
    write_object(Target(str(tmp_path / "a.csv")), rows, COLUMNS)
    assert (tmp_path / "a.csv").read_text() == "id,name\n" + "".join(f"{number},\n" for number in range(1000))


@pytest.mark.parametrize(("name", "text"), [("a.ndjson", ""), ("a.json", "[\n]\n"), ("a.csv", "id,name\r\n")])
def test_no_rows(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    assert write_object(Target(str(path)), [], COLUMNS).count == 0
    assert path.read_bytes().decode() == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(
        st.fixed_dictionaries({"id": st.text("0123456789", min_size=1)}, optional={"name": json_values}), max_size=5
    )
)
def test_any_rows_survive(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for name, format in (("a.ndjson.gz", "ndjson"), ("a.json", "json")):
        write_object(Target(str(tmp_path / name)), rows, COLUMNS)
        assert read_back(tmp_path / name, format) == rows


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.ndjson.gz", "a.csv.gz", "a.json.gz"):
        first, second = (write_object(Target(str(tmp_path / folder / name)), ROWS, COLUMNS) for folder in ("x", "y"))
        assert first.sha256 == second.sha256


def test_a_local_address_is_written_without_detours(tmp_path: Path) -> None:
    stored = write_object(Target(f"{tmp_path}/x/../a.ndjson"), ROWS, COLUMNS)
    assert stored.uri == (tmp_path / "a.ndjson").as_uri()
    assert os.listdir(tmp_path) == ["a.ndjson"]


def test_output_format_beats_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "accounts.txt.gz"
    assert write_object(Target(str(path), format="jsonl"), ROWS, COLUMNS).format == "ndjson"
    assert read_back(path, "ndjson") == ROWS


class TestAllOrNothing:
    def breaking(self) -> Iterator[dict[str, Any]]:
        yield from ROWS
        raise RuntimeError("the listing broke")

    @pytest.mark.parametrize("name", ["a.ndjson", "a.csv", "a.json.gz"])
    def test_a_failure_leaves_what_was_there(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text("before")
        with pytest.raises(RuntimeError):
            write_object(Target(str(path)), self.breaking(), COLUMNS)
        assert path.read_text() == "before"
        assert os.listdir(tmp_path) == [name]

    def test_a_failure_leaves_nothing_where_nothing_was(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError):
            write_object(Target(str(tmp_path / "new" / "a.ndjson")), self.breaking(), COLUMNS)
        assert os.listdir(tmp_path) == []

    def test_what_is_not_published_does_not_appear(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        with Target(str(path)).stage(ROWS, COLUMNS) as staged:
            assert staged.stored.count == 4
        assert not path.exists()

    def test_a_disk_that_fails_while_publishing_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")

        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_object(Target(str(path)), ROWS, COLUMNS)
        assert path.read_text() == "before"
        assert os.listdir(tmp_path) == ["a.ndjson"]

    def test_a_worker_killed_while_it_publishes_leaves_what_was_there(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        worker = start_publishing(path)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        assert path.read_text() == "before"
        (leftover,) = set(os.listdir(tmp_path)) - {"a.ndjson"}
        write_object(Target(str(path)), ROWS, COLUMNS)
        assert leftover in os.listdir(tmp_path)  # it may belong to a worker that is still writing it
        os.utime(tmp_path / leftover, (0, 0))
        write_object(Target(str(path)), ROWS, COLUMNS)
        assert os.listdir(tmp_path) == ["a.ndjson"]

    def test_the_object_is_on_the_disk_before_it_appears(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[str] = []
        real_sync, real_replace = os.fsync, os.replace

        def sync(descriptor: int) -> None:
            done.append(f"sync {os.fstat(descriptor).st_size}")
            real_sync(descriptor)

        def replace(source: Path, target: Path) -> None:
            done.append("replace")
            real_replace(source, target)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(os, "replace", replace)
        stored = write_object(Target(str(tmp_path / "a.ndjson")), ROWS, COLUMNS)
        assert done == [f"sync {stored.bytes}", "replace"]

    @pytest.mark.parametrize(("age", "is_removed"), [(3500, False), (3700, True)])
    def test_a_copy_is_abandoned_after_an_hour(self, tmp_path: Path, age: int, is_removed: bool) -> None:
        copy = tmp_path / temporary_name("a.ndjson", "")
        other = tmp_path / temporary_name("b.ndjson", "")
        for path in (copy, other):
            path.touch()
            os.utime(path, (time.time() - age, time.time() - age))
        write_object(Target(str(tmp_path / "a.ndjson")), ROWS, COLUMNS)
        assert copy.exists() is not is_removed
        assert other.exists()

    @pytest.mark.parametrize("name", ["x" * 248 + ".ndjson", "東" * 80 + ".ndjson"])
    def test_the_longest_names(self, tmp_path: Path, name: str) -> None:
        write_object(Target(str(tmp_path / name)), ROWS, COLUMNS)
        assert os.listdir(tmp_path) == [name]

    def test_the_object_keeps_its_mode(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        path.touch(0o600)
        write_object(Target(str(path)), ROWS, COLUMNS)
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_link_is_written_through(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real.ndjson", tmp_path / "link.ndjson"
        real.write_text("before")
        link.symlink_to(real)
        write_object(Target(str(link)), ROWS, COLUMNS)
        assert link.is_symlink()
        assert read_back(real, "ndjson") == ROWS


class Store(MemoryFileSystem):
    """A store in memory whose uploads and moves can be made to fail."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False
    protocol = "moving"
    broken = False
    stuck = False
    lies = False

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if not self.stuck:
            super().mv(path1, path2, **kwargs)

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> None:
        if self.broken:
            self.pipe_file(rpath, b"half")
            raise OSError("the store went away")
        super().put_file(lpath, rpath, *args, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        return {**super().info(path, **kwargs), **({"size": 1} if self.lies else {})}


_STORE = Store()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    from airflow.sdk.io import attach, store

    # Airflow keeps the first file system that is attached to a name, and another test may have named it before.
    monkeypatch.setattr(store, "_STORE_CACHE", {})
    for protocol in ("memory", "abfs", "abfss"):
        attach(protocol, conn_id="lake", fs=_STORE)
        attach(protocol, fs=_STORE)
    yield _STORE
    _STORE.__dict__.update(broken=False, lies=False, stuck=False, protocol="moving")
    Store.store.clear()
    Store.pseudo_dirs[:] = [""]


class TestAddress:
    """The address of the object in messages and manifests, and the connection that it is written over."""

    @pytest.mark.parametrize(
        ("path", "uri", "conn_id", "key"),
        [
            ("memory://bucket/a.csv", "memory://bucket/a.csv", None, "/bucket/a.csv"),
            ("memory://lake@bucket/a.csv", "memory://bucket/a.csv", "lake", "/bucket/a.csv"),
            ("abfs://lake@container/x/a.csv", "abfs://container/x/a.csv", "lake", "/container/x/a.csv"),
            ("abfss://lake@container/a.csv", "abfss://container/a.csv", "lake", "/container/a.csv"),
            ("adl://lake@container/a.csv", "adl://container/a.csv", "lake", "/container/a.csv"),
            (
                "abfss://container@account.dfs.core.windows.net/x/a.csv",
                "abfss://container@account.dfs.core.windows.net/x/a.csv",
                None,
                "/container/x/a.csv",
            ),
            (
                "abfs://container@account.blob.core.windows.net/a.csv",
                "abfs://container@account.blob.core.windows.net/a.csv",
                None,
                "/container/a.csv",
            ),
            (
                "abfss://lake@container@account.dfs.core.chinacloudapi.cn/a.csv",
                "abfss://container@account.dfs.core.chinacloudapi.cn/a.csv",
                "lake",
                "/container/a.csv",
            ),
        ],
    )
    def test_the_connection_is_not_in_it(
        self, store: Store, path: str, uri: str, conn_id: str | None, key: str
    ) -> None:
        target = Target(path)
        assert (target.uri, target.conn_id) == (uri, conn_id)
        stored = write_object(target, ROWS, COLUMNS)
        assert (stored.uri, stored.conn_id) == (uri, conn_id)
        assert store.find("/") == [key]

    @pytest.mark.parametrize(
        "path",
        [
            "memory://no_such_connection@bucket/a.csv",
            "abfs://no_such_connection@bucket/a.csv",
            "abfss://bucket@account.dfs.core.windows.net/a.csv",
        ],
    )
    def test_an_explicit_connection_wins(self, store: Store, path: str) -> None:
        target = Target(path, conn_id="lake")
        assert target.conn_id == "lake"
        assert "no_such_connection" not in target.uri
        write_object(target, ROWS, COLUMNS)
        assert store.find("/") == ["/bucket/a.csv"]

    def test_the_account_in_it_must_be_that_of_the_connection(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Store, "account_name", "mine", raising=False)
        assert Target("abfss://container@Mine.dfs.core.windows.net/a.csv", conn_id="lake").conn_id == "lake"
        with pytest.raises(
            ValueError, match="^output_path: .* account 'theirs', but the connection 'lake' leads to 'mine'"
        ):
            Target("abfss://container@theirs.dfs.core.windows.net/a.csv", conn_id="lake")

    def test_a_local_one_is_a_file(self, tmp_path: Path) -> None:
        assert (Target(f"{tmp_path}/a.csv").uri, Target(f"{tmp_path}/a.csv").conn_id) == (
            f"file://{tmp_path}/a.csv",
            None,
        )

    @pytest.mark.skipif(
        version("apache-airflow") == "3.1.0", reason="Airflow 3.1.0 looks a connection up within a task only"
    )
    def test_the_connection_in_it_must_exist(self, tmp_path: Path) -> None:
        for conn_id in ("no_such", "no_such_either"):
            with pytest.raises(
                ValueError, match=rf"^output_path: there is no Airflow connection '{conn_id}' to reach "
            ) as e:
                Target(f"file://{tmp_path}/a.csv", conn_id=conn_id)
            assert "installed" not in str(e.value)


class TestIfNothingIsThere:
    """An object that may not be replaced."""

    def test_a_file_that_appears_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        target = Target(str(path))
        with target.stage(ROWS, COLUMNS) as staged:
            path.write_text("of somebody else")
            with pytest.raises(ObjectExistsError, match=r"a\.ndjson appeared while the rows were read"):
                staged.publish(replace=False)
        assert path.read_text() == "of somebody else"
        assert os.listdir(tmp_path) == ["a.ndjson"]

    def test_a_file_that_does_not_appear_is_written(self, tmp_path: Path) -> None:
        target = Target(str(tmp_path / "a.ndjson"))
        write_object(target, ROWS, COLUMNS, replace=False)
        assert target.exists()
        write_object(target, ROWS[:1], COLUMNS)
        assert read_back(tmp_path / "a.ndjson", "ndjson") == ROWS[:1]

    def test_a_disk_without_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        target = Target(str(tmp_path / "a.ndjson"))
        write_object(target, ROWS, COLUMNS, replace=False)
        assert os.listdir(tmp_path) == ["a.ndjson"]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("a.ndjson", "application/x-ndjson"),
        ("a.jsonl", "application/x-ndjson"),
        ("a.json", "application/json"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.csv.gz", "application/gzip"),
    ],
)
def test_the_content_type_of_a_format(path: str, content_type: str) -> None:
    assert content_type_of(parse_format(path, None), compressed=path.endswith(".gz")) == content_type


class TestOtherStores:
    def test_an_object_is_made_and_replaced(self, store: Store) -> None:
        for rows in (ROWS, ROWS[:1]):
            stored = write_object(Target("memory://bucket/a/b.ndjson", conn_id="lake"), rows, COLUMNS)
            assert stored.uri.endswith("bucket/a/b.ndjson")
            data = store.cat_file("/bucket/a/b.ndjson")
            assert [json.loads(line) for line in data.splitlines()] == rows
            assert (stored.bytes, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert store.find("/bucket") == ["/bucket/a/b.ndjson"]

    def test_an_upload_that_breaks_leaves_what_was_there(self, store: Store) -> None:
        target = Target("memory://bucket/a/b.ndjson")
        write_object(target, ROWS[:1], COLUMNS)
        before = store.cat_file("/bucket/a/b.ndjson")
        store.broken = True
        with pytest.raises(
            StoreError,
            match=r"^output_path: memory://bucket/a/b.ndjson cannot be written without a connection, with the worker's own "
            r"credentials \(OSError\); this may be temporary; Airflow retries if the task has `retries`$",
        ):
            write_object(target, ROWS, COLUMNS)
        assert store.cat_file("/bucket/a/b.ndjson") == before
        assert store.find("/bucket") == ["/bucket/a/b.ndjson"]

    def test_a_move_that_does_nothing_is_an_error(self, store: Store) -> None:
        store.stuck = True
        with pytest.raises(OSError, match="could not be replaced"):
            write_object(Target("memory://bucket/a/b.ndjson"), ROWS, COLUMNS)
        assert store.find("/bucket") == []

    def test_a_store_that_cannot_move_is_refused(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(Store, "mv")
        with pytest.raises(
            ValueError,
            match="^output_path: memory://bucket/a/b.ndjson cannot be written .*: half an object could be seen",
        ):
            Target("memory://bucket/a/b.ndjson")

    def test_a_store_of_whole_uploads_is_written_to_directly(self, store: Store) -> None:
        store.protocol = "s3"
        write_object(Target("memory://bucket/a/b.ndjson"), ROWS, COLUMNS)
        assert store.find("/bucket") == ["/bucket/a/b.ndjson"]

    @pytest.mark.parametrize(
        "protocol", ["s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", ("gs", "gcs")]
    )
    def test_the_stores_that_show_an_upload_when_it_is_complete(
        self, store: Store, protocol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("moved")

        store.protocol = protocol
        monkeypatch.setattr(Store, "mv", refuse)
        write_object(Target("memory://bucket/a/b.ndjson"), ROWS, COLUMNS)
        assert store.find("/bucket") == ["/bucket/a/b.ndjson"]

    def test_what_the_store_said_before_is_not_believed(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        target = Target("memory://bucket/a/b.ndjson")
        forgotten: list[str] = []
        monkeypatch.setattr(store, "invalidate_cache", lambda: forgotten.append("x"))
        for ask in (target.exists, lambda: target.holds(1, ""), lambda: write_object(target, ROWS, COLUMNS)):
            forgotten.clear()
            ask()
            assert forgotten

    def test_a_store_that_kept_something_else_is_an_error(self, store: Store) -> None:
        store.lies = True
        with pytest.raises(OSError, match="holds 1 bytes after"):
            write_object(Target("memory://bucket/a/b.ndjson"), ROWS, COLUMNS)

    def test_exists(self, store: Store) -> None:
        target = Target("memory://bucket/a/b.ndjson")
        assert not target.exists()
        write_object(target, ROWS, COLUMNS)
        assert target.exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "is not a path"),
        ("relative/a.ndjson", "neither a URL nor an absolute path"),
        ("s3:/bucket/a.ndjson", "neither a URL nor an absolute path"),
        ("file://tmp/a.ndjson", "neither a URL nor an absolute path"),
        ("/dev/null/a.ndjson", "this worker cannot write below '/dev/null'"),
        (None, "is not a path"),
        (5, "is not a path"),
        ("/tmp/accounts", "names no format"),
        ("/tmp/accounts.xml", "names no format"),
        ("/tmp/accounts.gz", "names no format"),
        ("/tmp/.d/accounts", "names no format"),
        ("/tmp/a.ndjson.zip", "names no format"),
        ("s3://key:5ecret@bucket/a.ndjson", "password in it"),
        ("s3://lake/team\n/a.ndjson", "has a line break or another control character in it; remove it$"),
        ("s3://lake/team\t/a.ndjson", "has a line break or another control character"),
        ("s3://lake/te\r\nam/a.ndjson", "has a line break or another control character"),
        ("s3://la\nke/a.ndjson", "has a line break or another control character"),
        ("s3://con\nn@lake/a.ndjson", "has a line break or another control character"),
        ("/tmp/te\x00am/a.ndjson", "has a line break or another control character"),
        ("/tmp/te\x7fam/a.ndjson", "has a line break or another control character"),
        ("/tmp/te\x85am/a.ndjson", "has a line break or another control character"),
        ("/tmp/te\u2028am/a.ndjson", "has a line break or another control character"),
        ("/tmp/te\ud800am/a.ndjson", "has a line break or another control character"),
        ("\ufeffs3://lake/a.ndjson", "has a line break or another control character"),
        ("s3://bucket/a.ndjson::zip", "has no '::' and does not end in a slash"),
        ("s3://bucket/a.ndjson/", "has no '::' and does not end in a slash"),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/a/b.csv",
            "names an access point by its ARN; write its alias",
        ),
        ("s3n://bucket/a.ndjson", "no storage for s3n://; write the address as s3://$"),
        ("az://container/a.ndjson", "no storage for az://; write the address as abfs://$"),
        ("wasb://container/a.ndjson", "no storage for wasb://; write the address as abfs://$"),
        (
            "hdfs://host/a.ndjson",
            "no storage is installed for hdfs://; Airflow supports addresses that begin with s3://",
        ),
        ("nosuch://bucket/a.ndjson", "no storage is installed for nosuch://"),
    ],
)
def test_a_bad_path_is_refused(path: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^output_path: .*{message}") as caught:
        Target(path)
    assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize("argument", ["output_path", "compare_with", "waba_ids", "source"])
@pytest.mark.parametrize(
    "address", ["s3://lake/te\nam/a.csv", "s3://bucket/a.csv/", "s3://arn:aws:s3:::accesspoint/a/b.csv"]
)
def test_every_address_is_checked_alike(argument: str, address: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: "):
        Target(address) if argument == "output_path" else ObjectReader(argument, address)


@pytest.mark.parametrize("conn_id", ["la\nke", "lake\x00", 5])
def test_what_is_no_id_of_a_connection(conn_id: Any) -> None:
    with pytest.raises(ValueError, match="^output_conn_id: .* is not the id of an Airflow connection"):
        Target("memory://bucket/a.ndjson", conn_id=conn_id)
    with pytest.raises(ValueError, match="^conn_id: .* is not the id of an Airflow connection"):
        read_rows({"uri": "memory://bucket/a.ndjson", "conn_id": conn_id})


class Versions(MemoryFileSystem):
    """A store whose library finds versions in addresses, as those of S3, GCS and Azure do."""

    cachable = False

    def split_path(self, path: str) -> tuple[str, str, str | None]:
        bucket, _, key = path.lstrip("/").partition("/")
        key, _, version = key.partition("?version=")
        return bucket, key, version or None


@pytest.mark.parametrize(
    "key", ["a.ndjson?version=1", "a.ndjson?version=", "x/../a.ndjson", "./a.ndjson", "a.ndjson?versio=1", "#/a.ndjson"]
)
def test_an_address_of_more_than_a_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    from airflow.sdk.io import attach, store

    monkeypatch.setattr(store, "_STORE_CACHE", {})
    attach("memory", conn_id="lake", fs=Versions())
    address = f"memory://lake@bucket/{key}"
    if key in ("a.ndjson?versio=1", "#/a.ndjson"):
        assert Target(address, format="csv").uri == f"memory://bucket/{key}"
        return
    for open_it in (lambda: Target(address, format="csv"), lambda: ObjectReader("waba_ids", address, format="csv")):
        with pytest.raises(
            ValueError, match=r"^(output_path|waba_ids): 'memory://bucket/.*' is not the plain address of"
        ):
            open_it()


@pytest.mark.parametrize(
    ("scheme", "install"),
    [("s3", r"amazon\[s3fs\]"), ("gcs", "google"), ("ssh", r"sftp\[sshfs\]"), ("abfs", "microsoft-azure")],
)
def test_a_store_whose_provider_is_not_installed(monkeypatch: pytest.MonkeyPatch, scheme: str, install: str) -> None:
    # Here, it may be.
    monkeypatch.setattr("airflow.sdk.io.has_fs", lambda scheme: False)
    with pytest.raises(
        ValueError,
        match=f"^output_path: no storage is installed for {scheme}://; install apache-airflow-providers-{install}$",
    ):
        Target(f"{scheme}://bucket/a.ndjson")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a.ndjson"
    folder.mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        Target(str(folder))


@pytest.mark.parametrize("format", ["xml", "", "orc", "NDJSON"])
def test_an_unknown_format_is_refused(format: str) -> None:
    with pytest.raises(
        ValueError, match="^output_format: .* is not one of 'ndjson', 'jsonl', 'json', 'csv', 'parquet'"
    ):
        Target("/tmp/a.ndjson", format=format)


def test_a_path_on_this_machine_loads_no_store_of_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.io import fs

    def load() -> None:
        raise AssertionError("the libraries of all stores are loaded")

    monkeypatch.setattr(fs, "_register_filesystems", load)
    for path in (str(tmp_path / "a.ndjson"), f"file://{tmp_path}/b.ndjson"):
        target = Target(path)
        write_object(target, [{"id": "1"}], [])
        assert list(ObjectReader("compare_with", path).rows()) == [{"id": "1"}]
        assert target.uri == f"file://{path.removeprefix('file://')}"


def test_a_file_system_that_was_attached_is_used_for_a_path_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.io import attach, store

    class Own(LocalFileSystem):
        cachable = False

    monkeypatch.setattr(store, "_STORE_CACHE", {})
    attach("file", fs=(own := Own()))
    assert open_store("output_path", str(tmp_path / "a"), None).store.fs is own


@pytest.mark.parametrize("path", ["s3://user:pass@bucket/a.csv", "s3://user:pa/ss@bucket/a.csv", "s3://:pass@b/a.csv"])
def test_an_address_with_a_password(path: str) -> None:
    with pytest.raises(ValueError, match="^output_path: the URL has a password in it; put the password into"):
        Target(path)


@pytest.mark.parametrize(
    "path",
    [
        "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCY@bucket/a.ndjson",
        "s3://user:pass/word@bucket/a.ndjson",
        "https://account.blob.core.windows.net/c/a.txt?sv=2024&sig=Z3Jvd24tdXAtc2VjcmV0LTEyMzQ1Njc4OTA%3D",
        "EAAJZCexampletoken1234567890abcdefghij",
    ],
)
def test_no_secret_of_an_address_is_shown(path: str) -> None:
    for argument in ("output_path", "compare_with"):
        with pytest.raises(ValueError, match=f"^{argument}: ") as caught:
            Target(path) if argument == "output_path" else ObjectReader(argument, path)
        for secret in ("wJalr", "K7MDENG", "pass/word", "Z3Jvd24", "EAAJZC"):
            assert secret not in str(caught.value)
