"""The HTTP request and response, as passed between the parts of the sandbox."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

from ..world.selected_rows import DEFAULT_LIMIT

_HOST = re.compile(r"^https?://[^/]*")


@dataclass(frozen=True)
class IncomingRequest:
    """One HTTP request as received, with its secrets.

    :param target: the request target: what follows the method on the request line
    :param headers: header values by lower-case name
    :param connection: number of its TCP connection, from 0
    """

    method: str
    target: str
    headers: dict[str, str]
    connection: int

    @cached_property
    def path(self) -> str:
        """The path without the query, and without the host that clients add for a proxy."""
        return _HOST.sub("", self.target.partition("?")[0])

    @cached_property
    def params(self) -> dict[str, str]:
        """The query parameters; if a name is repeated, the last one counts."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def segments(self) -> list[str]:
        """The parts of the path between slashes, without empty ones."""
        return [unquote(part) for part in self.path.split("/") if part]

    @property
    def limit(self) -> int:
        """The number of rows requested, 0 if ``limit`` is not a number."""
        text = self.params.get("limit", str(DEFAULT_LIMIT))
        return int(text) if text.isdecimal() and len(text) < 10 else 0

    @property
    def header_token(self) -> str | None:
        """The token of the ``Authorization`` header, with the scheme Bearer or OAuth."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() in {"bearer", "oauth"} else None

    @property
    def token(self) -> str | None:
        """The token of the header, or otherwise of the query."""
        return self.header_token or self.params.get("access_token") or None


@dataclass
class Answer:
    """An HTTP response.

    :param payload: value to send as JSON, unless ``text`` is given
    :param text: body to send as it is
    :param headers: additional headers; may replace the ``Content-Type`` of JSON
    """

    status: int
    payload: Any = None
    text: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_error(cls, status: int, error: dict[str, Any]) -> Answer:
        """Return the documented error envelope, with the ``WWW-Authenticate`` header that the Graph API adds to it."""
        kind = "invalid_token" if error.get("code") in {102, 104, 190, 2500} else "invalid_request"
        # The message may quote what the client sent, which must not be able to break out of the header.
        message = re.sub('[^ -~]|"', "?", error.get("message", ""))
        challenge = f'OAuth "Facebook Platform" "{kind}" "{message}"'
        return cls(status, {"error": error}, headers={"WWW-Authenticate": challenge})
