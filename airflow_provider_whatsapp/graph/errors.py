"""What can go wrong with a read of the Graph API, sorted by what the caller can do about it.

::

    GraphError
    ├── GraphTransportError      no usable HTTP answer (refused, reset, timed out, truncated)
    ├── GraphProtocolError       an answer that is not what the Graph API promises
    └── GraphApiError            an error envelope
        ├── GraphTokenError      the token or its proof
        ├── GraphPermissionError access
        ├── GraphRateLimitError  too many calls
        ├── GraphServerError     the API's own trouble
        └── GraphRequestError    a bad id, field, filter or version
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar


class GraphError(Exception):
    """A read of the Graph API that gave no complete answer.

    :param message: what happened and what to do next; never holds a secret
    :param retryable: whether the same read may succeed later; None takes the default of the class
    """

    _retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.retryable: bool = self._retryable if retryable is None else retryable
        #: How often the request was sent before giving up.
        self.attempts: int = 1

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.attempts == 1 else f"{message} (after {self.attempts} attempts)"


class GraphTransportError(GraphError):
    """No usable HTTP answer: refused, reset, timed out or truncated."""

    _retryable = True


class GraphProtocolError(GraphError):
    """An answer that is not what the Graph API promises: not JSON, no data, a cursor that loops."""


class GraphApiError(GraphError):
    """An error that the Graph API reported.

    :param message: what happened and what to do next; never holds a secret
    :param code: ``error.code``, what to decide by; None when the answer had no envelope
    :param subcode: ``error.error_subcode``
    :param type: ``error.type``; not a sign of anything, rate limits are OAuthExceptions too
    :param http_status: HTTP status of the answer
    :param fbtrace_id: what Meta's support asks for
    :param is_transient: the API says that the error will pass
    :param user_title: ``error.error_user_title``, in the language of the token's user
    :param user_message: ``error.error_user_msg``, in the language of the token's user
    :param retry_after: how long the API asked to wait; None when it named no time
    :param retryable: whether the same read may succeed later; None takes the default of the class
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        subcode: int | None = None,
        type: str | None = None,
        http_status: int | None = None,
        fbtrace_id: str | None = None,
        is_transient: bool = False,
        user_title: str | None = None,
        user_message: str | None = None,
        retry_after: timedelta | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, retryable=True if is_transient else retryable)
        self.code = code
        self.subcode = subcode
        self.type = type
        self.http_status = http_status
        self.fbtrace_id = fbtrace_id
        self.is_transient = is_transient
        self.user_title = user_title
        self.user_message = user_message
        self.retry_after = retry_after


class GraphTokenError(GraphApiError):
    """The access token or its proof is missing, expired, revoked or wrong."""


class GraphPermissionError(GraphApiError):
    """The app or the system user may not read this."""


class GraphRateLimitError(GraphApiError):
    """Too many calls. ``retry_after`` is the wait that the API named, or None."""

    _retryable = True


class GraphServerError(GraphApiError):
    """The API's own trouble, most often a passing one.

    ``too_much_data`` is true when the API could not gather so much in one answer: the same request will
    never succeed, one for a smaller page or fewer fields will.
    """

    _retryable = True
    too_much_data: bool = False


class GraphRequestError(GraphApiError):
    """The request itself is wrong: a bad id, field, filter or version."""


# https://developers.facebook.com/docs/graph-api/guides/error-handling
# https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes
_TOKEN_CODES = frozenset({0, 102, 104, 190, 2500})
_PERMISSION_CODES = frozenset({3, 10, 368, *range(200, 300)})
# https://developers.facebook.com/docs/graph-api/overview/rate-limiting
_RATE_LIMIT_CODES = frozenset({4, 17, 32, 341, 613, *range(80000, 80015)})
_SERVER_CODES = frozenset({1, 2, 131000, 131016, 131057})
_REQUEST_CODES = frozenset({33, 100, 506, 803})
_CODES: tuple[tuple[frozenset[int], type[GraphApiError]], ...] = (
    (_TOKEN_CODES, GraphTokenError),
    (_PERMISSION_CODES, GraphPermissionError),
    (_RATE_LIMIT_CODES, GraphRateLimitError),
    (_SERVER_CODES, GraphServerError),
    (_REQUEST_CODES, GraphRequestError),
)

