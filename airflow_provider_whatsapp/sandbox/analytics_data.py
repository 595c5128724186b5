"""What all made-up analytics share: the days of a window, how days are grouped, and numbers that never change.

Every number comes from the seed, the account, the day and what is counted. So the same window always gives the same
numbers, and the numbers of shorter windows add up to those of longer ones. Days are those of UTC.

https://developers.facebook.com/documentation/business-messaging/whatsapp/analytics
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import datetime, timezone

from airflow_provider_whatsapp.transport import clock

from .account_read import AccountRead
from .http_exchange import ApiError
from .sample_accounts import Node, random_for

DAY = 86_400
_HALF_HOUR = 1_800
# Price of a message in units of 1/10000 of the currency of the account.
PRICES = {"MARKETING": 625, "UTILITY": 80, "AUTHENTICATION": 90, "SERVICE": 0}
PRICE_UNIT = 10_000


def window_of(read: AccountRead) -> tuple[int, int]:
    """The unix seconds at which the requested window begins and ends.

    :raises ApiError: 100, the window is not valid
    """
    start, end = read.moment("start") or 0, read.moment("end") or 0
    if start >= end:
        raise ApiError(100, "(#100) Param end must be later than start")
    return start, end


def days_of(read: AccountRead, days_back: int) -> list[int]:
    """The first second of each day of the window that has data.

    :raises ApiError: 100, the window is not valid
    """
    start, end = window_of(read)
    # A day whose beginning is before the window still has half hours in it.
    first = start - start % DAY if read.params.get("granularity") == "HALF_HOUR" else start + -start % DAY
    now = int(clock.now())
    oldest = now - now % DAY - days_back * DAY
    return list(range(max(first, oldest), min(end, now + 1), DAY))


def spread(read: AccountRead, day: int, counts: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """The data points that the counts of a day belong to, by their beginning, and the share of each."""
    granularity = read.params["granularity"]
    if granularity in {"MONTH", "MONTHLY"}:
        month = datetime.fromtimestamp(day, timezone.utc).replace(day=1)
        return [(int(month.timestamp()), counts)]
    if granularity != "HALF_HOUR":
        return [(day, counts)]
    start, end = window_of(read)
    slots = DAY // _HALF_HOUR
    return [
        (begin, tuple(count * (slot + 1) // slots - count * slot // slots for count in counts))
        for slot in range(slots)
        if start <= (begin := day + slot * _HALF_HOUR) < end
    ]


def end_of(begin: int, granularity: str) -> int:
    """The second after a data point that begins at this one."""
    if granularity in {"MONTH", "MONTHLY"}:
        later = datetime.fromtimestamp(begin + 32 * DAY, timezone.utc)
        return int(later.replace(day=1, hour=0, minute=0, second=0).timestamp())
    return begin + (_HALF_HOUR if granularity == "HALF_HOUR" else DAY)


def own_rows(read: AccountRead, edge: str, make: Callable[[AccountRead], list[Node]]) -> list[Node]:
    """The rows that a user put on an account, or else the made-up ones."""
    rows: list[Node] = read.account[edge] if edge in read.account else make(read)
    return rows


def number_for(read: AccountRead, day: int, what: str) -> int:
    """A number that always is the same for the same account, day and thing."""
    return zlib.crc32(f"{read.seed}/{read.account['id']}/{day}/{what}".encode())


def has_own_payment(seed: int, account: Node) -> bool:
    """Whether an account pays for itself. One on the credit line of a partner has no cost in its analytics."""
    return random_for(seed, account["id"], "payment").random() < 0.8
