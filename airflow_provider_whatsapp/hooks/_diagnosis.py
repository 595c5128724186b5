"""Tests what a connection can do, and reports it in one message that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.credentials import redact
from airflow_provider_whatsapp.graph.edges import describe_node
from airflow_provider_whatsapp.graph.errors import (
    GraphError,
    GraphProtocolError,
    GraphRequestError,
    GraphTokenError,
    GraphTransportError,
    shorten,
)
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import NodeQuery, build_node_query
from airflow_provider_whatsapp.graph.versions import has_ended, is_known, last_day_of
from airflow_provider_whatsapp.hooks._metrics import count_calls, gauge_token

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.transport.sync import GraphClient

#: Query for the token itself.
TOKEN_QUERY = NodeQuery("debug_token", inspects_own_token=True)
#: Longest message in characters; Airflow shows it in a narrow box.
LONGEST_MESSAGE = 1000
# A person waits for the result, and a proxy in front of Airflow's API server may end the request after half a minute.
# The test makes at most three calls without retries, so it ends within twelve seconds.
LONGEST_CALL = 4.0
_PATIENCE = Patience(attempts=1)
# Names and messages from the API can have any length.
_LONGEST_VALUE = 150
_WARN_BEFORE_EXPIRY = timedelta(days=14)
# The permissions that the client edge needs, and the one that the owned edge also needs.
_CLIENT_PERMISSIONS = ("whatsapp_business_management", "whatsapp_business_messaging")
_OWNED_PERMISSIONS = ("business_management",)


class Diagnosis:
    """The findings of one test of a connection."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        #: What works now but may soon stop working.
        self.warnings: list[str] = []
        self._confirmations: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether the connection can be used as it is."""
        return not self._problems

    def confirm(self, finding: str) -> None:
        """Add a finding about something that works."""
        self._confirmations.append(finding)

    def report_problem(self, finding: str) -> None:
        """Add a finding about something that does not work and must be fixed."""
        self._problems.append(f"PROBLEM: {finding}")

    def warn(self, finding: str) -> None:
        """Add a finding about something that works now but may soon stop working."""
        self.warnings.append(finding)

    def __str__(self) -> str:
        # Problems come first, because Airflow shows the message in a narrow box.
        findings = [*self._problems, *(f"WARNING: {warning}" for warning in self.warnings), *self._confirmations]
        message = " ".join(finding if finding.endswith((".", "?")) else f"{finding}." for finding in findings)
        return shorten(without_markup(message), LONGEST_MESSAGE)


def without_markup(message: str) -> str:
    """Return the message with its square brackets replaced by parentheses.

    `airflow connections test` takes square brackets for markup. With them, it prints neither the code
    nor the fbtrace_id of an error, and a server could format the terminal.
    """
    return message.translate({ord("["): "(", ord("]"): ")"})


def describe_token(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the type, app, validity, expiry and permissions of the token.

    :param answer: the response to :data:`TOKEN_QUERY`
    :raises GraphProtocolError: if the response does not describe a token
    """
    token = answer.get("data")
    if not isinstance(token, dict):
        raise GraphProtocolError("the response to debug_token has no `data` object")
    return token


def diagnose(connection: WhatsAppConnection, *, now: datetime) -> Diagnosis:
    """Test a connection with at most three calls of four seconds each, and return the findings.

    :param connection: the connection to test
    :param now: the current time, to compare with the token's expiry and the version's last day
    """
    # lazy: an HTTP library
    from airflow_provider_whatsapp.transport.sync import GraphClient

    diagnosis = Diagnosis()
    for warning in connection.warnings:
        diagnosis.warn(warning)
    config = replace(connection.config, timeout=min(connection.config.timeout, LONGEST_CALL))
    with GraphClient(config, patience=_PATIENCE, on_call=count_calls(config)) as client:
        if _check_token(client, connection.config, diagnosis, now):
            _check_business(client, connection, diagnosis)
        _check_version(client, connection, diagnosis, now)
    return diagnosis


def _check_token(client: GraphClient, config: GraphConfig, diagnosis: Diagnosis, now: datetime) -> bool:
    try:
        token = describe_token(client.node(TOKEN_QUERY))
    except (GraphTokenError, GraphRequestError, GraphTransportError) as error:
        # Stop here: every other call would fail with the same error.
        diagnosis.report_problem(f"Token: {error}")
        return False
    except GraphError as error:
        # Some tokens are not allowed to inspect themselves. The calls that follow show whether such a token works.
        diagnosis.warn(f"Token: the API refused to describe it: {error}")
        return True
    gauge_token(days_left(token, now), config)
    if token.get("is_valid") is not True:
        reason = token.get("error")
        why = _printable(reason.get("message")) if isinstance(reason, dict) else ""
        diagnosis.report_problem(
            f"Token: not valid{f' ({why})' if why else ''}. Create a new one and put it in the connection's password"
        )
        return False
    diagnosis.confirm(f"Token: valid, {_describe_owner(token)}")
    _check_expiry(token, diagnosis, now)
    _check_permissions(token.get("scopes"), diagnosis)
    return True


