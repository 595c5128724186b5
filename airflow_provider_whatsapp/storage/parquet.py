"""Writes and reads Parquet, with only a small part of the rows in memory.

pyarrow is loaded only if an object is Parquet: it takes about 50 MB, and most tasks do not need it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from airflow_provider_whatsapp.storage.columns import UnfitValueError, encoder_of, type_of

Row = dict[str, Any]
# Size of a row group before it is encoded and compressed. Readers prefer large groups, but the writer keeps one in
# memory.
GROUP_BYTES = 16 * 1024 * 1024
# Python objects take several times the memory of Arrow's, so they are converted in small batches.
_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 512 * 1024
_BYTES_AT_ONCE = 1024 * 1024
# Maximum size of the requested columns of a row group, uncompressed. Row groups of this package have a quarter.
_LARGEST_GROUP = 64 * 1024 * 1024
# A footer has some hundred bytes for each column of each row group.
_LARGEST_FOOTER = 16 * 1024 * 1024
# The size of the footer, and the letters PAR1.
_FOOTER_END_BYTES = 8
# The compact protocol of Thrift: the next field is a number, in groups of seven bits.
_NEXT_NUMBER = 0x15
_PAGE_HEADER_BYTES = 16
_DICTIONARY_PAGE = 2


def require_pyarrow(argument: str) -> None:
    """Check that Parquet can be written and read here.

    :param argument: name of the argument that requests Parquet, for the error
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
            if size >= GROUP_BYTES:
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


def read_parquet(file: BinaryIO, columns: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of a Parquet file, with the values of only a few in memory.

    :param file: a seekable file on this machine
    :param columns: names of the columns to read, or None for all; columns missing in the file are missing in the rows
    :raises ValueError: if the file is not Parquet, is damaged, has none of the columns, or would take too much memory
    """
    import pyarrow as pa
    from pyarrow import parquet as pq

    _check_footer(file)
    try:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
        names = schema.names
        there = names if columns is None else [column for column in columns if column in names]
        if columns is not None and not there:
            raise ValueError(f"it has no column {' or '.join(columns)}")
        for column in there:
            if pa.types.is_nested(schema.field(column).type):
                raise ValueError(f"the column {column} is nested, which this package does not write")
        # Use buffers and no prefetch: otherwise all bytes of a row group would be read at once, whatever their size.
        with pq.ParquetFile(file, metadata=metadata, buffer_size=_BYTES_AT_ONCE, pre_buffer=False) as parquet:
            for group in range(metadata.num_row_groups):
                batches = parquet.iter_batches(
                    batch_size=_rows_at_once(file, metadata.row_group(group), there),
                    row_groups=[group],
                    columns=there,
                    use_threads=False,
                )
                for batch in batches:
                    yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"it is not Parquet, or it is corrupted: {type(error).__name__}") from None


def _check_footer(file: BinaryIO) -> None:
    """Check the size of the footer, which pyarrow decodes as a whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _FOOTER_END_BYTES))
    if int.from_bytes(file.read(4), "little") > _LARGEST_FOOTER:
        raise ValueError("it is not Parquet, or its footer is too large")


def _rows_at_once(file: BinaryIO, group: Any, columns: Sequence[str]) -> int:
    """Return how many rows of a row group can be in memory at once.

    :raises ValueError: if the group cannot be read within bounds
    """
    read = [column for column in map(group.column, range(group.num_columns)) if column.path_in_schema in columns]
    if sum(column.total_uncompressed_size for column in read) > _LARGEST_GROUP:
        raise ValueError(f"the columns of a row group have more than {_LARGEST_GROUP >> 20} MiB")
    # In this encoding, a value begins with a part of the one before it, so few bytes can become many long values.
    if any("DELTA_BYTE_ARRAY" in column.encodings for column in read):
        raise ValueError("a column has the encoding DELTA_BYTE_ARRAY, which this package does not write")
    # All rows can have the same value of a dictionary, and that value can be as large as the dictionary.
    dictionaries = sum(_size_of_dictionary(file, column) for column in read)
    return max(1, min(_BATCH_ROWS, _LARGEST_GROUP // max(1, dictionaries)))


def _size_of_dictionary(file: BinaryIO, column: Any) -> int:
    """Return the size of the dictionary of a column in a row group, or 0 if it has none.

    The header of the first page begins with the page's type and its uncompressed size.
    https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
    """
    file.seek(column.dictionary_page_offset or column.data_page_offset)
    header = iter(file.read(_PAGE_HEADER_BYTES))
    numbers = []
    for _ in range(2):
        if next(header, 0) != _NEXT_NUMBER:
            raise ValueError("it is corrupted")
        number = shift = 0
        for byte in header:
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers.append(number >> 1)
    kind, size = numbers
    return size if kind == _DICTIONARY_PAGE else 0
