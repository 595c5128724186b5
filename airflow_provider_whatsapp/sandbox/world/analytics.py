"""Generates the analytics of an account: messages, conversations, calls and templates, and their costs.

Every number is derived from the seed, the account, the day and what is counted, so the same window always gives the
same numbers, and the numbers of shorter windows add up to those of longer ones. Days are in UTC.

Where Meta's documentation is silent, the sandbox decides: a window includes every half hour or day that begins in it,
and a month only those of its days. There are no data for future days, for days more than a year ago, or, for templates
and groups, for days more than 90 days ago. A template that the account does not have has no data points.

https://developers.facebook.com/documentation/business-messaging/whatsapp/analytics
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from itertools import product
from typing import Any

from airflow_provider_whatsapp.transport import clock

from .accounts import Node, random_for
from .api_error import ApiError
from .parameters import AccountRead
from .row_maker import NodeType
from .shapes import ROWS_OF_ACCOUNT

_DAY = 86_400
_HALF_HOUR = 1_800
_DAYS_BACK = 365
_DAYS_BACK_OF_TEMPLATES = 90
# Only the first phone numbers of an account have traffic, because many would make the response slow.
_NUMBERS_WITH_TRAFFIC = 3
_SECOND_COUNTRY = {"US": "CA", "BR": "PT", "MX": "US", "IN": "AE", "DE": "AT"}
# Price of a message of each category, in units of 1/10000 of the account's currency.
_PRICES = {"MARKETING": 625, "UTILITY": 80, "AUTHENTICATION": 90, "SERVICE": 0}
_PRICE_UNIT = 10_000
# The parameter that filters the values of each dimension.
_FILTERS = {
    "PHONE": "phone_numbers", "COUNTRY": "country_codes", "TIER": "tiers", "DIRECTION": "directions",
    "PRICING_TYPE": "pricing_types", "PRICING_CATEGORY": "pricing_categories",
    "CONVERSATION_TYPE": "conversation_types", "CONVERSATION_DIRECTION": "conversation_directions",
    "CONVERSATION_CATEGORY": "conversation_categories",
}  # fmt: skip
#: Code and message of the refusal of template analytics while they are not enabled for the account. Meta lists the
#: codes 200005 to 200007 for the states of template insights; which of them the live API returns here was not
#: confirmed.
INSIGHTS_NOT_ENABLED = (200007, "(#200007) Template insights are not enabled for this WhatsApp Business account")


def _window(read: AccountRead) -> tuple[int, int]:
    start, end = read.moment("start") or 0, read.moment("end") or 0
    if start >= end:
        raise ApiError(100, "(#100) Param end must be later than start")
    return start, end


def _days(read: AccountRead, days_back: int) -> range:
    """Return the first second of each day that has data and overlaps the window."""
    start, end = _window(read)
    now = int(clock.now())
    return range(max(start - start % _DAY, now - now % _DAY - days_back * _DAY), min(end, now + 1), _DAY)


def _noise(read: AccountRead, day: int, what: str) -> int:
    return zlib.crc32(f"{read.seed}/{read.account['id']}/{day}/{what}".encode())


def _has_own_payment(read: AccountRead) -> bool:
    """Return whether the account pays for itself; the analytics of one on a partner's credit line have no costs."""
    return random_for(read.seed, read.account["id"], "payment").random() < 0.8


# Messages, conversations and calls


def _numbers(read: AccountRead) -> list[str]:
    rows = ROWS_OF_ACCOUNT["phone_numbers"].rows("phone_numbers", read)[:_NUMBERS_WITH_TRAFFIC]
    return [re.sub(r"\D", "", row.get("display_phone_number") or str(row["id"])) for row in rows]


def _countries(account: Node) -> list[str]:
    country = account.get("country") or "US"
    return [country, _SECOND_COUNTRY.get(country, "US")]


def _traffic(read: AccountRead) -> Iterator[tuple[int, str, str, str, int]]:
    """Yield the time, phone number, country, category and number of messages of all traffic."""
    streams = list(product(_numbers(read), _countries(read.account), _PRICES))
    for day, stream in product(_days(read, _DAYS_BACK), streams):
        noise = _noise(read, day, "/".join(stream))
        # Some days have no traffic.
        if noise % 5:
            yield day + noise // 1000 % 48 * _HALF_HOUR, *stream, 1 + noise // 5 % 200


# Time, labels and numbers of an event.
_Event = tuple[int, tuple[str, ...], dict[str, int]]


