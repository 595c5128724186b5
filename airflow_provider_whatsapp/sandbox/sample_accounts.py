"""Made-up businesses and WhatsApp Business Accounts with phone numbers and templates, the same for the same seed.

Each edge of a business draws its accounts from a random generator of its own, so the first hundred accounts of a
sandbox with a hundred thousand are those of a sandbox with a hundred. Phone numbers, templates and health are derived
from the id of an account on request, so that a large sandbox stays small.
"""

from __future__ import annotations

import random
import string
from typing import Any

Node = dict[str, Any]

_COMPANIES = (
    "Café São Jorge", "Müller & Söhne GmbH", "Łódzkie Piekarnie", "Pâtisserie \"L'Étoile\"", "Flores y Más",
    "مخبز الياسمين", "شركة النور للتجارة", "शर्मा मिष्ठान भंडार", "राजधानी ट्रैवल्स", "北京茶馆", "東京文具店",
    "서울 치과", "Кофе и Книги", "Ελληνικός Φούρνος", "מאפיית השלום", "ร้านกาแฟเชียงใหม่", "Pizzeria Vesuvio 🍕",
    "👗 Moda Ámbar", "O'Brien's Hardware", "Smith, Jones & Co.", "Åkerström Møbler", "Đông Á Dược Phòng",
    "Toko Bunga Melati", "Şahin Otomotiv", "Farmácia Coração", "Lagos Fresh Foods", "Óptica Visión", "Solar",
    "\"Quotes\" & Sons, Ltd.", "Línea Uno\nSucursal", "Ferretería El Tornillo; S.A.", "🏳️‍🌈 Prisma Studio",
)  # fmt: skip
_MARKETS = (
    ("São Paulo", "BR", "BRL", "25"), ("Ciudad de México", "MX", "MXN", "94"), ("Mumbai", "IN", "INR", "71"),
    ("New York", "US", "USD", "7"), ("Los Angeles", "US", "USD", "1"), ("Berlin", "DE", "EUR", "47"),
    ("Jakarta", "ID", "IDR", "66"), ("القاهرة", "EG", "EGP", "53"), ("İstanbul", "TR", "TRY", "134"),
    ("Lagos", "NG", "NGN", "102"), ("東京", "JP", "JPY", "81"), ("Bogotá", "CO", "COP", "43"),
)  # fmt: skip
_TASKS = ("DEVELOP", "MANAGE", "MANAGE_TEMPLATES", "MESSAGING", "VIEW_COST", "VIEW_PHONE_ASSETS", "VIEW_TEMPLATES")
_REVIEW = ("APPROVED",) * 17 + ("PENDING", "PENDING", "REJECTED")
_VERIFICATION = ("verified",) * 12 + ("not_verified",) * 5 + ("pending", "failed", "expired")
_MARKETING = (
    "ONBOARDED", "ELIGIBLE", "ELIGIBLE", "PENDING_VALID_PAYMENT_METHOD", "INELIGIBLE_COUNTRY_NOT_SUPPORTED",
)  # fmt: skip
_TIERS = ("TIER_250", "TIER_2K", "TIER_10K", "TIER_100K", "TIER_UNLIMITED")
# Accounts were created on any day from September 2019 to October 2026.
_FIRST_DAY = 1_569_783_261
_SECONDS_SINCE = 223_000_000
_OFTEN_MISSING = (
    "currency", "country", "primary_business_location", "message_template_namespace", "account_review_status",
    "business_verification_status", "is_enabled_for_insights", "owner_business_info", "creation_time", "name",
)  # fmt: skip
_TEMPLATES = (
    "order_update", "appointment_reminder", "welcome_back", "one_time_code", "delivery_notice", "spring_sale",
)  # fmt: skip


