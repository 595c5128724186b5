from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import dataset
from pyarrow import parquet as pq
from written_objects import write_object

from airflow_provider_whatsapp.storage import parquet
from airflow_provider_whatsapp.storage.columns import TYPED_COLUMNS, UnfitValueError, type_of
from airflow_provider_whatsapp.storage.reader import ObjectReader
from airflow_provider_whatsapp.storage.target import Target

ARROW = {
    "text": pa.string(),
    "truth": pa.bool_(),
    "number": pa.int64(),
    "time": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}
COLUMNS = ["id", "name", "creation_time", "is_enabled_for_insights", "product_count", "owner_business_info", "surprise"]
ROWS: list[dict[str, Any]] = [
    {
        "id": "102290129340398",
        "name": "Ünïcode 東京 😀 \u2028 line\nbreak",
        "creation_time": 1_569_783_261,
        "is_enabled_for_insights": True,
        "product_count": 7,
        "owner_business_info": {"name": 'a "b"', "id": "9"},
        "surprise": "text",
        "not asked for": 1,
    },
    {"id": "102290129340399", "name": "", "creation_time": None, "surprise": [1, None, 2.5, {"a": True}]},
]


def write(path: Path, rows: Any, columns: list[str]) -> Any:
    """The table that the rows become."""
    write_object(Target(str(path)), rows, columns)
    return pq.read_table(path)


