"""Generates and filters the rows that no shape describes, and the health of an account."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .accounts import Node, random_for
from .api_error import ApiError
from .parameters import AccountRead

_TEMPLATE_STATUSES = (
    "APPROVED", "ARCHIVED", "DELETED", "DISABLED", "IN_APPEAL", "LIMIT_EXCEEDED", "PAUSED", "PENDING",
    "PENDING_DELETION", "REJECTED",
)  # fmt: skip


def keep_templates(read: AccountRead, rows: list[Node]) -> list[Node]:
    """Return the templates that match the optional parameters."""
    wanted: dict[str, list[str] | None] = {
        "status": read.words("status", _TEMPLATE_STATUSES),
        "category": read.words("category", ("AUTHENTICATION", "MARKETING", "UTILITY")),
        "language": read.words("language"),
        "quality_score": read.words("quality_score", ("GREEN", "RED", "UNKNOWN", "YELLOW")),
    }

    def value(row: Node, name: str) -> Any:
        found = row.get(name)
        return found.get("score") if name == "quality_score" and isinstance(found, dict) else found

    return [
        row
        for row in rows
        if all(values is None or value(row, name) in values for name, values in wanted.items())
        # The documentation does not say whether the whole name must match. Here, a part is enough.
        and read.text("name") in row.get("name", "")
    ]


def keep_activities(read: AccountRead, rows: list[Node]) -> list[Node]:
    """Return the activities of the requested time and types."""
    since, until, kinds = read.moment("since"), read.moment("until"), read.words("activity_type")
    return [
        row
        for row in rows
        if (since is None or _seconds(row) >= since)
        and (until is None or _seconds(row) <= until)
        and (kinds is None or row.get("activity_type") in kinds)
    ]


def _seconds(row: Node) -> float:
    return datetime.strptime(row["timestamp"], "%Y-%m-%dT%H:%M:%S%z").timestamp()


def keep_payment_configuration(read: AccountRead, rows: list[Node]) -> list[Node]:
    """Return the payment configuration with the requested name.

    :raises ApiError: (100) if there is none
    """
    found = [row for row in rows if row.get("configuration_name") == read.text("configuration_name")]
    if not found:
        raise ApiError(100, "(#100) Param configuration_name must be the name of a payment configuration")
    return found


def make_subscribed_apps(read: AccountRead) -> list[Node]:
    """Return the apps that receive the webhooks of an account; some accounts have none, for audits to find."""
    rng = random_for(read.seed, read.account["id"], "subscribed_apps")
    share = rng.random()
    apps = [] if share < 0.15 else [read.application]
    if share > 0.7:
        apps = [*apps, {"id": str(rng.randrange(10**14, 10**15)), "name": "Chat Inbox"}]
    rows: list[Node] = [
        {"whatsapp_business_api_data": {**app, "link": f"https://www.facebook.com/games/?app_id={app['id']}"}}
        for app in apps
    ]
    if share > 0.9:
        rows[-1]["override_callback_uri"] = "https://hooks.example.com/whatsapp"
    return rows


def make_template_previews(read: AccountRead) -> list[Node]:
    """Return the texts that Meta gives to authentication templates, one row for each language."""
    read.one_of("category", "AUTHENTICATION")
    read.words("button_types", ("OTP",))
    minutes = read.params.get("code_expiration_minutes", "10")
    if not minutes.isdecimal() or not 1 <= int(minutes[:9]) <= 90:
        raise ApiError(100, "(#100) Param code_expiration_minutes must be a number from 1 to 90")
    texts = {
        "en_US": ("*{{1}}* is your verification code.", f"This code expires in {minutes} minutes.", "Copy code"),
        "es_ES": ("Tu código de verificación es *{{1}}*.", f"Este código caduca en {minutes} minutos.", "Copiar"),
        "pt_BR": ("*{{1}}* é seu código de verificação.", f"Este código expira em {minutes} minutos.", "Copiar"),
    }
    is_secure = read.params.get("add_security_recommendation") == "true"
    advice = " For your security, do not share this code." if is_secure else ""
    return [
        {
            "body": body + advice,
            "buttons": [{"text": button, "autofill_text": "Autofill"}],
            "footer": footer,
            "language": language,
        }
        for language, (body, footer, button) in texts.items()
        if language in (read.words("languages") or texts)
    ]


def make_health(account: Node, application: Node) -> Node:
    """Return the ``health_status`` of an account: whether it, its owner and the app can send messages.

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
