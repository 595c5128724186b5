"""The ``fields`` parameter and the node types it is checked against.

``id,name,phone_numbers.limit(5){id}`` reads as a tree of :class:`Field`; a node type says which fields exist
in which version, which are given when none is asked for, and which names are edges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .messages import CLIENT_EDGE, OWNED_EDGE, ApiError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODIFIER = re.compile(r"\.([a-z_]+)\(([^()]*)\)")
_MODIFIERS = frozenset({"limit", "after", "before", "as"})
_DEEPEST = 20


@dataclass(frozen=True)
class Field:
    """One wanted field: its name, its modifiers and what is wanted of what lies under it."""

    name: str
    modifiers: dict[str, str] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    text: str = ""

    @property
    def key(self) -> str:
        """The key it is answered under."""
        return self.modifiers.get("as", self.name)


def parse_fields(text: str) -> tuple[Field, ...]:
    """Read a ``fields`` parameter.

    :raises ApiError: 2500, the text is not a list of fields.
    """
    parser = _Parser("".join(text.split()))
    wanted = parser.fields(0)
    if parser.at < len(parser.text):
        parser.fail("end of string")
    return wanted


class _Parser:
    """A cursor over the text, and one method for each thing that can stand there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fields(self, depth: int) -> tuple[Field, ...]:
        if depth > _DEEPEST:
            self.fail("a shallower expansion")
        wanted = [self.field(depth)]
        while self.skip(","):
            wanted.append(self.field(depth))
        return tuple(wanted)

    def field(self, depth: int) -> Field:
        name = _NAME.match(self.text, self.at) or self.fail("a field name")
        self.at = name.end()
        modifiers = {}
        while modifier := _MODIFIER.match(self.text, self.at):
            if modifier[1] not in _MODIFIERS:
                self.fail("a known modifier")
            modifiers[modifier[1]] = modifier[2]
            self.at = modifier.end()
        inner: tuple[Field, ...] = ()
        begin = self.at + 1
        if self.skip("{"):
            inner = self.fields(depth + 1)
            if not self.skip("}"):
                self.fail('"}"')
        return Field(name[0], modifiers, inner, self.text[begin : self.at - 1] if inner else "")

    def skip(self, sign: str) -> bool:
        found = self.text.startswith(sign, self.at)
        self.at += found
        return found

    def fail(self, expected: str) -> Any:
        raise ApiError(2500, f'Syntax error "Expected {expected}." at character {self.at}: {self.text}')


@dataclass(frozen=True)
class NodeType:
    """What can be asked of a node.

    :param fields: Every field, with the first major version that has it.
    :param defaults: What is given when no ``fields`` are asked for.
    :param edges: The edges, with the type of the nodes at their other end.
    """

    name: str
    fields: dict[str, int]
    defaults: tuple[str, ...] = ("id", "name")
    edges: dict[str, NodeType] = field(default_factory=dict)

    def wanted(self, text: str | None) -> tuple[Field, ...]:
        """Read the ``fields`` parameter, or stand in for it."""
        return parse_fields(text) if text else tuple(Field(name) for name in self.defaults)

    def check(self, wanted: Iterable[Field], version: int, also: Iterable[str] = ()) -> None:
        """See that every wanted field exists in this version.

        :param also: Names that exist though no version knows them, because someone put them on a node.
        :raises ApiError: 100, one does not.
        """
        for item in wanted:
            if item.name in self.edges:
                self.edges[item.name].check(item.fields, version)
            elif self.fields.get(item.name, 1000) > version and item.name not in also:
                raise self.nonexisting(item.name)

    def nonexisting(self, name: str) -> ApiError:
        """Say that nodes of this type have no such field or edge."""
        return ApiError(100, f"(#100) Tried accessing nonexisting field ({name}) on node type ({self.name})")


def _since(names: str, version: int = 0) -> dict[str, int]:
    return dict.fromkeys(names.split(), version)


PHONE_NUMBER = NodeType(
    "WhatsAppBusinessPhoneNumber",
    _since(
        "id display_phone_number verified_name quality_rating code_verification_status platform_type status"
        " name_status new_name_status account_mode is_official_business_account is_pin_enabled"
        " messaging_limit_tier throughput certificate last_onboarded_time health_status quality_score"
        " webhook_configuration"
    ),
    ("id", "display_phone_number", "verified_name", "quality_rating"),
)
TEMPLATE = NodeType(
    "WhatsAppMessageTemplate",
    _since(
        "id name language status category components quality_score rejected_reason previous_category"
        " message_send_ttl_seconds parameter_format library_template_name sub_category"
    ),
    ("id", "name", "language", "status", "category", "components"),
)
# First versions: the lowest major version of Meta's Python SDK whose WhatsAppBusinessAccount has the field.
ACCOUNT = NodeType(
    "WhatsAppBusinessAccount",
    {
        **_since(
            "id name currency timezone_id message_template_namespace account_review_status"
            " business_verification_status ownership_type country primary_business_location creation_time"
            " status is_enabled_for_insights owner_business owner_business_info on_behalf_of_business_info"
            " primary_funding_id purchase_order_number auth_international_rate_eligibility health_status"
            " linked_commerce_account analytics"
        ),
        **_since("marketing_messages_lite_api_status", 22),
        **_since("is_shared_with_partners marketing_messages_onboarding_status", 23),
        **_since("whatsapp_business_manager_messaging_limit", 24),
        **_since(
            "disable_marketing_messages_on_cloud_api marketing_messages_ad_account"
            " template_auto_archival_enabled whatsapp_manager_marketing_messages_max_price_enroll_status",
            25,
        ),
        **_since("service_pricing_policy", 26),
    },
    ("id", "name", "currency", "timezone_id", "message_template_namespace"),
    {"phone_numbers": PHONE_NUMBER, "message_templates": TEMPLATE},
)
SHARED_ACCOUNT = replace(ACCOUNT, fields={**ACCOUNT.fields, "permitted_tasks": 0})
BUSINESS = NodeType(
    "Business",
    _since(
        "id name verification_status created_time updated_time timezone_id vertical link two_factor_type"
        " profile_picture_uri is_hidden primary_page payment_account_id created_by updated_by"
    ),
    edges={CLIENT_EDGE: SHARED_ACCOUNT, OWNED_EDGE: ACCOUNT},
)
SYSTEM_USER = NodeType("SystemUser", _since("id name"), edges={"businesses": BUSINESS})
APPLICATION = NodeType("Application", _since("id name namespace link category"))


def pick(value: Any, wanted: tuple[Field, ...]) -> Any:
    """Keep of an embedded object what is wanted of it, and always its id."""
    if not wanted or not isinstance(value, dict):
        return value
    kept = {item.key: pick(value[item.name], item.fields) for item in wanted if value.get(item.name) is not None}
    return {**kept, "id": value["id"]} if "id" in value else kept
