"""Plain HTTP requests to a sandbox, as its tests make them."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from airflow_provider_whatsapp.sandbox import GraphSandbox

CLIENT = "client_whatsapp_business_accounts"
OWNED = "owned_whatsapp_business_accounts"
# A guard against a test that hangs. No answer takes so long, however busy the machine is.
SECONDS_TO_HANG = 60.0


@dataclass
class Reply:
    """An answer of the sandbox, decompressed."""

    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def json(self) -> Any:
        packed = self.headers["Content-Encoding"] == "gzip"
        return json.loads(gzip.decompress(self.raw) if packed else self.raw)

    @property
    def error(self) -> tuple[int, int | None]:
        return self.json["error"]["code"], self.json["error"].get("error_subcode")


def address(sandbox: GraphSandbox) -> tuple[str, int]:
    parts = urlsplit(sandbox.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def send(sandbox: GraphSandbox, path: str, *, method: str = "GET", body: str | None = None, **headers: str) -> Reply:
    connection = http.client.HTTPConnection(*address(sandbox), timeout=SECONDS_TO_HANG)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def get(sandbox: GraphSandbox, path: str, params: dict[str, Any] | None = None, **headers: str) -> Reply:
    """Read a path with the right token; a path without a leading slash gets ``/v26.0/`` in front."""
    headers.setdefault("Authorization", f"Bearer {sandbox.token}")
    versioned = path if path.startswith("/") else f"/v26.0/{path}"
    return send(sandbox, versioned + (f"?{urlencode(params)}" if params else ""), **headers)


def client(sandbox: GraphSandbox, **params: Any) -> Reply:
    return get(sandbox, f"{sandbox.business_id}/{CLIENT}", params)


def ids(reply: Reply) -> list[str]:
    assert reply.status == 200, reply.raw
    return [row["id"] for row in reply.json["data"]]


def walk(sandbox: GraphSandbox, *, edge: str = CLIENT, pages: int = 100, **params: Any) -> list[str]:
    """Read all pages as Meta documents it: follow ``cursors.after`` until there is no ``next``."""
    found = []
    for _ in range(pages):
        reply = get(sandbox, f"{sandbox.business_id}/{edge}", params)
        found += ids(reply)
        paging = reply.json.get("paging", {})
        if "next" not in paging:
            return found
        params["after"] = paging["cursors"]["after"]
    raise AssertionError("no end of pages")


def dial(sandbox: GraphSandbox, path: str = "", **params: Any) -> socket.socket:
    """Send the head of a request, and return the socket on which the answer will come.

    :param path: the path without its version; by default that of the client accounts
    """
    query = urlencode({"access_token": sandbox.token, **params})
    wire = socket.create_connection(address(sandbox), SECONDS_TO_HANG)
    target = f"/v26.0/{path or f'{sandbox.business_id}/{CLIENT}'}?{query}"
    wire.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return wire


def on_the_wire(sandbox: GraphSandbox, most: int | None = None) -> tuple[bytes, bool]:
    """The bytes that the sandbox sends, and whether a TCP reset ended the connection.

    :param most: leave after this many bytes; None to read until the sandbox closes the connection
    """
    received = b""
    with dial(sandbox, limit=50) as wire:
        try:
            while (most is None or len(received) < most) and (piece := wire.recv(65536)):
                received += piece
        except ConnectionResetError:
            return received, True
    return received, False


def no_thread_is_left() -> bool:
    """Return whether all threads of sandboxes end. One that ``stop()`` had to give up on would keep running."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("graph-sandbox")]
    for thread in threads:
        thread.join(SECONDS_TO_HANG)
    return not any(thread.is_alive() for thread in threads)


def parted(received: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    return dict(line.split(": ", 1) for line in lines[1:]), body
