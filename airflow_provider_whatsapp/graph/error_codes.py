"""All that is known about the error codes of the Graph API, in one table. To add a code, add a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_provider_whatsapp.graph.errors import (
    GraphApiError,
    GraphError,
    GraphPermissionError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
)


class Subcode(NamedTuple):
    """What is different for an ``error.error_subcode``.

    :param advice: as in :class:`Code`
    :param one_account: as in :class:`Code`
    :param too_much_data: as in :class:`Code`
    """

    advice: str = ""
    one_account: bool = False
    too_much_data: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """What is known about an ``error.code``.

    :param codes: the code, or several codes for which the rest of the row is the same
    :param kind: class of the error
    :param source: where the code is documented
    :param advice: what to do, the beginning of the message; if it is empty, :data:`ADVICE_OF_CLASS` has the advice
    :param one_account: whether other accounts may still be readable, because the error concerns one account: the token
        has no access to it, it is gone, it does not have what was requested, or it has used up its own rate limit
    :param too_much_data: whether the error says that one response cannot hold that much data
    :param subcodes: what is different for some subcodes; None is for a response without a subcode
    """

    codes: Sequence[int]
    kind: type[GraphApiError]
    source: str
    advice: str = ""
    one_account: bool = False
    too_much_data: bool = False
    subcodes: Mapping[int | None, Subcode] = field(default_factory=dict)

    def details(self, subcode: int | None) -> Subcode:
        """Return what is known about a subcode.

        :param subcode: subcode of the error, or None
        """
        own = Subcode(self.advice, self.one_account, self.too_much_data)
        different = self.subcodes.get(subcode, own)
        return different if different.advice else different._replace(advice=own.advice)


_GUIDE = "https://developers.facebook.com/docs/graph-api/guides/error-handling"
_RATE_LIMITS = "https://developers.facebook.com/docs/graph-api/overview/rate-limiting"
_WHATSAPP = "https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes"
_PAYMENTS = (
    "https://developers.facebook.com/documentation/business-messaging/whatsapp/payments/payments-in/onboarding-apis"
)
_ACCESS = "https://developers.facebook.com/documentation/business-messaging/whatsapp/solution-providers/manage-accounts"
_CLIENT_ACCOUNTS = (
    "https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/"
    "client_whatsapp_business_accounts"
)
_INSIGHTS = "https://developers.facebook.com/docs/marketing-api/reference/ad-account/insights"
_VERSIONS = "https://developers.facebook.com/ads/blog/post/2018/11/27/with-issues-status-blog"
_OPENAPI = "https://github.com/facebook/openapi/blob/main/business-messaging-api_v23.0.yaml"
_SDK = "https://github.com/facebook/facebook-python-business-sdk/blob/main/facebook_business/fberrcodes.py"
_REPORTS = "reports of users; no page of Meta's has it"

#: What to do when one response cannot hold even a page of one row; larger pages are reduced automatically.
TOO_MUCH_DATA = (
    "The API cannot collect so much data at once: request fewer fields, or fewer rows of nested edges with `.limit()`."
)

#: All that is known about each code. For a code without a row, the HTTP status decides the class.
CODES = (
    Code([0], GraphTokenError, _WHATSAPP),
    Code(
        [102],
        GraphTokenError,
        _GUIDE,
        "The token is not valid any more: create a new one and put it in the connection's password.",
    ),
    Code(
        [104],
        GraphTokenError,
        _WHATSAPP,
        "The signature does not match: the connection's app_secret must belong to the same app as the token.",
    ),
    Code(
        [190],
        GraphTokenError,
        _GUIDE,
        "The token is not valid: create a new system user token and put it in the connection's password.",
        subcodes={
            458: Subcode("The app was removed from the business: install it again and create a new token."),
            460: Subcode("The password changed: create a new token."),
            463: Subcode("The token has expired: create a new one and put it in the connection's password."),
            467: Subcode("The token was revoked: create a new one and put it in the connection's password."),
        },
    ),
    Code(
        [2500],
        GraphTokenError,
        _INSIGHTS,
        "Either the token did not arrive, or the API does not know the path, the version or a field's syntax: "
        "check those, then the token in the connection's password.",
    ),
    Code([3], GraphPermissionError, _GUIDE, "The app lacks a capability that this call needs."),
    Code([10], GraphPermissionError, _GUIDE, "The app or its system user lacks a permission that this call needs."),
    Code(
        [200],
        GraphPermissionError,
        _ACCESS,
        "The app lacks Advanced access for whatsapp_business_management, or the token lacks that permission. "
        "The token also needs whatsapp_business_messaging, and business_management for the owned edge.",
        one_account=True,
    ),
    Code(range(201, 300), GraphPermissionError, _GUIDE, one_account=True),
    Code(
        [368],
        GraphPermissionError,
        _WHATSAPP,
        "Meta has restricted or disabled this account, app or business for a violation of its policies: see Business "
        "Support Home before trying again.",
        one_account=True,
    ),
    Code(
        [131005],
        GraphPermissionError,
        f"{_WHATSAPP}, and for payments {_PAYMENTS}",
        "Access is denied: check the permissions of the app and of the token's system user. Payment configurations can "
        "be read once the account has accepted the terms of WhatsApp Payments.",
        one_account=True,
    ),
    Code(
        [131031],
        GraphPermissionError,
        _WHATSAPP,
        "Meta has locked this account: see Business Support Home before trying again.",
        one_account=True,
    ),
    Code([4, 17, 32, 613], GraphRateLimitError, _RATE_LIMITS),
    Code([341], GraphRateLimitError, _GUIDE),
    Code([*range(80000, 80007), *range(80009, 80015)], GraphRateLimitError, _RATE_LIMITS),
    Code([80007], GraphRateLimitError, _WHATSAPP, one_account=True),
    Code([80008], GraphRateLimitError, _RATE_LIMITS, one_account=True),
    Code([130429, 131064], GraphRateLimitError, _WHATSAPP),
    Code([-3], GraphServerError, _SDK, TOO_MUCH_DATA, too_much_data=True),
    Code([1], GraphServerError, _GUIDE, subcodes={1504018: Subcode(TOO_MUCH_DATA, too_much_data=True)}),
    Code([2], GraphServerError, _GUIDE, subcodes={1504018: Subcode(TOO_MUCH_DATA, too_much_data=True)}),
    Code([-1, -2, 99, 960], GraphServerError, _REPORTS),
    Code([131000, 131016, 131057], GraphServerError, _WHATSAPP),
    Code(
        [12],
        GraphRequestError,
        _VERSIONS,
        "This version of the API no longer has a field or an edge that was requested: leave it out, or set an older "
        "api_version that has not ended in the connection.",
    ),
    Code(
        [2635],
        GraphRequestError,
        _INSIGHTS,
        "The requested version of the API has ended: set a newer api_version in the connection.",
    ),
    Code([33], GraphRequestError, _WHATSAPP),
    Code(
        [100],
        GraphRequestError,
        _CLIENT_ACCOUNTS,
        subcodes={
            33: Subcode(
                "The id is unknown, or the token's system user may not see it: check the id, and what Business "
                "Settings assign to the system user.",
                one_account=True,
            )
        },
    ),
    Code([506], GraphRequestError, _GUIDE),
    # Only without a subcode, the object itself is what was not found.
    Code([803], GraphRequestError, _OPENAPI, subcodes={None: Subcode(one_account=True)}),
    # The page names these codes for template insights without saying which state each stands for.
    Code(
        [200005, 200006, 200007],
        GraphRequestError,
        _WHATSAPP,
        "Template insights are not enabled for this account, or have no data yet: enable them in WhatsApp Manager "
        "(the account's field is_enabled_for_insights says whether they are), and try again a day later.",
        one_account=True,
    ),
    Code(
        [200008],
        GraphRequestError,
        _CLIENT_ACCOUNTS,
        "The account has no phone number: add one in WhatsApp Manager, or leave the account out.",
        one_account=True,
    ),
)
_CODES = {code: row for row in CODES for code in row.codes}

#: What to do if the row of the code in :data:`CODES` has no advice, or there is no such row.
ADVICE_OF_CLASS: dict[type[GraphApiError], str] = {
    GraphTokenError: "The API refused the token: check the one in the connection's password.",
    GraphPermissionError: ("The API refused access: check the permissions of the app and of the token's system user."),
    GraphRateLimitError: "Too many calls: wait before calling again, as calls during a throttle lengthen it.",
    GraphServerError: "The API failed, which most often passes by itself.",
    GraphRequestError: "The API refused the request: check the id, the fields, the filters and the sort.",
}


def find_code(code: int | None) -> Code | None:
    """Return the row of a code, or None if nothing is known about it.

    :param code: ``error.code`` of a response, or None if it had none
    """
    return None if code is None else _CODES.get(code)


def is_limit_of_one_account(error: GraphError) -> bool:
    """Return whether a rate limit was reached that counts the calls for one account only.

    :param error: error of a request for one of several accounts
    """
    return isinstance(error, GraphRateLimitError) and _is_of_one_account(error)


def concerns_one_account(error: GraphError) -> bool:
    """Return whether the API refused one account, so that others may still be readable.

    The token has no access to that account, it is gone, or it does not have what was requested.

    :param error: error of a request for one of several accounts
    """
    return not isinstance(error, GraphRateLimitError) and _is_of_one_account(error)


def _is_of_one_account(error: GraphError) -> bool:
    if not isinstance(error, GraphApiError):
        return False
    # A refusal without a code can come from a proxy, which would refuse every other account too.
    row = find_code(error.code)
    return row is not None and isinstance(error, row.kind) and row.details(error.subcode).one_account
