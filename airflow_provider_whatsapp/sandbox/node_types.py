"""The ``fields`` parameter, and the node types that say which fields exist.

``id,name,phone_numbers.limit(5){id}`` is parsed into a tree of :class:`SelectedField`. A :class:`NodeType` says which
fields a node has in which version, which ones it shows when none are asked for, and which names are edges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .http_exchange import CLIENT_EDGE, OWNED_EDGE, ApiError

_FIELD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)((?:\.[a-z_]+\([^()]*\))*)")
_MODIFIER = re.compile(r"\.([a-z_]+)\(([^()]*)\)")
_MODIFIERS = frozenset({"limit", "after", "before", "as"})
_DEEPEST = 20


@dataclass(frozen=True)
class SelectedField:
    """One field that a request asks for.

    :param modifiers: values by modifier name: ``{"limit": "5"}`` for ``.limit(5)``
    :param fields: the fields selected within it
    :param text: the text between its braces
    """

    name: str
    modifiers: dict[str, str] = field(default_factory=dict)
    fields: tuple[SelectedField, ...] = ()
    text: str = ""

    @property
    def key(self) -> str:
        """The key under which the answer shows the field."""
        return self.modifiers.get("as", self.name)


def parse_fields(text: str) -> tuple[SelectedField, ...]:
    """The fields that a ``fields`` parameter selects.

    :raises ApiError: 2500, the text is not a list of fields
    """
    text = "".join(text.split())
    selected, end = _parse_list(text, 0, 0)
    if end < len(text):
        raise _syntax_error(text, end, "end of string")
    return selected


def _parse_list(text: str, at: int, depth: int) -> tuple[tuple[SelectedField, ...], int]:
    """Parse a list that begins at a position. Return the fields and the position behind the last of them."""
    if depth > _DEEPEST:
        raise _syntax_error(text, at, "a shallower expansion")
    selected = []
    while True:
        match = _FIELD.match(text, at)
        if match is None:
            raise _syntax_error(text, at, "a field name")
        modifiers = dict(_MODIFIER.findall(match[2]))
        if not modifiers.keys() <= _MODIFIERS:
            raise _syntax_error(text, at, "a known modifier")
        at = match.end()
        inner: tuple[SelectedField, ...] = ()
        inner_text = ""
        if text.startswith("{", at):
            inner, end = _parse_list(text, at + 1, depth + 1)
            if not text.startswith("}", end):
                raise _syntax_error(text, end, '"}"')
            inner_text, at = text[at + 1 : end], end + 1
        selected.append(SelectedField(match[1], modifiers, inner, inner_text))
        if not text.startswith(",", at):
            return tuple(selected), at
        at += 1


def _syntax_error(text: str, at: int, expected: str) -> ApiError:
    return ApiError(2500, f'Syntax error "Expected {expected}." at character {at}: {text}')


@dataclass(frozen=True)
class NodeType:
    """A type of node, and what can be asked of such a node.

    :param fields: every field, with the first major version that has it (0 for all versions)
    :param defaults: names of the fields that are shown when the request has no ``fields``
    :param edges: the edges by name, with the type of the nodes at their other end
    """

    name: str
    fields: dict[str, int]
    defaults: tuple[str, ...] = ("id", "name")
    edges: dict[str, NodeType] = field(default_factory=dict)

    def selection(self, text: str | None) -> tuple[SelectedField, ...]:
        """The fields that a ``fields`` parameter selects, or the default ones when there is none."""
        return parse_fields(text) if text else tuple(SelectedField(name) for name in self.defaults)

    def check(self, selection: Iterable[SelectedField], version: int, also: Iterable[str] = ()) -> None:
        """Check that this version has every selected field.

        :param also: further names to accept, because a user put them on a node
        :raises ApiError: 100, a field does not exist
        """
        for item in selection:
            if item.name in self.edges:
                self.edges[item.name].check(item.fields, version)
            elif self.fields.get(item.name, 1000) > version and item.name not in also:
                raise self.nonexisting(item.name)

    def nonexisting(self, name: str) -> ApiError:
        """The refusal of a field or edge that nodes of this type do not have."""
        return ApiError(100, f"(#100) Tried accessing nonexisting field ({name}) on node type ({self.name})")


def _since(names: str, version: int = 0) -> dict[str, int]:
    return dict.fromkeys(names.split(), version)


PHONE_NUMBER = NodeType(
    "WhatsAppBusinessPhoneNumber",
    _since(
        "id display_phone_number verified_name quality_rating code_verification_status platform_type status name_status"
        " new_name_status account_mode is_official_business_account is_pin_enabled messaging_limit_tier throughput"
        " certificate last_onboarded_time health_status quality_score webhook_configuration"
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
# The version beside a field is the first major version of Meta's Python SDK whose WhatsAppBusinessAccount has it.
ACCOUNT = NodeType(
    "WhatsAppBusinessAccount",
    {
        **_since(
            "id name currency timezone_id message_template_namespace account_review_status business_verification_status"
            " ownership_type country primary_business_location creation_time status is_enabled_for_insights"
            " owner_business owner_business_info on_behalf_of_business_info primary_funding_id purchase_order_number"
            " auth_international_rate_eligibility health_status linked_commerce_account analytics"
        ),
        **_since("marketing_messages_lite_api_status", 22),
        **_since("is_shared_with_partners marketing_messages_onboarding_status", 23),
        **_since("whatsapp_business_manager_messaging_limit", 24),
        **_since(
            "disable_marketing_messages_on_cloud_api marketing_messages_ad_account template_auto_archival_enabled"
            " whatsapp_manager_marketing_messages_max_price_enroll_status",
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


def pick(value: Any, selection: tuple[SelectedField, ...]) -> Any:
    """The selected members of an embedded object, and always its id. Any other value is returned unchanged."""
    if not selection or not isinstance(value, dict):
        return value
    kept = {item.key: pick(value[item.name], item.fields) for item in selection if value.get(item.name) is not None}
    return {**kept, "id": value["id"]} if "id" in value else kept
