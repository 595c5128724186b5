"""Stores the rows of an unfinished listing beside its target, so that a later process can resume it.

The rows are stored in *parts* in a folder beside the target. The names of the folder and the parts begin with ``_``,
because Spark, Athena and Trino skip such files, and have a different suffix from the target, so that ``*.ndjson`` does
not match them. Each part appears whole or not at all, and begins with the state of the listing after its last row.

Each part names its predecessor, because a process that Airflow considers dead may still write parts among those of its
retry.
"""

from __future__ import annotations

import gzip
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from airflow_provider_whatsapp.resume.published import record_path
from airflow_provider_whatsapp.storage.formats import GZIP, Row
from airflow_provider_whatsapp.storage.json_text import encode_rows
from airflow_provider_whatsapp.storage.names import hidden_path
from airflow_provider_whatsapp.storage.row_texts import read_ndjson
from airflow_provider_whatsapp.storage.staging import StagingFolder
from airflow_provider_whatsapp.storage.store import Store

log = logging.getLogger(__name__)

# Cursors expire. Meta calls them short-lived and gives no lifetime.
_SECONDS_TO_LIVE = 24 * 3600


class RowsLostError(Exception):
    """Checkpointed rows can no longer be read, so the listing must start again."""


class CheckpointFiles:
    """The checkpointed rows of one listing, to which more can be added.

    The parts of other listings of the same target are removed when the first part is written or :meth:`clear` is
    called, because nothing else would remove them.

    :param store: store of the target
    :param key: path of the target within the store
    :param owner: identifies the listing among others of the same target; letters and digits
    """

    def __init__(self, store: Store, key: str, *, owner: str) -> None:
        self._store = store
        self._key = key
        self._folder = hidden_path(key, "airflow-parts")
        self._owner = owner
        self._staging: StagingFolder | None = None
        self._file: BinaryIO | None = None
        self._kept = 0
        self._last = ""
        #: State of the listing after the last row that :meth:`find` found, or None if it found none.
        self.state: dict[str, Any] | None = None

    def find(self) -> None:
        """Look for parts that an earlier process stored for this listing, and load their state.

        :raises OSError: if the store cannot be listed or read
        """
        numbers = sorted(
            number for name in self._store.names(self._folder) if (number := self._number(name)) is not None
        )
        if not numbers or numbers != list(range(1, len(numbers) + 1)):
            return
        try:
            state = next(self._lines(len(numbers)))
            if time.time() - state["kept_at"] < _SECONDS_TO_LIVE:
                self.state, self._kept, self._last = state, len(numbers), state["part"]
        except (RowsLostError, StopIteration, KeyError, TypeError):
            log.warning("The checkpoint in %s cannot be read; the listing starts again", self._folder)

    def rows(self) -> Iterator[Row]:
        """Yield the checkpointed rows, in order.

        :raises RowsLostError: if a part is missing, cannot be read, is corrupted or is from another process
        """
        before = ""
        for number in range(1, self._kept + 1):
            lines = self._lines(number)
            state = next(lines, {})
            if state.get("follows") != before:
                raise RowsLostError(f"part {number} in {self._folder} does not follow the part before it")
            before = state.get("part", "")
            yield from lines
        if before != self._last:
            raise RowsLostError(f"the last part in {self._folder} was replaced")

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows; they are stored when :meth:`keep` is called."""
        if self._staging is None:
            self._staging = StagingFolder()
        if self._file is None:
            # Compress only when a part is due, because most listings finish before the first one.
            self._file = self._added.open("wb")
        for lines in encode_rows(rows):
            self._file.write(lines)

    def keep(self, state: dict[str, Any]) -> None:
        """Write the rows that were added as a new part.

        :param state: state of the listing after the last of them, as JSON
        :raises OSError: if the store failed; the added rows are then dropped
        """
        # There may be no new rows.
        self.add(())
        self._finish_file()
        part = secrets.token_hex(8)
        first = {**state, "kept_at": time.time(), "part": part, "follows": self._last}
        compressed = self._added.with_suffix(".gz")
        with self._added.open("rb") as lines, gzip.GzipFile(compressed, "wb", compresslevel=1) as file:
            file.writelines(encode_rows([first]))
            shutil.copyfileobj(lines, file)
        if not self._kept:
            self._store.remove_folder(self._folder)
            self._check_removal()
        name = f"{self._folder}/_{self._owner}-{self._kept + 1:05}"
        self._store.upload(compressed, name, content_type=GZIP, owner=self._owner)
        self._kept += 1
        self._last = part

    def forget(self) -> None:
        """Start again with the first row. The parts stay until the first new one is written."""
        self._kept, self._last, self.state = 0, "", None

    def clear(self) -> None:
        """Forget all rows, and remove all parts of the target.

        :raises OSError: if the store failed
        """
        self.close()
        self.forget()
        self._store.remove_folder(self._folder)

    def close(self) -> None:
        """Drop the rows that were added but not stored."""
        self._finish_file()
        if self._staging is not None:
            self._staging.remove()
            self._staging = None

    @property
    def _added(self) -> Path:
        return cast("StagingFolder", self._staging).path / "part"

    def _number(self, name: str) -> int | None:
        match = re.fullmatch(rf"_{self._owner}-([0-9]{{5,9}})", name)
        return int(match[1]) if match else None

    def _lines(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield the state at the end of a part, and its rows."""
        try:
            with self._store.open(f"{self._folder}/_{self._owner}-{number:05}") as file, gzip.open(file) as lines:
                for line in read_ndjson(lines):
                    if not isinstance(line, dict):
                        raise ValueError("a row is not an object")
                    yield line
        except Exception as error:
            # Whatever it is, the rows can be read from the API again. The message of the error can contain a secret.
            problem = f"part {number} in {self._folder} cannot be read ({type(error).__name__})"
            raise RowsLostError(problem) from None

    def _check_removal(self) -> None:
        """Make sure that what is written here can be removed.

        :raises OSError: if it cannot
        """
        # Where nothing can be removed, the file stays. Then it should be the one that will be there anyway: the record.
        # But the record of an object that exists must not be touched, because other tasks read it.
        path = record_path(self._key)
        if self._store.exists(path):
            path = f"{self._folder}/_check"
        with StagingFolder() as folder:
            empty = folder / "check"
            empty.touch()
            self._store.upload(empty, path, content_type="application/octet-stream", owner=self._owner)
        self._store.remove(path)

    def _finish_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
