"""What Meta sends about an account, by topic: the examples of the pages that ``TOPICS`` in ``webhooks.py`` names.

WABA, OWNER and PARTNER stand for the ids of the account, of the business that owns it and of the one it is shared with.
"""

from __future__ import annotations

import json
from typing import Any

_NUMBER = {"display_phone_number": "15550783881"}
_SHARED = {"waba_id": "WABA", "owner_business_id": "OWNER"}
_SOLUTION = {"solution_id": "1715120619246906", "solution_partner_business_ids": ["PARTNER", "520744086200222"]}
_TEMPLATE = {
    "message_template_id": 1689556908129832,
    "message_template_name": "order_confirmation",
    "message_template_language": "en-US",
}
_DISCONNECTED = {"disconnection_info": {"reason": "PRIMARY_INACTIVITY", "initiated_by": "SYSTEM"}}

# The values of an `account_update` besides its event.
_ACCOUNT_UPDATES: dict[str, dict[str, Any]] = {
    "ACCOUNT_DELETED": {},
    "ACCOUNT_OFFBOARDED": {},
    "ACCOUNT_RECONNECTED": {},
    "ACCOUNT_RESTRICTION": {
        "restriction_info": [{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING", "expiration": 1796083200}]
    },
    "ACCOUNT_VIOLATION": {"violation_info": {"violation_type": "SCAM"}},
    "AD_ACCOUNT_LINKED": {"waba_info": {**_SHARED, "ad_account_linked": "980198427534243"}},
    "AUTH_INTL_PRICE_ELIGIBILITY_UPDATE": {
        "auth_international_rate_eligibility": {
            "exception_countries": [{"country_code": "ID", "start_time": 1751347424}],
            "start_time": 1748780624,
        }
    },
    "BUSINESS_PRIMARY_LOCATION_COUNTRY_UPDATE": {"country": "IN"},
    "DISABLED_UPDATE": {"ban_info": {"waba_ban_state": "DISABLE", "waba_ban_date": "November 30, 2026"}},
    "MM_LITE_TERMS_SIGNED": {"waba_info": _SHARED},
    "PARTNER_ADDED": {"waba_info": {**_SHARED, **_SOLUTION}},
    "PARTNER_APP_INSTALLED": {"waba_info": {**_SHARED, **_SOLUTION, "partner_app_id": "5731794616896507"}},
    "PARTNER_APP_UNINSTALLED": {"waba_info": {**_SHARED, "partner_app_id": "5731794616896507"}},
    "PARTNER_CLIENT_CERTIFICATION_STATUS_UPDATE": {
        "partner_client_certification_info": {
            "client_business_id": "OWNER",
            "status": "APPROVED",
            "rejection_reasons": ["NONE"],
        }
    },
    "PARTNER_REMOVED": {"waba_info": _SHARED},
    # A client of the WhatsApp Business app was disconnected. Meta shows this one with and without `waba_info`.
    "PARTNER_REMOVED/coexistence": {"phone_number": "15550783881", **_DISCONNECTED},
    "PARTNER_REMOVED/disconnected": {"waba_info": _SHARED, **_DISCONNECTED},
    "VOLUME_BASED_PRICING_TIER_UPDATE": {
        "volume_tier_info": {
            "tier_update_time": 1743451903,
            "pricing_category": "UTILITY",
            "tier": "25000001:50000000",
            "effective_month": "2026-11",
            "region": "India",
        }
    },
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "account_alerts": {
        "entity_type": "BUSINESS",
        "entity_id": "OWNER",
        "alert_info": {
            "alert_severity": "WARNING",
            "alert_status": "ACTIVE",
            "alert_type": "INCREASED_CAPABILITIES_ELIGIBILITY_DEFERRED",
            "alert_description": "The limit cannot be increased yet.",
        },
    },
    "account_review_update": {"decision": "APPROVED"},
    "account_settings_update": {
        "messaging_product": "whatsapp",
        "timestamp": "1671644824",
        "type": "PHONE_NUMBER_SETTINGS",
        "phone_number_settings": {
            "phone_number_id": "106540352242922",
            "calling": {"status": "ENABLED", "call_icon_visibility": "DEFAULT"},
        },
    },
    **{f"account_update/{name}": {"event": name.partition("/")[0], **more} for name, more in _ACCOUNT_UPDATES.items()},
    "business_capability_update": {"max_daily_conversations_per_business": 2000, "max_phone_numbers_per_waba": 25},
    "business_status_update": {"business_id": "OWNER", "event": "COMPROMISED_NOTIFICATION"},
    "business_username_updates": {**_NUMBER, "username": "luckyshrub", "status": "approved"},
    "flows": {
        "event": "FLOW_STATUS_CHANGE",
        "message": "The flow changed its status from DRAFT to PUBLISHED",
        "flow_id": "6627390910605886",
        "old_status": "DRAFT",
        "new_status": "PUBLISHED",
    },
    "message_template_components_update": {
        **_TEMPLATE,
        "message_template_element": "Your order {{1}} is confirmed.",
        "message_template_footer": "Lucky Shrub",
    },
    "message_template_quality_update": {
        **_TEMPLATE,
        "previous_quality_score": "GREEN",
        "new_quality_score": "YELLOW",
    },
    "message_template_status_update": {
        **_TEMPLATE,
        "event": "APPROVED",
        "reason": "NONE",
        "message_template_category": "UTILITY",
    },
    "partner_solutions": {
        "event": "SOLUTION_CREATED",
        "solution_id": "774485461512159",
        "solution_status": "INITIATED",
    },
    "payment_configuration_update": {
        "configuration_name": "razorpay-prod",
        "provider_name": "razorpay",
        "provider_mid": "acc_GP4lfNA0iIMn5B",
        "status": "Needs Testing",
        "created_timestamp": 1748827100,
        "updated_timestamp": 1749320300,
    },
    "phone_number_name_update": {
        **_NUMBER,
        "decision": "APPROVED",
        "requested_verified_name": "Lucky Shrub",
        "rejection_reason": None,
    },
    "phone_number_quality_update": {**_NUMBER, "event": "FLAGGED", "current_limit": "TIER_1K"},
    "security": {**_NUMBER, "event": "PIN_RESET_REQUEST", "requester": "61555822107539"},
    "template_category_update": {**_TEMPLATE, "previous_category": "UTILITY", "new_category": "MARKETING"},
    "template_correct_category_detection": {**_TEMPLATE, "category": "UTILITY", "correct_category": "MARKETING"},
}
_ENTRY_IS_THE_BUSINESS = frozenset({"business_status_update", "partner_solutions"})


def make_change(topic: str, *, waba_id: str, owner_id: str, partner_id: str) -> tuple[str, dict[str, Any]]:
    """Return the id of the entry and the object in ``changes`` of the example of a topic.

    :param topic: a key of ``EXAMPLES``
    """
    text = json.dumps(EXAMPLES[topic])
    for name, id in {"WABA": waba_id, "OWNER": owner_id, "PARTNER": partner_id}.items():
        text = text.replace(f'"{name}"', f'"{id}"')
    value, field = json.loads(text), topic.partition("/")[0]
    of_business = "waba_info" in value or field in _ENTRY_IS_THE_BUSINESS
    return partner_id if of_business else waba_id, {"field": field, "value": value}
