"""Rows as one object in object storage: whole, or not at all.

The object is made on the worker's disk and published when it is complete. A store that is written to while the rows
still come would have to take back what it has when they stop coming, and not every store can.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

Row = dict[str, Any]

# Stores in which an upload becomes visible only when it is complete. Elsewhere it goes beside its place first.
_WHOLE_UPLOADS = frozenset({"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"})
_LEFTOVER_SECONDS = 3600
# Python's and JavaScript's readers take these for line ends, which JSON allows within a text.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The object as it lies in the store.

    :param uri: where
    :param format: of the rows in it
    :param count: of the rows
    :param bytes: its size
    :param sha256: of its bytes, in hex
    """

    uri: str
    format: str
    count: int
    bytes: int
    sha256: str


class Target:
    """A place in object storage and the format of what goes there, checked.

    :param path: any ``ObjectStoragePath`` URL
    :param conn_id: connection of the store; default the one in the URL, or the store's own default
    :param format: ``ndjson``, ``jsonl``, ``json`` or ``csv``; default by the suffix. A path that ends in ``.gz``
        is compressed
    :raises ValueError: an unknown format or suffix, no name, credentials in the URL, a store that is not installed
    """

    def __init__(self, path: str, *, conn_id: str | None = None, format: str | None = None) -> None:
        # Here, since it loads fsspec.
        from airflow.sdk import ObjectStoragePath
        from fsspec import AbstractFileSystem

        if not isinstance(path, str) or not path.strip():
            raise ValueError(f"output_path: {path!r} is not a path; a right one looks like 's3://bucket/wabas.ndjson'")
        path = path.strip()
        scheme, host = urlsplit(path).scheme, urlsplit(path).netloc
        if ("://" not in path and not path.startswith("/")) or (scheme in ("file", "local") and host):
            raise ValueError(
                f"output_path: {path!r} is neither a URL nor an absolute path; right ones look like "
                "'s3://bucket/wabas.ndjson' and 'file:///data/wabas.ndjson'"
            )
        if ":" in host.rpartition("@")[0]:
            raise ValueError(
                "output_path: has a password in it; put that in a connection and name it by output_conn_id"
            )
        self.format = _format_of(path, format)
        self._compressed = path.lower().endswith(".gz")
        try:
            self._path = ObjectStoragePath(path, **({"conn_id": conn_id} if conn_id else {}))
            self._fs = self._path.fs
        except (ImportError, ValueError, KeyError) as error:
            raise ValueError(
                f"output_path: no storage is installed for {scheme}:// ({error}); "
                f"install the provider that brings it{_STORAGE_HINTS.get(scheme, '')}"
            ) from error
        self._local = "file" in _protocols(self._fs)
        self._key = os.path.abspath(self._path.path) if self._local else str(self._path.path)
        if self._local:
            _check_writable(self._key)
        elif not _protocols(self._fs) & _WHOLE_UPLOADS and type(self._fs).mv is AbstractFileSystem.mv:
            raise ValueError(
                f"output_path: {scheme}:// neither shows uploads only when they are complete nor moves an object into "
                "place in one step, so half an object could be seen there; write to another store"
            )
        if self._fs.isdir(self._key):
            raise ValueError(
                f"output_path: {path!r} is a folder; name the object too, e.g. {path.rstrip('/')}/wabas.ndjson"
            )

    @property
    def uri(self) -> str:
        """Where the object lies or will lie."""
        return f"file://{self._key}" if self._local else str(self._path)

    def exists(self) -> bool:
        """Whether an object is there already."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._key))

    def write(
        self,
        rows: Iterable[Row],
        columns: Sequence[str],
        *,
        before_publish: Callable[[int], object] = lambda count: None,
    ) -> StoredObject:
        """Write the rows; whatever fails, what was there before stays.

        :param rows: read once, one at a time
        :param columns: the first columns of a CSV; keys that only rows have follow
        :param before_publish: is told the number of rows before the object appears, and may raise to keep it from that
        :raises OSError: the disk or the store failed
        """
        with tempfile.TemporaryDirectory(prefix="airflow-whatsapp-") as folder:
            staged = Path(folder, "object")
            counter = _Counter(rows)
            with _text_file(staged, compressed=self._compressed) as text:
                _WRITERS[self.format](counter, text, columns)
            before_publish(counter.count)
            stored = StoredObject(self.uri, self.format, counter.count, staged.stat().st_size, _sha256(staged))
            self._publish(staged, stored.bytes)
        return stored

    def _publish(self, staged: Path, size: int) -> None:
        if self._local:
            self._publish_locally(staged)
            return
        if _protocols(self._fs) & _WHOLE_UPLOADS:
            self._fs.put_file(str(staged), self._key)
        else:
            self._publish_beside(staged)
        self._fs.invalidate_cache()
        stored = self._fs.info(self._key).get("size")
        if stored is not None and stored != size:
            raise OSError(f"{self.uri} holds {stored} bytes after {size} were written")

    def _publish_locally(self, staged: Path) -> None:
        # Where the path is a link, what it leads to is replaced, not the link.
        target = Path(os.path.realpath(self._key))
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        beside = target.with_name(_beside(target.name))
        try:
            with staged.open("rb") as source, beside.open("xb") as sink:
                with suppress(FileNotFoundError):
                    shutil.copymode(target, beside)
                shutil.copyfileobj(source, sink, 1024 * 1024)
                sink.flush()
                os.fsync(sink.fileno())
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)

    def _publish_beside(self, staged: Path) -> None:
        parent, _, name = self._key.rpartition("/")
        beside = f"{parent}/{_beside(name)}"
        self._fs.makedirs(parent, exist_ok=True)
        try:
            self._fs.put_file(str(staged), beside)
            self._fs.mv(beside, self._key)
            if self._fs.exists(beside):
                raise OSError(f"{self.uri} could not be replaced by {beside}")
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(beside)
            raise


_STORAGE_HINTS = {
    "s3": ", apache-airflow-providers-amazon[s3fs]",
    "s3a": ", apache-airflow-providers-amazon[s3fs]",
    "gs": ", apache-airflow-providers-google",
    "gcs": ", apache-airflow-providers-google",
    "abfs": ", apache-airflow-providers-microsoft-azure",
    "abfss": ", apache-airflow-providers-microsoft-azure",
    "adl": ", apache-airflow-providers-microsoft-azure",
    "sftp": ", apache-airflow-providers-sftp[sshfs]",
}
_FORMATS = {"ndjson": "ndjson", "jsonl": "ndjson", "json": "json", "csv": "csv"}


def _format_of(path: str, format: str | None) -> str:
    if format is not None:
        if format not in _FORMATS:
            raise ValueError(
                f"output_format: {format!r} is not one of {', '.join(map(repr, _FORMATS))}; "
                "it is compressed where output_path ends in .gz"
            )
        return _FORMATS[format]
    name = path.rpartition("/")[2].lower().removesuffix(".gz")
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix not in _FORMATS:
        raise ValueError(
            f"output_path: the suffix of {path!r} names no format; a right one is .ndjson, .jsonl, .json or .csv "
            "(each also .gz), or give output_format"
        )
    return _FORMATS[suffix]


def _check_writable(key: str) -> None:
    # Better now than after the whole listing.
    existing = next(parent for parent in Path(os.path.realpath(key)).parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"output_path: nothing can be written below {str(existing)!r} by this worker")


def _protocols(fs: Any) -> frozenset[str]:
    return frozenset({fs.protocol} if isinstance(fs.protocol, str) else fs.protocol)


def _beside(name: str) -> str:
    return f"{_beside_prefix(name)}{secrets.token_hex(8)}.tmp"


def _beside_prefix(name: str) -> str:
    # Of the same length for any name: one of 255 bytes could not grow.
    return f".airflow-whatsapp-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"


def _remove_leftovers(target: Path) -> None:
    # A worker that is killed while it publishes leaves its copy; one that still publishes has touched its own lately.
    for leftover in target.parent.glob(f"{_beside_prefix(target.name)}*.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                leftover.unlink()


class _Counter:
    def __init__(self, rows: Iterable[Row]) -> None:
        self.count = 0
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


@contextmanager
def _text_file(path: Path, *, compressed: bool) -> Iterator[TextIO]:
    with path.open("wb") as file:
        if not compressed:
            with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
                yield text
            return
        # Without a name and a time in it, the same rows make the same bytes.
        with (
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as body,
            io.TextIOWrapper(body, encoding="utf-8", newline="") as text,
        ):
            yield text


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if not text.isascii():
        for char, escape in _LINE_ENDS.items():
            text = text.replace(char, escape)
    return text


def _write_ndjson(rows: Iterable[Row], file: TextIO, columns: Sequence[str]) -> None:
    for row in rows:
        file.write(_json(row) + "\n")


def _write_json(rows: Iterable[Row], file: TextIO, columns: Sequence[str]) -> None:
    separator = "\n"
    file.write("[")
    for row in rows:
        file.write(separator + _json(row))
        separator = ",\n"
    file.write("\n]\n")


def _write_csv(rows: Iterable[Row], file: TextIO, columns: Sequence[str]) -> None:
    # Twice over the rows: only after the last one is known which columns there are.
    header = dict.fromkeys(columns)
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as spool:
        for row in rows:
            header.update(dict.fromkeys(row))
            spool.write(_json(row) + "\n")
        spool.seek(0)
        writer = csv.writer(file)
        writer.writerow(header)
        for line in spool:
            row = json.loads(line)
            writer.writerow([_cell(row.get(column)) for column in header])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value)


_WRITERS: dict[str, Callable[[Iterable[Row], TextIO, Sequence[str]], None]] = {
    "ndjson": _write_ndjson,
    "json": _write_json,
    "csv": _write_csv,
}
