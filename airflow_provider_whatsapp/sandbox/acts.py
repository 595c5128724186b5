"""What each kind of fault does.

A kind acts at one of four moments, and each moment has a table at the end of this module: before the request
is read (``PREPARE``), on the answer as JSON (``BEND_ANY``, ``BEND_PAGE``), on the answer as bytes
(``RECODE``), and while the bytes are sent (``DELIVER``).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from .accounts import Node
from .graph import Graph
from .listing import Page
from .messages import Answer, Request

MIB = 1024 * 1024


@dataclass
class Scene:
    """What a fault finds when it acts.

    :param page: The page that is answered, or None when it is no page.
    :param memory: Kept from one request the fault acts on to the next.
    """

    graph: Graph
    request: Request
    segments: list[str]
    options: dict[str, Any]
    memory: dict[str, Any]
    answer: Answer
    page: Page | None = None

    @property
    def rows(self) -> list[Any]:
        """The answer's rows."""
        return self.answer.payload["data"] if isinstance(self.answer.payload, dict) else []

    def lead_to(self, cursor: str) -> None:
        """Make the answer say that the listing goes on at a cursor."""
        if self.page is not None:
            paging = self.answer.payload.setdefault("paging", {"cursors": {"before": cursor}})
            paging["cursors"]["after"] = cursor
            paging["next"] = self.page.link("after", cursor)


# Before the request is read


def _account_added(scene: Scene) -> None:
    rows = scene.graph.accounts_at(scene.segments)
    if rows is not None:
        rows.insert(0, scene.graph.new_account(scene.segments[0]))


def _account_removed(scene: Scene) -> None:
    if rows := scene.graph.accounts_at(scene.segments):
        del rows[0]


# On the answer as JSON


def _error(scene: Scene) -> None:
    error = dict(scene.options["error"])
    if scene.options.get("bare"):
        scene.answer = Answer(scene.options["status"], {"error": error})
        return
    error["message"] = error["message"].replace("{token}", scene.request.token or "")
    scene.answer = Answer.of_error(scene.options["status"], error)


def _throttle(scene: Scene) -> None:
    code, minutes, retry_after = scene.options["code"], scene.options["minutes"], scene.options["retry_after"]
    message = _THROTTLED.get(code, "There have been too many calls to this WhatsApp Business account. Wait a bit.")
    error = {"message": f"(#{code}) {message}", "type": "OAuthException", "code": code}
    scene.answer = Answer.of_error(403 if code == 4 else 400, error)
    if minutes is not None:
        scene.answer.headers.update(usage_headers(scene.graph.businesses, 100, minutes))
    if retry_after is not None:
        scene.answer.headers["Retry-After"] = str(retry_after)


_THROTTLED = {
    4: "Application request limit reached",
    17: "User request limit reached",
    32: "Page request limit reached",
    613: "Calls to this api have exceeded the rate limit.",
}


