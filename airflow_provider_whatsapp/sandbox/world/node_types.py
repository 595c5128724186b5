"""The types of nodes, with their fields and edges.

The values of an account's fields are generated in :mod:`.accounts`.
"""

from __future__ import annotations

from dataclasses import replace

from .accounts import ASSIGNED_EDGE, CLIENT_EDGE, OWNED_EDGE
from .analytics import ANALYTICS_OF_ACCOUNT
from .row_maker import NodeType, count_rows
from .shapes import ROWS_OF_ACCOUNT

ACCOUNT = NodeType(
    "WhatsAppBusinessAccount",
    "id name currency timezone_id message_template_namespace",
    others="name currency timezone_id message_template_namespace account_review_status business_verification_status"
    " ownership_type country primary_business_location creation_time status is_enabled_for_insights owner_business"
    " owner_business_info on_behalf_of_business_info primary_funding_id purchase_order_number"
    " auth_international_rate_eligibility health_status linked_commerce_account analytics",
    # The first major version of Meta's Python SDK whose WhatsAppBusinessAccount has the field.
    since={
        22: "marketing_messages_lite_api_status",
        23: "is_shared_with_partners marketing_messages_onboarding_status",
        24: "whatsapp_business_manager_messaging_limit",
        25: "disable_marketing_messages_on_cloud_api marketing_messages_ad_account template_auto_archival_enabled"
        " whatsapp_manager_marketing_messages_max_price_enroll_status",
        26: "service_pricing_policy",
    },
    edges={**ROWS_OF_ACCOUNT, **ANALYTICS_OF_ACCOUNT},
)
SHARED_ACCOUNT = replace(ACCOUNT, others=f"{ACCOUNT.others} permitted_tasks")
ASSIGNED_ACCOUNT = replace(
    ACCOUNT, defaults=f"{ACCOUNT.defaults} tasks", others=f"{ACCOUNT.others} tasks", summary=count_rows
)
BUSINESS = NodeType(
    "Business",
    others="name verification_status created_time updated_time timezone_id vertical link two_factor_type"
    " profile_picture_uri is_hidden primary_page payment_account_id created_by updated_by",
    edges={CLIENT_EDGE: SHARED_ACCOUNT, OWNED_EDGE: ACCOUNT},
)
SYSTEM_USER = NodeType("SystemUser", others="name", edges={"businesses": BUSINESS, ASSIGNED_EDGE: ASSIGNED_ACCOUNT})
APPLICATION = NodeType("Application", others="name namespace link category")

#: The names of all edges.
EDGES = frozenset(name for kind in (SYSTEM_USER, BUSINESS, ACCOUNT) for name in kind.edges)
#: The modifiers that a field accepts: paging and alias of a nested edge, parameters of edges and analytics, and those
#: of two fields of flows.
MODIFIERS = frozenset({"invalidate", "phone_number"}) | frozenset(
    name
    for kind in ACCOUNT.edges.values()
    for name in ("limit", "after", "before", "as", "summary", *kind.required.split(), *kind.optional.split())
)
