"""The edges of an account with generated rows: the fields of the rows, and the shapes of their values.

To add a field, add its shape, or its name to ``others`` if generated rows lack it. To add an edge, add an entry to
:data:`ROWS_OF_ACCOUNT`. :class:`.NodeType` explains the arguments. The shapes are those of Meta's SDK and OpenAPI file.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from . import special_rows as special
from .accounts import TIERS
from .row_maker import NodeType, RowDraft, count_rows

# Unix seconds from 2025-01-01 on.
_MOMENT = range(1_735_689_600, 1_790_689_600)
_PEOPLE = ("Ana Souza", "Priya Sharma", "Jonas Weber", "Adaeze Obi", "Mehmet Kaya", "Lucía Gómez")
_TASKS = ["MANAGE", "DEVELOP", "MANAGE_TEMPLATES", "MANAGE_PHONE", "MESSAGING", "VIEW_COST", "VIEW_TEMPLATES"]
_TEMPLATE_NAMES = (
    "order_update", "appointment_reminder", "welcome_back", "one_time_code", "delivery_notice", "spring_sale",
)  # fmt: skip
_SCORES = ("GREEN", "GREEN", "GREEN", "YELLOW", "UNKNOWN")
_SCORE_OF_STATUS = {"PAUSED": "RED", "DISABLED": "RED", "PENDING": "UNKNOWN", "REJECTED": "UNKNOWN"}
_REJECTIONS = ("INVALID_FORMAT", "TAG_CONTENT_MISMATCH", "ABUSIVE_CONTENT", "PROMOTIONAL", "SCAM")
_FLOW_ERROR = {"error": "INVALID_PROPERTY", "error_type": "JSON_SCHEMA_ERROR", "line_start": 46, "line_end": 46}


def _time(it: RowDraft) -> str:
    return f"{datetime.fromtimestamp(it.draw(_MOMENT), timezone.utc):%Y-%m-%dT%H:%M:%S+0000}"


def _account_name(it: RowDraft) -> str:
    return str(it.read.account.get("name", "WhatsApp Business"))


def _phone_numbers(it: RowDraft) -> int:
    # Some accounts have none, and some have more than fit on a page.
    share = it.rng.random()
    return 0 if share < 0.15 else int(it.draw(range(1, 5) if share < 0.95 else range(26, 41)))


# Each type is laid out in groups of lines: first the arguments of the edge, then the fields.
# fmt: off
PHONE_NUMBER = NodeType(
    "WhatsAppBusinessPhoneNumber", "id display_phone_number verified_name quality_rating",
    count=_phone_numbers, ids=range(50),
    others="new_name_status certificate new_certificate health_status webhook_configuration conversational_automation"
    " eligibility_for_api_business_global_search",
    nulls="messaging_limit_tier", since={24: "whatsapp_business_manager_messaging_limit"},
    shapes={
        "display_phone_number": lambda it: f"+1 555-{it.draw(range(100, 1000))}-{it.draw(range(1000, 10_000))}",
        "verified_name": _account_name,
        "quality_rating": ("GREEN", "GREEN", "GREEN", "YELLOW", "RED", "UNKNOWN"),
        "code_verification_status": ("VERIFIED", "VERIFIED", "EXPIRED", "NOT_VERIFIED"),
        "platform_type": ("CLOUD_API", "CLOUD_API", "CLOUD_API", "NOT_APPLICABLE"),
        "status": lambda it: "FLAGGED" if it["quality_rating"] == "RED" else it.draw(
            (*8 * ("CONNECTED",), "PENDING", "DISCONNECTED")
        ),
        "name_status": (*6 * ("APPROVED",), "AVAILABLE_WITHOUT_REVIEW", "PENDING_REVIEW", "DECLINED"),
        "account_mode": lambda it: "SANDBOX" if it.rng.random() < 0.05 else "LIVE",
        "is_official_business_account": lambda it: it.rng.random() < 0.1,
        "is_pin_enabled": lambda it: it.rng.random() < 0.8,
        # All numbers of a portfolio share its limit.
        "whatsapp_business_manager_messaging_limit": lambda it: (
            it.read.account.get("whatsapp_business_manager_messaging_limit") or it.draw(TIERS)
        ),
        "throughput": {"level": ("STANDARD", "STANDARD", "STANDARD", "HIGH", "NOT_APPLICABLE")},
        "quality_score": {"score": lambda it: it["quality_rating"]},
        "last_onboarded_time": _time,
        "is_on_biz_app": lambda it: it.rng.random() < 0.1,
        "is_preverified_number": lambda it: it.rng.random() < 0.05,
        "country_code": "US",
        "country_dial_code": "1",
        "search_visibility": ("VISIBLE", "VISIBLE", "NON_VISIBLE"),
    },
)
_TEMPLATE = NodeType(
    "WhatsAppMessageTemplate", "id name language status category components",
    count=(0, 2, 3, 5, 8, 30), ids=range(50, 100),
    others="message_send_ttl_seconds library_template_name sub_category correct_category degrees_of_freedom_spec"
    " cta_url_link_tracking_opted_out",
    optional="status category language name quality_score source", keep=special.keep_templates,
    summary=lambda count: {
        "total_count": count, "message_template_count": count, "message_template_limit": 6000,
        "are_translations_complete": True,
    },
    shapes={
        "status": (*12 * ("APPROVED",), "PENDING", "PENDING", "REJECTED", "REJECTED", "PAUSED", "DISABLED", "ARCHIVED"),
        "name": lambda it: f"{it.draw(_TEMPLATE_NAMES)}_{it.number}",
        "language": ("en_US", "pt_BR", "es_MX", "hi", "ar"),
        "category": ("MARKETING", "UTILITY", "AUTHENTICATION"),
        "components": [{"type": "BODY", "text": "Hello {{1}}, thank you for your order."}],
        "quality_score": {
            "score": lambda it: _SCORE_OF_STATUS.get(it["status"]) or it.draw(_SCORES), "date": _MOMENT,
        },
        "rejected_reason": lambda it: it.draw(_REJECTIONS) if it["status"] == "REJECTED" else "NONE",
        "parameter_format": "POSITIONAL",
        "previous_category": lambda it: (
            ("UTILITY" if it["category"] == "MARKETING" else "MARKETING") if it.rng.random() < 0.1 else None
        ),
    },
)
_TEMPLATE_GROUP = NodeType(
    "WhatsAppMessageTemplateGroup", "id name description",
    count=range(2), ids=range(700, 800), others="update_time",
    shapes={
        "name": lambda it: f"{it.draw(('Welcome', 'Orders', 'Sale'))} group {it.draw(range(1, 100))}",
        "description": "Templates that are compared",
        "creation_time": _MOMENT,
        "whatsapp_business_templates": lambda it: [
            {"id": row["id"]} for row in _TEMPLATE.make_up("message_templates", it.read)[:2]
        ],
    },
)
# Available only in India.
# https://developers.facebook.com/documentation/business-messaging/whatsapp/payments/payments-in/onboarding-apis
_PAYMENT_CONFIGURATION = NodeType(
    "WhatsAppPaymentConfiguration", has_id=False,
    count=lambda it: it.draw(range(3)) if it.read.account.get("country") == "IN" else 0,
    # The edge has a single row that holds all of them.
    others="payment_configurations merchant_vpa",
    keep=lambda read, rows: [{"payment_configurations": rows}] if rows else [],
    shapes={
        "configuration_name": lambda it: f"payments-{it.number + 1}",
        "merchant_category_code": {"code": "5812", "description": "Restaurants"},
        "purpose_code": {"code": "00", "description": "Default"},
        "status": ("Active", "Active", "Needs_Connecting"),
        "provider_mid": lambda it: f"mid_{it.draw(range(10**6))}",
        "provider_name": ("RazorPay", "PayU"),
        "created_timestamp": _MOMENT,
        "updated_timestamp": lambda it: it["created_timestamp"] + 86_400,
    },
)

ROWS_OF_ACCOUNT = {
    "phone_numbers": PHONE_NUMBER,
    "message_templates": _TEMPLATE,
    "flows": NodeType(
        "WhatsAppFlow", "id name status categories validation_errors",
        count=range(4), ids=range(100, 200),
        others="data_api_version endpoint_uri preview health_status whatsapp_business_account application",
        shapes={
            "status": ("PUBLISHED", "PUBLISHED", "DRAFT", "DEPRECATED", "BLOCKED"),
            "name": lambda it: (
                f"{it.draw(('Sign up', 'Book a table', 'Survey', 'Contact us'))} {it.draw(range(1, 100))}"
            ),
            "categories": [("SIGN_UP", "APPOINTMENT_BOOKING", "SURVEY", "CONTACT_US", "OTHER")],
            "validation_errors": lambda it: [_FLOW_ERROR] if it["status"] == "DRAFT" and it.rng.random() < 0.5 else [],
            "json_version": "7.2",
            "updated_at": _time,
        },
    ),
    "solutions": NodeType(
        "WhatsAppBusinessSolution", "id name status status_for_pending_request",
        count=range(2), ids=range(200, 300),
        shapes={
            "name": lambda it: f"{it.draw(('Commerce', 'Support', 'Loyalty'))} solution",
            "status": ("ACTIVE", "ACTIVE", "INITIATED", "DRAFT", "DEACTIVATED"),
            "status_for_pending_request": ("NONE", "NONE", "PENDING_ACTIVATION", "PENDING_DEACTIVATION"),
            "owner_app": lambda it: dict(it.read.application),
            "owner_permissions": (["MESSAGING"], []),
        },
    ),
    "schedules": NodeType(
        "WhatsAppBusinessSchedule", "id name status",
        count=range(2), ids=range(300, 400),
        shapes={
            "name": lambda it: f"Campaign {it.draw(range(1, 100))}",
            "description": "A campaign that is sent later",
            "status": ("SCHEDULED", "COMPLETED", "CANCELLED"),
            "delivery_time": _MOMENT,
        },
    ),
    "audiences": NodeType(
        "WhatsAppBusinessAudience", count=range(3), ids=range(400, 500),
        shapes={"name": ("Customers", "Prospects", "Newsletter")},
    ),
    "product_catalogs": NodeType(
        "ProductCatalog", count=range(2), ids=range(500, 600), others="business",
        shapes={
            "name": lambda it: f"{_account_name(it)} catalog", "vertical": "commerce", "product_count": range(1, 901),
        },
    ),
    "dataset": NodeType(
        "Dataset", count=range(2), ids=range(600, 700), shapes={"name": lambda it: f"{_account_name(it)} events"},
    ),
    "template_groups": _TEMPLATE_GROUP,
    "activities": NodeType(
        "WhatsAppBusinessActivity", "id activity_type timestamp actor_type",
        count=range(4), ids=range(800, 900), others="actor_id description details ip_address user_agent",
        optional="since until activity_type", keep=special.keep_activities,
        shapes={
            "activity_type": (
                "PHONE_NUMBER_VERIFIED", "USER_ADDED", "USER_REMOVED", "TEMPLATE_CREATED", "ACCOUNT_UPDATED",
            ),
            "timestamp": _time,
            "actor_type": ("USER", "ADMIN", "SYSTEM"),
            "actor_name": _PEOPLE,
        },
    ),
    # The documentation does not say what happens for a business that is unrelated to the account. The sandbox accepts
    # every id.
    "assigned_users": NodeType(
        "AssignedUser", "id name tasks",
        count=range(1, 4), ids=range(900, 1000), required="business", summary=count_rows,
        shapes={
            "name": _PEOPLE,
            "tasks": lambda it: _TASKS[it.draw(range(4)) :],
            "user_type": ("BUSINESS_USER", "BUSINESS_USER", "SYSTEM_USER"),
            "business": {"id": lambda it: it.read.params["business"], "name": "Business"},
        },
    ),
    # Meta serves these edges without documenting their rows, so the sandbox leaves them empty.
    **{
        edge: NodeType(name, has_id=False)
        for edge, name in {
            "degrees_of_freedom_spec": "DegreesOfFreedomSpec", "message_campaigns": "WhatsAppMessageCampaign",
            "welcome_message_sequences": "WelcomeMessageSequence",
        }.items()
    },
    "signups": NodeType(
        "WhatsAppBusinessSignup", "id status",
        count=range(3), ids=range(1000, 1100), others="message promo_code website_url",
        shapes={
            "waba_id": lambda it: it.read.account["id"],
            "status": ("ACTIVE", "ACTIVE", "DISABLED"),
            "signup_message": "Get news and offers",
            "confirmation_message": "Thank you for signing up",
            "privacy_policy_url": "https://example.com/privacy",
            "display_name": ("Newsletter", "Offers"),
        },
    ),
    "subscribed_apps": NodeType(
        "WhatsAppSubscribedApp", has_id=False, make=special.make_subscribed_apps,
        others="id name link whatsapp_business_api_data override_callback_uri",
    ),
    "payment_configurations": _PAYMENT_CONFIGURATION,
    "payment_configuration": replace(
        _PAYMENT_CONFIGURATION, required="configuration_name", keep=special.keep_payment_configuration,
        make=lambda read: _PAYMENT_CONFIGURATION.make_up("payment_configurations", read),
    ),
    "message_template_previews": NodeType(
        "WhatsAppMessageTemplatePreview", has_id=False, make=special.make_template_previews,
        others="body buttons footer language",
        required="category", optional="button_types languages add_security_recommendation code_expiration_minutes",
    ),
}
# fmt: on
