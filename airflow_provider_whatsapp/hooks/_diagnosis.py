"""What a connection can do, in one message that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.errors import (
    GraphError,
    GraphProtocolError,
    GraphRequestError,
    GraphTokenError,
    GraphTransportError,
)
from airflow_provider_whatsapp.graph.messages import Request
from airflow_provider_whatsapp.graph.query import CLIENT_WABAS, edge_read, node_read
from airflow_provider_whatsapp.graph.versions import end_of

if TYPE_CHECKING:
    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.transport.sync import GraphClient

_WARN_BEFORE = timedelta(days=14)
#: What the client edge asks for, and what the owned edge asks for beyond that.
_CLIENT_PERMISSIONS = ("whatsapp_business_management", "whatsapp_business_messaging")
_OWNED_PERMISSIONS = ("business_management",)


class Diagnosis:
    """The findings so far, and whether any of them is an obstacle."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self._findings: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether nothing has to be mended."""
        return not self._problems

    def good(self, finding: str) -> None:
        """Note what works."""
        self._findings.append(finding)

    def bad(self, finding: str) -> None:
        """Note what does not work and has to be mended."""
        self._problems.append(f"PROBLEM: {finding}")

    def warn(self, finding: str) -> None:
        """Note what works, for now."""
        self._warnings.append(f"WARNING: {finding}")

    def __str__(self) -> str:
        # What has to be done first: the message is shown in a narrow box.
        findings = [*self._problems, *self._warnings, *self._findings]
        return " ".join(finding if finding.endswith((".", "?")) else f"{finding}." for finding in findings)


def read_token(client: GraphClient) -> dict[str, Any]:
    """What the token is: type, app, validity, expiry, scopes.

    https://developers.facebook.com/docs/graph-api/reference/debug_token

    :raises GraphError: the API does not tell
    """
    token = client.node(Request("debug_token", inspects_own_token=True)).get("data")
    if not isinstance(token, dict):
        raise GraphProtocolError("the answer to debug_token has no `data` object")
    return token


def diagnose(client: GraphClient, connection: WhatsAppConnection, *, now: datetime) -> Diagnosis:
    """The answers to what a person asks of a new connection; one call for each.

    :param client: over the connection
    :param connection: what it says
    :param now: the time, to judge expiry by
    """
    diagnosis = Diagnosis()
    if _token(client, diagnosis, now):
        _business(client, connection, diagnosis)
    _version(client, connection, diagnosis, now)
    return diagnosis


def _token(client: GraphClient, diagnosis: Diagnosis, now: datetime) -> bool:
    try:
        token = read_token(client)
    except (GraphTokenError, GraphRequestError, GraphTransportError) as error:
        # Every call would end the same.
        diagnosis.bad(f"Token: {error}")
        return False
    except GraphError as error:
        # Not every token may ask about itself; the calls that follow tell as well whether it works.
        diagnosis.warn(f"Token: the API refused to describe it: {error}")
        return True
    if token.get("is_valid") is not True:
        reason = token.get("error")
        told = reason.get("message") if isinstance(reason, dict) else None
        diagnosis.bad(
            f"Token: not valid{f' ({told})' if told else ''}. Create a new one and put it in the connection's password"
        )
        return False
    diagnosis.good(f"Token: valid, {_owner(token)}")
    _expiry(token.get("expires_at"), diagnosis, now)
    _permissions(token.get("scopes"), diagnosis)
    return True


def _owner(token: dict[str, Any]) -> str:
    kind = str(token.get("type") or "unknown type").lower().replace("_", " ")
    who = f" {token['user_id']}" if token.get("user_id") else ""
    return f"{kind}{who} of the app {token.get('application') or 'without a name'} ({token.get('app_id') or '?'})"


def _expiry(expires_at: object, diagnosis: Diagnosis, now: datetime) -> None:
    if not isinstance(expires_at, int) or expires_at == 0:
        diagnosis.good("It does not expire")
        return
    try:
        end = datetime.fromtimestamp(expires_at, timezone.utc)
    except (OverflowError, ValueError, OSError):
        diagnosis.warn("Its expiry cannot be read")
        return
    if end - now < _WARN_BEFORE:
        diagnosis.warn(f"It expires on {end:%Y-%m-%d}, in {max(0, (end - now).days)} days: create a new one in time")
    else:
        diagnosis.good(f"It expires on {end:%Y-%m-%d}")


def _permissions(scopes: object, diagnosis: Diagnosis) -> None:
    granted = {scope for scope in scopes if isinstance(scope, str)} if isinstance(scopes, list) else set()
    if missing := _missing(_CLIENT_PERMISSIONS, granted):
        diagnosis.bad(f"Permissions: the token lacks {missing}. Create one with it for the same system user")
    else:
        diagnosis.good("Permissions: complete for the client edge")
    if missing := _missing(_OWNED_PERMISSIONS, granted):
        diagnosis.good(f"The owned edge would need {missing} too")


def _missing(needed: Sequence[str], granted: Iterable[str]) -> str:
    return " and ".join(permission for permission in needed if permission not in set(granted))


def _business(client: GraphClient, connection: WhatsAppConnection, diagnosis: Diagnosis) -> None:
    if connection.business_id is None:
        diagnosis.good("Business: none in the connection, each task names its own")
        return
    try:
        business = client.node(*node_read(connection.business_id))
    except GraphError as error:
        diagnosis.bad(f"Business {connection.business_id}: cannot be read. {error}")
        return
    diagnosis.good(f"Business: {business.get('name') or 'without a name'} ({connection.business_id})")
    if connection.config.credentials.app_secret is not None:
        diagnosis.good("App secret: its proof is accepted")
    try:
        read = edge_read(f"{connection.business_id}/{CLIENT_WABAS}", fields="id", max_items=1)
        found = any(page.rows for page in client.pages(read))
    except GraphError as error:
        diagnosis.bad(f"Client accounts: cannot be listed. {error}")
    else:
        diagnosis.good(
            "Client accounts: readable"
            if found
            else "Client accounts: readable, but there are none; is the system user an admin of the right business?"
        )


def _version(client: GraphClient, connection: WhatsAppConnection, diagnosis: Diagnosis, now: datetime) -> None:
    version = connection.config.version
    end = end_of(version)
    if other := client.other_versions:
        diagnosis.bad(f"API version: {version} was asked for, {' and '.join(other)} answered; set api_version to that")
    elif end is None:
        diagnosis.good(f"API version: {version}")
    elif end <= now.date():
        diagnosis.warn(f"API version: {version} ended on {end:%Y-%m-%d}; set a newer api_version")
    else:
        diagnosis.good(f"API version: {version}, until {end:%Y-%m-%d}")
