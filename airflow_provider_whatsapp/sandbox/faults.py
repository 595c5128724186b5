"""What can go wrong between a client and the Graph API, each on demand.

A :class:`Fault` is data: its kind, when it acts, and options. What a kind does is in :mod:`.acts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .messages import ACCOUNT_EDGES, Request

LASTING = 1_000_000_000

Nature = Literal["harmless", "passing", "fatal"]
_Target = Literal["any", "edge", "accounts", "next page", "limit"]

_HTML = "<!DOCTYPE html>\n<html><head><title>Error</title></head><body>Service Unavailable</body></html>\n"
_BREAKING = frozenset({"truncated_body", "cut_chunked", "reset", "reset_mid_reply", "closed"})


@dataclass(frozen=True)
class Fault:
    """One way to go wrong, made by the classmethods below.

    Each takes ``times``, the number of requests it acts on, and ``after``, the number it lets pass first.
    Faults about pages wait for a request that lists an edge.

    :param nature: ``harmless``: the answer is odd and still right; ``passing``: the answer is unusable and
        the same request succeeds once the fault is over; ``fatal``: asking again does not help.
    """

    kind: str
    times: int = 1
    after: int = 0
    nature: Nature = "passing"
    acts_on: _Target = "any"
    options: dict[str, Any] = field(default_factory=dict)

    def fits(self, request: Request) -> bool:
        """Tell whether the fault can act on a request."""
        if self.acts_on == "any":
            return True
        if request.edge is None:
            return False
        fitting: dict[str, bool] = {
            "edge": True,
            "accounts": request.edge in ACCOUNT_EDGES,
            "next page": "after" in request.params,
            "limit": request.limit > self.options.get("above", 0),
        }
        return fitting[self.acts_on]

    @property
    def breaks_connection(self) -> bool:
        """Whether the client gets no complete HTTP answer."""
        return self.kind in _BREAKING

    # Throttled

    @classmethod
    def throttle(
        cls,
        code: int = 80008,
        minutes: int | None = 5,
        retry_after: int | None = None,
        times: int = 1,
        after: int = 0,
    ) -> Fault:
        """Answer that a rate limit is reached.

        :param code: 4, 17, 32, 613 or one of 80000 to 80014.
        :param minutes: ``estimated_time_to_regain_access`` in the usage header; None leaves the header out.
        :param retry_after: Seconds for a ``Retry-After`` header, which Meta does not document.
        """
        return cls("throttle", times, after, options={"code": code, "minutes": minutes, "retry_after": retry_after})

    @classmethod
    def too_many_requests(cls, retry_after: int | None = None, times: int = 1, after: int = 0) -> Fault:
        """Answer HTTP 429 without an envelope."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls._text(429, "Too Many Requests", times, after, content_type="text/plain", headers=headers)

    # The server's trouble

    @classmethod
    def server_error(cls, status: int = 503, times: int = 1, after: int = 0) -> Fault:
        """Answer 500, 502 or 503 with a page of HTML."""
        return cls._text(status, _HTML, times, after, content_type="text/html")

    @classmethod
    def unknown_error(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer code 1."""
        return cls._error(500, 1, "An unknown error occurred", times, after)

    @classmethod
    def unavailable(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer code 2, temporarily down."""
        return cls._error(500, 2, "Service temporarily unavailable", times, after)

    @classmethod
    def transient_error(cls, code: int = 1675030, times: int = 1, after: int = 0) -> Fault:
        """Answer any code with ``is_transient``."""
        message = "An unexpected error has occurred. Please retry your request later."
        return cls._error(400, code, message, times, after, is_transient=True)

    @classmethod
    def reduce_data(cls, above: int = 25, times: int = LASTING, after: int = 0) -> Fault:
        """Refuse every page of more than ``above`` rows with code 1, in the bare form seen in the wild."""
        options = {
            "status": 500,
            "error": {
                "code": 1,
                "message": "Please reduce the amount of data you're asking for, then retry your request",
            },
            "bare": True,
            "above": above,
        }
        return cls("error", times, after, "passing", "limit", options)

    # Answers that are no Graph answers

    @classmethod
    def error_on_200(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer code 2 in an envelope on HTTP 200."""
        return cls._error(200, 2, "Service temporarily unavailable", times, after)

    @classmethod
    def html_on_200(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer a page of HTML on HTTP 200."""
        return cls._text(200, _HTML, times, after, content_type="text/html")

    @classmethod
    def empty_body(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer nothing on HTTP 200."""
        return cls._text(200, "", times, after)

    @classmethod
    def half_json(cls, times: int = 1, after: int = 0) -> Fault:
        """Send half of the JSON, with the ``Content-Length`` of that half."""
        return cls("half_json", times, after)

    @classmethod
    def nan(cls, times: int = 1, after: int = 0) -> Fault:
        """Put a NaN, which JSON does not have, into the answer."""
        return cls("nan", times, after, acts_on="edge")

    @classmethod
    def deep_json(cls, levels: int = 100_000, times: int = 1, after: int = 0) -> Fault:
        """Nest arrays in the answer ``levels`` deep."""
        return cls._text(200, '{"data":[' + "[" * levels + "]" * levels + "]}", times, after)

    @classmethod
    def huge_body(cls, mib: int = 80, times: int = 1, after: int = 0) -> Fault:
        """Send the right answer with ``mib`` MiB of padding in it; still valid JSON."""
        return cls("huge_body", times, after, options={"mib": mib})

    @classmethod
    def gzip_bomb(cls, mib: int = 200, times: int = 1, after: int = 0) -> Fault:
        """Send the right answer followed by ``mib`` MiB of white space, small on the wire."""
        return cls("gzip_bomb", times, after, options={"mib": mib})

    @classmethod
    def unknown_encoding(cls, times: int = 1, after: int = 0) -> Fault:
        """Send a body in a ``Content-Encoding`` nobody knows."""
        return cls("unknown_encoding", times, after)

    @classmethod
    def odd_content_type(cls, times: int = 1, after: int = 0) -> Fault:
        """Send the right answer as ``text/javascript``."""
        return cls("odd_content_type", times, after, "harmless")

    @classmethod
    def redirect(cls, to: str = "https://graph.facebook.example", times: int = 1, after: int = 0) -> Fault:
        """Answer 302 to another host."""
        return cls("redirect", times, after, options={"to": to})

    # Connections

    @classmethod
    def truncated_body(cls, times: int = 1, after: int = 0) -> Fault:
        """Promise the whole body, send half, close."""
        return cls("truncated_body", times, after)

    @classmethod
    def cut_chunked(cls, times: int = 1, after: int = 0) -> Fault:
        """Close in the middle of a chunk."""
        return cls("cut_chunked", times, after)

    @classmethod
    def cut_gzip(cls, times: int = 1, after: int = 0) -> Fault:
        """Send half of the gzip stream, with the ``Content-Length`` of that half."""
        return cls("cut_gzip", times, after)

    @classmethod
    def reset(cls, times: int = 1, after: int = 0) -> Fault:
        """Reset the connection before a byte is sent."""
        return cls("reset", times, after)

    @classmethod
    def reset_mid_reply(cls, times: int = 1, after: int = 0) -> Fault:
        """Reset the connection after half of the body."""
        return cls("reset_mid_reply", times, after)

    @classmethod
    def closed(cls, times: int = 1, after: int = 0) -> Fault:
        """Close the connection without a reply."""
        return cls("closed", times, after)

    @classmethod
    def slow_reply(cls, seconds: float = 1.0, times: int = 1, after: int = 0) -> Fault:
        """Wait before the first byte."""
        return cls("slow_reply", times, after, "harmless", options={"seconds": seconds})

    @classmethod
    def slow_drip(cls, pause: float = 0.02, drops: int | None = 20, times: int = 1, after: int = 0) -> Fault:
        """Send the body byte by byte.

        :param pause: Seconds before each byte.
        :param drops: The bytes sent so, before the rest comes at once; None for all.
        """
        return cls("slow_drip", times, after, "harmless", options={"pause": pause, "drops": drops})

    # Pages

    @classmethod
    def empty_page(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer a page without rows that has a ``next``, behind which the rows are."""
        return cls("empty_page", times, after, "harmless", "edge")

    @classmethod
    def repeated_cursor(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer a later page with the very ``after`` that asked for it."""
        return cls("repeated_cursor", times, after, acts_on="next page")

    @classmethod
    def cursor_cycle(cls, times: int = LASTING, after: int = 0) -> Fault:
        """Lead a listing of two pages or more from cursor A to B and back to A, for ever."""
        return cls("cursor_cycle", times, after, "fatal", "edge")

    @classmethod
    def next_elsewhere(cls, to: str = "https://graph.facebook.example", times: int = 1, after: int = 0) -> Fault:
        """Put another host into ``next``; the cursors are right."""
        return cls("next_elsewhere", times, after, "harmless", "edge", {"to": to})

    @classmethod
    def next_without_cursors(cls, times: int = 1, after: int = 0) -> Fault:
        """Leave ``cursors`` out, so that only ``next`` says where to go on."""
        return cls("next_without_cursors", times, after, "harmless", "edge")

    @classmethod
    def next_with_token(cls, times: int = 1, after: int = 0) -> Fault:
        """Put the access token into ``next`` although it came in a header."""
        return cls("next_with_token", times, after, "harmless", "edge")

    @classmethod
    def duplicated_row(cls, times: int = 1, after: int = 0) -> Fault:
        """Begin a later page with the last row of the page before."""
        return cls("duplicated_row", times, after, "harmless", "next page")

    @classmethod
    def account_added(cls, times: int = 1, after: int = 0) -> Fault:
        """Put a new account at the head of the list before a page is answered."""
        return cls("account_added", times, after, "harmless", "accounts")

    @classmethod
    def account_removed(cls, times: int = 1, after: int = 0) -> Fault:
        """Take the first account off the list before a page is answered."""
        return cls("account_removed", times, after, "harmless", "accounts")

    # Shapes

    @classmethod
    def numeric_ids(cls, times: int = 1, after: int = 0) -> Fault:
        """Write ids as bare JSON numbers, as older samples of Meta's do."""
        return cls("numeric_ids", times, after, "harmless", "edge")

    @classmethod
    def unknown_values(cls, times: int = 1, after: int = 0) -> Fault:
        """Add a field nobody asked for to each row, and values no enum has."""
        return cls("unknown_values", times, after, "harmless", "edge")

    @classmethod
    def high_usage(cls, percent: int = 95, times: int = 1, after: int = 0) -> Fault:
        """Say in the usage headers that the limit is near."""
        return cls("high_usage", times, after, "harmless", options={"percent": percent})

    @classmethod
    def malformed_usage(cls, times: int = 1, after: int = 0) -> Fault:
        """Send usage headers that cannot be read."""
        return cls("malformed_usage", times, after, "harmless")

    @classmethod
    def version_upgrade(cls, version: str = "v99.0", times: int = 1, after: int = 0) -> Fault:
        """Say in ``facebook-api-version`` that another version ran."""
        return cls("version_upgrade", times, after, "harmless", options={"version": version})

    @classmethod
    def no_data(cls, times: int = 1, after: int = 0) -> Fault:
        """Leave ``data`` out."""
        return cls("no_data", times, after, acts_on="edge")

    @classmethod
    def data_not_a_list(cls, times: int = 1, after: int = 0) -> Fault:
        """Make ``data`` an object."""
        return cls("data_not_a_list", times, after, acts_on="edge")

    @classmethod
    def row_not_an_object(cls, times: int = 1, after: int = 0) -> Fault:
        """Make the last row a string."""
        return cls("row_not_an_object", times, after, acts_on="edge")

    @classmethod
    def paging_not_an_object(cls, times: int = 1, after: int = 0) -> Fault:
        """Make ``paging`` a string."""
        return cls("paging_not_an_object", times, after, acts_on="edge")

    @classmethod
    def error_not_an_object(cls, status: int = 500, times: int = 1, after: int = 0) -> Fault:
        """Make ``error`` a string."""
        return cls._text(status, '{"error":"Service temporarily unavailable"}', times, after)

    @classmethod
    def error_without_code(cls, status: int = 500, times: int = 1, after: int = 0) -> Fault:
        """Answer an envelope with nothing but a message."""
        return cls._text(status, '{"error":{"message":"Something went wrong"}}', times, after)

    @classmethod
    def error_data_text(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer code 131000 with ``error_data`` as JSON in a string."""
        data = '{"messaging_product":"whatsapp","details":"Try again later"}'
        return cls._error(500, 131000, "(#131000) Something went wrong", times, after, error_data=data)

    # Refused for good

    @classmethod
    def expired_token(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 190/463."""
        message = "Error validating access token: Session has expired on Tuesday, 10-Nov-26 09:00:00 PST."
        return cls._refusal(401, 190, message, times, after, error_subcode=463)

    @classmethod
    def revoked_token(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 190/467."""
        message = "Error validating access token: The session is invalid because the user logged out."
        return cls._refusal(401, 190, message, times, after, error_subcode=467)

    @classmethod
    def echoed_token(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 190 with the request's own token in the message."""
        return cls._refusal(401, 190, "Malformed access token {token}", times, after)

    @classmethod
    def bad_proof(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 104, incorrect signature."""
        return cls._refusal(400, 104, "Incorrect signature", times, after)

    @classmethod
    def no_advanced_access(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 200: the app lacks Advanced access."""
        return cls._refusal(403, 200, "(#200) Requires whatsapp_business_management permission", times, after)

    @classmethod
    def no_permission(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 10."""
        message = "(#10) Application does not have permission for this action"
        return cls._refusal(403, 10, message, times, after)

    @classmethod
    def no_capability(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 3."""
        message = "(#3) Application does not have the capability to make this API call."
        return cls._refusal(400, 3, message, times, after)

    @classmethod
    def blocked(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 368, blocked for a violation of policy."""
        return cls._refusal(400, 368, "(#368) Temporarily blocked for policies violations", times, after)

    @classmethod
    def wrong_business(cls, times: int = 1, after: int = 0) -> Fault:
        """Answer 100/33: no such id, or no access to it."""
        message = (
            "Unsupported get request. Object with ID '1' does not exist, cannot be loaded due to missing"
            " permissions, or does not support this operation."
        )
        return cls._refusal(400, 100, message, times, after, type="GraphMethodException", error_subcode=33)

    @classmethod
    def nonexisting_field(cls, name: str = "hologram", times: int = 1, after: int = 0) -> Fault:
        """Answer 100: the node has no such field."""
        message = f"(#100) Tried accessing nonexisting field ({name}) on node type (WhatsAppBusinessAccount)"
        return cls._refusal(400, 100, message, times, after)

    @classmethod
    def catalogue(cls) -> dict[str, Fault]:
        """Give every fault once, by name, as it would be met: what is fatal lasts, the others act once."""
        made = {
            name: getattr(cls, name)()
            for name, member in vars(cls).items()
            if isinstance(member, classmethod) and not name.startswith("_") and name != "catalogue"
        }
        return {name: replace(one, times=LASTING) if one.nature == "fatal" else one for name, one in made.items()}

    @classmethod
    def _error(cls, status: int, code: int, message: str, times: int, after: int, **more: Any) -> Fault:
        error = {"message": message, "type": "OAuthException", "code": code, **more}
        return cls("error", times, after, options={"status": status, "error": error})

    @classmethod
    def _refusal(cls, status: int, code: int, message: str, times: int, after: int, **more: Any) -> Fault:
        return replace(cls._error(status, code, message, times, after, **more), nature="fatal")

    @classmethod
    def _text(cls, status: int, text: str, times: int, after: int, **more: Any) -> Fault:
        return cls("text", times, after, options={"status": status, "text": text, **more})
