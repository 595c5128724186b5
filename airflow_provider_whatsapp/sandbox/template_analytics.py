"""Made-up analytics of message templates, of groups of templates, and of chat groups, by day.

Where Meta's documentation is silent, the sandbox decides: a ``start`` of more than 90 days ago is refused, and a
template that the account does not have gets no data points.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from airflow_provider_whatsapp.transport import clock

from .account_read import AccountRead
from .analytics_data import DAY, PRICE_UNIT, PRICES, days_of, has_own_payment, number_for, own_rows, window_of
from .http_exchange import ApiError
from .sample_accounts import Node
from .sample_edges import make_template_groups, make_templates

_DAYS_BACK = 90
_MOST_TEMPLATES = 10

#: Code and message of the refusal of template analytics while they are not enabled for the account. Meta lists the
#: codes 200005 to 200007 for the states of template insights; which of them the live API gives here was not confirmed.
INSIGHTS_NOT_ENABLED = (200007, "(#200007) Template insights are not enabled for this WhatsApp Business account")


def make_template_analytics(read: AccountRead) -> list[Node]:
    """How often templates were sent, delivered, read and clicked, as one row of data points for each day."""
    templates = {
        str(row["id"]): row.get("category", "MARKETING") for row in own_rows(read, "message_templates", make_templates)
    }
    points = _template_points(read, "template_ids", "template_id", templates)
    return [{"granularity": "DAILY", "product_type": "cloud_api", "data_points": points}]


def make_template_group_analytics(read: AccountRead) -> list[Node]:
    """How often the templates of groups were sent, delivered, read and clicked."""
    groups = {str(row["id"]): "MARKETING" for row in own_rows(read, "template_groups", make_template_groups)}
    points = _template_points(read, "template_group_ids", "template_group_id", groups)
    return [{"granularity": "DAILY", "data_points": points}]


def make_group_analytics(read: AccountRead) -> list[Node]:
    """How many messages were sent to a group, and who joined and left it. Groups have any name that is asked for."""
    if "granularity" in read.params:
        read.one_of("granularity", ("DAILY",))
    names = {"SENT": "sent", "DELIVERED": "delivered", "READ": "read"}
    names |= {"PARTICIPANTS_JOINED": "joined", "PARTICIPANTS_LEFT": "left"}
    others = ("CLICKS", "COST", "REPLIES")
    wanted = read.words("metric_types", (*names, *others)) or list(names)
    (group,) = read.words("group_ids", most=1) or ("",)
    points = []
    for day in days_of(read, _DAYS_BACK):
        number = number_for(read, day, group)
        counts = {"SENT": number % 9, "DELIVERED": number % 9 * 4, "READ": number % 9 * 3}
        counts |= {"PARTICIPANTS_JOINED": number % 3, "PARTICIPANTS_LEFT": number % 2}
        shown = {names[name]: count for name, count in counts.items() if name in wanted}
        points.append({"group_id": group, "start": day, "end": day + DAY, **shown})
    return [{"granularity": "DAILY", "data_points": points}]


def _template_points(read: AccountRead, ids_param: str, id_key: str, known: dict[str, str]) -> list[Node]:
    read.one_of("granularity", ("DAILY",))
    wanted = read.words("metric_types", ("SENT", "DELIVERED", "READ", "CLICKED", "COST"))
    wanted = wanted or ["SENT", "DELIVERED", "READ", "CLICKED", "COST"]
    asked = read.words(ids_param, most=_MOST_TEMPLATES) or []
    if read.account.get("is_enabled_for_insights") is False:
        raise ApiError(*INSIGHTS_NOT_ENABLED)
    if window_of(read)[0] < clock.now() - (_DAYS_BACK + 1) * DAY:
        raise ApiError(100, f"(#100) Param start must be within the last {_DAYS_BACK} days")
    pays_itself = has_own_payment(read.seed, read.account)
    points = []
    for node_id, day in product((one for one in asked if one in known), days_of(read, _DAYS_BACK)):
        sent = number_for(read, day, node_id) % 120
        delivered = sent * 97 // 100
        clicks = delivered // 20
        values: dict[str, Any] = {"SENT": sent, "DELIVERED": delivered, "READ": delivered * 7 // 10}
        # Meta counts clicks for these categories only.
        if clicks and known[node_id] in {"MARKETING", "UTILITY"}:
            button = {"type": "quick_reply_button", "button_content": "Stop promotions", "count": clicks}
            values["CLICKED"] = [button]
        if pays_itself:
            values["COST"] = [{"type": "amount_spent", "value": delivered * PRICES["MARKETING"] / PRICE_UNIT}]
        shown = {name.lower(): value for name, value in values.items() if name in wanted}
        points.append({id_key: node_id, "start": day, "end": day + DAY, **shown})
    return points
