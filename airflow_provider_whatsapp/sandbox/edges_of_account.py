"""What can be read from an account: the rows of each edge, the parameters that an edge requires, and its filters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import analytics, template_analytics
from . import sample_edges as samples
from .account_read import AccountRead
from .http_exchange import ApiError
from .sample_accounts import Node

_TEMPLATE_STATUSES = (
    "APPROVED", "ARCHIVED", "DELETED", "DISABLED", "IN_APPEAL", "LIMIT_EXCEEDED", "PAUSED", "PENDING",
    "PENDING_DELETION", "REJECTED",
)  # fmt: skip
_WINDOW = ("start", "end", "granularity")


@dataclass(frozen=True)
class EdgeOfAccount:
    """An edge of an account.

    :param make: makes up its rows; a user may put other rows on the account under the name of the edge
    :param required: the parameters that a request must have
    :param keep: keeps the rows that the request's optional parameters ask for
    """

    make: Callable[[AccountRead], list[Node]]
    required: tuple[str, ...] = ()
    keep: Callable[[AccountRead, list[Node]], list[Node]] = lambda read, rows: rows

    def rows(self, edge: str, read: AccountRead) -> list[Node]:
        """The rows that a request asks for.

        :raises ApiError: 100, a parameter is missing or wrong; or another code for a state of the account
        """
        read.require(self.required)
        return self.keep(read, list(read.account[edge]) if edge in read.account else self.make(read))


def _keep_templates(read: AccountRead, rows: list[Node]) -> list[Node]:
    wanted: dict[str, list[str] | None] = {
        "status": read.words("status", _TEMPLATE_STATUSES),
        "category": read.words("category", ("AUTHENTICATION", "MARKETING", "UTILITY")),
        "language": read.words("language"),
    }
    scores = read.words("quality_score", ("GREEN", "RED", "UNKNOWN", "YELLOW"))
    # The documentation does not say whether the whole name must match. Here a part is enough.
    part = read.params.get("name", "").strip("\"'")
    return [
        row
        for row in rows
        if all(values is None or row.get(name) in values for name, values in wanted.items())
        and (scores is None or _score(row) in scores)
        and part in row.get("name", "")
    ]


def _score(row: Node) -> Any:
    score = row.get("quality_score")
    return score.get("score") if isinstance(score, dict) else score


def _keep_activities(read: AccountRead, rows: list[Node]) -> list[Node]:
    since, until = read.moment("since"), read.moment("until")
    kinds = read.words("activity_type")
    return [
        row
        for row in rows
        if (since is None or _seconds(row) >= since)
        and (until is None or _seconds(row) <= until)
        and (kinds is None or row.get("activity_type") in kinds)
    ]


def _seconds(row: Node) -> float:
    return datetime.strptime(row["timestamp"], "%Y-%m-%dT%H:%M:%S%z").timestamp()


def _wrap_payment_configurations(read: AccountRead, rows: list[Node]) -> list[Node]:
    # The edge has a single row that holds all of them.
    return [{"payment_configurations": rows}] if rows else []


def _keep_payment_configuration(read: AccountRead, rows: list[Node]) -> list[Node]:
    name = read.params["configuration_name"].strip("\"'")
    found = [row for row in rows if row.get("configuration_name") == name]
    if not found:
        raise ApiError(100, "(#100) Param configuration_name must be the name of a payment configuration")
    return found


EDGES_OF_ACCOUNT = {
    "phone_numbers": EdgeOfAccount(samples.make_phone_numbers),
    "message_templates": EdgeOfAccount(samples.make_templates, keep=_keep_templates),
    "flows": EdgeOfAccount(samples.make_flows),
    "solutions": EdgeOfAccount(samples.make_solutions),
    "schedules": EdgeOfAccount(samples.make_schedules),
    "audiences": EdgeOfAccount(samples.make_audiences),
    "product_catalogs": EdgeOfAccount(samples.make_product_catalogs),
    "dataset": EdgeOfAccount(samples.make_datasets),
    "template_groups": EdgeOfAccount(samples.make_template_groups),
    "activities": EdgeOfAccount(samples.make_activities, keep=_keep_activities),
    "assigned_users": EdgeOfAccount(samples.make_assigned_users, ("business",)),
    "subscribed_apps": EdgeOfAccount(samples.make_subscribed_apps),
    "payment_configurations": EdgeOfAccount(samples.make_payment_configurations, keep=_wrap_payment_configurations),
    "payment_configuration": EdgeOfAccount(
        samples.make_payment_configurations, ("configuration_name",), _keep_payment_configuration
    ),
    "message_template_previews": EdgeOfAccount(samples.make_template_previews, ("category",)),
    "template_analytics": EdgeOfAccount(template_analytics.make_template_analytics, (*_WINDOW, "template_ids")),
    "template_group_analytics": EdgeOfAccount(
        template_analytics.make_template_group_analytics, (*_WINDOW, "template_group_ids")
    ),
    "group_analytics": EdgeOfAccount(
        template_analytics.make_group_analytics, ("start", "end", "group_ids", "metric_types")
    ),
    "pricing_analytics": EdgeOfAccount(analytics.make_pricing_analytics, _WINDOW),
    "conversation_analytics": EdgeOfAccount(analytics.make_conversation_analytics, _WINDOW),
    "call_analytics": EdgeOfAccount(analytics.make_call_analytics, _WINDOW),
}
