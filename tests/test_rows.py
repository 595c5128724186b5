"""Users read what the operators wrote, in every format and from every store, completely or not at all."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from written_objects import write_object

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import StoreError, StoreRefusedError, read_rows
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.storage.target import Target

COLUMNS = ["id", "name", "creation_time", "owner_business_info"]
ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": 'two\u2028lines\r\nand \x85, "more"', "creation_time": 1_569_783_261},
    {"id": "2", "name": "東京 😀", "creation_time": 1_569_783_262, "owner_business_info": {"id": "9"}},
    {"id": "3", "name": ""},
]
NAMES = [f"a.{suffix}{gz}" for suffix in ("ndjson", "jsonl", "json", "csv") for gz in ("", ".gz")] + ["a.parquet"]
AS_TEXTS = [
    {"id": "1", "name": ROWS[0]["name"], "creation_time": "1569783261", "owner_business_info": ""},
    {"id": "2", "name": "東京 😀", "creation_time": "1569783262", "owner_business_info": '{"id":"9"}'},
    {"id": "3", "name": "", "creation_time": "", "owner_business_info": ""},
]
AS_COLUMNS = [
    {**row, "creation_time": moment, "owner_business_info": row["owner_business_info"] or None}
    for row, moment in zip(
        AS_TEXTS,
        [*(datetime(2019, 9, 29, 18, 54, second, tzinfo=timezone.utc) for second in (21, 22)), None],
        strict=True,
    )
]
Write = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an object, and gives its manifest."""

    def write(name: str, rows: Any = ROWS, **more: Any) -> dict[str, Any]:
        return asdict(write_object(Target(str(tmp_path / name), **more), rows, COLUMNS))

    return write


def expected(name: str) -> list[dict[str, Any]]:
    return AS_TEXTS if ".csv" in name else AS_COLUMNS if name.endswith(".parquet") else ROWS


@pytest.mark.parametrize("name", NAMES)
def test_every_format(write: Write, name: str) -> None:
    manifest = write(name)
    for source in (manifest, manifest["uri"], manifest["uri"].removeprefix("file://"), {"uri": manifest["uri"]}):
        assert list(read_rows(source)) == expected(name)
    assert list(read_rows(write(name, []))) == []


@pytest.mark.parametrize("format", ["ndjson", "json", "csv", "parquet"])
def test_the_format_in_the_manifest_counts(write: Write, format: str) -> None:
    manifest = write("a.data", format=format)
    assert list(read_rows(manifest)) == expected(f"a.{format}")
    with pytest.raises(ValueError, match=r"^source: the suffix of .*a\.data' names no format"):
        read_rows(manifest["uri"])


def test_a_manifest_of_an_operator(connected: GraphSandbox, tmp_path: Path) -> None:
    manifest: Any = WhatsAppListWabasOperator(task_id="accounts", output_path=f"{tmp_path}/a.ndjson.gz").execute({})
    assert list(read_rows(manifest)) == WhatsAppHook().list_wabas()


class TestWhatIsNotTheObjectOfTheManifest:
    def test_it_is_rewritten_with_other_rows(self, write: Write) -> None:
        manifest = write("a.ndjson")
        write("a.ndjson", ROWS[:2])
        with pytest.raises(ValueError, match=r"^source: file:///.*a\.ndjson has .* bytes, but its manifest says "):
            list(read_rows(manifest))

    @pytest.mark.parametrize("name", NAMES)
    def test_it_is_rewritten_with_rows_of_the_same_size(self, write: Write, name: str) -> None:
        manifest = write(name)
        again = write(name, [{**ROWS[0], "id": "7"}, *ROWS[1:]])
        with pytest.raises(ValueError, match=rf"has the SHA-256 {again['sha256']}, but its manifest says"):
            next(read_rows({**manifest, "bytes": again["bytes"]}))

    @pytest.mark.parametrize("rows", [ROWS[:2], [*ROWS, *ROWS[:1]]])
    def test_it_has_another_number_of_rows(self, write: Write, rows: list[dict[str, Any]]) -> None:
        manifest = {**write("a.ndjson", rows), "count": 3}
        with pytest.raises(
            ValueError, match=rf"^source: file:///.*a\.ndjson has {len(rows)} rows, but its manifest says 3"
        ):
            list(read_rows(manifest))

    @pytest.mark.parametrize("name", NAMES)
    def test_it_is_truncated(self, write: Write, name: str, tmp_path: Path) -> None:
        manifest = write(name)
        whole = (tmp_path / name).read_bytes()
        for length in range(0, len(whole), 7):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ValueError, match="^source: "):
                list(read_rows(manifest))

    @pytest.mark.parametrize("name", [name for name in NAMES if name.endswith((".gz", ".json", ".parquet"))])
    def test_it_is_truncated_and_nobody_knows_its_size(self, write: Write, name: str, tmp_path: Path) -> None:
        uri = write(name)["uri"]
        whole = (tmp_path / name).read_bytes()
        # The last byte of JSON is a line feed.
        for length in range(0, len(whole) - 1, 7):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ValueError, match="^source: "):
                list(read_rows(uri))

    def test_a_row_of_csv_is_cut(self, tmp_path: Path) -> None:
        for text in ("id,name\r\n1,a\r\n2", "id,name\r\n1,a\r\n2,b,c\r\n"):
            (tmp_path / "a.csv").write_text(text)
            with pytest.raises(
                ValueError, match=r"^source: .* cannot be read as csv after row 1 \(a row does not have as many"
            ):
                list(read_rows(str(tmp_path / "a.csv")))


