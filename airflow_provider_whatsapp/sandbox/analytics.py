"""Made-up analytics of an account: how many messages, conversations and calls there were, and what they cost.

Where Meta's documentation is silent, the sandbox decides: a window has every half hour or day that begins in it, and a
month has only those of its days. Days older than a year and days to come have no data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from .account_read import AccountRead
from .analytics_data import PRICE_UNIT, PRICES, days_of, end_of, has_own_payment, number_for, own_rows, spread
from .sample_accounts import Node
from .sample_edges import make_phone_numbers

_DAYS_BACK = 365
# A long list of numbers would make the answer slow. Only the first numbers of an account have traffic.
_NUMBERS_WITH_TRAFFIC = 3
_CATEGORIES = ("MARKETING", "UTILITY", "AUTHENTICATION", "SERVICE")
_SECOND_COUNTRY = {"US": "CA", "BR": "PT", "MX": "US", "IN": "AE", "DE": "AT"}


@dataclass(frozen=True)
class _Cell:
    """What one phone number did with one country in one category on one day.

    :param labels: the value of each dimension
    :param count: number of messages, conversations or calls
    :param price: cost of each of them, in 1/10000 of the currency of the account
    :param seconds: length of each call
    """

    labels: dict[str, str]
    count: int
    price: int
    seconds: int = 0


@dataclass(frozen=True)
class _Metrics:
    """A kind of analytics that can be split by dimensions.

    :param label_keys: how a data point names each dimension
    :param metrics: which metrics there are, with the key of each in a data point
    :param filters: the parameters that keep only some values of a dimension
    :param cell: what a number does with a country in a category, from a number of messages
    """

    label_keys: dict[str, str]
    metrics: dict[str, str]
    filters: dict[str, str]
    cell: Callable[[str, str, str, int], _Cell]


def _pricing_cell(number: str, country: str, category: str, volume: int) -> _Cell:
    free = category == "SERVICE"
    labels = {
        "PHONE": number,
        "COUNTRY": country,
        "PRICING_CATEGORY": category,
        "PRICING_TYPE": "FREE_CUSTOMER_SERVICE" if free else "REGULAR",
        # Messages that cost nothing have no tier.
        **({} if free else {"TIER": "0:MAX"}),
    }
    return _Cell(labels, volume, PRICES[category])


def _conversation_cell(number: str, country: str, category: str, volume: int) -> _Cell:
    free = category == "SERVICE"
    labels = {
        "PHONE": number,
        "COUNTRY": country,
        "CONVERSATION_CATEGORY": category,
        "CONVERSATION_TYPE": "FREE_TIER" if free else "REGULAR",
        "CONVERSATION_DIRECTION": "USER_INITIATED" if free else "BUSINESS_INITIATED",
    }
    return _Cell(labels, -(-volume // 3), PRICES[category])


def _call_cell(number: str, country: str, category: str, volume: int) -> _Cell:
    # Two of the four categories stand for the two directions of calls, the others for no calls.
    calls = volume // 10 if category in {"MARKETING", "SERVICE"} else 0
    direction = "BUSINESS_INITIATED" if category == "MARKETING" else "USER_INITIATED"
    labels = {"PHONE": number, "COUNTRY": country, "DIRECTION": direction, "TIER": "0:MAX"}
    price = 120 if direction == "BUSINESS_INITIATED" else 0
    return _Cell(labels, calls, price, 40 + volume % 60)


_PRICING = _Metrics(
    {
        "PHONE": "phone_number",
        "COUNTRY": "country",
        "TIER": "tier",
        "PRICING_TYPE": "pricing_type",
        "PRICING_CATEGORY": "pricing_category",
    },
    {"VOLUME": "volume", "COST": "cost"},
    {
        "phone_numbers": "PHONE",
        "country_codes": "COUNTRY",
        "pricing_categories": "PRICING_CATEGORY",
        "pricing_types": "PRICING_TYPE",
        "tiers": "TIER",
    },
    _pricing_cell,
)
_CONVERSATIONS = _Metrics(
    {
        "PHONE": "phone_number",
        "COUNTRY": "country",
        "CONVERSATION_TYPE": "conversation_type",
        "CONVERSATION_DIRECTION": "conversation_direction",
        "CONVERSATION_CATEGORY": "conversation_category",
    },
    {"CONVERSATION": "conversation", "COST": "cost"},
    {
        "phone_numbers": "PHONE",
        "country_codes": "COUNTRY",
        "conversation_categories": "CONVERSATION_CATEGORY",
        "conversation_types": "CONVERSATION_TYPE",
        "conversation_directions": "CONVERSATION_DIRECTION",
    },
    _conversation_cell,
)
_CALLS = _Metrics(
    {"PHONE": "phone_number", "COUNTRY": "country", "DIRECTION": "direction", "TIER": "tier"},
    {"COUNT": "count", "COST": "cost", "AVERAGE_DURATION": "average_duration"},
    {"phone_numbers": "PHONE", "country_codes": "COUNTRY", "directions": "DIRECTION", "tiers": "TIER"},
    _call_cell,
)


def make_pricing_analytics(read: AccountRead) -> list[Node]:
    """The messages that were charged and their cost, as one row of data points."""
    return _split(read, _PRICING)


def make_conversation_analytics(read: AccountRead) -> list[Node]:
    """The conversations and their cost, as one row of data points."""
    return _split(read, _CONVERSATIONS)


def make_call_analytics(read: AccountRead) -> list[Node]:
    """The calls, their length in seconds and their cost, as one row of data points."""
    return _split(read, _CALLS)


def make_messaging_analytics(read: AccountRead) -> Node:
    """The value of the ``analytics`` field: the messages that were sent and delivered."""
    read.require(("start", "end", "granularity"))
    granularity = read.one_of("granularity", ("HALF_HOUR", "DAY", "MONTH"))
    numbers = read.words("phone_numbers") or _numbers(read)
    countries = read.words("country_codes") or list(_countries(read.account))
    sums: dict[int, list[int]] = {}
    for day, number, country, _, volume in _traffic(read):
        if number in numbers and country in countries:
            for begin, (sent, delivered) in spread(read, day, (volume, volume * 95 // 100)):
                total = sums.setdefault(begin, [0, 0])
                total[0] += sent
                total[1] += delivered
    points = [
        {"start": begin, "end": end_of(begin, granularity), "sent": sent, "delivered": delivered}
        for begin, (sent, delivered) in sorted(sums.items())
    ]
    return {"phone_numbers": numbers, "country_codes": countries, "granularity": granularity, "data_points": points}


def _split(read: AccountRead, kind: _Metrics) -> list[Node]:
    """One row whose data points are split by the dimensions that the request asks for."""
    granularity = read.one_of("granularity", ("HALF_HOUR", "DAILY", "MONTHLY"))
    dimensions = read.words("dimensions", kind.label_keys) or []
    metrics = read.words("metric_types", kind.metrics) or list(kind.metrics)
    kept = {label: values for name, label in kind.filters.items() if (values := read.words(name))}
    pays_itself = has_own_payment(read.seed, read.account)
    # Number, cost and length of what happened, by the beginning of a data point and its dimensions.
    sums: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for day, number, country, category, volume in _traffic(read):
        cell = kind.cell(number, country, category, volume)
        if any(cell.labels.get(label) not in wanted for label, wanted in kept.items()):
            continue
        group = tuple(cell.labels.get(dimension, "") for dimension in dimensions)
        for begin, (count,) in spread(read, day, (cell.count,)):
            if count:
                total = sums.setdefault((begin, group), [0, 0, 0])
                total[0] += count
                total[1] += count * cell.price
                total[2] += count * cell.seconds
    points = []
    for (begin, group), (count, cost, seconds) in sorted(sums.items()):
        labels = {kind.label_keys[name]: value for name, value in zip(dimensions, group, strict=True) if value}
        # Any other metric is the number of what happened.
        measured: dict[str, float] = {"AVERAGE_DURATION": seconds // count, "COST": cost / PRICE_UNIT}
        shown = {
            key: measured.get(name, count)
            for name, key in kind.metrics.items()
            if name in metrics and (name != "COST" or pays_itself)
        }
        points.append({"start": begin, "end": end_of(begin, granularity), **labels, **shown})
    return [{"data_points": points}]


def _traffic(read: AccountRead) -> Iterator[tuple[int, str, str, str, int]]:
    """How many messages each number sent to each country in each category on each day of the window."""
    days = days_of(read, _DAYS_BACK)
    kinds = list(product(_numbers(read), _countries(read.account), _CATEGORIES))
    for day, (number, country, category) in product(days, kinds):
        noise = number_for(read, day, f"{number}/{country}/{category}")
        # There is no traffic on some days.
        if noise % 5:
            yield day, number, country, category, 1 + noise // 5 % 200


def _numbers(read: AccountRead) -> list[str]:
    rows = own_rows(read, "phone_numbers", make_phone_numbers)[:_NUMBERS_WITH_TRAFFIC]
    return [re.sub(r"\D", "", row.get("display_phone_number") or str(row["id"])) for row in rows]


def _countries(account: Node) -> tuple[str, str]:
    country = account.get("country") or "US"
    return country, _SECOND_COUNTRY.get(country, "US")
