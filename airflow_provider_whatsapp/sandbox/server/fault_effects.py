"""The effects of faults that are too long for a lambda in :mod:`.faults`."""

from __future__ import annotations

import gzip
import itertools
import zlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..world.accounts import ACCOUNT_EDGES, Node
from ..world.selected_rows import RowSlice
from ..world.simulated_api import SimulatedApi
from .http_exchange import Answer, IncomingRequest
from .quota import CallUse, QuotaUse, throttle_error
from .response_writer import ResponseWriter

_HTML = "<!DOCTYPE html>\n<html><head><title>Error</title></head><body>Service Unavailable</body></html>\n"
_HTML_TYPE = {"Content-Type": "text/html"}
_MIB = 1024 * 1024
_SALTS = itertools.count(1)
_ENUM_FIELDS = ("account_review_status", "business_verification_status", "ownership_type", "status")


@dataclass
class Exchange:
    """A request and its response, which a fault may change.

    :param path: the segments of the request's path without the version
    :param memory: state of the fault between the requests that it acts on
    :param page: the page in the response, or None for any other response
    """

    api: SimulatedApi
    request: IncomingRequest
    path: list[str]
    memory: dict[str, Any]
    answer: Answer = field(default_factory=lambda: Answer(200))
    page: RowSlice | None = None

    @property
    def rows(self) -> Any:
        """The list of rows in the response."""
        return self.answer.payload["data"]

    @property
    def paging(self) -> Any:
        """The ``paging`` object in the response, or an empty dict if there is none."""
        return self.answer.payload.get("paging", {})

    def continue_at(self, cursor: str) -> None:
        """Make the response continue the listing at a cursor."""
        if self.page is not None:
            paging = self.answer.payload.setdefault("paging", {"cursors": {"before": cursor}})
            paging["cursors"]["after"] = cursor
            paging["next"] = self.page.link("after", cursor)

    def accounts(self) -> list[Node]:
        """Return the list of accounts of the requested edge, to change; an unused list for any other edge."""
        if len(self.path) == 2 and self.path[1] in ACCOUNT_EDGES:
            return self.api.lists.get((self.path[0], self.path[1]), [])
        return []


# Errors and other responses


def refuse(exchange: Exchange, status: int, code: int, message: str, **details: Any) -> None:
    """Replace the response with an error envelope.

    In the message, ``{token}`` stands for the token of the request, and ``{node}`` for the id that its path names.
    """
    message = message.replace("{token}", exchange.request.token or "").replace("{node}", "/".join(exchange.path[:1]))
    error = {"message": message, "type": "OAuthException", "code": code, **details}
    exchange.answer = Answer.of_error(status, error)


def answer(
    exchange: Exchange, status: int, payload: Any = None, text: str | None = None, headers: dict[str, str] | None = None
) -> None:
    """Replace the response with a JSON payload or a text."""
    exchange.answer = Answer(status, payload, text, dict(headers or {}))


def html_page(exchange: Exchange, status: int) -> None:
    """Replace the response with the HTML page of a gateway."""
    answer(exchange, status, text=_HTML, headers=_HTML_TYPE)


def reduce_data(exchange: Exchange, status: int, code: int | None, subcode: int | None, message: str | None) -> None:
    """Replace the response with the request to reduce the amount of data, or with an HTML page if the text is empty."""
    if message is None:
        message = "Please reduce the amount of data you're asking for, then retry your request"
    details = {"code": code, "message": message, "error_subcode": subcode}
    if message:
        payload = {"error": {name: value for name, value in details.items() if value is not None}}
        answer(exchange, status, payload)
    else:
        html_page(exchange, status)


def throttle(exchange: Exchange, code: int, minutes: int | None, retry_after: int | None) -> None:
    """Replace the response with a rate limit error; the limit of an account is reported under the id of the account."""
    error = throttle_error(code)
    exchange.answer = Answer.of_error(error.status, error.error)
    if minutes is not None:
        use, account = QuotaUse(100, minutes=minutes), exchange.api.account_of(exchange.path)
        used = CallUse(use) if account is None or code != 80008 else CallUse(None, str(account["id"]), use)
        exchange.answer.headers |= used.headers(exchange.api.businesses)
    if retry_after is not None:
        exchange.answer.headers["Retry-After"] = str(retry_after)


def redirect(exchange: Exchange, to: str) -> None:
    """Redirect to another host."""
    headers = {**_HTML_TYPE, "Location": to + exchange.request.target}
    exchange.answer = Answer(302, text="", headers=headers)


def add_headers(exchange: Exchange, headers: dict[str, str]) -> None:
    """Add headers to the response, or replace headers of the same name."""
    exchange.answer.headers |= headers


def high_usage(exchange: Exchange, percent: int) -> None:
    """Send usage headers with a percentage."""
    exchange.answer.headers |= CallUse(QuotaUse(percent)).headers(exchange.api.businesses)


# Effects on pages


