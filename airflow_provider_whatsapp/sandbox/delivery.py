"""An answer on its way to the client: its bytes, its headers, and the connection."""

from __future__ import annotations

import gzip
import json
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from http.client import responses

from airflow_provider_whatsapp.transport import clock

from .http_exchange import Answer


class Delivery:
    """An answer that is ready to be sent over a connection.

    :param accept_encoding: the client's header of that name
    :param close_announced: whether the connection will be closed after the answer, as the client wants it
    :param wait: waits for a number of seconds, or until the sandbox stops
    """

    def __init__(
        self, answer: Answer, connection: socket.socket, *,
        accept_encoding: str, close_announced: bool, wait: Callable[[float], None],
    ) -> None:  # fmt: skip
        text = answer.text
        if text is None:
            # The Graph API escapes slashes, as PHP does.
            text = json.dumps(answer.payload, separators=(",", ":")).replace("/", "\\/")
        self.content = text.encode()
        self.wait = wait
        self.closed = close_announced
        self._answer = answer
        self._connection = connection
        self._accept_encoding = accept_encoding

    def body(self) -> tuple[bytes, str | None]:
        """The bytes of the body, and the name of their encoding or None."""
        if len(self.content) > 1024 and _accepts_gzip(self._accept_encoding):
            return gzip.compress(self.content, 5, mtime=0), "gzip"
        return self.content, None

    def head(self, length: int | None, encoding: str | None = None) -> bytes:
        """The status line and the headers.

        :param length: ``Content-Length`` in bytes, or None for a chunked body
        """
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            "Date": formatdate(clock.now(), usegmt=True),
            **self._answer.headers,
            **({"Content-Encoding": encoding} if encoding else {}),
            **({"Connection": "close"} if self.closed else {}),
            **({"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}),
        }
        lines = [f"HTTP/1.1 {self._answer.status} {responses.get(self._answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def send(self, body: bytes, encoding: str | None = None) -> None:
        """Send an answer with this body."""
        self.send_raw(self.head(len(body), encoding), body)

    def send_raw(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(b"".join(pieces))

    def close(self, *, reset: bool = False) -> None:
        """End the connection.

        :param reset: whether with a TCP reset
        """
        self.closed = True
        if reset:
            # Lingering for zero seconds discards unsent bytes and sends RST instead of FIN.
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connection.close()


def _accepts_gzip(accept_encoding: str) -> bool:
    for offer in accept_encoding.lower().split(","):
        coding, _, quality = offer.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
