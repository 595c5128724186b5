"""Accounts of a sandbox with phone numbers that a test knows, and what was asked about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.sandbox import GraphSandbox

_COUNTS = (2, 0, 1, 3)
#: Position of the account that has two pages of phone numbers.
LONG_ACCOUNT = 5


def give_numbers(sandbox: GraphSandbox, *, most: int = 130) -> None:
    """Give a few phone numbers to each account, and none to some.

    :param most: number of those that one of the accounts has
    """
    for position, account in enumerate(sandbox.accounts):
        count = most if position == LONG_ACCOUNT else _COUNTS[position % len(_COUNTS)]
        account["phone_numbers"] = [
            {
                "id": f"{account['id']}{number:03}",
                "display_phone_number": f"+1 555-{position:04}-{number:03}",
                "verified_name": f"Number {number}, of “{position}”",
                "quality_rating": "GREEN",
            }
            for number in range(count)
        ]


def ids_of(sandbox: GraphSandbox) -> list[str]:
    """The ids of all client accounts, in order."""
    return [account["id"] for account in sandbox.accounts]


def numbers_of(sandbox: GraphSandbox, *without: str) -> list[dict[str, Any]]:
    """The rows that a listing of the phone numbers must give.

    :param without: ids of accounts that are left out
    """
    return [
        {"waba_id": account["id"], **number}
        for account in sandbox.accounts
        if account["id"] not in without
        for number in account["phone_numbers"]
    ]


def asked_for(sandbox: GraphSandbox) -> list[str]:
    """The ids of the accounts whose edges were requested, in the order of the requests, refused ones included."""
    return [request.path.strip("/").split("/")[-2] for request in sandbox.requests]


def names_in(target: Path) -> set[str]:
    """The names of all that lies beside the target, with it."""
    return set(os.listdir(target.parent)) if target.parent.exists() else set()