# Linux counts the memory of the parent into the `ru_maxrss` of a new process, but not into this number.
MEGABYTES = """
import re
def megabytes():
    with open("/proc/self/status") as status:
        return int(re.search("VmHWM: *([0-9]+)", status.read().replace("\t", " "))[1]) / 1024
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much memory a process had at most")


def run_measured(code: str) -> str:
    """What the code prints in a new process. Its function `megabytes` gives the most memory that it ever had."""
    command = [sys.executable, "-c", MEGABYTES + code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class TestColumns:
    def test_types_and_values(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        stored = write_object(Target(str(path)), iter(ROWS), COLUMNS)
        table = pq.read_table(path)
        assert table.schema.names == COLUMNS
        assert [str(field.type) for field in table.schema] == [
            "string", "string", "timestamp[us, tz=UTC]", "bool", "int64", "string", "string",
        ]  # fmt: skip
        assert table.to_pylist() == [
            {
                "id": "102290129340398",
                "name": "Ünïcode 東京 😀 \u2028 line\nbreak",
                "creation_time": datetime(2019, 9, 29, 18, 54, 21, tzinfo=timezone.utc),
                "is_enabled_for_insights": True,
                "product_count": 7,
                "owner_business_info": '{"name":"a \\"b\\"","id":"9"}',
                "surprise": '"text"',
            },
            {
                "id": "102290129340399",
                "name": "",
                "creation_time": None,
                "is_enabled_for_insights": None,
                "product_count": None,
                "owner_business_info": None,
                "surprise": '[1,null,2.5,{"a":true}]',
            },
        ]
        assert (stored.format, stored.count, stored.bytes) == ("parquet", 2, path.stat().st_size)
        assert stored.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert os.listdir(tmp_path) == ["a.parquet"]

    def test_an_empty_list_has_the_same_columns(self, tmp_path: Path) -> None:
        empty = write(tmp_path / "empty.parquet", [], COLUMNS)
        assert empty.num_rows == 0
        assert empty.schema == write(tmp_path / "a.parquet", ROWS, COLUMNS).schema

    def test_the_type_follows_from_the_name_alone(self, tmp_path: Path) -> None:
        # The values differ in type from those of the other tests, or are missing.
        unusual = [{"id": "1", "surprise": 5, "owner_business_info": "text", "name": 7}, {"id": "2"}]
        table = write(tmp_path / "a.parquet", unusual, [*reversed(COLUMNS)])
        assert {field.name: field.type for field in table.schema} == {name: ARROW[type_of(name)] for name in COLUMNS}
        assert table.schema.names == [*reversed(COLUMNS)]

    def test_a_text_column_holds_other_values_as_json(self, tmp_path: Path) -> None:
        values = [12345678901234567890123, False, 0.1, ["a"], {"b": None}, "true"]
        table = write(tmp_path / "a.parquet", [{"name": value} for value in values], ["name"])
        assert table["name"].to_pylist() == ["12345678901234567890123", "false", "0.1", '["a"]', '{"b":null}', "true"]

    @pytest.mark.parametrize(
        "value",
        [
            1793491200,
            "1793491200",
            "2026-11-01T00:00:00+0000",
            "2026-11-01T00:00:00Z",
            "2026-11-01T00:00:00.000000Z",
            "2026-10-31T19:00:00-05:00",
        ],
    )
    def test_the_forms_of_a_time(self, tmp_path: Path, value: Any) -> None:
        table = write(tmp_path / "a.parquet", [{"last_onboarded_time": value}], ["last_onboarded_time"])
        assert table["last_onboarded_time"].to_pylist() == [datetime(2026, 11, 1, tzinfo=timezone.utc)]

    def test_the_bounds_of_numbers_and_times(self, tmp_path: Path) -> None:
        rows = [
            {"product_count": -(2**63), "creation_time": -62135596800},
            {"product_count": "9223372036854775807", "creation_time": "9999-12-31T23:59:59.999999Z"},
        ]
        table = write(tmp_path / "a.parquet", rows, ["product_count", "creation_time"])
        assert table["product_count"].to_pylist() == [-(2**63), 2**63 - 1]
        assert [moment.year for moment in table["creation_time"].to_pylist()] == [1, 9999]

    def test_money_keeps_its_digits(self, tmp_path: Path) -> None:
        values = ["0.1", 0.1, 7, "-12345678901234567890.123456789012345678", "1.5E-3"]
        table = write(tmp_path / "a.parquet", [{"cost": value} for value in values], ["cost"])
        assert str(table.schema.field("cost").type) == "decimal128(38, 18)"
        expected = ["0.1", "0.1", "7", "-12345678901234567890.123456789012345678", "0.0015"]
        assert table["cost"].to_pylist() == [*map(Decimal, expected)]

    @pytest.mark.parametrize(
        ("column", "values"),
        {
            "creation_time": [
                "yesterday", "2026-11-01T00:00:00", "2026-11-01", "", 1.5, True, [], 1793491200000, 10**30, "0123",
                "9999-12-31T23:59:59-0100", -62135596801,
            ],
            "is_enabled_for_insights": ["true", 1, 0, "", {}],
            "cost": ["", "1,5", "NaN", "1_0", " 1", "0.0000000000000000001", 10**20, 1e300, "1e999", True, [1]],
            "product_count": ["many", "", 2**63, -(2**63) - 1, 1.0, True, "007", "-0", "1" * 400, [1]],
        }.items(),
    )  # fmt: skip
    def test_a_value_that_does_not_fit_is_an_error(self, tmp_path: Path, column: str, values: list[Any]) -> None:
        path = tmp_path / "a.parquet"
        path.write_text("before")
        for value in values:
            rows = [{"id": str(number), column: None} for number in range(5000)]
            rows[4321][column] = value
            with pytest.raises(UnfitValueError, match=f"^row 4322 \\(id 4321\\): {column}: ") as caught:
                write_object(Target(str(path)), rows, ["id", column])
            assert json.dumps(value)[:50] in str(caught.value)
            assert "write NDJSON" in str(caught.value)
            assert len(str(caught.value)) < 300
        assert path.read_text() == "before"

    def test_a_number_that_json_does_not_have_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_object(Target(str(tmp_path / "a.parquet")), [{"surprise": [float("nan")]}], ["surprise"])

    def test_every_column_has_one_row(self) -> None:
        names = [column.name for column in TYPED_COLUMNS]
        assert len(names) == len(set(names))


texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
values_of = {
    "name": st.none() | texts,
    "creation_time": st.none() | st.integers(-62135596800, 253402300799),
    "is_enabled_for_insights": st.none() | st.booleans(),
    "product_count": st.none() | st.integers(-(2**63), 2**63 - 1),
    "owner_business_info": json_values,
    "surprise": json_values,
}


def decode(column: str, cell: Any) -> Any:
    if cell is None or type_of(column) != "json":
        return int(cell.timestamp()) if isinstance(cell, datetime) else cell
    return json.loads(cell)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(st.lists(st.fixed_dictionaries({"id": texts}, optional=values_of), max_size=6))
def test_any_rows_survive(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    table = write(tmp_path / "a.parquet", rows, COLUMNS)
    read = [{name: decode(name, cell) for name, cell in row.items()} for row in table.to_pylist()]
    # A value that is missing, and null, are both null.
    assert read == [{name: row.get(name) for name in COLUMNS} for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(st.sampled_from(COLUMNS), st.lists(json_values, max_size=4))
def test_no_value_is_lost_without_an_error(tmp_path: Path, column: str, values: list[Any]) -> None:
    try:
        table = write(tmp_path / "a.parquet", [{column: value} for value in values], [column])
    except UnfitValueError:
        assert type_of(column) in ("truth", "number", "time")
        return
    for value, cell in zip(values, table[column].to_pylist(), strict=True):
        assert (cell is None) == (value is None)
        if type_of(column) == "text" and value is not None and not isinstance(value, str):
            assert json.loads(cell) == value
        elif isinstance(value, str) and type_of(column) in ("number", "time"):
            assert str(decode(column, cell)) == value
        else:
            assert decode(column, cell) == value


class TestSize:
    def many(self, count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield {"id": str(10**15 + number), "name": f"{number} " * 100}

    def test_rows_are_written_in_groups(self, tmp_path: Path) -> None:
        table = write(tmp_path / "a.parquet", self.many(60_000), ["id", "name"])
        assert table["id"].to_pylist() == [row["id"] for row in self.many(60_000)]
        metadata = pq.read_metadata(tmp_path / "a.parquet")
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        # The groups are as large as they may be, because readers are slow with small ones.
        assert len(sizes) > 1
        assert min(sizes[:-1]) > 20_000

    def test_large_rows_make_groups_of_few_rows(self, tmp_path: Path) -> None:
        rows = ({"id": str(number), "surprise": ["x" * 6_000_000]} for number in range(6))
        write(tmp_path / "a.parquet", rows, ["id", "surprise"])
        metadata = pq.read_metadata(tmp_path / "a.parquet")
        assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [3, 3]

    def test_the_same_rows_make_the_same_bytes(self, tmp_path: Path) -> None:
        first, second = (
            write_object(Target(str(tmp_path / folder / "a.parquet")), self.many(60_000), ["id", "name"])
            for folder in "xy"
        )
        assert first.sha256 == second.sha256

    @on_linux
    def test_memory_does_not_grow_with_the_rows(self) -> None:
        code = """
