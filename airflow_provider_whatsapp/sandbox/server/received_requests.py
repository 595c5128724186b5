"""The public record of the requests that a sandbox received."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .http_exchange import IncomingRequest

_SECRET_PARAMS = frozenset({"access_token", "appsecret_proof", "input_token"})
_TOKEN = re.compile(r"EAA[A-Za-z0-9]{20,}")


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that the sandbox received, with ``***`` in place of every secret.

    :param params: query parameters by name
    :param headers: header values by lower-case name
    :param connection: number of its TCP connection, from 0
    :param status: HTTP status of the response, or None if the connection was broken instead
    """

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    connection: int
    status: int | None


def record_request(request: IncomingRequest, status: int | None, secrets: Iterable[str]) -> ReceivedRequest:
    """Return the record of a request.

    :param request: the request as received
    :param status: HTTP status of the response, or None if the connection was broken instead
    :param secrets: texts to mask wherever they appear; anything that looks like a token is masked as well
    """
    secrets = set(secrets)
    # Mask a wrong token too, unless it is so short that masking could make the record unreadable.
    if request.token and len(request.token) >= 16:
        secrets.add(request.token)

    def mask(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return _TOKEN.sub("***", text)

    headers = {name: mask(value) for name, value in request.headers.items()}
    if "authorization" in headers:
        headers["authorization"] = headers["authorization"].partition(" ")[0] + " ***"
    params = {name: "***" if name in _SECRET_PARAMS else mask(value) for name, value in request.params.items()}
    return ReceivedRequest(request.method, mask(request.path), params, headers, request.connection, status)
