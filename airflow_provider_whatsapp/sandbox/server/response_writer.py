"""Writes a response to the connection: its headers, and its bytes."""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import cached_property
from http.client import responses

from airflow_provider_whatsapp.transport import clock

from .http_exchange import Answer

# Matches an Accept-Encoding with gzip or *, unless its quality is zero.
_GZIP = re.compile(r"(?:^|,)\s*(?:gzip|\*)\s*(?!;\s*q\s*=\s*0(?:\.0*)?\s*(?:,|$))(?:;|,|$)")


@dataclass
class ResponseWriter:
    """Writes one response to a connection.

    :param accept_encoding: the client's header of that name
    :param wait: function that waits for a number of seconds, or until the sandbox stops
    :param closed: whether the connection ends after the response
    """

    answer: Answer
    connection: socket.socket
    accept_encoding: str
    wait: Callable[[float], None]
    closed: bool

    @cached_property
    def content(self) -> bytes:
        """The body before it is compressed."""
        text = self.answer.text
        if text is None:
            # The Graph API escapes slashes, as PHP does.
            text = json.dumps(self.answer.payload, separators=(",", ":")).replace("/", "\\/")
        return text.encode()

    def body(self) -> tuple[bytes, str | None]:
        """Return the bytes of the body, and their encoding or None."""
        if len(self.content) > 1024 and _GZIP.search(self.accept_encoding.lower()):
            return gzip.compress(self.content, 5, mtime=0), "gzip"
        return self.content, None

    def head(self, length: int | None, encoding: str | None = None) -> bytes:
        """Return the status line and the headers.

        :param length: ``Content-Length`` in bytes, or None for a chunked body
        """
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            "Date": formatdate(clock.now(), usegmt=True),
            **self.answer.headers,
            **({"Content-Encoding": encoding} if encoding else {}),
            **({"Connection": "close"} if self.closed else {}),
            **({"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}),
        }
        lines = [f"HTTP/1.1 {self.answer.status} {responses.get(self.answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def send(self, body: bytes, encoding: str | None = None) -> None:
        """Send a response with this body."""
        self.send_raw(self.head(len(body), encoding), body)

    def send_raw(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        self.connection.sendall(b"".join(pieces))

    def close(self, *, reset: bool = False) -> None:
        """End the connection.

        :param reset: whether to end it with a TCP reset
        """
        self.closed = True
        if reset:
            # Lingering for zero seconds discards unsent bytes and sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