def test_an_object_that_is_missing(tmp_path: Path) -> None:
    rows = read_rows(f"{tmp_path}/a.ndjson")
    with pytest.raises(ValueError, match=r"^source: there is no object file:///.*/a\.ndjson$"):
        next(rows)
    with pytest.raises(ValueError, match=r"^source: there is no object file:///.*/a\.ndjson$"):
        list(read_rows({"uri": f"{tmp_path}/a.ndjson", "bytes": 5, "count": 1}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a NoneType is neither a manifest nor an address"),
        (["s3://bucket/a.csv"], "a list is neither a manifest nor an address"),
        ({"id": "1"}, "the mapping has no `uri`"),
        ({"uri": 5}, "the mapping has no `uri`"),
        ("", "is not a path"),
        ("a.ndjson", "neither a URL nor an absolute path"),
        ("/tmp/a.txt", "names no format"),
        ("/tmp/a.parquet.gz", "leave out .gz"),
        ({"uri": "/tmp/a.txt"}, "names no format"),
        ({"uri": "/tmp/a.txt", "format": "xml"}, "'xml' is not one of"),
        ("nowhere://bucket/a.csv", "no storage is installed for nowhere://"),
        ("s3://key:5ecret@bucket/a.csv", "password in it; .* name the connection, in conn_id or in the URL$"),
    ],
)
def test_a_wrong_source_is_an_error_at_the_call(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^source: .*{message}") as caught:
        read_rows(source)
    assert "5ecret" not in str(caught.value)


class Lake(MemoryFileSystem):
    """A store in memory with the addresses of Azure, from which its library takes the container and the key."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False
    fault: ClassVar[Exception | None] = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        container, _, key = path.rpartition("://")[2].strip("/").partition("/")
        return f"/{container.partition('@')[0]}/{key}".rstrip("/")

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        if self.fault is not None:
            raise self.fault
        return super()._open(*args, **kwargs)


class Elsewhere(Lake):
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the connection `azure` leads to the store with the objects."""
    from airflow.sdk.io import attach, store

    monkeypatch.setattr(store, "_STORE_CACHE", {})
    for protocol in ("abfs", "abfss"):
        attach(protocol, conn_id="azure", fs=Lake())
        for other in (None, "lake"):
            attach(protocol, conn_id=other, fs=Elsewhere())
    yield
    Lake.store.clear()
    Lake.pseudo_dirs[:] = [""]


@pytest.mark.usefixtures("lake")
class TestConnections:
    @pytest.mark.parametrize(
        "uri",
        [
            "abfs://container/x/a.ndjson",
            "abfs://lake@container/x/a.ndjson",
            "abfss://container@account.dfs.core.windows.net/x/a.ndjson",
            "adl://container/x/a.ndjson",
        ],
    )
    def test_a_manifest_is_read_over_its_own(self, uri: str) -> None:
        manifest = asdict(write_object(Target(uri, conn_id="azure"), ROWS, COLUMNS))
        assert list(read_rows(manifest)) == ROWS
        assert list(read_rows({**manifest, "conn_id": "lake"}, conn_id="azure")) == ROWS
        with pytest.raises(ValueError, match="^source: there is no object abfss?://|adl://"):
            list(read_rows({**manifest, "conn_id": None}))

    def test_an_address_is_read_over_the_one_in_it(self) -> None:
        write_object(Target("abfs://azure@container/a.ndjson"), ROWS, COLUMNS)
        assert list(read_rows("abfs://azure@container/a.ndjson")) == ROWS
        assert list(read_rows("abfs://lake@container/a.ndjson", conn_id="azure")) == ROWS
        with pytest.raises(ValueError, match="^source: there is no object abfs://container/a.ndjson"):
            list(read_rows("abfs://lake@container/a.ndjson"))

    @pytest.mark.parametrize(
        ("fault", "error"), [(OSError("5ecret"), StoreError), (PermissionError("5ecret"), StoreRefusedError)]
    )
    def test_a_store_that_fails(
        self, monkeypatch: pytest.MonkeyPatch, fault: Exception, error: type[Exception]
    ) -> None:
        write_object(Target("abfs://azure@container/a.ndjson"), ROWS, COLUMNS)
        rows = read_rows("abfs://azure@container/a.ndjson")
        monkeypatch.setattr(Lake, "fault", fault)
        with pytest.raises(
            error, match="^source: abfs://container/a.ndjson cannot be read over the connection"
        ) as caught:
            next(rows)
        assert "5ecret" not in str(caught.value)


def test_only_a_small_part_is_in_memory(write: Write) -> None:
    manifest = write("a.json.gz", ({"id": str(number), "name": "x" * 200} for number in range(10_000)))
    rows = read_rows(manifest)
    next(rows)
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows) == 9_999
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()
