"""What passes between the parts of the sandbox: a request, an answer, an error envelope."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

CLIENT_EDGE = "client_whatsapp_business_accounts"
OWNED_EDGE = "owned_whatsapp_business_accounts"
ACCOUNT_EDGES = frozenset({CLIENT_EDGE, OWNED_EDGE})
EDGES = ACCOUNT_EDGES | {"phone_numbers", "message_templates", "businesses"}

_HOST = re.compile(r"^https?://[^/]*")

DEFAULT_LIMIT = 25
MAX_LIMIT = 100


class ApiError(Exception):
    """A request the Graph API refuses, raised wherever the reason is found."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        status: int = 400,
        type: str = "OAuthException",
        subcode: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": type, "code": code}
        if subcode is not None:
            self.error["error_subcode"] = subcode


@dataclass(frozen=True)
class Request:
    """One HTTP request as it came in, its secrets still in place."""

    method: str
    target: str
    headers: dict[str, str]
    connection: int

    @cached_property
    def path(self) -> str:
        """The path without the query, and without the host that a client puts before it for a proxy."""
        return _HOST.sub("", self.target.partition("?")[0])

    @cached_property
    def params(self) -> dict[str, str]:
        """The query parameters; of a repeated one the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def segments(self) -> list[str]:
        """The path's parts; a trailing slash makes none."""
        return [unquote(part) for part in self.path.split("/") if part]

    @property
    def edge(self) -> str | None:
        """The edge that is listed, or None when the path is not one of an edge."""
        return self.segments[-1] if len(self.segments) > 1 and self.segments[-1] in EDGES else None

    @property
    def limit(self) -> int:
        """How many rows are asked for, 0 when that is not a number."""
        text = self.params.get("limit", str(DEFAULT_LIMIT))
        return int(text) if text.isdecimal() and len(text) < 10 else 0

    @property
    def header_token(self) -> str | None:
        """The token of the ``Authorization`` header, in either of the two schemes Graph takes."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() in {"bearer", "oauth"} else None

    @property
    def token(self) -> str | None:
        """The token, wherever it travelled."""
        return self.header_token or self.params.get("access_token") or None


@dataclass
class Answer:
    """What goes back: a JSON payload, or literal ``text`` in its place."""

    status: int
    payload: Any = None
    text: str | None = None
    content_type: str = "application/json; charset=UTF-8"
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_error(cls, status: int, error: dict[str, Any]) -> Answer:
        """Wrap an error in the documented envelope, with the header Graph sends beside it."""
        kind = "invalid_token" if error.get("code") in {102, 104, 190, 2500} else "invalid_request"
        # The message may quote what the client sent, and a header must not be split by it.
        message = re.sub('[^ -~]|"', "?", error.get("message", ""))
        challenge = f'OAuth "Facebook Platform" "{kind}" "{message}"'
        return cls(status, {"error": error}, headers={"WWW-Authenticate": challenge})
