"""The errors that reading the Graph API can raise, grouped by what the caller can do about them.

::

    GraphError
    ├── GraphTransportError      no usable HTTP response (refused, reset, timed out, truncated)
    ├── GraphProtocolError       a response that is not what the Graph API promises
    └── GraphApiError            an error that the Graph API reported
        ├── GraphTokenError      the token or its proof
        ├── GraphPermissionError access
        ├── GraphRateLimitError  too many calls
        ├── GraphServerError     a fault of the API itself
        └── GraphRequestError    a bad id, field, filter or version
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

#: Maximum number of characters of an error in a line of a log. Every message that reports an error of the API fits.
LONGEST_LINE = 2000


def shorten(message: str, longest: int = LONGEST_LINE) -> str:
    """Return the message on one line of limited length, cut in the middle.

    Its beginning says what happened, and its end what to do, so neither is cut away.

    :param message: any text
    :param longest: maximum number of characters
    """
    message = " ".join(message.split())
    if len(message) <= longest:
        return message
    end = longest // 3
    return f"{message[: longest - end - 3]} … {message[-end:]}"


class GraphError(Exception):
    """The Graph API returned no complete response.

    :param message: what happened and what to do next, without any secret
    :param retryable: whether the same request may succeed later; None takes the default of the class
    :param retry_after: how long the API asked to wait before the next call; None if it named no time
    :ivar too_much_data: true if one response cannot hold that much data. The same request will fail again; one for a
        smaller page or fewer fields can succeed
    """

    _retryable_by_default: ClassVar[bool] = False
    too_much_data: bool = False

    def __init__(self, message: str, *, retryable: bool | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retryable: bool = self._retryable_by_default if retryable is None else retryable
        self.retry_after = retry_after
        #: Number of times the request was sent.
        self.attempts: int = 1
        #: Id of the account that could not be read, if several accounts were listed.
        self.waba_id: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        if self.waba_id is not None:
            message = f"Account {self.waba_id}: {message}"
        return message if self.attempts == 1 else f"{message} (after {self.attempts} attempts)"


class GraphTransportError(GraphError):
    """No usable HTTP response arrived: the connection was refused, reset, timed out or cut short."""

    _retryable_by_default = True


class GraphProtocolError(GraphError):
    """The response is not what the Graph API promises: invalid JSON, no ``data``, or a repeated cursor."""


class GraphApiError(GraphError):
    """The Graph API reported an error.

    https://developers.facebook.com/docs/graph-api/guides/error-handling

    :param message: what happened and what to do next, without any secret
    :param code: ``error.code``, which decides the class; None if the response had no error envelope
    :param subcode: ``error.error_subcode``
    :param type: ``error.type``; of little use, because rate limits also have the type ``OAuthException``
    :param http_status: HTTP status of the response
    :param fbtrace_id: the id that Meta's support asks for
    :param is_transient: whether the API said that the error is temporary
    :param user_title: ``error.error_user_title``, in the language of the token's user
    :param user_message: ``error.error_user_msg``, in the language of the token's user
    :param retry_after: how long the API asked to wait before the next call; None if it named no time
    :param retryable: whether the same request may succeed later; None takes the default of the class
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
        super().__init__(message, retryable=True if is_transient else retryable, retry_after=retry_after)
        self.code = code
        self.subcode = subcode
        self.type = type
        self.http_status = http_status
        self.fbtrace_id = fbtrace_id
        self.is_transient = is_transient
        self.user_title = user_title
        self.user_message = user_message


class GraphTokenError(GraphApiError):
    """The access token or its proof is missing, expired, revoked or wrong."""


class GraphPermissionError(GraphApiError):
    """The app or the system user is not allowed to read this."""


class GraphRateLimitError(GraphApiError):
    """Too many calls were made; ``retry_after`` is the wait that the API named, if any."""

    _retryable_by_default = True


class GraphServerError(GraphApiError):
    """The API itself failed; most such errors are temporary."""

    _retryable_by_default = True


class GraphRequestError(GraphApiError):
    """The request itself is wrong: a bad id, field, filter or version."""
