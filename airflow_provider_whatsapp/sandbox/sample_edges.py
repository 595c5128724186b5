"""Made-up rows of the edges of an account, such as its phone numbers, templates and flows.

They are derived from the seed and the id of the account, so they are the same in every run. Their ids begin with the id
of the account, so that each leads back to it. The shapes are those of Meta's SDK and OpenAPI file.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timezone

from .account_read import AccountRead
from .http_exchange import ApiError
from .sample_accounts import TIERS, Node, random_for

_FIRST_DAY = 1_735_689_600  # 2025-01-01
_SECONDS_SINCE = 55_000_000
_TEMPLATES = (
    "order_update", "appointment_reminder", "welcome_back", "one_time_code", "delivery_notice", "spring_sale",
)  # fmt: skip
_REJECTIONS = ("INVALID_FORMAT", "TAG_CONTENT_MISMATCH", "ABUSIVE_CONTENT", "PROMOTIONAL", "SCAM")
_PEOPLE = ("Ana Souza", "Priya Sharma", "Jonas Weber", "Adaeze Obi", "Mehmet Kaya", "Lucía Gómez")
_TASKS = ("MANAGE", "DEVELOP", "MANAGE_TEMPLATES", "MANAGE_PHONE", "MESSAGING", "VIEW_COST", "VIEW_TEMPLATES")
_ACTIVITIES = ("PHONE_NUMBER_VERIFIED", "USER_ADDED", "USER_REMOVED", "TEMPLATE_CREATED", "ACCOUNT_UPDATED")
# The digit that stands between the id of an account and the two digits of a row. Phone numbers and templates have none.
_ID_DIGIT = {
    name: str(digit)
    for digit, name in enumerate(
        (
            "flows", "solutions", "schedules", "audiences", "product_catalogs", "dataset", "template_groups",
            "activities", "assigned_users",
        ),
        start=1,
    )
}  # fmt: skip


def edges_of_id(node_id: str) -> list[tuple[str, str]]:
    """The account and the edge that a made-up row with this id would belong to, for every way to read the id."""
    found = [(node_id[:-2], "phone_numbers" if node_id[-2:] < "50" else "message_templates")]
    return found + [(node_id[:-3], edge) for edge, digit in _ID_DIGIT.items() if node_id[-3:-2] == digit]


def make_phone_numbers(read: AccountRead) -> list[Node]:
    """The phone numbers of an account: usually a few, sometimes none, and sometimes more than fit on a page."""
    account = read.account
    rng = random_for(read.seed, account["id"], "phone_numbers")
    share = rng.random()
    count = 0 if share < 0.15 else rng.randint(1, 4) if share < 0.95 else rng.randint(26, 40)
    return [
        {
            "id": f"{account['id']}{number:02d}",
            "display_phone_number": f"+1 555-{rng.randint(100, 999)}-{rng.randint(1000, 9999)}",
            "verified_name": account.get("name", "WhatsApp Business"),
            "quality_rating": (quality := rng.choice(("GREEN", "GREEN", "GREEN", "YELLOW", "RED", "UNKNOWN"))),
            "code_verification_status": rng.choice(("VERIFIED", "VERIFIED", "EXPIRED", "NOT_VERIFIED")),
            "platform_type": rng.choice(("CLOUD_API", "CLOUD_API", "CLOUD_API", "NOT_APPLICABLE")),
            "status": "FLAGGED" if quality == "RED" else rng.choice(("CONNECTED",) * 8 + ("PENDING", "DISCONNECTED")),
            "name_status": rng.choice(("APPROVED",) * 6 + ("AVAILABLE_WITHOUT_REVIEW", "PENDING_REVIEW", "DECLINED")),
            "account_mode": "SANDBOX" if rng.random() < 0.05 else "LIVE",
            "is_official_business_account": rng.random() < 0.1,
            "is_pin_enabled": rng.random() < 0.8,
            "messaging_limit_tier": account.get("whatsapp_business_manager_messaging_limit") or rng.choice(TIERS),
            "throughput": {"level": rng.choice(("STANDARD", "STANDARD", "STANDARD", "HIGH", "NOT_APPLICABLE"))},
            "quality_score": {"score": quality},
            "last_onboarded_time": _time(_moment(rng)),
        }
        for number in range(count)
    ]


def make_templates(read: AccountRead) -> list[Node]:
    """The message templates of an account."""
    rng = random_for(read.seed, read.account["id"], "message_templates")
    return [_make_template(read.account, number, rng) for number in range(rng.choice((0, 2, 3, 5, 8, 30)))]


def _make_template(account: Node, number: int, rng: random.Random) -> Node:
    status = rng.choice(("APPROVED",) * 12 + ("PENDING", "PENDING", "REJECTED", "REJECTED", "PAUSED", "DISABLED"))
    score = {"PAUSED": "RED", "DISABLED": "RED", "PENDING": "UNKNOWN", "REJECTED": "UNKNOWN"}.get(status)
    template = {
        # Phone numbers end in 00 to 49 and templates in 50 to 99.
        "id": f"{account['id']}{50 + number}",
        "name": f"{rng.choice(_TEMPLATES)}_{number}",
        "language": rng.choice(("en_US", "pt_BR", "es_MX", "hi", "ar")),
        "status": status,
        "category": rng.choice(("MARKETING", "UTILITY", "AUTHENTICATION")),
        "components": [{"type": "BODY", "text": "Hello {{1}}, thank you for your order."}],
        "quality_score": {
            "score": score or rng.choice(("GREEN", "GREEN", "GREEN", "YELLOW", "UNKNOWN")),
            "date": _moment(rng),
        },
        "rejected_reason": rng.choice(_REJECTIONS) if status == "REJECTED" else "NONE",
        "parameter_format": "POSITIONAL",
    }
    if rng.random() < 0.1:
        template["previous_category"] = "UTILITY" if template["category"] == "MARKETING" else "MARKETING"
    return template


def make_health(account: Node, application: Node) -> Node:
    """The ``health_status`` of an account: whether it, its owner and the app can send messages.

    https://developers.facebook.com/documentation/business-messaging/whatsapp/support/health-status
    """
    waba: Node = {"entity_type": "WABA", "id": account["id"], "can_send_message": "AVAILABLE"}
    if account.get("status", "ACTIVE") != "ACTIVE" or account.get("account_review_status") == "REJECTED":
        waba["can_send_message"] = "BLOCKED"
        waba["errors"] = [
            {
                "error_code": 141_000,
                "error_description": "The WhatsApp Business Account is disabled or was rejected.",
                "possible_solution": "Open WhatsApp Manager and request a review.",
            }
        ]
    entities = [waba]
    if owner := account.get("owner_business_info", {}).get("id"):
        business: Node = {"entity_type": "BUSINESS", "id": owner, "can_send_message": "AVAILABLE"}
        if account.get("business_verification_status") in {"failed", "expired", "rejected", "revoked"}:
            business["can_send_message"] = "LIMITED"
            business["additional_info"] = ["The business is not verified, so it can start few conversations."]
        entities.append(business)
    entities.append({"entity_type": "APP", "id": application["id"], "can_send_message": "AVAILABLE"})
    verdicts = {entity["can_send_message"] for entity in entities}
    worst = next(verdict for verdict in ("BLOCKED", "LIMITED", "AVAILABLE") if verdict in verdicts)
    return {"can_send_message": worst, "entities": entities}


def _rows(
    edge: str, most: int, make: Callable[[AccountRead, random.Random], Node]
) -> Callable[[AccountRead], list[Node]]:
    """What makes up to ``most`` rows of an edge."""

    def make_rows(read: AccountRead) -> list[Node]:
        rng = random_for(read.seed, read.account["id"], edge)
        prefix = f"{read.account['id']}{_ID_DIGIT[edge]}"
        return [{"id": f"{prefix}{number:02d}", **make(read, rng)} for number in range(rng.randint(0, most))]

    return make_rows


def _moment(rng: random.Random) -> int:
    return _FIRST_DAY + rng.randrange(_SECONDS_SINCE)


def _time(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%dT%H:%M:%S+0000}"


def _flow(read: AccountRead, rng: random.Random) -> Node:
    status = rng.choice(("PUBLISHED", "PUBLISHED", "DRAFT", "DEPRECATED", "BLOCKED"))
    errors = [{"error": "INVALID_PROPERTY", "error_type": "JSON_SCHEMA_ERROR", "line_start": 46, "line_end": 46}]
    return {
        "name": f"{rng.choice(('Sign up', 'Book a table', 'Survey', 'Contact us'))} {rng.randint(1, 99)}",
        "status": status,
        "categories": [rng.choice(("SIGN_UP", "APPOINTMENT_BOOKING", "SURVEY", "CONTACT_US", "OTHER"))],
        "validation_errors": errors if status == "DRAFT" and rng.random() < 0.5 else [],
        "json_version": "7.2",
        "updated_at": _time(_moment(rng)),
    }


def _solution(read: AccountRead, rng: random.Random) -> Node:
    return {
        "name": f"{rng.choice(('Commerce', 'Support', 'Loyalty'))} solution",
        "status": rng.choice(("ACTIVE", "ACTIVE", "INITIATED", "DRAFT", "DEACTIVATED")),
        "status_for_pending_request": rng.choice(("NONE", "NONE", "PENDING_ACTIVATION", "PENDING_DEACTIVATION")),
        "owner_app": dict(read.application),
        "owner_permissions": list(rng.choice((("MESSAGING",), ()))),
    }


def _schedule(read: AccountRead, rng: random.Random) -> Node:
    return {
        "name": f"Campaign {rng.randint(1, 99)}",
        "description": "A campaign that is sent later",
        "status": rng.choice(("SCHEDULED", "COMPLETED", "CANCELLED")),
        "delivery_time": _moment(rng),
    }


def _audience(read: AccountRead, rng: random.Random) -> Node:
    return {"name": rng.choice(("Customers", "Prospects", "Newsletter"))}


def _product_catalog(read: AccountRead, rng: random.Random) -> Node:
    name = f"{read.account.get('name', 'WhatsApp Business')} catalog"
    return {"name": name, "vertical": "commerce", "product_count": rng.randint(1, 900)}


def _dataset(read: AccountRead, rng: random.Random) -> Node:
    return {"name": f"{read.account.get('name', 'WhatsApp Business')} events"}


def _template_group(read: AccountRead, rng: random.Random) -> Node:
    templates = [{"id": row["id"]} for row in make_templates(read)[:2]]
    return {
        "name": f"{rng.choice(('Welcome', 'Orders', 'Sale'))} group {rng.randint(1, 99)}",
        "description": "Templates that are compared",
        "creation_time": _moment(rng),
        "whatsapp_business_templates": templates,
    }


def _activity(read: AccountRead, rng: random.Random) -> Node:
    return {
        "activity_type": rng.choice(_ACTIVITIES),
        "timestamp": _time(_moment(rng)),
        "actor_type": rng.choice(("USER", "ADMIN", "SYSTEM")),
        "actor_name": rng.choice(_PEOPLE),
    }


def make_assigned_users(read: AccountRead) -> list[Node]:
    """The people and system users of a business who are assigned to an account.

    The documentation does not say what happens for a business that has nothing to do with the account. The sandbox
    answers for every id.
    """
    business = read.params["business"]
    rng = random_for(read.seed, read.account["id"], "assigned_users", business)
    return [
        {
            "id": f"{read.account['id']}{_ID_DIGIT['assigned_users']}{number:02d}",
            "name": rng.choice(_PEOPLE),
            "tasks": list(_TASKS[rng.randrange(4) :]),
            "user_type": rng.choice(("BUSINESS_USER", "BUSINESS_USER", "SYSTEM_USER")),
            "business": {"id": business, "name": "Business"},
        }
        for number in range(rng.randint(1, 3))
    ]


def make_subscribed_apps(read: AccountRead) -> list[Node]:
    """The apps that get the webhooks of an account. Some accounts have none, which an audit must find."""
    rng = random_for(read.seed, read.account["id"], "subscribed_apps")
    share = rng.random()
    apps = [] if share < 0.15 else [read.application]
    if share > 0.7:
        apps = [*apps, {"id": str(rng.randrange(10**14, 10**15)), "name": "Chat Inbox"}]
    rows: list[Node] = [
        {
            "whatsapp_business_api_data": {
                "id": app["id"],
                "name": app["name"],
                "link": f"https://www.facebook.com/games/?app_id={app['id']}",
            }
        }
        for app in apps
    ]
    if share > 0.9:
        rows[-1]["override_callback_uri"] = "https://hooks.example.com/whatsapp"
    return rows


def make_payment_configurations(read: AccountRead) -> list[Node]:
    """The ways to pay in chats that were set up for an account; only accounts in India have some.

    https://developers.facebook.com/documentation/business-messaging/whatsapp/payments/payments-in/onboarding-apis
    """
    rng = random_for(read.seed, read.account["id"], "payment_configurations")
    count = rng.randint(0, 2) if read.account.get("country") == "IN" else 0
    return [
        {
            "configuration_name": f"payments-{number + 1}",
            "merchant_category_code": {"code": "5812", "description": "Restaurants"},
            "purpose_code": {"code": "00", "description": "Default"},
            "status": rng.choice(("Active", "Active", "Needs_Connecting")),
            "provider_mid": f"mid_{rng.randrange(10**6)}",
            "provider_name": rng.choice(("RazorPay", "PayU")),
            "created_timestamp": (created := _moment(rng)),
            "updated_timestamp": created + 86_400,
        }
        for number in range(count)
    ]


def make_template_previews(read: AccountRead) -> list[Node]:
    """The texts that Meta gives to authentication templates, one row for each language."""
    read.one_of("category", ("AUTHENTICATION",))
    read.words("button_types", ("OTP",))
    minutes = read.params.get("code_expiration_minutes", "10")
    if not minutes.isdecimal() or not 1 <= int(minutes[:9]) <= 90:
        raise ApiError(100, "(#100) Param code_expiration_minutes must be a number from 1 to 90")
    safe = " For your security, do not share this code."
    texts = {
        "en_US": ("*{{1}}* is your verification code.", f"This code expires in {minutes} minutes.", "Copy code"),
        "es_ES": ("Tu código de verificación es *{{1}}*.", f"Este código caduca en {minutes} minutos.", "Copiar"),
        "pt_BR": ("*{{1}}* é seu código de verificação.", f"Este código expira em {minutes} minutos.", "Copiar"),
    }
    secure = safe if read.params.get("add_security_recommendation") == "true" else ""
    return [
        {
            "body": body + secure,
            "buttons": [{"text": button, "autofill_text": "Autofill"}],
            "footer": footer,
            "language": language,
        }
        for language, (body, footer, button) in texts.items()
        if language in (read.words("languages") or texts)
    ]


make_flows = _rows("flows", 3, _flow)
make_solutions = _rows("solutions", 1, _solution)
make_schedules = _rows("schedules", 1, _schedule)
make_audiences = _rows("audiences", 2, _audience)
make_product_catalogs = _rows("product_catalogs", 1, _product_catalog)
make_datasets = _rows("dataset", 1, _dataset)
make_template_groups = _rows("template_groups", 1, _template_group)
make_activities = _rows("activities", 3, _activity)
