"""Requests to the Graph API, and its responses."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_whatsapp.graph.errors import GraphProtocolError, GraphTransportError

#: Largest accepted body, decompressed. A page of 100 accounts has about 60 KiB.
MAX_BODY_BYTES = 16 * 1024 * 1024
# A gzip body can have several members (RFC 1952). zlib copies what follows a member, so thousands of them would take
# minutes.
_MAX_MEMBERS = 100
_BEGIN_OF_MEMBER = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the Graph API, without secrets: ``Credentials.sign`` adds them when it is sent.

    :param path: node and edge, without the version, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param params: query parameters, not yet percent-encoded
    :param inspects_own_token: whether the request asks about the token itself (``debug_token``)
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    inspects_own_token: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response, as received.

    :param status: HTTP status code
    :param headers: header values by lower-case name
    :param body: bytes of the body, possibly compressed
    """

    status: int
    # Kept out of the repr, as is the body: a server may echo the token in either.
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def decompress(response: Response) -> bytes:
    """Return the decompressed body of a response.

    :raises GraphTransportError: if the compressed body was truncated or corrupted in transit
    :raises GraphProtocolError: if the encoding is not gzip, or the body is larger than ``MAX_BODY_BYTES``
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        body = response.body
    elif encoding in ("gzip", "x-gzip"):
        body = _gunzip(response.body)
    else:
        raise GraphProtocolError("the response's content-encoding is not gzip, the only one that was offered")
    if len(body) > MAX_BODY_BYTES:
        raise too_large_error()
    return body


def too_large_error() -> GraphProtocolError:
    """Return the error for a response that is larger than ``MAX_BODY_BYTES``."""
    error = GraphProtocolError(
        f"the response is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB; request fewer fields"
    )
    error.too_much_data = True
    return error


def _gunzip(data: bytes) -> bytes:
    if not data:
        return data
    body = b""
    for _ in range(_MAX_MEMBERS):
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            # A small response can decompress to gigabytes. Decompression stops one byte above the limit, which is
            # enough to know that the body is too large.
            body += inflater.decompress(data, MAX_BODY_BYTES + 1 - len(body))
        except zlib.error:
            raise GraphTransportError("the response's compressed body was corrupted in transit") from None
        if len(body) > MAX_BODY_BYTES:
            return body
        if not inflater.eof:
            raise GraphTransportError("the response's compressed body was truncated")
        data = inflater.unused_data
        if not data.startswith(_BEGIN_OF_MEMBER):
            return body
    raise GraphProtocolError(f"the response's compressed body has more than {_MAX_MEMBERS} parts")


def printable_header(headers: Mapping[str, Any], name: str) -> str:
    """Return a header's value in at most 200 printable characters, or an empty text when the header is missing.

    :param headers: header values by lower-case name
    :param name: name of the header, in lower case
    """
    return "".join(c for c in str(headers.get(name, ""))[:200] if c.isprintable())
