"""Requests to the Graph API and its answers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_whatsapp.graph.errors import GraphProtocolError, GraphTransportError

#: Largest body that is accepted, decompressed. A page of 100 accounts has some 60 KiB.
MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the Graph API, without any secret: ``Credentials.sign`` adds those when it is sent.

    :param path: node and edge, without the version, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param params: query parameters, not yet percent-encoded
    :param inspects_own_token: whether the request asks about the token itself (``debug_token``)
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    inspects_own_token: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer as it arrived.

    :param status: HTTP status code
    :param headers: header values by lower-case name
    :param body: bytes of the body, still compressed if the answer was
    """

    status: int
    # Neither in the repr, because a server can repeat the token in both.
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def decompress(response: Response) -> bytes:
    """The decompressed body of an answer.

    :raises GraphTransportError: if the compressed body was cut short or damaged on its way
    :raises GraphProtocolError: if the encoding is not gzip, or the body is larger than ``MAX_BODY_BYTES``
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        body = response.body
    elif encoding in ("gzip", "x-gzip"):
        body = _gunzip(response.body)
    else:
        raise GraphProtocolError("the answer's content-encoding is not gzip, which alone was offered")
    if len(body) > MAX_BODY_BYTES:
        raise too_large_error()
    return body


def too_large_error() -> GraphProtocolError:
    """The error for an answer that is larger than ``MAX_BODY_BYTES``."""
    return GraphProtocolError(
        f"the answer is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB; ask for fewer fields or a smaller page_size"
    )


def _gunzip(data: bytes) -> bytes:
    if not data:
        return data
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        # A small answer can decompress to gigabytes. One byte above the limit is enough to know that this one is too
        # large, so nothing beyond it is decompressed.
        body = inflater.decompress(data, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise GraphTransportError("the answer's compressed body was damaged on its way") from None
    if len(body) <= MAX_BODY_BYTES and not inflater.eof:
        raise GraphTransportError("the answer's compressed body was cut short")
    return body


def printable_header(headers: Mapping[str, Any], name: str) -> str:
    """A header's value in at most 200 printable characters, or an empty text when the header is missing.

    :param headers: header values by lower-case name
    :param name: name of the header, in lower case
    """
    return "".join(c for c in str(headers.get(name, ""))[:200] if c.isprintable())
