"""What goes to the Graph API and what comes back, and how a secret is kept out of everything else."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from airflow_provider_whatsapp.graph.errors import GraphProtocolError, GraphTransportError

#: A page of 100 accounts is some 60 KiB; an answer beyond this is not a page but an attack or a mistake.
MAX_BODY_BYTES = 16 * 1024 * 1024

_MASK = "***"
_SHORTEST_SECRET = 8
# An escaped ASCII letter, or UTF-16. Letters beyond ASCII, which are in no secret, do not count.
_OTHER_SPELLINGS = re.compile(rb"\\u00[2-7]|\x00")
_SECRET_PARAMETER = re.compile(
    r"(?i)(access_token|appsecret_proof|input_token|client_secret|app_secret)(=|%3D)[^&\s\"'<>]+"
)
# Access tokens of Meta's platforms begin so, of whatever app and length.
_TOKEN = re.compile(r"EAA[A-Za-z0-9]{20,}")


@dataclass(frozen=True, slots=True)
class Request:
    """One read of the Graph API. It holds no secret: :meth:`Credentials.sign` adds those at the socket.

    :param path: below the version, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param params: query parameters, not yet percent-encoded
    :param inspects_own_token: the request asks about the token itself (``debug_token``)
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    inspects_own_token: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer as it came over the wire.

    :param status: HTTP status code
    :param headers: header values by lower-case name
    :param body: the bytes of the body, still in their content-encoding
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secrets of one connection.

    :param token: system user access token
    :param app_secret: secret of the app that the token belongs to; every request then carries its proof
    :param timed_proof: whether the proof ends after five minutes, or holds as long as the token
    """

    token: str = field(repr=False)
    app_secret: str | None = field(default=None, repr=False)
    timed_proof: bool = True

    def sign(self, request: Request, *, now: int) -> tuple[dict[str, str], dict[str, str]]:
        """Query parameters and headers of the request, with what proves who asks.

        https://developers.facebook.com/documentation/facebook-login/security

        :param now: the time of this very attempt, unix seconds
        """
        params = dict(request.params)
        if self.app_secret is not None and self.timed_proof:
            params["appsecret_time"] = str(now)
            params["appsecret_proof"] = self._proof_of(f"{self.token}|{now}")
        elif self.app_secret is not None:
            params["appsecret_proof"] = self._proof_of(self.token)
        if request.inspects_own_token:
            params["input_token"] = self.token
        return params, {"Authorization": f"Bearer {self.token}"}

    def redact(self, text: str) -> str:
        """The text without these secrets or anything else that looks like a token."""
        for secret in self.secrets:
            text = text.replace(secret, _MASK)
        return redact(text)

    def mask_for(self, body: bytes) -> Callable[[str], str] | None:
        """What takes these secrets out of the texts of an answer, for rows go far and servers echo.

        :param body: the answer; None is returned where it holds no secret, in no spelling that JSON has
        """
        # A shorter one would be found, and masked, where it is none.
        secrets = [secret for secret in self.secrets if len(secret) >= _SHORTEST_SECRET]
        plain = body.replace(b"\\/", b"/")
        spellings = (spelling for secret in secrets for spelling in (secret, json.dumps(secret)[1:-1]))
        if not _OTHER_SPELLINGS.search(body) and not any(spelling.encode() in plain for spelling in spellings):
            return None
        pattern = re.compile("|".join(map(re.escape, secrets)) or "(?!)")
        return lambda text: pattern.sub(_MASK, text)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never show, plain and as an address spells it."""
        proof = self._proof_of(self.token) if self.app_secret else None
        plain = [secret for secret in (self.token, self.app_secret, proof) if secret]
        return tuple(dict.fromkeys([*plain, *(quote(secret, safe="") for secret in plain)]))

    def _proof_of(self, message: str) -> str:
        return hmac.new((self.app_secret or "").encode(), message.encode(), hashlib.sha256).hexdigest()


def redact(text: str) -> str:
    """The text without query parameters that hold a secret and without access tokens."""
    return _TOKEN.sub(_MASK, _SECRET_PARAMETER.sub(rf"\1\2{_MASK}", text))


def unpack(response: Response) -> bytes:
    """The body of the response, decompressed.

    :raises GraphTransportError: the compressed body was cut short or damaged on its way
    :raises GraphProtocolError: an encoding that nobody asked for, or more than ``MAX_BODY_BYTES``
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        body = response.body
    elif encoding in ("gzip", "x-gzip"):
        body = _gunzip(response.body)
    else:
        raise GraphProtocolError("the answer's content-encoding is not gzip, which alone was offered")
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    return body


def too_large() -> GraphProtocolError:
    """The error for an answer beyond ``MAX_BODY_BYTES``."""
    return GraphProtocolError(
        f"the answer is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB; ask for fewer fields or a smaller page_size"
    )


def _gunzip(data: bytes) -> bytes:
    if not data:
        return data
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        # One byte above the limit is enough to know that a bomb is one.
        body = inflater.decompress(data, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise GraphTransportError("the answer's compressed body was damaged on its way") from None
    if len(body) <= MAX_BODY_BYTES and not inflater.eof:
        raise GraphTransportError("the answer's compressed body was cut short")
    return body


def header(headers: Mapping[str, Any], name: str) -> str:
    """A header's value in at most 200 printable characters, or the empty string."""
    return "".join(c for c in str(headers.get(name, ""))[:200] if c.isprintable())