def _describe_owner(token: dict[str, Any]) -> str:
    kind = (_printable(token.get("type")) or "unknown type").lower().replace("_", " ")
    user = _printable(token.get("user_id"))
    app = (
        f"the app {_printable(token.get('application')) or 'without a name'} ({_printable(token.get('app_id')) or '?'})"
    )
    return f"{kind}{f' {user}' if user else ''} of {app}"


def _printable(value: object) -> str:
    """Return a value from the API in at most 150 printable characters; empty if there is none."""
    text = "" if value is None else redact(str(value))
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_VALUE]


def _check_expiry(token: dict[str, Any], diagnosis: Diagnosis, now: datetime) -> None:
    # A token that does not expire can still lose its access to data. Tokens of system users have no such time, or 0.
    moments = {"It": token.get("expires_at"), "Its access to data": token.get("data_access_expires_at", 0)}
    if not any(moment != 0 for moment in moments.values()):
        diagnosis.confirm("It does not expire")
    for what, moment in moments.items():
        end = _moment(moment)
        if moment == 0:
            continue
        if end is None:
            diagnosis.warn("Its expiry cannot be read")
        elif end <= now:
            diagnosis.warn(f"{what} expired on {end:%Y-%m-%d}: create a new token")
        elif end - now < _WARN_BEFORE_EXPIRY:
            diagnosis.warn(f"{what} expires on {end:%Y-%m-%d}, in {(end - now).days} days: create a new token in time")
        else:
            diagnosis.confirm(f"{what} expires on {end:%Y-%m-%d}")


def days_left(token: dict[str, Any], now: datetime) -> float | None:
    """Return the number of days until a token expires or loses its access to data, or None if it does neither.

    :param token: result of :func:`describe_token`
    :param now: the current time
    """
    if token.get("is_valid") is not True:
        return 0.0
    moments = [_moment(token.get(key)) for key in ("expires_at", "data_access_expires_at") if token.get(key) != 0]
    return min((max(0.0, (end - now) / timedelta(days=1)) for end in moments if end is not None), default=None)


def _moment(unix_seconds: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(unix_seconds, timezone.utc) if isinstance(unix_seconds, int) else None
    except (OverflowError, ValueError, OSError):
        return None


def _check_permissions(scopes: object, diagnosis: Diagnosis) -> None:
    granted = {scope for scope in scopes if isinstance(scope, str)} if isinstance(scopes, list) else set()
    if missing := _missing(_CLIENT_PERMISSIONS, granted):
        diagnosis.report_problem(
            f"Permissions: the token lacks {missing}. Create a new one with it for the same system user"
        )
    else:
        diagnosis.confirm("Permissions: complete for the client edge")
    if missing := _missing(_OWNED_PERMISSIONS, granted):
        diagnosis.confirm(f"The owned edge would also need {missing}")


def _missing(needed: Sequence[str], granted: Iterable[str]) -> str:
    return " and ".join(permission for permission in needed if permission not in granted)


def _check_business(client: GraphClient, connection: WhatsAppConnection, diagnosis: Diagnosis) -> None:
    if connection.business_id is None:
        diagnosis.confirm("Business: none in the connection, each task names its own")
        return
    try:
        business = client.node(build_node_query(connection.business_id))
    except GraphError as error:
        whose = f" {describe_node(connection.waba_query().path)}" if isinstance(error, GraphRequestError) else ""
        diagnosis.report_problem(f"Business {connection.business_id}: cannot be read.{whose} {error}")
        return
    diagnosis.confirm(f"Business: {_printable(business.get('name')) or 'without a name'} ({connection.business_id})")
    if connection.config.credentials.app_secret is not None:
        diagnosis.confirm("App secret: its proof is accepted")
    try:
        with closing(client.pages(connection.waba_query(fields="id", max_items=1))) as pages:
            # Read only the first page: up to a thousand empty ones could follow, each of which is a call.
            found = bool(next(pages).rows)
    except GraphError as error:
        diagnosis.report_problem(f"Client accounts: cannot be listed. {error}")
    else:
        diagnosis.confirm(
            "Client accounts: readable"
            if found
            else "Client accounts: readable, but the first page has none; is the system user an admin of the right "
            "business?"
        )


def _check_version(client: GraphClient, connection: WhatsAppConnection, diagnosis: Diagnosis, now: datetime) -> None:
    version = connection.config.version
    last_day = last_day_of(version)
    if other := client.other_versions:
        diagnosis.report_problem(
            f"API version: {version} was requested, {' and '.join(other)} answered; set api_version to that"
        )
    elif has_ended(version, now.date()):
        when = f" on {last_day:%Y-%m-%d}" if last_day else ""
        diagnosis.report_problem(f"API version: {version} ended{when}; set a newer api_version")
    elif not is_known(version):
        diagnosis.warn(f"API version: {version} is newer than this provider, which has not been tested with it")
    elif last_day is None:
        diagnosis.confirm(f"API version: {version}")
    else:
        diagnosis.confirm(f"API version: {version}, until {last_day:%Y-%m-%d}")
