"""Writes and reads Parquet, with only a small part of the rows in memory.

pyarrow is loaded only if an object is Parquet: it takes about 50 MB, and most tasks do not need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.storage.columns import UnfitValueError, encoder_of, type_of

Row = dict[str, Any]
# Size of a row group before it is encoded and compressed. Readers prefer large groups, but the writer keeps one in
# memory.
_GROUP_BYTES = 16 * 1024 * 1024
# Python objects take several times the memory of Arrow's, so they are converted in small batches.
_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 512 * 1024
_BYTES_AT_ONCE = 1024 * 1024
# The ids of ten million accounts in one row group take half of this. More could exhaust the worker's memory.
_LARGEST_COLUMN = 512 * 1024 * 1024


def require_pyarrow(argument: str) -> None:
    """Check that Parquet can be written and read here.

    :param argument: name of the argument that asks for Parquet, for the error
    :raises ValueError: if pyarrow is missing or cannot be loaded
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f'{argument}: Parquet needs pyarrow; pip install "airflow-provider-whatsapp[parquet]" on the workers '
            f"({error})"
        ) from None


def write_parquet(rows: Iterable[Row], path: Path, columns: Sequence[str]) -> None:
    """Write the rows to a new file. The same rows and pyarrow version give the same bytes.

    :param rows: rows to write; consumed once, lazily
    :param path: file to write
    :param columns: names of the columns; other keys of a row are left out
    :raises UnfitValueError: if a value does not fit its column; the message names the row and the column
    """
    import pyarrow as pa
    from pyarrow import parquet as pq

    types = {
        "text": pa.string(),
        "truth": pa.bool_(),
        "number": pa.int64(),
        "decimal": pa.decimal128(38, 18),
        "time": pa.timestamp("us", tz="UTC"),
        "json": pa.string(),
    }
    schema = pa.schema([(column, types[type_of(column)]) for column in columns])
    # With zstd, accounts take half the space that they take with snappy, in the same time, and today's engines read
    # both. Arrow's own copy of the schema is left out, because it duplicates Parquet's.
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
        group: list[Any] = []
        size = 0
        for cells in _cells_in_batches(rows, columns):
            batch = pa.record_batch(
                [pa.array(values, field.type) for values, field in zip(cells, schema, strict=True)], schema=schema
            )
            group.append(batch)
            size += batch.nbytes
            if size >= _GROUP_BYTES:
                _write_group(writer, pa.Table.from_batches(group))
                group, size = [], 0
        if group:
            _write_group(writer, pa.Table.from_batches(group))


def _write_group(writer: Any, table: Any) -> None:
    writer.write_table(table, row_group_size=table.num_rows)


def _cells_in_batches(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[list[list[Any]]]:
    """Yield the cells of the rows in batches, column by column."""
    cells: list[list[Any]] = [[] for _ in columns]
    # Look up the methods once, not for each cell.
    makers = [(column, encoder_of(column), cells[index].append) for index, column in enumerate(columns)]
    count = characters = 0
    for number, row in enumerate(rows, start=1):
        for column, encode, append in makers:
            value = row.get(column)
            if value is not None:
                try:
                    value = encode(value)
                except UnfitValueError as error:
                    raise _explain(error, number, row, column) from None
                if isinstance(value, str):
                    characters += len(value)
            append(value)
        count += 1
        if count == _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield cells
            for values in cells:
                values.clear()
            count = characters = 0
    if count:
        yield cells


def _explain(error: UnfitValueError, number: int, row: Row, column: str) -> UnfitValueError:
    identity = f" (id {row['id'][:40]})" if isinstance(row.get("id"), str) else ""
    return UnfitValueError(
        f"row {number}{identity}: {column}: {error}, as the Parquet column must have; leave the field out of fields, "
        "or write NDJSON, which holds any value"
    )


def read_parquet(file: Any, columns: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of a Parquet file, with the values of only a few in memory.

    :param file: a seekable binary file
    :param columns: names of the columns to read, or None for all; columns missing in the file are missing in the rows
    :raises ValueError: if the file is not Parquet, is damaged, or has none of the columns
    :raises OSError: if the file cannot be read
    """
    import pyarrow as pa
    from pyarrow import parquet as pq

    watched = _WatchedFile(file)
    try:
        # Use buffers and no prefetch: otherwise all bytes of a row group would be read at once, whatever their size.
        with pq.ParquetFile(watched, buffer_size=_BYTES_AT_ONCE, pre_buffer=False) as parquet:
            names = parquet.schema_arrow.names
            there = names if columns is None else [column for column in columns if column in names]
            if columns is not None and not there:
                raise ValueError(f"it has no column {' or '.join(columns)}")
            for group in range(parquet.num_row_groups):
                _check_size(parquet.metadata.row_group(group), there)
                batches = parquet.iter_batches(
                    batch_size=_BATCH_ROWS, row_groups=[group], columns=there, use_threads=False
                )
                for batch in batches:
                    yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        # pyarrow raises a plain OSError for corrupted bytes, which is not the store's fault.
        if watched.has_failed:
            raise
        raise ValueError(f"it is not Parquet, or it is corrupted: {type(error).__name__}") from None


def _check_size(group: Any, columns: Sequence[str]) -> None:
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema in columns and column.total_uncompressed_size > _LARGEST_COLUMN:
            raise ValueError(f"the column {column.path_in_schema} of a row group is too large")


class _WatchedFile:
    """A file that remembers whether reading it has failed."""

    def __init__(self, file: Any) -> None:
        self.has_failed = False
        self._file = file

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._file.read(size))
        except Exception:
            self.has_failed = True
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
