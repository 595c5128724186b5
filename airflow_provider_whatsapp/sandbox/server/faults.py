"""Produces, on demand, what can go wrong between a client and the Graph API.

An effect of one line is written here, at its fault; the others are functions of :mod:`.fault_effects`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ..world.analytics import INSIGHTS_NOT_ENABLED
from . import fault_effects as effects

#: ``harmless``: the response is unusual but correct; ``passing``: the response is unusable, but the same request
#: succeeds once the fault is over; ``fatal``: retrying does not help.
Nature = Literal["harmless", "passing", "fatal"]
#: The requests that a fault acts on; it waits for one of them.
Target = Literal["any", "edge", "account edge", "later page"]
#: When a fault acts: before the response is made, on any response, on a response that is a page, or while it is sent.
Moment = Literal["before", "answer", "page", "sending"]

_ALWAYS = 1_000_000_000


class _Maker:
    """Makes a fault without options: ``Fault.closed()``."""

    def __init__(self, moment: Moment, effect: Callable[..., object], **properties: Any) -> None:
        self._properties = {"moment": moment, "effect": effect, **properties}

    def __set_name__(self, owner: type, name: str) -> None:
        self._properties["kind"] = name

    def __call__(self) -> Fault:
        """Return the fault."""
        return _make(**self._properties)


def _make(
    kind: str, moment: Moment, effect: Callable[..., object], options: dict[str, Any] | None = None, **properties: Any
) -> Fault:
    fault = object.__new__(Fault)
    vars(fault).update(kind=kind, moment=moment, effect=effect, options=options or {}, **properties)
    return fault


def _answer(kind: str, status: int, **content: Any) -> Fault:
    return _make(kind, "answer", effects.answer, {"status": status, **content})


def _error(status: int, code: int, message: str, *, nature: Nature = "passing", **details: Any) -> _Maker:
    options = {"status": status, "code": code, "message": message, **details}
    return _Maker("answer", effects.refuse, nature=nature, options=options)


_refusal = partial(_error, nature="fatal")
_page = partial(_Maker, "page", acts_on="edge")
_sending = partial(_Maker, "sending")
_headers = partial(_Maker, "answer", effects.add_headers, nature="harmless")


@dataclass(frozen=True, init=False)
class Fault:
    """One fault, e.g. ``Fault.server_error(status=502)`` or ``Fault.expired_token().after(1).times(2)``.

    A fault acts on one request unless :meth:`times` or its description says otherwise. Faults of pages and accounts
    wait for a request that lists an edge. A fault is immutable.
    """

    # Name of the member of this class that made it.
    kind: str
    moment: Moment
    effect: Callable[..., object] = field(repr=False, compare=False)
    # The arguments of the effect.
    options: dict[str, Any]
    nature: Nature = "passing"
    acts_on: Target = "any"
    # Whether the client gets no complete HTTP response.
    breaks_connection: bool = False
    # Number of requests that it acts on, and number that it lets pass first.
    requests_hit: int = 1
    requests_before: int = 0
    # It acts only on requests for more rows than this, and for this node (empty for all).
    above: int = -1
    node: str | None = None

    def __init__(self) -> None:
        raise TypeError("faults are made by methods of this class, such as Fault.server_error()")

    def after(self, requests: int) -> Fault:
        """Return the same fault, which lets this number of requests pass before it acts."""
        if requests < 0:
            raise ValueError(f"after() needs a number of requests of at least 0, not {requests}")
        return _make(**vars(self) | {"requests_before": requests})

    def times(self, requests: int) -> Fault:
        """Return the same fault, which acts on this number of requests."""
        if requests < 1:
            raise ValueError(f"times() needs a number of requests of at least 1, not {requests}")
        return _make(**vars(self) | {"requests_hit": requests})

    def on(self, node_id: str) -> Fault:
        """Return the same fault, limited to requests whose path names this node, such as a business and its edges.

        It does not hold up requests for other nodes: the faults queued after it act on them.
        """
        return _make(**vars(self) | {"node": node_id})

    @classmethod
    def catalogue(cls) -> dict[str, Fault]:
        """Return every fault by name, with its default options; fatal ones act on all requests."""
        makers = [name for name, member in vars(cls).items() if isinstance(member, (staticmethod, _Maker))]
        faults: dict[str, Fault] = {name: getattr(cls, name)() for name in makers}
        return {name: one.times(_ALWAYS) if one.nature == "fatal" else one for name, one in faults.items()}

    # Rate limits

    @staticmethod
    def throttle(code: int = 80008, minutes: int | None = 5, retry_after: int | None = None) -> Fault:
        """Respond with a rate limit error.

        :param code: 4, 17, 32, 613 or one of 80000 to 80014
        :param minutes: ``estimated_time_to_regain_access`` in the usage header; None leaves the header out
        :param retry_after: seconds for a ``Retry-After`` header, which Meta does not document; None leaves it out
        """
        options = {"code": code, "minutes": minutes, "retry_after": retry_after}
        return _make("throttle", "answer", effects.throttle, options)

    @staticmethod
    def too_many_requests(retry_after: int | None = None) -> Fault:
        """Respond with HTTP 429 without an envelope, and optionally with ``Retry-After`` in seconds."""
        headers = {"Content-Type": "text/plain"} | ({} if retry_after is None else {"Retry-After": str(retry_after)})
        return _answer("too_many_requests", 429, text="Too Many Requests", headers=headers)

    # Errors of the server

    @staticmethod
    def server_error(status: int = 503) -> Fault:
        """Respond with an HTML page with status 500, 502 or 503."""
        return _make("server_error", "answer", effects.html_page, {"status": status})

    unknown_error = _error(500, 1, "An unknown error occurred")
    """Respond with code 1, an unknown error."""
    unavailable = _error(500, 2, "Service temporarily unavailable")
    """Respond with code 2, the service is temporarily unavailable."""
    error_data_text = _error(
        500, 131000, "(#131000) Something went wrong",
        error_data='{"messaging_product":"whatsapp","details":"Try again later"}',
    )  # fmt: skip
    """Respond with code 131000, whose ``error_data`` is JSON within a string."""

    @staticmethod
    def transient_error(code: int = 1675030) -> Fault:
        """Respond with any code with ``is_transient``."""
        message = "An unexpected error has occurred. Please retry your request later."
        options = {"status": 400, "code": code, "message": message, "is_transient": True}
        return _make("transient_error", "answer", effects.refuse, options)

    @staticmethod
    def reduce_data(
        above: int = 25, code: int | None = 1, subcode: int | None = None, status: int = 500, message: str | None = None
    ) -> Fault:
        """Refuse all pages of more than ``above`` rows. The envelope has no type, as has been observed.

        :param code: the API also does it with -3, 2, 100, 960 and others; None leaves it out
        :param subcode: 99 with code 1 and 1504018 with code 2 have been observed; None leaves it out
        :param message: by default the request to reduce the amount of data, which the API does not always send; an
            empty text responds with an HTML page, as a gateway does after a timeout
        """
        options = {"status": status, "code": code, "subcode": subcode, "message": message}
        limits = {"acts_on": "edge", "requests_hit": _ALWAYS, "above": above}
        return _make("reduce_data", "answer", effects.reduce_data, options, **limits)

    # Responses that do not come from the Graph API

    error_on_200 = _error(200, 2, "Service temporarily unavailable")
    """Respond with an envelope with code 2 on HTTP 200."""
    html_on_200 = _Maker("answer", effects.html_page, options={"status": 200})
    """Respond with an HTML page on HTTP 200."""
    empty_body = _Maker("answer", effects.answer, options={"status": 200, "text": ""})
    """Respond with an empty body on HTTP 200."""

    @staticmethod
    def error_not_an_object(status: int = 500) -> Fault:
        """Respond with an ``error`` that is a string."""
        return _answer("error_not_an_object", status, payload={"error": "Service temporarily unavailable"})

    @staticmethod
    def error_without_code(status: int = 500) -> Fault:
        """Respond with an envelope that has only a message."""
        return _answer("error_without_code", status, payload={"error": {"message": "Something went wrong"}})

    @staticmethod
    def redirect(to: str = "https://graph.facebook.example") -> Fault:
        """Redirect to another host with HTTP 302."""
        return _make("redirect", "answer", effects.redirect, {"to": to})

    @staticmethod
    def deep_json(levels: int = 100_000) -> Fault:
        """Respond with arrays that are nested ``levels`` deep."""
        return _answer("deep_json", 200, text='{"data":[' + "[" * levels + "]" * levels + "]}")

    # Bodies and connections

    half_json = _sending(lambda it: it.send(it.content[: len(it.content) // 2]))
    """Send half of the JSON, with the ``Content-Length`` of that half."""
    cut_gzip = _sending(effects.cut_gzip)
    """Send half of the gzip stream, with the ``Content-Length`` of that half."""
    unknown_encoding = _sending(lambda it: it.send(bytes(byte ^ 0x55 for byte in it.content), "x-hologram"))
    """Send a body in an unknown ``Content-Encoding``."""
    truncated_body = _sending(effects.truncated_body, breaks_connection=True)
    """Announce the whole body, send half of it and close the connection."""
    cut_chunked = _sending(effects.cut_chunked, breaks_connection=True)
    """Close the connection in the middle of a chunk."""
    reset = _sending(lambda it: it.close(reset=True), breaks_connection=True)
    """Reset the connection before anything is sent."""
    reset_mid_reply = _sending(lambda it: effects.truncated_body(it, reset=True), breaks_connection=True)
    """Reset the connection after half of the body."""
    closed = _sending(lambda it: it.close(), breaks_connection=True)
    """Close the connection without a response."""

    @staticmethod
    def huge_body(mib: int = 80) -> Fault:
        """Send the correct response with ``mib`` MiB of padding in it; it is still valid JSON."""
        return _make("huge_body", "sending", effects.huge_body, {"mib": mib})

    @staticmethod
    def gzip_bomb(mib: int = 200) -> Fault:
        """Send the correct response followed by ``mib`` MiB of white space, which gzip makes small."""
        return _make("gzip_bomb", "sending", effects.gzip_bomb, {"mib": mib})

    @staticmethod
    def slow_reply(seconds: float = 1.0) -> Fault:
        """Wait for some seconds before the first byte."""
        return _make("slow_reply", "sending", effects.slow_reply, {"seconds": seconds}, nature="harmless")

    @staticmethod
    def slow_drip(pause: float = 0.02, drops: int | None = 20) -> Fault:
        """Send the first ``drops`` bytes of the body, or all if None, with a ``pause`` in seconds before each."""
        return _make("slow_drip", "sending", effects.slow_drip, {"pause": pause, "drops": drops}, nature="harmless")

    # Pages

    empty_page = _page(effects.empty_page, nature="harmless")
    """Respond with a page without rows that has a ``next``; the rows are on the pages after it."""
    repeated_cursor = _page(lambda it: it.continue_at(it.request.params["after"]), acts_on="later page")
    """Give a later page the same ``after`` cursor that requested it."""
    cursor_cycle = _page(effects.cursor_cycle, nature="fatal", requests_hit=_ALWAYS)
    """Lead every listing of two pages or more from cursor A to B and back to A."""
    next_without_cursors = _page(lambda it: it.paging.pop("cursors", None), nature="harmless")
    """Leave ``cursors`` out, so that only ``next`` says where the listing continues."""
    next_with_token = _page(effects.next_with_token, nature="harmless")
    """Put the access token into ``next``, although the request had it in a header."""
    duplicated_row = _page(effects.duplicated_row, nature="harmless", acts_on="later page")
    """Begin a later page with the last row of the page before it."""

    @staticmethod
    def next_elsewhere(to: str = "https://graph.facebook.example") -> Fault:
        """Let ``next`` name another host; the cursors are correct."""
        return _make("next_elsewhere", "page", effects.next_elsewhere, {"to": to}, nature="harmless", acts_on="edge")

    account_added = _Maker(
        "before", lambda it: it.accounts().insert(0, it.api.new_account(it.path[0])), nature="harmless",
        acts_on="account edge",
    )  # fmt: skip
    """Add a new account at the beginning of the list before the page is made."""
    account_removed = _Maker("before", effects.account_removed, nature="harmless", acts_on="account edge")
    """Remove the first account from the list before the page is made."""

    # Values, shapes and headers

    numeric_ids = _page(effects.numeric_ids, nature="harmless")
    """Write ids as JSON numbers, as older examples of Meta do."""
    unknown_values = _page(effects.unknown_values, nature="harmless")
    """Add an unrequested field to each row, and use values that no enum has."""
    nan = _page(effects.nan)
    """Put NaN, which JSON does not have, into the last row."""
    no_data = _page(lambda it: it.answer.payload.pop("data"))
    """Leave ``data`` out."""
    data_not_a_list = _page(lambda it: it.answer.payload.update(data={"rows": it.rows}))
    """Respond with ``data`` as an object."""
    row_not_an_object = _page(lambda it: it.answer.payload.update(data=[*it.rows[:-1], "not an object"]))
    """Respond with a string as the last row."""
    paging_not_an_object = _page(lambda it: it.answer.payload.update(paging="next"))
    """Respond with ``paging`` as a string."""
    odd_content_type = _headers(options={"headers": {"Content-Type": "text/javascript; charset=UTF-8"}})
    """Send the correct response as ``text/javascript``."""
    malformed_usage = _headers(
        options={"headers": {"x-app-usage": '{"call_count": lots', "x-business-use-case-usage": '[[{"1": "none"}], 7]'}}
    )
    """Send usage headers that cannot be parsed."""

    @staticmethod
    def high_usage(percent: int = 95) -> Fault:
        """Report in the usage headers that ``percent`` of the rate limit is used."""
        return _make("high_usage", "answer", effects.high_usage, {"percent": percent}, nature="harmless")

    @staticmethod
    def version_upgrade(version: str = "v99.0") -> Fault:
        """Report another version in the ``facebook-api-version`` header."""
        headers = {"facebook-api-version": version}
        return _make("version_upgrade", "answer", effects.add_headers, {"headers": headers}, nature="harmless")

    # Refusals that last until someone fixes the cause

    expired_token = _refusal(
        401, 190, "Error validating access token: Session has expired on Tuesday, 10-Nov-26 09:00:00 PST.",
        error_subcode=463,
    )  # fmt: skip
    """Refuse the token with code 190/463, it has expired."""
    revoked_token = _refusal(
        401, 190, "Error validating access token: The session is invalid because the user logged out.",
        error_subcode=467,
    )  # fmt: skip
    """Refuse the token with code 190/467, it was revoked."""
    echoed_token = _refusal(401, 190, "Malformed access token {token}")
    """Refuse the token with code 190, and quote it in the message."""
    bad_proof = _refusal(400, 104, "Incorrect signature")
    """Refuse the proof with code 104."""
    no_advanced_access = _refusal(403, 200, "(#200) Requires whatsapp_business_management permission")
    """Refuse with code 200, the app lacks Advanced access."""
    no_permission = _refusal(403, 10, "(#10) Application does not have permission for this action")
    """Refuse with code 10, the app lacks a permission."""
    no_capability = _refusal(400, 3, "(#3) Application does not have the capability to make this API call.")
    """Refuse with code 3, the app lacks a capability."""
    blocked = _refusal(400, 368, "(#368) Temporarily blocked for policies violations")
    """Refuse with code 368, the account or the app is blocked for a violation of policies."""
    wrong_business = _refusal(
        400, 100, "Unsupported get request. Object with ID '{node}' does not exist, cannot be loaded due to missing"
        " permissions, or does not support this operation.", type="GraphMethodException", error_subcode=33,
    )  # fmt: skip
    """Refuse with code 100/33, the id does not exist or the token has no access to it.

    With ``.on(waba_id)``, an account that was listed is gone when its edges are read.
    """
    no_account_permission = _refusal(
        403, 200, "(#200) You do not have permission to access this WhatsApp Business Account"
    )
    """Refuse with code 200, the system user lacks a task on the account."""
    insights_not_enabled = _refusal(400, *INSIGHTS_NOT_ENABLED)
    """Refuse with code 200007, the account has no template analytics."""

    @staticmethod
    def nonexisting_field(name: str = "hologram") -> Fault:
        """Refuse with code 100, the accounts have no field ``name``."""
        message = f"(#100) Tried accessing nonexisting field ({name}) on node type (WhatsAppBusinessAccount)"
        options = {"status": 400, "code": 100, "message": message}
        return _make("nonexisting_field", "answer", effects.refuse, options, nature="fatal")