_ADVICE_BY_SUBCODE = {
    (100, 33): (
        "Check that the id is that of a business portfolio (Business Settings, Business Info) and not of a WABA, "
        "an app or a phone number, and that the token's system user may see it."
    ),
    (190, 458): "The app was removed from the business: install it again and create a new token.",
    (190, 460): "The password changed: create a new token.",
    (190, 463): "The token has expired: create a new one and put it in the connection's password.",
    (190, 467): "The token was revoked: create a new one and put it in the connection's password.",
}
_ADVICE_BY_CODE = {
    3: "The app lacks a capability that this call needs.",
    10: "The app or its system user lacks a permission that this call needs.",
    102: "The token is not valid any more: create a new one and put it in the connection's password.",
    104: "The signature does not fit: the connection's app_secret must be that of the app the token belongs to.",
    190: "The token is not valid: create a new system user token and put it in the connection's password.",
    200: (
        "The app lacks Advanced access for whatsapp_business_management, or the token lacks that permission "
        "(whatsapp_business_messaging; business_management for the owned edge)."
    ),
    2500: (
        "Either the token did not arrive, or the API does not know the path, the version or a field's syntax: "
        "check those, then the token in the connection's password."
    ),
    368: "Meta has restricted this app or business: see Business Support Home before trying again.",
}
_ADVICE_BY_CLASS: dict[type[GraphApiError], str] = {
    GraphTokenError: "Check the token in the connection's password.",
    GraphPermissionError: "Check the permissions of the app and of the token's system user.",
    GraphRateLimitError: "Wait before calling again: calls made while throttled lengthen the wait.",
    GraphServerError: "Most often this passes by itself.",
    GraphRequestError: "Check the id, the fields and the filters (ownership_types, created_..., filtering, sort).",
}


def error_from(
    status: int,
    payload: Any,
    *,
    retry_after: timedelta | None,
    redact: Callable[[str], str],
) -> GraphError | None:
    """The error that an answer stands for, or None for an answer that may be read on.

    ``error.code`` decides, also on HTTP 200; the status only where there is no envelope.

    :param status: HTTP status code
    :param payload: the parsed JSON body, or None when the body was not JSON
    :param retry_after: the wait that the headers named
    :param redact: takes secrets out of a text; servers echo tokens in messages
    """
    envelope = payload.get("error") if isinstance(payload, dict) else None
    if isinstance(envelope, dict):
        return _error_from_envelope(envelope, status, retry_after, redact)
    if envelope is not None:
        return GraphProtocolError("the answer's `error` is not an error envelope", retryable=True)
    if 200 <= status < 300:
        return None
    return _error_from_status(status, retry_after)


def _error_from_envelope(
    envelope: dict[str, Any], status: int, retry_after: timedelta | None, redact: Callable[[str], str]
) -> GraphApiError:
    def text(name: str) -> str | None:
        value = envelope.get(name)
        if not isinstance(value, str) or not value:
            return None
        return "".join(c if c.isprintable() else " " for c in redact(value))[:500]

    code, subcode = _integer(envelope.get("code")), _integer(envelope.get("error_subcode"))
    is_transient = envelope.get("is_transient") is True
    message = text("message") or "no message"
    kind = _class_of(code, status, text("type"), is_transient)
    too_much_data = code == 1 and "reduce the amount of data" in message.lower()
    if too_much_data:
        advice = "Ask for fewer fields or a smaller page_size."
    elif code == 100 and "appsecret_proof" in message:
        advice = "The connection's app_secret must be set, and be the secret of the app that the token belongs to."
    else:
        advice = (
            _ADVICE_BY_SUBCODE.get((code, subcode))  # type: ignore[arg-type]  # None is in no key
            or _ADVICE_BY_CODE.get(code)  # type: ignore[arg-type]
            or _ADVICE_BY_CLASS[kind]
        )
    number = "no code" if code is None else f"code {code}" if subcode is None else f"code {code}/{subcode}"
    trace = text("fbtrace_id")
    where = f"{number}, HTTP {status}" + (f", fbtrace_id {trace}" if trace else "")
    error = kind(
        f"{message} [{where}]{_asked_wait(retry_after) if kind is GraphRateLimitError else ''} {advice}",
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


def _class_of(code: int | None, status: int, type: str | None, is_transient: bool) -> type[GraphApiError]:
    for codes, kind in _CODES:
        if code in codes:
            return kind
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


def _error_from_status(status: int, retry_after: timedelta | None) -> GraphError:
    if status < 400:
        return GraphProtocolError(
            f"the answer is HTTP {status}, a redirect; the token is not sent on to another address. "
            "Check the connection's host."
        )
    kind = _class_of_status(status)
    wait = _asked_wait(retry_after) if kind is GraphRateLimitError else ""
    return kind(
        f"HTTP {status} without an error envelope.{wait} {_ADVICE_BY_CLASS[kind]}",
        http_status=status,
        retry_after=retry_after,
    )


def _asked_wait(retry_after: timedelta | None) -> str:
    if retry_after is None:
        return " The API named no time to wait."
    return f" The API asks to wait {retry_after}."


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
