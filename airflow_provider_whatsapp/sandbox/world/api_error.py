"""The error that refuses a request."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """Raised to refuse a request as the Graph API would.

    :param code: the envelope's ``error.code``
    :param status: HTTP status of the response
    :param details: further members of the envelope, such as ``error_subcode``
    """

    def __init__(
        self, code: int, message: str, *, status: int = 400, type: str = "OAuthException", **details: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": type, "code": code, **details}