def usage_headers(businesses: list[Node], percent: int, minutes: int = 0) -> dict[str, str]:
    """Make the two usage headers, in whole percents of the limit."""
    usage = {"call_count": percent, "total_cputime": percent // 4, "total_time": percent // 3}
    business = {"type": "whatsapp_business_management", **usage, "estimated_time_to_regain_access": minutes}
    return {
        "x-app-usage": json.dumps(usage),
        "x-business-use-case-usage": json.dumps({node["id"]: [business] for node in businesses[:1]}),
    }


def _text(scene: Scene) -> None:
    scene.answer = Answer(**scene.options)


def _odd_content_type(scene: Scene) -> None:
    scene.answer.content_type = "text/javascript; charset=UTF-8"


def _redirect(scene: Scene) -> None:
    location = scene.options["to"] + scene.request.target
    scene.answer = Answer(302, text="", content_type="text/html", headers={"Location": location})


def _high_usage(scene: Scene) -> None:
    scene.answer.headers.update(usage_headers(scene.graph.businesses, scene.options["percent"]))


def _malformed_usage(scene: Scene) -> None:
    scene.answer.headers["x-app-usage"] = '{"call_count": lots'
    scene.answer.headers["x-business-use-case-usage"] = '[[{"1": "none"}], 7]'


def _version_upgrade(scene: Scene) -> None:
    scene.answer.headers["facebook-api-version"] = scene.options["version"]


def _nan(scene: Scene) -> None:
    (scene.rows or [scene.answer.payload])[-1]["creation_time"] = float("nan")


def _empty_page(scene: Scene) -> None:
    if scene.page is not None:
        # The same place under another name, else the cursor would repeat the one that led here.
        scene.memory["salt"] = scene.memory.get("salt", 0) + 1
        cursor = scene.page.cursor(scene.page.start - 1, scene.memory["salt"])
        scene.answer.payload = {"data": [], "paging": {"cursors": {"before": cursor}}}
        scene.lead_to(cursor)


def _repeated_cursor(scene: Scene) -> None:
    scene.lead_to(scene.request.params["after"])


def _cursor_cycle(scene: Scene) -> None:
    if (own := scene.request.params.get("after")) is None:
        return
    first = scene.memory.setdefault(scene.request.path, own)
    if own != first:
        scene.lead_to(first)
    elif scene.page is not None and scene.page.end > scene.page.start:
        scene.lead_to(scene.page.cursor(scene.page.end - 1))


def _next_elsewhere(scene: Scene) -> None:
    if link := scene.answer.payload.get("paging", {}).get("next"):
        parts = urlsplit(link)
        scene.answer.payload["paging"]["next"] = f"{scene.options['to']}{parts.path}?{parts.query}"


def _next_without_cursors(scene: Scene) -> None:
    scene.answer.payload.get("paging", {}).pop("cursors", None)


def _next_with_token(scene: Scene) -> None:
    paging = scene.answer.payload.get("paging", {})
    if "next" in paging and "access_token=" not in paging["next"]:
        paging["next"] += f"&access_token={scene.request.token}"


def _duplicated_row(scene: Scene) -> None:
    if scene.page is not None and scene.page.start > 0:
        scene.rows.insert(0, scene.page.render(scene.page.rows[scene.page.start - 1]))


def _numeric_ids(scene: Scene) -> None:
    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(item) for item in value]
        if isinstance(value, dict):
            return {
                name: int(item) if name == "id" and str(item).isdecimal() else convert(item)
                for name, item in value.items()
            }
        return value

    scene.answer.payload["data"] = convert(scene.rows)


def _unknown_values(scene: Scene) -> None:
    for row in scene.rows:
        row["hologram_tier"] = {"level": "NEW", "since": [2027]}
        for name in ("account_review_status", "business_verification_status", "ownership_type", "status"):
            if name in row:
                row[name] = "NEVER_SEEN_BEFORE"


def _no_data(scene: Scene) -> None:
    del scene.answer.payload["data"]


def _data_not_a_list(scene: Scene) -> None:
    scene.answer.payload["data"] = {"rows": scene.rows}


def _row_not_an_object(scene: Scene) -> None:
    scene.rows[-1:] = ["not an object"]


def _paging_not_an_object(scene: Scene) -> None:
    scene.answer.payload["paging"] = "next"


# On the answer as bytes


@dataclass(frozen=True)
class Body:
    """The bytes of an answer, in pieces, since some are larger than one would want to hold."""

    length: int
    pieces: Iterable[bytes]
    encoding: str | None = None

    @classmethod
    def of(cls, content: bytes, encoding: str | None = None) -> Body:
        """Make a body of bytes at hand."""
        return cls(len(content), [content] if content else [], encoding)