import tempfile
from airflow_provider_whatsapp.storage.target import Target

def rows(count):
    for number in range(count):
        yield {"id": str(10**15 + number * 7919), "name": f"account {number} " * 80, "owner_business_info": {"id": number}}

with tempfile.TemporaryDirectory() as folder:
    target = Target(folder + "/a.parquet")
    before = megabytes()
    for count in (25_000, 100_000):
        with target.stage(rows(count), ["id", "name", "owner_business_info"]) as staged:
            staged.publish()
        print(megabytes() - before)
"""
        output = run_measured(code)
        some, four_times_as_many = map(float, output.split())
        # The rows are 35 MB and 140 MB.
        assert four_times_as_many < 1.5 * some + 10


class TestOneTable:
    """Objects of different days and fields, and of another API version, are one table."""

    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[str]:
        monday = [{"id": "1", "name": "a", "creation_time": 1793491200, "owner_business_info": {"id": "9"}}]
        # The next version gives an object where there was a text, and the user asks for other fields in another order.
        tuesday: list[dict[str, Any]] = [
            {
                "id": "1",
                "service_pricing_policy": {"new": 1},
                "new_field": 5,
                "owner_business_info": {"id": "9", "name": "B"},
                "name": "b",
            },
            {"id": "2", "new_field": {"a": []}},
        ]
        days: list[tuple[str, list[dict[str, Any]], list[str]]] = [
            ("2026-11-02", monday, ["id", "name", "creation_time", "owner_business_info"]),
            ("2026-11-03", tuesday, ["id", "service_pricing_policy", "new_field", "owner_business_info", "name"]),
            ("2026-11-04", [], ["id", "creation_time"]),
        ]
        for day, rows, columns in days:
            write_object(Target(str(tmp_path / f"ds={day}" / "wabas.parquet")), rows, columns)
        return [str(tmp_path / f"ds={day}" / "wabas.parquet") for day, _, _ in days]

    def test_by_pyarrow(self, paths: list[str]) -> None:
        schema = pa.unify_schemas([pq.read_schema(path) for path in paths])
        table = dataset.dataset(paths, schema=schema).to_table()
        assert table.num_rows == 3
        assert table["name"].to_pylist() == ["a", "b", None]
        assert table["creation_time"].to_pylist() == [datetime(2026, 11, 1, tzinfo=timezone.utc), None, None]
        assert table["owner_business_info"].to_pylist() == ['{"id":"9"}', '{"id":"9","name":"B"}', None]
        assert table["new_field"].to_pylist() == [None, "5", '{"a":[]}']
        assert table["service_pricing_policy"].to_pylist() == [None, '{"new":1}', None]

    def test_by_duckdb(self, paths: list[str]) -> None:
        with duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            found = database.execute(
                "SELECT id, name, epoch(creation_time), owner_business_info->>'name', new_field, CAST(ds AS VARCHAR)"
                " FROM read_parquet(?, union_by_name = true, hive_partitioning = true) ORDER BY ds, id",
                [paths],
            ).fetchall()
            types = database.execute("DESCRIBE SELECT * FROM read_parquet(?, union_by_name = true)", [paths]).fetchall()
        assert found == [
            ("1", "a", 1793491200, None, None, "2026-11-02"),
            ("1", "b", None, "B", "5", "2026-11-03"),
            ("2", None, None, None, '{"a":[]}', "2026-11-03"),
        ]
        kinds = {name: kind for name, kind, *_ in types}
        assert kinds["creation_time"] == "TIMESTAMP WITH TIME ZONE"
        assert {kind for name, kind in kinds.items() if name not in ("creation_time", "ds")} == {"VARCHAR"}


class TestReadingBack:
    def rows_of(self, path: Path, **arguments: Any) -> list[dict[str, Any]]:
        return list(ObjectReader("waba_ids", str(path)).rows(**arguments))

    def test_the_columns_that_tell_an_account(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        write(path, ROWS, COLUMNS)
        assert self.rows_of(path) == [{"id": row["id"]} for row in ROWS]
        assert self.rows_of(path, columns=["name", "id"]) == [{"name": row["name"], "id": row["id"]} for row in ROWS]
        write(path, [{"waba_id": "1", "id": "2"}], ["waba_id", "id"])
        assert self.rows_of(path) == [{"id": "2", "waba_id": "1"}]

    def test_many_groups(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "GROUP_BYTES", 20_000)
        path = tmp_path / "a.parquet"
        write(path, [{"id": str(number)} for number in range(10_000)], ["id"])
        assert pq.read_metadata(path).num_row_groups > 3
        assert [row["id"] for row in self.rows_of(path)] == [str(number) for number in range(10_000)]

    def test_no_rows(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", [], COLUMNS)
        assert self.rows_of(tmp_path / "a.parquet") == []

    def test_what_another_tool_wrote(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        moment = pa.array([1], pa.timestamp("ns"))
        pq.write_table(pa.table({"id": pa.array([10**15], pa.int64()), "moment": moment}), path)
        assert self.rows_of(path) == [{"id": 10**15}]

    def test_no_column_with_an_id(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", ROWS, ["name"])
        with pytest.raises(ValueError, match="cannot be read as parquet after row 0 .it has no column id or waba_id"):
            self.rows_of(tmp_path / "a.parquet")

    def test_no_such_object(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="there is no object"):
            self.rows_of(tmp_path / "a.parquet")

    def test_a_long_text_that_is_the_value_of_all_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        names = pa.DictionaryArray.from_arrays([0, None, *[0] * 500], ["x" * 500_000])
        pq.write_table(pa.table({"id": list(map(str, range(502))), "name": names}), path, store_schema=False)
        tracemalloc.start()
        try:
            lengths = [len(row["name"] or "") for row in ObjectReader("waba_ids", str(path)).rows(["id", "name"])]
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
        finally:
            tracemalloc.stop()
        assert lengths == [500_000, 0, *[500_000] * 500]

    @pytest.mark.parametrize(
        ("values", "options", "reason"),
        [
            (["x" * (70 << 20)], {"compression": "zstd"}, "the columns of a row group have more than 64 MiB"),
            ([["x"]], {}, "the column name is nested, which this package does not write"),
            (
                ["abc", "abd"],
                {"column_encoding": "DELTA_BYTE_ARRAY", "use_dictionary": False},
                "a column has the encoding DELTA_BYTE_ARRAY",
            ),
        ],
        ids=["size", "nested", "encoding"],
    )
    def test_what_would_fill_the_memory(
        self, tmp_path: Path, values: list[Any], options: dict[str, Any], reason: str
    ) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"name": values, "id": ["1"] * len(values)}), path, **options)
        if "encoding" not in reason:
            assert self.rows_of(path) == [{"id": "1"}]
        with pytest.raises(ValueError, match=f"cannot be read as parquet after row 0 .{reason}"):
            self.rows_of(path, columns=None)

    def test_a_footer_that_is_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1" + (17 << 20).to_bytes(4, "little") + b"PAR1")
        with pytest.raises(ValueError, match="its footer is too large"):
            self.rows_of(tmp_path / "a.parquet")

    @on_linux
    def test_a_large_row_group_is_read_in_parts(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        count = 120_000
        names = pa.array([os.urandom(200).hex() for _ in range(count)])
        table = pa.table({"id": [str(number) for number in range(count)], "name": names})
        pq.write_table(table, path, row_group_size=count, compression="none", use_dictionary=False)
        code = f"""
