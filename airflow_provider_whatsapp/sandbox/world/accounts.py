"""Generates businesses and WhatsApp Business Accounts; the same seed gives the same ones.

Each edge of a business draws its accounts from its own random generator, so the first hundred accounts of a sandbox
with a hundred thousand are those of a sandbox with a hundred. The rows of an account's edges are derived from its id on
request, in :mod:`.row_maker` and :mod:`.analytics`, so that a large sandbox takes little memory.
"""

from __future__ import annotations

import random
import string
from typing import Any

Node = dict[str, Any]

CLIENT_EDGE = "client_whatsapp_business_accounts"
OWNED_EDGE = "owned_whatsapp_business_accounts"
ASSIGNED_EDGE = "assigned_whatsapp_business_accounts"
ACCOUNT_EDGES = frozenset({CLIENT_EDGE, OWNED_EDGE})

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
TASKS = ("DEVELOP", "MANAGE", "MANAGE_TEMPLATES", "MESSAGING", "VIEW_COST", "VIEW_PHONE_ASSETS", "VIEW_TEMPLATES")
_REVIEW = ("APPROVED",) * 17 + ("PENDING", "PENDING", "REJECTED")
_OWNERSHIP = ("CLIENT_OWNED",) * 18 + ("AGENCY_OWNED", "ON_BEHALF_OF")
_VERIFICATION = ("verified",) * 12 + ("not_verified",) * 5 + ("pending", "failed", "expired")
_MARKETING = (
    "ONBOARDED", "ELIGIBLE", "ELIGIBLE", "PENDING_VALID_PAYMENT_METHOD", "INELIGIBLE_COUNTRY_NOT_SUPPORTED",
)  # fmt: skip
TIERS = ("TIER_250", "TIER_2K", "TIER_10K", "TIER_100K", "TIER_UNLIMITED")
# Accounts were created on any day from September 2019 to October 2026.
_FIRST_DAY = 1_569_783_261
_SECONDS_SINCE = 223_000_000
_OFTEN_MISSING = (
    "currency", "country", "primary_business_location", "message_template_namespace", "account_review_status",
    "business_verification_status", "is_enabled_for_insights", "owner_business_info", "creation_time", "name",
)  # fmt: skip


def random_for(*parts: object) -> random.Random:
    """Return the random generator for these parts; it gives the same numbers in every run."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - sample data must be repeatable


def make_token(seed: int) -> str:
    """Return an access token that looks like that of a system user."""
    return "EAA" + "".join(random_for(seed, "token").choices(string.ascii_letters + string.digits, k=180))


def make_id(rng: random.Random, taken: set[str]) -> str:
    """Return an unused id of 15 to 17 digits; many exceed 2^53, so that parsing them as floats corrupts them.

    :param taken: the ids in use; the new one is added
    """
    while (node_id := str(10**14 + rng.getrandbits(rng.choice((49, 52, 56))))) in taken:
        pass
    taken.add(node_id)
    return node_id


def make_businesses(seed: int, count: int, taken: set[str]) -> list[Node]:
    """Return the business portfolios that the token can see."""
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
    """Return the WhatsApp Business Accounts of one edge of a business.

    :param taken: the ids in use; those of the accounts are added
    :param owned: whether the business owns the accounts, rather than having access to accounts of its clients
    """
    rng = random_for(seed, business["id"], "owned" if owned else "client")
    # All accounts that one business owns share its messaging limit.
    limit = random_for(seed, business["id"], "messaging_limit").choice(TIERS)
    # The businesses that a client shares the account with, for the filter of this name.
    shared_with = (business["id"],)
    roll, bits = rng.random, rng.getrandbits
    accounts = []
    for _ in range(count):
        company = _COMPANIES[int(roll() * len(_COMPANIES))]
        city, country, currency, timezone = _MARKETS[int(roll() * len(_MARKETS))]
        name = f"{company} {city}"
        ownership = "SELF" if owned else _OWNERSHIP[int(roll() * len(_OWNERSHIP))]
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
            "whatsapp_business_manager_messaging_limit": TIERS[int(roll() * len(TIERS))],
        }
        if owned:
            account["owner_business_info"] = {"id": business["id"], "name": business["name"]}
            account["whatsapp_business_manager_messaging_limit"] = limit
        else:
            account["owner_business_info"] = {"id": make_id(rng, taken), "name": company}
            account["permitted_tasks"] = list(TASKS[int(roll() * 4) :])
            account["partners"] = shared_with
        if ownership == "ON_BEHALF_OF":
            # Real responses have no id in this object.
            account["on_behalf_of_business_info"] = {"name": company, "status": "APPROVED", "type": ownership}
        if roll() < 0.2:
            del account[_OFTEN_MISSING[int(roll() * len(_OFTEN_MISSING))]]
        accounts.append(account)
    return accounts
