"""Stores rows on the worker's disk until it is their turn.

Accounts that are read concurrently end in any order, but their rows are yielded in the order of the accounts. While one
account waits for its rate limit, thousands of others may be read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from airflow_provider_whatsapp.storage.formats import Row
from airflow_provider_whatsapp.storage.json_text import encode_json


class Spool:
    """Rows by account, and a summary of each account that was read completely.

    They are stored in an unnamed SQLite database, which is kept in memory while it is small and then in a temporary
    file. The file disappears with the process, even if that is killed.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # There is nothing to recover, so no journal is needed.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE chunks (number INTEGER PRIMARY KEY, waba_id TEXT, chunk TEXT)")
        self._database.execute("CREATE INDEX by_account ON chunks (waba_id)")
        self._database.execute("CREATE TABLE ends (waba_id TEXT PRIMARY KEY, summary TEXT)")
        self._database.execute("BEGIN")

    def close(self) -> None:
        """Drop all rows."""
        self._database.close()

    def add(self, waba_id: str, rows: Sequence[Row]) -> None:
        """Append rows of an account.

        :param waba_id: id of the account
        :param rows: rows as JSON
        """
        self._database.execute("INSERT INTO chunks (waba_id, chunk) VALUES (?, ?)", (waba_id, encode_json(rows)))

    def end(self, waba_id: str, summary: dict[str, Any]) -> None:
        """Mark an account as complete.

        :param waba_id: id of the account
        :param summary: summary to store, as JSON
        """
        self._database.execute("INSERT INTO ends VALUES (?, ?)", (waba_id, json.dumps(summary)))

    def summary(self, waba_id: str) -> dict[str, Any] | None:
        """Return the summary of an account, or None if it is not complete.

        :param waba_id: id of the account
        """
        found = self._database.execute("SELECT summary FROM ends WHERE waba_id = ?", (waba_id,)).fetchone()
        summary: dict[str, Any] | None = json.loads(found[0]) if found else None
        return summary

    def rows(self, waba_id: str) -> Iterator[Row]:
        """Yield the rows of an account, in the order in which they were added.

        :param waba_id: id of the account
        """
        chunks = "SELECT chunk FROM chunks WHERE waba_id = ? ORDER BY number"
        for (chunk,) in self._database.execute(chunks, (waba_id,)):
            yield from msgspec.json.decode(chunk)

    def remove(self, waba_id: str) -> None:
        """Forget an account and its rows.

        :param waba_id: id of the account
        """
        for table in ("chunks", "ends"):
            self._database.execute(f"DELETE FROM {table} WHERE waba_id = ?", (waba_id,))  # noqa: S608  # constants
