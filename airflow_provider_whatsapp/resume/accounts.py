"""Resumes a listing of an edge of many accounts that an earlier try of the task has started.

Only accounts that were read completely are checkpointed: an account has few pages, so reading it again takes few calls.
A line that describes the account precedes its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_whatsapp.hooks._waba_edge import ReadAccount
from airflow_provider_whatsapp.resume.files import RowsLostError

if TYPE_CHECKING:
    from airflow_provider_whatsapp.resume.checkpoint import Checkpoint


def find_accounts(checkpoint: Checkpoint) -> Iterator[tuple[ReadAccount, Iterator[dict[str, Any]]]]:
    """Yield the accounts in the checkpoint, each with its rows, which must be consumed before the next account.

    :param checkpoint: provides the rows of the earlier try
    :raises RowsLostError: if some of them can no longer be read
    """
    if not checkpoint.has_rows:
        return
    lines = checkpoint.rows()
    seen: set[str] = set()
    for line in lines:
        account = _parse_account(line)
        if account.waba_id in seen:
            raise RowsLostError("an account occurs twice in the checkpoint")
        seen.add(account.waba_id)
        yield account, _take(lines, account.count)


def keep_account(checkpoint: Checkpoint, account: ReadAccount, rows: Iterator[dict[str, Any]]) -> None:
    """Add a completely read account to the checkpoint.

    :param checkpoint: stores the rows
    :param account: the account
    :param rows: its rows
    """
    # Progress is the number of accounts read, not a position: an earlier try may have read accounts that come later.
    checkpoint.add(chain([asdict(account)], rows), position=None, progress=checkpoint.progress + 1)


def _parse_account(line: dict[str, Any]) -> ReadAccount:
    with suppress(msgspec.ValidationError):
        account = msgspec.convert(line, ReadAccount)
        # Another version of the package may have stored more fields.
        if asdict(account) == line and account.waba_id and account.count >= 0:
            return account
    raise RowsLostError("a line of the checkpoint does not describe an account")


def _take(lines: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    taken = 0
    for row in islice(lines, count):
        taken += 1
        yield row
    if taken != count:
        raise RowsLostError(f"expected {count} checkpointed rows for an account, found {taken}")
