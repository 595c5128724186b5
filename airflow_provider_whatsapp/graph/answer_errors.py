"""Decides which error a response of the Graph API means."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow_provider_whatsapp.graph.edges import describe_node, suggest_edge
from airflow_provider_whatsapp.graph.error_codes import ADVICE_OF_CLASS, TOO_MUCH_DATA, find_code
from airflow_provider_whatsapp.graph.errors import (
    GraphApiError,
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
)

_REFUSED_PROOF = (
    "The API refused the proof: the connection's app_secret must be set, and be the secret of the app that the token "
    "belongs to."
)
_LONGEST_TEXT = 500
# Only this many characters of a text are searched for secrets, because a text can be as long as the response.
_SEARCHED_TEXT = 20_000
_LONGEST_SECRET = 1_000
_LONGEST_TRACE = 100


def find_error(
    status: int,
    payload: Any,
    *,
    retry_after: timedelta | None,
    redact: Callable[[str], str],
    path: str = "",
    clock_problem: str = "",
    version_problem: str = "",
    is_partial: bool = False,
) -> GraphError | None:
    """Return the error that a response means, or None if the response has the requested data.

    ``error.code`` decides, even on HTTP 200; the HTTP status decides only where there is no error envelope.

    :param status: HTTP status code
    :param payload: parsed JSON body, or None if the body is not JSON
    :param retry_after: wait that the headers named
    :param redact: removes secrets from a text, because servers repeat tokens in their messages
    :param path: path of the request, for advice on its id and its edge
    :param clock_problem: what is wrong with this machine's clock, if anything is; the likely cause of a refused proof
    :param version_problem: what is wrong with the requested version, if anything is. The advice for an error of the
        request begins with it, because a version that has ended is the likely cause
    :param is_partial: whether the headers say that the body is only a part of the response
    """
    envelope = payload.get("error") if isinstance(payload, dict) else None
    if isinstance(envelope, dict):
        return _error_from_envelope(envelope, status, retry_after, redact, path, clock_problem, version_problem)
    if envelope is not None:
        return GraphProtocolError("the response's `error` is not an error envelope", retryable=True)
    if status == 200 and not is_partial:
        return None
    return _error_from_status(status, retry_after, version_problem)


def _error_from_envelope(
    envelope: dict[str, Any],
    status: int,
    retry_after: timedelta | None,
    redact: Callable[[str], str],
    path: str,
    clock_problem: str,
    version_problem: str,
) -> GraphApiError:
    def text(name: str, longest: int = _LONGEST_TEXT, *, within: Any = envelope) -> str | None:
        value = within.get(name) if isinstance(within, dict) else None
        if not isinstance(value, str) or not value:
            return None
        clean = redact(value[:_SEARCHED_TEXT])
        if len(value) > _SEARCHED_TEXT:
            # Where the text is cut, it may end with the first half of a secret, which the masking does not recognize.
            clean = clean[:-_LONGEST_SECRET]
        return "".join(c if c.isprintable() else " " for c in clean[:longest])

    code, subcode = _parse_code(envelope.get("code")), _parse_code(envelope.get("error_subcode"))
    is_transient = envelope.get("is_transient") is True
    message = text("message") or "no message"
    # In this field, WhatsApp's edges say what is wrong, and where a person can fix it.
    details = text("details", within=envelope.get("error_data"))
    row = find_code(code)
    # This sentence comes with several codes. In other languages it is not recognized, and the error is only retried.
    too_much_data = "reduce the amount of data" in message.lower() or (
        row is not None and row.details(subcode).too_much_data
    )
    kind = GraphServerError if too_much_data else _class_of(code, status, text("type"), is_transient)
    is_proof_refused = code == 100 and "appsecret_proof" in message
    if is_proof_refused:
        kind = GraphTokenError
    number = "no code" if code is None else f"code {code}" if subcode is None else f"code {code}/{subcode}"
    trace = text("fbtrace_id", _LONGEST_TRACE)
    where = f"{number}, HTTP {status}" + (f", fbtrace_id {trace}" if trace else "")
    named_wait = _describe_wait(retry_after) if kind is GraphRateLimitError else ""
    advice = [version_problem if kind is GraphRequestError else ""]
    if kind is GraphRequestError or code == 2500:
        advice.append(suggest_edge(path))
    if code == 104 or is_proof_refused:
        advice.append(clock_problem)
    advice.append(_REFUSED_PROOF if is_proof_refused else _advice(kind, code, subcode, too_much_data=too_much_data))
    if (code, subcode) == (100, 33):
        advice.append(describe_node(path))
    said = (message if details is None or details in message else f"{message} ({details})").rstrip()
    stop = "" if said.endswith((".", "!", "?")) else "."
    error = kind(
        f"The API said: {said}{stop} {' '.join(filter(None, advice))}{named_wait} [{where}]",
        code=code,
        subcode=subcode,
        type=text("type"),
        http_status=status,
        fbtrace_id=trace,
        is_transient=is_transient,
        user_title=text("error_user_title"),
        user_message=text("error_user_msg"),
        retry_after=retry_after,
    )
    if too_much_data:
        error.too_much_data = True
        error.retryable = False
    return error


def _advice(kind: type[GraphApiError], code: int | None, subcode: int | None, *, too_much_data: bool) -> str:
    if too_much_data:
        return TOO_MUCH_DATA
    row = find_code(code)
    return (row.details(subcode).advice if row else "") or ADVICE_OF_CLASS[kind]


def _class_of(code: int | None, status: int, type: str | None, is_transient: bool) -> type[GraphApiError]:
    row = find_code(code)
    if row is not None:
        return row.kind
    if is_transient:
        return GraphServerError
    if status >= 500 or status == 429:
        return _class_of_status(status)
    if code is None:
        return GraphTokenError if type == "OAuthException" else _class_of_status(status)
    return GraphRequestError


def _class_of_status(status: int) -> type[GraphApiError]:
    if status == 401:
        return GraphTokenError
    if status == 403:
        return GraphPermissionError
    if status == 429:
        return GraphRateLimitError
    return GraphServerError if status >= 500 or status == 408 else GraphRequestError


def _error_from_status(status: int, retry_after: timedelta | None, version_problem: str) -> GraphError:
    if status < 300:
        # A part of a list can be valid JSON, so it would be taken for the whole list.
        return GraphProtocolError(
            f"the response is HTTP {status} and may be only a part of what was requested; a proxy has most likely "
            "changed it. Check the proxy and the connection's host.",
            retryable=True,
        )
    if status < 400:
        return GraphProtocolError(
            f"the response is HTTP {status}, a redirect; the token is not sent to another address. "
            "Check the connection's host."
        )
    kind = _class_of_status(status)
    named_wait = _describe_wait(retry_after) if kind is GraphRateLimitError else ""
    cause = f"{version_problem} " if version_problem and kind is GraphRequestError else ""
    return kind(
        f"The response is HTTP {status} without an error envelope. {cause}{ADVICE_OF_CLASS[kind]}{named_wait}",
        http_status=status,
        retry_after=retry_after,
    )


def _describe_wait(retry_after: timedelta | None) -> str:
    if retry_after is None:
        return " The API named no time to wait."
    return f" The API asks to wait {retry_after}."


def _parse_code(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