def random_for(*parts: object) -> random.Random:
    """The random generator that belongs to these parts. It gives the same numbers in every run."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - sample data must be repeatable


def make_token(seed: int) -> str:
    """An access token that looks like the token of a system user."""
    return "EAA" + "".join(random_for(seed, "token").choices(string.ascii_letters + string.digits, k=180))


def make_id(rng: random.Random, taken: set[str]) -> str:
    """An unused id of 15 to 17 digits. Many exceed 2^53, so that a client that parses ids as floats corrupts them.

    :param taken: the ids in use; the new one is added
    """
    while (node_id := str(10**14 + rng.getrandbits(rng.choice((49, 52, 56))))) in taken:
        pass
    taken.add(node_id)
    return node_id


def make_businesses(seed: int, count: int, taken: set[str]) -> list[Node]:
    """The business portfolios that the token can see."""
    rng = random_for(seed, "businesses")
    return [
        {
            "id": make_id(rng, taken),
            "name": f"{_COMPANIES[number % len(_COMPANIES)]} Partners",
            "verification_status": "verified",
            "created_time": "2019-09-29T18:54:21+0000",
            "timezone_id": 1,
        }
        for number in range(count)
    ]


def make_accounts(seed: int, business: Node, count: int, taken: set[str], *, owned: bool) -> list[Node]:
    """The WhatsApp Business Accounts of one edge of a business.

    :param taken: the ids in use; those of the accounts are added
    :param owned: whether the business owns the accounts, rather than having access to accounts of its clients
    """
    rng = random_for(seed, business["id"], "owned" if owned else "client")
    roll, bits = rng.random, rng.getrandbits
    accounts = []
    for _ in range(count):
        company = _COMPANIES[int(roll() * len(_COMPANIES))]
        city, country, currency, timezone = _MARKETS[int(roll() * len(_MARKETS))]
        name = f"{company} {city}"
        ownership = "SELF" if owned else "CLIENT_OWNED" if roll() < 0.9 else "ON_BEHALF_OF"
        namespace = f"{bits(128):032x}"
        account: Node = {
            "id": make_id(rng, taken),
            "name": name,
            "currency": currency,
            "timezone_id": timezone,
            "message_template_namespace": "_".join(
                (namespace[:8], namespace[8:12], namespace[12:16], namespace[16:20], namespace[20:])
            ),
            "account_review_status": _REVIEW[int(roll() * len(_REVIEW))],
            "business_verification_status": _VERIFICATION[int(roll() * len(_VERIFICATION))],
            "ownership_type": ownership,
            "country": country,
            "primary_business_location": country,
            "creation_time": _FIRST_DAY + int(roll() * _SECONDS_SINCE),
            "status": "ACTIVE" if roll() < 0.95 else "DISABLED",
            "is_enabled_for_insights": roll() < 0.7,
            "marketing_messages_onboarding_status": _MARKETING[int(roll() * len(_MARKETING))],
            "whatsapp_business_manager_messaging_limit": _TIERS[int(roll() * len(_TIERS))],
        }
        if owned:
            account["owner_business_info"] = {"id": business["id"], "name": business["name"]}
        else:
            account["owner_business_info"] = {"id": make_id(rng, taken), "name": company}
            account["permitted_tasks"] = list(_TASKS[int(roll() * 4) :])
        if ownership == "ON_BEHALF_OF":
            # Real answers have no id in this object.
            account["on_behalf_of_business_info"] = {"name": company, "status": "APPROVED", "type": ownership}
        if roll() < 0.2:
            del account[_OFTEN_MISSING[int(roll() * len(_OFTEN_MISSING))]]
        accounts.append(account)
    return accounts


def make_phone_numbers(seed: int, account: Node) -> list[Node]:
    """The phone numbers of an account: usually a few, sometimes none, and sometimes more than fit on a page."""
    rng = random_for(seed, account["id"], "phone_numbers")
    share = rng.random()
    count = 0 if share < 0.15 else rng.randint(1, 4) if share < 0.95 else rng.randint(26, 40)
    return [
        {
            "id": f"{account['id']}{number:02d}",
            "display_phone_number": f"+1 555-{rng.randint(100, 999)}-{rng.randint(1000, 9999)}",
            "verified_name": account.get("name", "WhatsApp Business"),
            "quality_rating": rng.choice(("GREEN", "GREEN", "GREEN", "YELLOW", "RED", "UNKNOWN")),
            "code_verification_status": rng.choice(("VERIFIED", "VERIFIED", "EXPIRED")),
            "platform_type": "CLOUD_API",
            "status": "CONNECTED",
            "name_status": "APPROVED",
            "account_mode": "LIVE",
            "is_official_business_account": rng.random() < 0.1,
            "messaging_limit_tier": rng.choice(_TIERS),
            "throughput": {"level": "STANDARD"},
        }
        for number in range(count)
    ]


def make_templates(seed: int, account: Node) -> list[Node]:
    """The message templates of an account."""
    rng = random_for(seed, account["id"], "message_templates")
    return [
        {
            # Phone numbers end in 00 to 49 and templates in 50 to 99, so that each id leads back to its account.
            "id": f"{account['id']}{50 + number}",
            "name": f"{rng.choice(_TEMPLATES)}_{number}",
            "language": rng.choice(("en_US", "pt_BR", "es_MX", "hi", "ar")),
            "status": rng.choice(("APPROVED", "APPROVED", "APPROVED", "PENDING", "REJECTED")),
            "category": rng.choice(("MARKETING", "UTILITY", "AUTHENTICATION")),
            "components": [{"type": "BODY", "text": "Hello {{1}}, thank you for your order."}],
        }
        for number in range(rng.choice((0, 2, 3, 5, 8, 30)))
    ]


def make_health(account: Node) -> Node:
    """The ``health_status`` of an account: whether it and its owner can send messages."""
    verdict = "AVAILABLE" if account.get("status", "ACTIVE") == "ACTIVE" else "BLOCKED"
    entities = [{"entity_type": "WABA", "id": account["id"], "can_send_message": verdict}]
    if owner := account.get("owner_business_info", {}).get("id"):
        entities.append({"entity_type": "BUSINESS", "id": owner, "can_send_message": "AVAILABLE"})
    return {"can_send_message": verdict, "entities": entities}