def _half_json(content: bytes, options: dict[str, Any]) -> Body:
    return Body.of(content[: len(content) // 2])


def _cut_gzip(content: bytes, options: dict[str, Any]) -> Body:
    packed = gzip.compress(content, 5)
    return Body.of(packed[: len(packed) // 2], "gzip")


def _huge_body(content: bytes, options: dict[str, Any]) -> Body:
    head, padding, tail = content.rstrip().removesuffix(b"}") + b',"padding":"', options["mib"] * MIB, b'"}'

    def pieces() -> Iterator[bytes]:
        yield head
        block = b"x" * (MIB // 4)
        for _ in range(padding // len(block)):
            yield block
        yield tail

    return Body(len(head) + padding + len(tail), pieces())


def _gzip_bomb(content: bytes, options: dict[str, Any]) -> Body:
    packer = zlib.compressobj(9, wbits=31)
    block = b" " * MIB
    parts = [
        packer.compress(content),
        *(packer.compress(block) for _ in range(options["mib"])),
        packer.flush(),
    ]
    return Body.of(b"".join(parts), "gzip")


def _unknown_encoding(content: bytes, options: dict[str, Any]) -> Body:
    return Body.of(bytes(byte ^ 0x55 for byte in content), "x-hologram")


# While the bytes are sent


class Wire(Protocol):
    """The server's end of a connection."""

    def send(self, *pieces: bytes) -> None:
        """Send bytes, together."""

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the sandbox stops."""

    def close(self, *, reset: bool = False) -> None:
        """End the connection, orderly or with a reset."""


def _half(body: Body) -> bytes:
    content = b"".join(body.pieces)
    return content[: len(content) // 2]


def _truncated_body(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    wire.send(head, _half(body))
    wire.close()


def _cut_chunked(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    half = _half(body)
    length = b"Content-Length: %d\r\n" % body.length
    wire.send(
        head.replace(length, b"Transfer-Encoding: chunked\r\n"),
        b"%x\r\n%b\r\n%x\r\n{" % (len(half), half, 4096),
    )
    wire.close()


def _reset(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    wire.close(reset=True)


def _reset_mid_reply(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    wire.send(head, _half(body))
    # A reset overtakes what the client has not read yet; this lets it read the half.
    wire.wait(0.05)
    wire.close(reset=True)


def _closed(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    wire.close()


def _slow_reply(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    wire.wait(options["seconds"])
    deliver(wire, head, body, options)


def _slow_drip(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    content = b"".join(body.pieces)
    drops = len(content) if options["drops"] is None else options["drops"]
    wire.send(head)
    for at in range(min(drops, len(content))):
        wire.wait(options["pause"])
        wire.send(content[at : at + 1])
    wire.send(content[drops:])


def deliver(wire: Wire, head: bytes, body: Body, options: dict[str, Any]) -> None:
    """Send an answer as it should be sent."""
    pieces = iter(body.pieces)
    wire.send(head, next(pieces, b""))
    for piece in pieces:
        wire.send(piece)


PREPARE: dict[str, Callable[[Scene], None]] = {
    "account_added": _account_added,
    "account_removed": _account_removed,
}
BEND_ANY: dict[str, Callable[[Scene], None]] = {
    "error": _error,
    "throttle": _throttle,
    "text": _text,
    "odd_content_type": _odd_content_type,
    "redirect": _redirect,
    "high_usage": _high_usage,
    "malformed_usage": _malformed_usage,
    "version_upgrade": _version_upgrade,
}
# These find rows to bend only in an answer that is a page.
BEND_PAGE: dict[str, Callable[[Scene], None]] = {
    "nan": _nan,
    "empty_page": _empty_page,
    "repeated_cursor": _repeated_cursor,
    "cursor_cycle": _cursor_cycle,
    "next_elsewhere": _next_elsewhere,
    "next_without_cursors": _next_without_cursors,
    "next_with_token": _next_with_token,
    "duplicated_row": _duplicated_row,
    "numeric_ids": _numeric_ids,
    "unknown_values": _unknown_values,
    "no_data": _no_data,
    "data_not_a_list": _data_not_a_list,
    "row_not_an_object": _row_not_an_object,
    "paging_not_an_object": _paging_not_an_object,
}
RECODE: dict[str, Callable[[bytes, dict[str, Any]], Body]] = {
    "half_json": _half_json,
    "cut_gzip": _cut_gzip,
    "huge_body": _huge_body,
    "gzip_bomb": _gzip_bomb,
    "unknown_encoding": _unknown_encoding,
}
DELIVER: dict[str, Callable[[Wire, bytes, Body, dict[str, Any]], None]] = {
    "truncated_body": _truncated_body,
    "cut_chunked": _cut_chunked,
    "reset": _reset,
    "reset_mid_reply": _reset_mid_reply,
    "closed": _closed,
    "slow_reply": _slow_reply,
    "slow_drip": _slow_drip,
}