from airflow_provider_whatsapp.storage.reader import ObjectReader

reader = ObjectReader("waba_ids", {str(path)!r})
before = megabytes()
assert sum(1 for _ in reader.rows(["id", "name"])) == {count}
print(megabytes() - before)
"""
        output = run_measured(code)
        assert float(output) < path.stat().st_size / 1e6 * 0.7

    def test_damaged_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        write(path, [{"id": str(number)} for number in range(1000)], ["id"])
        whole = path.read_bytes()
        middle = len(whole) // 3
        for damaged in (
            b"",
            b'{"id": "1"}\n',
            whole[:-1],
            whole[: len(whole) // 2],
            b"PAR1" + whole[-8:],
            whole[:4] + b"\xff" * 30 + whole[34:],
            whole[:middle] + bytes(50) + whole[middle + 50 :],
        ):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"^waba_ids: .* cannot be read as parquet after row \d+ \("):
                self.rows_of(path)


class TestRefusals:
    @pytest.mark.parametrize("arguments", [{}, {"format": "parquet"}])
    def test_gzip_around_parquet(self, tmp_path: Path, arguments: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="^output_path: .*compressed internally.*leave out .gz"):
            Target(str(tmp_path / "a.parquet.gz"), **arguments)
        with pytest.raises(ValueError, match="^waba_ids: .*leave out .gz"):
            ObjectReader("waba_ids", str(tmp_path / "a.parquet.gz"), **arguments)

    def test_another_format_may_have_any_name(self, tmp_path: Path) -> None:
        assert Target(str(tmp_path / "a.parquet.gz"), format="ndjson").format == "ndjson"
        assert Target(str(tmp_path / "a.data"), format="parquet").format == "parquet"

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.delitem(sys.modules, "pyarrow.parquet")
        advice = r'Parquet needs pyarrow; pip install "airflow-provider-whatsapp\[parquet\]"'
        with pytest.raises(ValueError, match=f"^output_path: {advice}"):
            Target(str(tmp_path / "a.parquet"))
        with pytest.raises(ValueError, match=f"^output_format: {advice}"):
            Target(str(tmp_path / "a"), format="parquet")
        with pytest.raises(ValueError, match=f"^waba_ids: {advice}"):
            ObjectReader("waba_ids", str(tmp_path / "a.parquet"))
        assert write_object(Target(str(tmp_path / "a.csv")), ROWS, COLUMNS).count == 2

    def test_the_errors_name_the_format(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"or \.parquet, or give output_format"):
            Target(str(tmp_path / "a.orc"))
        with pytest.raises(ValueError, match="'parquet'"):
            Target(str(tmp_path / "a"), format="orc")