def _sum_up(
    read: AccountRead, granularity: str, events: Iterable[_Event]
) -> Iterator[tuple[int, int, tuple[str, ...], Counter[str]]]:
    """Return the start, end, labels and sums of each data point, in order."""
    start, stop = _window(read)
    unit = _HALF_HOUR if granularity == "HALF_HOUR" else _DAY
    sums: dict[tuple[int, int, tuple[str, ...]], Counter[str]] = {}
    for moment, labels, numbers in events:
        begin = moment - moment % unit
        if start <= begin < stop:
            end = begin + unit
            if granularity.startswith("MONTH"):
                first = datetime.fromtimestamp(begin, timezone.utc).replace(day=1)
                after = datetime.fromtimestamp(first.timestamp() + 32 * _DAY, timezone.utc).replace(day=1)
                begin, end = int(first.timestamp()), int(after.timestamp())
            sums.setdefault((begin, end, labels), Counter()).update(numbers)
    return ((*key, total) for key, total in sorted(sums.items()))


def make_messaging_analytics(read: AccountRead) -> Node:
    """Return the value of the ``analytics`` field: the messages that were sent and delivered."""
    read.require(("start", "end", "granularity"))
    read.check_seconds("start", "end")
    granularity = read.one_of("granularity", "HALF_HOUR", "DAY", "MONTH")
    numbers = read.words("phone_numbers") or _numbers(read)
    countries = read.words("country_codes") or _countries(read.account)
    events = (
        (moment, (), {"sent": messages, "delivered": messages * 95 // 100})
        for moment, number, country, _, messages in _traffic(read)
        if number in numbers and country in countries
    )
    points = [{"start": begin, "end": end, **sums} for begin, end, _, sums in _sum_up(read, granularity, events)]
    return {"phone_numbers": numbers, "country_codes": countries, "granularity": granularity, "data_points": points}


def _labels(number: str, country: str, category: str, free_tier: str) -> dict[str, str]:
    """Return the value of each dimension; an empty one is not shown."""
    is_free = not _PRICES[category]
    direction = "USER_INITIATED" if is_free else "BUSINESS_INITIATED"
    return {
        "PHONE": number, "COUNTRY": country, "TIER": free_tier if is_free else "0:MAX", "DIRECTION": direction,
        "PRICING_TYPE": "FREE_CUSTOMER_SERVICE" if is_free else "REGULAR", "PRICING_CATEGORY": category,
        "CONVERSATION_TYPE": "FREE_TIER" if is_free else "REGULAR", "CONVERSATION_DIRECTION": direction,
        "CONVERSATION_CATEGORY": category,
    }  # fmt: skip


def _split(known: list[str], metrics: list[str], messages_each: int, free_tier: str, read: AccountRead) -> list[Node]:
    """Return one row with data points split by the requested dimensions.

    :param known: names of the existing dimensions
    :param metrics: names of the metrics; the first is the count
    :param messages_each: number of messages per counted item
    :param free_tier: tier of free items
    """
    # Meta's SDK declares a `datetime` only for the times of template analytics.
    read.check_seconds("start", "end")
    granularity = read.one_of("granularity", "HALF_HOUR", "DAILY", "MONTHLY")
    asked = read.words("dimensions", known) or []
    shown = read.words("metric_types", metrics) or metrics
    wanted = {name: words for name in known if (words := read.words(_FILTERS[name]))}
    if not _has_own_payment(read):
        shown = [name for name in shown if name != "COST"]

    def events() -> Iterator[_Event]:
        for moment, number, country, category, messages in _traffic(read):
            labels = _labels(number, country, category, free_tier)
            if all(labels[name] in words for name, words in wanted.items()):
                count = -(-messages // messages_each)
                numbers = {"count": count, "cost": count * _PRICES[category], "seconds": count * (40 + messages % 60)}
                yield moment, tuple(labels[name] for name in asked), numbers

    points = []
    for begin, end, labels, sums in _sum_up(read, granularity, events()):
        values = {"COST": sums["cost"] / _PRICE_UNIT, "AVERAGE_DURATION": sums["seconds"] // sums["count"]}
        keys = ("phone_number" if name == "PHONE" else name.lower() for name in asked)
        points.append(
            {
                **{"start": begin, "end": end},
                **{key: label for key, label in zip(keys, labels, strict=True) if label},
                **{name.lower(): values.get(name, sums["count"]) for name in metrics if name in shown},
            }
        )
    return [{"data_points": points}]


# Templates and groups


# Value of each metric per 1,000 sent messages.
_OF_TEMPLATES = {"SENT": 1000, "DELIVERED": 970, "READ": 680, "CLICKED": 48, "COST": 970}
_OF_GROUPS = {"SENT": 1000, "DELIVERED": 4000, "READ": 3000, "PARTICIPANTS_JOINED": 20, "PARTICIPANTS_LEFT": 10}
# Groups accept these metrics, but have no values for them.
_EMPTY_METRICS_OF_GROUPS = ("CLICKS", "COST", "REPLIES")


def _by_day(key: str, most: int, metrics: dict[str, int], edge: str | None, row: Node, read: AccountRead) -> list[Node]:
    """Return one row with data points of templates or groups, one for each id on each day.

    :param key: key of the ids in a data point
    :param most: maximum number of ids in a request
    :param edge: the edge with the templates or groups of the account; None for groups, of which any id is accepted
    :param row: the other values of the row
    """
    if "granularity" in read.params:
        read.one_of("granularity", "DAILY")
    shown = read.words("metric_types", (*metrics, *(() if edge else _EMPTY_METRICS_OF_GROUPS))) or metrics
    ids = read.words(f"{key}s", most=most) or [""]
    categories: dict[str, str] = {}
    if edge is not None:
        if read.account.get("is_enabled_for_insights") is False:
            raise ApiError(*INSIGHTS_NOT_ENABLED)
        if _window(read)[0] < clock.now() - (_DAYS_BACK_OF_TEMPLATES + 1) * _DAY:
            raise ApiError(100, f"(#100) Param start must be within the last {_DAYS_BACK_OF_TEMPLATES} days")
        rows = ROWS_OF_ACCOUNT[edge].rows(edge, read)
        categories = {str(one["id"]): one.get("category", "MARKETING") for one in rows}
        ids = [one for one in ids if one in categories]
    hidden = set() if _has_own_payment(read) else {"COST"}
    shares = {name: share for name, share in metrics.items() if name in shown and name not in hidden}
    days = [day for day in _days(read, _DAYS_BACK_OF_TEMPLATES) if day >= _window(read)[0]]
    points = []
    for node_id, day in product(ids, days):
        point: Node = {key: node_id, "start": day, "end": day + _DAY}
        sent = _noise(read, day, node_id) % 120
        for name, share in shares.items():
            value: Any = sent * share // 1000
            if name == "COST":
                value = [{"type": "amount_spent", "value": value * _PRICES["MARKETING"] / _PRICE_UNIT}]
            elif name == "CLICKED":
                # Meta counts clicks only for these categories.
                if not value or categories[node_id] not in {"MARKETING", "UTILITY"}:
                    continue
                value = [{"type": "quick_reply_button", "button_content": "Stop promotions", "count": value}]
            point[name.removeprefix("PARTICIPANTS_").lower()] = value
        points.append(point)
    return [{"granularity": "DAILY", **row, "data_points": points}]


# The edges


def _split_type(dimensions: str, metrics: str, messages_each: int = 1, free_tier: str = "") -> NodeType:
    known = dimensions.split()
    return NodeType(
        "WhatsAppAnalytics", others="data_points", has_id=False, is_paged=False,
        make=partial(_split, known, metrics.split(), messages_each, free_tier),
        required="start end granularity",
        optional=" ".join(("dimensions metric_types", *(_FILTERS[name] for name in known))),
    )  # fmt: skip


_TEMPLATE_ANALYTICS = NodeType(
    "WhatsAppTemplateAnalytics", others="granularity product_type data_points", has_id=False,
    make=partial(_by_day, "template_id", 10, _OF_TEMPLATES, "message_templates", {"product_type": "cloud_api"}),
    required="start end granularity template_ids", optional="metric_types product_types product_type use_waba_timezone",
)  # fmt: skip
ANALYTICS_OF_ACCOUNT = {
    "template_analytics": _TEMPLATE_ANALYTICS,
    "template_group_analytics": replace(
        _TEMPLATE_ANALYTICS, required="start end granularity template_group_ids",
        make=partial(_by_day, "template_group_id", 10, _OF_TEMPLATES, "template_groups", {}),
    ),
    "group_analytics": replace(
        _TEMPLATE_ANALYTICS, required="start end group_ids metric_types", optional="granularity",
        make=partial(_by_day, "group_id", 1, _OF_GROUPS, None, {}),
    ),
    "pricing_analytics": _split_type("PHONE COUNTRY TIER PRICING_TYPE PRICING_CATEGORY", "VOLUME COST"),
    "conversation_analytics": _split_type(
        "PHONE COUNTRY CONVERSATION_TYPE CONVERSATION_DIRECTION CONVERSATION_CATEGORY", "CONVERSATION COST", 3
    ),
    "call_analytics": _split_type("PHONE COUNTRY DIRECTION TIER", "COUNT COST AVERAGE_DURATION", 10, "0:MAX"),
}  # fmt: skip