def empty_page(exchange: Exchange) -> None:
    """Replace the page with an empty page whose cursor leads to the page's rows."""
    if exchange.page is not None:
        # The salt gives a new cursor for the same place, because a repeated cursor would be a loop.
        cursor = exchange.page.cursor(exchange.page.start - 1, next(_SALTS))
        exchange.answer.payload = {"data": [], "paging": {"cursors": {"before": cursor}}}
        exchange.continue_at(cursor)


def cursor_cycle(exchange: Exchange) -> None:
    """Let every page after the first lead to one of the same two cursors."""
    page, cursor = exchange.page, exchange.request.params.get("after")
    if page is not None and cursor is not None:
        first = exchange.memory.setdefault(exchange.request.path, cursor)
        if cursor != first:
            exchange.continue_at(first)
        elif page.end > page.start:
            exchange.continue_at(page.cursor(page.end - 1))


def next_elsewhere(exchange: Exchange, to: str) -> None:
    """Replace the host in ``next``."""
    if "next" in exchange.paging:
        link = urlsplit(exchange.paging["next"])
        exchange.paging["next"] = f"{to}{link.path}?{link.query}"


def next_with_token(exchange: Exchange) -> None:
    """Add the access token to ``next`` unless it is there."""
    if "next" in exchange.paging and "access_token=" not in exchange.paging["next"]:
        exchange.paging["next"] += f"&access_token={exchange.request.token}"


def duplicated_row(exchange: Exchange) -> None:
    """Repeat the last row of the previous page as the first row of this page."""
    page = exchange.page
    if page is not None and page.start > 0:
        exchange.rows.insert(0, page.render(page.rows[page.start - 1]))


def numeric_ids(exchange: Exchange) -> None:
    """Turn ids into numbers, at any depth."""

    def convert(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [convert("", item) for item in value]
        if isinstance(value, dict):
            return {name: convert(name, item) for name, item in value.items()}
        return int(value) if name == "id" and str(value).isdecimal() else value

    exchange.answer.payload["data"] = convert("", exchange.rows)


def unknown_values(exchange: Exchange) -> None:
    """Add a field to each row, and replace the values of enums."""
    for row in exchange.rows:
        row["hologram_tier"] = {"level": "NEW", "since": [2027]}
        row.update(dict.fromkeys(row.keys() & _ENUM_FIELDS, "NEVER_SEEN_BEFORE"))


def nan(exchange: Exchange) -> None:
    """Put NaN into the last row."""
    (exchange.rows or [exchange.answer.payload])[-1]["creation_time"] = float("nan")


def account_removed(exchange: Exchange) -> None:
    """Remove the first account of the edge that is listed."""
    accounts = exchange.accounts()
    del accounts[:1]


# Effects while the response is sent


def huge_body(writer: ResponseWriter, mib: int) -> None:
    """Send the response with padding, in blocks, so that the sandbox never holds all of it in memory."""
    begin, end = writer.content.rstrip().removesuffix(b"}") + b',"padding":"', b'"}'
    block = b"x" * (_MIB // 4)
    writer.send_raw(writer.head(len(begin) + mib * _MIB + len(end)), begin)
    for _ in range(4 * mib):
        writer.send_raw(block)
    writer.send_raw(end)


def gzip_bomb(writer: ResponseWriter, mib: int) -> None:
    """Send the response followed by white space, as gzip."""
    packer = zlib.compressobj(9, wbits=31)
    block = b" " * _MIB
    parts = [packer.compress(writer.content), *(packer.compress(block) for _ in range(mib)), packer.flush()]
    writer.send(b"".join(parts), "gzip")


def cut_gzip(writer: ResponseWriter) -> None:
    """Send half of a gzip stream."""
    packed = gzip.compress(writer.content, 5)
    writer.send(packed[: len(packed) // 2], "gzip")


def truncated_body(writer: ResponseWriter, *, reset: bool = False) -> None:
    """Send half of the announced body, and end the connection."""
    body, encoding = writer.body()
    writer.send_raw(writer.head(len(body), encoding), body[: len(body) // 2])
    if reset:
        # A reset discards what the client has not read yet, so give it time to read the first half.
        writer.wait(0.05)
    writer.close(reset=reset)


def cut_chunked(writer: ResponseWriter) -> None:
    """Send a chunk with half the body and the start of the next chunk, and close the connection."""
    body, encoding = writer.body()
    half = body[: len(body) // 2]
    writer.send_raw(writer.head(None, encoding), b"%x\r\n%b\r\n%x\r\n{" % (len(half), half, 4096))
    writer.close()


def slow_reply(writer: ResponseWriter, seconds: float) -> None:
    """Wait, then send the response."""
    writer.wait(seconds)
    writer.send(*writer.body())


def slow_drip(writer: ResponseWriter, pause: float, drops: int | None) -> None:
    """Send the first bytes one by one."""
    body, encoding = writer.body()
    slow = len(body) if drops is None else min(drops, len(body))
    writer.send_raw(writer.head(len(body), encoding))
    for at in range(slow):
        writer.wait(pause)
        writer.send_raw(body[at : at + 1])
    writer.send_raw(body[slow:])
