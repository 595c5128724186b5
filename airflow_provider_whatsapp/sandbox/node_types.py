"""The types of nodes and rows, which say what fields and edges there are.

A :class:`NodeType` says which fields a node has in which version, which ones it shows when none are asked for, and
which names are edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .http_exchange import CLIENT_EDGE, OWNED_EDGE, ApiError
from .selected_fields import SelectedField, parse_fields


@dataclass(frozen=True)
class NodeType:
    """A type of node, and what can be asked of such a node.

    :param fields: every field, with the first major version that has it (0 for all versions)
    :param defaults: names of the fields that are shown when the request has no ``fields``
    :param edges: the edges by name, with the type of the rows at their other end
    :param is_node: whether it has an id; a row without one is always sent whole, whatever ``fields`` asks for
    :param is_paged: whether a page of such rows has ``paging``
    """

    name: str
    fields: dict[str, int]
    defaults: tuple[str, ...] = ("id", "name")
    edges: dict[str, NodeType] = field(default_factory=dict)
    is_node: bool = True
    is_paged: bool = True

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


def _rows_without_id(name: str, fields: str, *, is_paged: bool = True) -> NodeType:
    return NodeType(name, _since(fields), (), is_node=False, is_paged=is_paged)


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
FLOW = NodeType(
    "WhatsAppFlow",
    _since(
        "id name status categories validation_errors json_version data_api_version endpoint_uri preview updated_at"
        " health_status"
    ),
    ("id", "name", "status", "categories", "validation_errors"),
)
SOLUTION = NodeType(
    "WhatsAppBusinessSolution",
    _since("id name status status_for_pending_request owner_app owner_permissions"),
    ("id", "name", "status", "status_for_pending_request"),
)
SCHEDULE = NodeType(
    "WhatsAppBusinessSchedule", _since("id name description status delivery_time"), ("id", "name", "status")
)
AUDIENCE = NodeType("WhatsAppBusinessAudience", _since("id name"))
PRODUCT_CATALOG = NodeType("ProductCatalog", _since("id name vertical product_count business"))
DATASET = NodeType("Dataset", _since("id name"))
TEMPLATE_GROUP = NodeType(
    "WhatsAppMessageTemplateGroup",
    _since("id name description creation_time update_time whatsapp_business_templates"),
    ("id", "name", "description"),
)
ACTIVITY = NodeType(
    "WhatsAppBusinessActivity",
    _since("id activity_type timestamp actor_type actor_id actor_name description details ip_address user_agent"),
    ("id", "activity_type", "timestamp", "actor_type"),
)
ASSIGNED_USER = NodeType("AssignedUser", _since("id name tasks business user_type"), ("id", "name", "tasks"))
# The rows of these edges have no id.
SUBSCRIBED_APP = _rows_without_id(
    "WhatsAppSubscribedApp", "id name link whatsapp_business_api_data override_callback_uri"
)
PAYMENT_CONFIGURATION = _rows_without_id(
    "WhatsAppPaymentConfiguration",
    "payment_configurations configuration_name merchant_category_code purpose_code status provider_mid provider_name"
    " merchant_vpa created_timestamp updated_timestamp",
)
TEMPLATE_PREVIEW = _rows_without_id("WhatsAppMessageTemplatePreview", "body buttons footer language")
TEMPLATE_ANALYTICS = _rows_without_id("WhatsAppTemplateAnalytics", "granularity product_type data_points")
ANALYTICS = _rows_without_id("WhatsAppAnalytics", "data_points", is_paged=False)
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
    {
        "phone_numbers": PHONE_NUMBER,
        "message_templates": TEMPLATE,
        "flows": FLOW,
        "solutions": SOLUTION,
        "schedules": SCHEDULE,
        "audiences": AUDIENCE,
        "product_catalogs": PRODUCT_CATALOG,
        "dataset": DATASET,
        "template_groups": TEMPLATE_GROUP,
        "activities": ACTIVITY,
        "assigned_users": ASSIGNED_USER,
        "subscribed_apps": SUBSCRIBED_APP,
        "payment_configurations": PAYMENT_CONFIGURATION,
        "payment_configuration": PAYMENT_CONFIGURATION,
        "message_template_previews": TEMPLATE_PREVIEW,
        "template_analytics": TEMPLATE_ANALYTICS,
        "template_group_analytics": TEMPLATE_ANALYTICS,
        "group_analytics": TEMPLATE_ANALYTICS,
        "pricing_analytics": ANALYTICS,
        "conversation_analytics": ANALYTICS,
        "call_analytics": ANALYTICS,
    },
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

#: The names of all edges.
EDGES = frozenset(name for kind in (SYSTEM_USER, BUSINESS, ACCOUNT) for name in kind.edges)
