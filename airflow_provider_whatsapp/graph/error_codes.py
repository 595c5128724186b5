"""Decides which error an answer of the Graph API stands for.

https://developers.facebook.com/docs/graph-api/guides/error-handling
https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes
https://developers.facebook.com/documentation/business-messaging/whatsapp/payments/payments-in/onboarding-apis
https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow_provider_whatsapp.graph.errors import (
    GraphApiError,
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
)

#: Which class an ``error.code`` belongs to. Codes that are not listed are decided by :func:`_class_of`.
CODES: tuple[tuple[type[GraphApiError], frozenset[int]], ...] = (
    (GraphTokenError, frozenset({0, 102, 104, 190, 2500})),
    (GraphPermissionError, frozenset({3, 10, 368, 131005, 131031, *range(200, 300)})),
    (GraphRateLimitError, frozenset({4, 17, 32, 341, 613, 130429, 131064, *range(80000, 80015)})),
    (GraphServerError, frozenset({1, 2, 960, 131000, 131016, 131057})),
    (GraphRequestError, frozenset({12, 33, 100, 506, 803, 2635, 200005, 200006, 200007, 200008})),
)
# Rate limits that are counted for each account by itself, unlike those of an app or a token.
_CODES_OF_ONE_ACCOUNTS_LIMIT = frozenset({80007, 80008})
# What Meta answers for an account of which nothing can be read on this edge, whoever asks: gone, or without what the
# edge is about.
_CODES_OF_AN_UNREADABLE_ACCOUNT = frozenset({(100, 33), (803, None)})
_CODES_OF_AN_ACCOUNT_WITHOUT_DATA = frozenset({200005, 200006, 200007, 200008})
# These refuse the app or the token as a whole, so that no other account could be read either.
_CODES_OF_THE_APP = frozenset({3, 10, 368})
_CLASS_BY_CODE = {code: kind for kind, codes in CODES for code in codes}

_ADVICE_BY_SUBCODE = {
    (100, 33): (
        "The id is unknown, or the token's system user may not see it: check the id, and what Business Settings assign "
        "to the system user. Accounts are listed by the id of a business portfolio (see Business Info), not by that "
        "of a WABA, an app or a phone number."
    ),
    (190, 458): "The app was removed from the business: install it again and create a new token.",
    (190, 460): "The password changed: create a new token.",
    (190, 463): "The token has expired: create a new one and put it in the connection's password.",
    (190, 467): "The token was revoked: create a new one and put it in the connection's password.",
}
_VERSION_ENDED = "The version of the API that was asked for has ended: set a newer api_version in the connection."
# Meta's pages name these three codes for template insights without saying which state each stands for.
_NO_TEMPLATE_INSIGHTS = (
    "Template insights are not enabled for this account, or have no data yet: enable them in WhatsApp Manager "
    "(the account's field is_enabled_for_insights tells whether they are), and try again a day later."
)
_ADVICE_BY_CODE = {
    3: "The app lacks a capability that this call needs.",
    10: "The app or its system user lacks a permission that this call needs.",
    12: _VERSION_ENDED,
    102: "The token is not valid any more: create a new one and put it in the connection's password.",
    104: "The signature does not fit: the connection's app_secret must be that of the app the token belongs to.",
    190: "The token is not valid: create a new system user token and put it in the connection's password.",
    200: (
        "The app lacks Advanced access for whatsapp_business_management, or the token lacks that permission. "
        "The token also needs whatsapp_business_messaging, and business_management for the owned edge."
    ),
    2500: (
        "Either the token did not arrive, or the API does not know the path, the version or a field's syntax: "
        "check those, then the token in the connection's password."
    ),
    368: "Meta has restricted this app or business: see Business Support Home before trying again.",
    2635: _VERSION_ENDED,
    131005: (
        "Access is denied: check the permissions of the app and of the token's system user. Payment configurations can "
        "be read once the account has accepted the terms of WhatsApp Payments."
    ),
    131031: "Meta has locked this account: see Business Support Home before trying again.",
    **dict.fromkeys((200005, 200006, 200007), _NO_TEMPLATE_INSIGHTS),
    200008: "The account has no phone number: add one in WhatsApp Manager, or leave the account out.",
}
_ADVICE_BY_CLASS: dict[type[GraphApiError], str] = {
    GraphTokenError: "The API refused the token: check the one in the connection's password.",
    GraphPermissionError: ("The API refused access: check the permissions of the app and of the token's system user."),
    GraphRateLimitError: "Too many calls: wait before calling again, as calls during a throttle lengthen it.",
    GraphServerError: "The API failed, which most often passes by itself.",
    GraphRequestError: "The API refused the request: check the id, the fields, the filters and the sort.",
}
_LONGEST_TEXT = 500
# Only so much of a text is searched for secrets, because a text can be as long as the whole answer.
_SEARCHED_TEXT = 20_000
_LONGEST_SECRET = 1_000
_LONGEST_TRACE = 100


def find_error(
    status: int,
    payload: Any,
    *,
    retry_after: timedelta | None,
    redact: Callable[[str], str],
    version_problem: str = "",
) -> GraphError | None:
    """The error that an answer stands for, or None when the answer holds what was asked for.

    ``error.code`` decides, also on HTTP 200; the HTTP status decides only where there is no error envelope.

    :param status: HTTP status code
    :param payload: parsed JSON body, or None when the body was not JSON
    :param retry_after: wait that the headers named
    :param redact: takes secrets out of a text, because servers repeat tokens in their messages
    :param version_problem: what is wrong with the version that was asked for, if anything is. The message of an error
        of the request begins with it, because a version that has ended is the likely cause
    """
    envelope = payload.get("error") if isinstance(payload, dict) else None
    if isinstance(envelope, dict):
        return _error_from_envelope(envelope, status, retry_after, redact, version_problem)
    if envelope is not None:
        return GraphProtocolError("the answer's `error` is not an error envelope", retryable=True)
    if 200 <= status < 300:
        return None
    return _error_from_status(status, retry_after, version_problem)


def is_limit_of_one_account(error: GraphError) -> bool:
    """Whether a rate limit was reached that counts the calls for one account only.

    https://developers.facebook.com/docs/graph-api/overview/rate-limiting
    """
    return isinstance(error, GraphRateLimitError) and error.code in _CODES_OF_ONE_ACCOUNTS_LIMIT


def concerns_one_account(error: GraphError) -> bool:
    """Whether the API refused one account that other accounts may be readable without.

    That is an account that the token is not allowed to read, that is gone, or that does not have what was asked for.
    """
    if isinstance(error, GraphPermissionError):
        # A refusal without a code can come from a proxy, which would refuse every other account too.
        return error.code is not None and error.code not in _CODES_OF_THE_APP
    return isinstance(error, GraphRequestError) and (
        (error.code, error.subcode) in _CODES_OF_AN_UNREADABLE_ACCOUNT
        or error.code in _CODES_OF_AN_ACCOUNT_WITHOUT_DATA
    )


def _error_from_envelope(
    envelope: dict[str, Any],
    status: int,
    retry_after: timedelta | None,
    redact: Callable[[str], str],
    version_problem: str,
) -> GraphApiError:
    def text(name: str, longest: int = _LONGEST_TEXT, *, within: Any = envelope) -> str | None:
        value = within.get(name) if isinstance(within, dict) else None
        if not isinstance(value, str) or not value:
            return None
        clean = redact(value[:_SEARCHED_TEXT])
        if len(value) > _SEARCHED_TEXT:
            # Where the text is cut, it may end with the first half of a secret, which the masking does not recognize.
            clean = clean[:-_LONGEST_SECRET]
        return "".join(c if c.isprintable() else " " for c in clean[:longest])

    code, subcode = _parse_code(envelope.get("code")), _parse_code(envelope.get("error_subcode"))
    is_transient = envelope.get("is_transient") is True
    message = text("message") or "no message"
    # The edges of WhatsApp say there what is wrong, and where a person can mend it.
    details = text("details", within=envelope.get("error_data"))
    kind = _class_of(code, status, text("type"), is_transient)
    too_much_data = code == 1 and "reduce the amount of data" in message.lower()
    number = "no code" if code is None else f"code {code}" if subcode is None else f"code {code}/{subcode}"
    trace = text("fbtrace_id", _LONGEST_TRACE)
    where = f"{number}, HTTP {status}" + (f", fbtrace_id {trace}" if trace else "")
    named_wait = _describe_wait(retry_after) if kind is GraphRateLimitError else ""
    cause = f"{version_problem} " if version_problem and kind is GraphRequestError else ""
    advice = _advice(kind, code, subcode, message, too_much_data=too_much_data)
    said = message if details is None or details in message else f"{message} ({details})"
    error = kind(
        # What happened and what to do comes first, because a line of a log has room for no more.
        f"{cause}{advice}{named_wait} The API said: {said} [{where}]",
        code=code,
        subcode=subcode,
        type=text("type"),
        http_status=status,
        fbtrace_id=trace,
        is_transient=is_transient,
        user_title=text("error_user_title"),
        user_message=text("error_user_msg"),
        retry_after=retry_after,
    )
    if too_much_data and isinstance(error, GraphServerError):
        error.too_much_data = True
        error.retryable = False
    return error


def _advice(
    kind: type[GraphApiError], code: int | None, subcode: int | None, message: str, *, too_much_data: bool
) -> str:
    if too_much_data:
        return "The API cannot collect so much data at once: ask for fewer fields or a smaller page_size."
    if code is None:
        return _ADVICE_BY_CLASS[kind]
    if code == 100 and "appsecret_proof" in message:
        return (
            "The API refused the proof: the connection's app_secret must be set, and be the secret of the app that the "
            "token belongs to."
        )
    if subcode is not None and (code, subcode) in _ADVICE_BY_SUBCODE:
        return _ADVICE_BY_SUBCODE[code, subcode]
    return _ADVICE_BY_CODE.get(code, _ADVICE_BY_CLASS[kind])


def _class_of(code: int | None, status: int, type: str | None, is_transient: bool) -> type[GraphApiError]:
    if code is not None and code in _CLASS_BY_CODE:
        return _CLASS_BY_CODE[code]
    if is_transient:
        return GraphServerError
    if status >= 500 or status == 429:
        return _class_of_status(status)
    if code is None:
        return GraphTokenError if type == "OAuthException" else _class_of_status(status)
    return GraphRequestError


def _class_of_status(status: int) -> type[GraphApiError]:
    if status == 401:
        return GraphTokenError
    if status == 403:
        return GraphPermissionError
    if status == 429:
        return GraphRateLimitError
    return GraphServerError if status >= 500 or status == 408 else GraphRequestError


def _error_from_status(status: int, retry_after: timedelta | None, version_problem: str) -> GraphError:
    if status < 400:
        return GraphProtocolError(
            f"the answer is HTTP {status}, a redirect; the token is not sent on to another address. "
            "Check the connection's host."
        )
    kind = _class_of_status(status)
    named_wait = _describe_wait(retry_after) if kind is GraphRateLimitError else ""
    cause = f"{version_problem} " if version_problem and kind is GraphRequestError else ""
    return kind(
        f"{cause}{_ADVICE_BY_CLASS[kind]}{named_wait} It answered HTTP {status} without an error envelope.",
        http_status=status,
        retry_after=retry_after,
    )


def _describe_wait(retry_after: timedelta | None) -> str:
    if retry_after is None:
        return " The API named no time to wait."
    return f" The API asks to wait {retry_after}."


def _parse_code(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
