"""Reads an Airflow connection of type ``whatsapp`` and checks all its fields."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from airflow_provider_whatsapp import _compat
from airflow_provider_whatsapp.get_provider_info import get_provider_info
from airflow_provider_whatsapp.graph.arguments import (
    could_be_secret,
    did_you_mean,
    parse_business_id,
    shown,
    shown_if_short,
)
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials, redact
from airflow_provider_whatsapp.graph.query import EdgeQuery, Query, build_waba_query
from airflow_provider_whatsapp.graph.versions import parse_version

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, Connection
    from typing_extensions import Unpack

log = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://graph.facebook.com"
_DEFAULT_TIMEOUT = 30.0
_LONGEST_TIMEOUT = 600.0
_EXTRA_KEYS = tuple(get_provider_info()["connection-types"][0]["conn-fields"])
# Airflow 2 saved the extra fields of a connection form under names with this prefix.
_OLD_PREFIX = "extra__whatsapp__"


class MissingConnectionError(_compat.AirflowFailException, ValueError):
    """There is no Airflow connection with this id, which a retry cannot change."""

    def __init__(self, conn_id: str) -> None:
        super().__init__(
            f"whatsapp_conn_id: there is no connection {shown(conn_id)}; create it with the type 'WhatsApp Business' "
            "(Admin, Connections), or name another one. In an environment variable, it must be JSON or a URI"
        )


@dataclass(frozen=True, slots=True)
class WhatsAppConnection:
    """A checked connection.

    :param config: where the API is and which credentials to use
    :param business_id: id of the business portfolio to list if a task names none, or None
    :param warnings: what in the connection is ignored, each as a sentence
    :param read_config: reads the connection again, for a client whose requests begin to fail
    :param aread_config: the same for an event loop
    """

    config: GraphConfig
    business_id: str | None
    warnings: tuple[str, ...] = ()
    read_config: Callable[[], GraphConfig] | None = field(default=None, compare=False, repr=False)
    aread_config: Callable[[], Awaitable[GraphConfig]] | None = field(default=None, compare=False, repr=False)

    @property
    def conn_id(self) -> str:
        """The id of the connection in Airflow."""
        return self.config.conn_id

    def waba_query(
        self, business_id: str | int | None = None, *, relationship: str = "client", **query: Unpack[Query]
    ) -> EdgeQuery:
        """Return the query for the WABAs of a business.

        :param business_id: id of the business portfolio; by default the one in the connection
        :param relationship: ``"client"`` or ``"owned"``
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        :raises ValueError: if an argument is wrong, or neither the call nor the connection names a business
        """
        business_id = self.business_id if business_id is None else business_id
        if business_id is None:
            raise ValueError(
                "business_id: neither given nor in the connection's extra; Business Settings, Business Info shows it, "
                "e.g. '1906385232743451'"
            )
        return build_waba_query(business_id, relationship, **query)


def load_connection(hook: BaseHook, conn_id: str, *, api_version: str | None = None) -> WhatsAppConnection:
    """Return a checked connection, and mask its secrets in Airflow's logs.

    :param hook: hook to read it with, because a subclass may read its connections differently
    :param conn_id: id of the connection
    :param api_version: version that overrides the one in the connection
    :raises MissingConnectionError: if there is no such connection
    :raises ValueError: if a field of the connection is wrong
    """
    try:
        airflow_connection = hook.get_connection(conn_id)
    except _compat.AirflowNotFoundException:
        raise MissingConnectionError(conn_id) from None
    connection = parse_connection(airflow_connection, api_version=api_version)
    for secret in connection.config.credentials.secrets:
        mask_secret(secret)
    _log_warnings(connection)

    def read_config() -> GraphConfig:
        return load_connection(hook, conn_id, api_version=api_version).config

    return replace(connection, read_config=read_config)


async def aload_connection(hook: BaseHook, conn_id: str, *, api_version: str | None = None) -> WhatsAppConnection:
    """Return the same as :func:`load_connection`, without blocking the event loop.

    :raises MissingConnectionError: if there is no such connection
    :raises ValueError: if a field of the connection is wrong
    """
    try:
        airflow_connection = await _compat.aget_connection(hook, conn_id)
    except _compat.AirflowNotFoundException:
        raise MissingConnectionError(conn_id) from None
    connection = parse_connection(airflow_connection, api_version=api_version)
    for secret in connection.config.credentials.secrets:
        await _compat.amask_secret(secret)
    _log_warnings(connection)

    async def aread_config() -> GraphConfig:
        return (await aload_connection(hook, conn_id, api_version=api_version)).config

    return replace(connection, aread_config=aread_config)


def _log_warnings(connection: WhatsAppConnection) -> None:
    for warning in connection.warnings:
        log.warning("connection %r, %s", connection.conn_id, warning)


def parse_connection(connection: Connection, *, api_version: str | None = None) -> WhatsAppConnection:
    """Return the checked connection.

    :param connection: connection from Airflow; extra values may be strings, as in a URI
    :param api_version: version that overrides the one in the connection
    :raises ValueError: if a field is wrong; the message names the connection and the field and shows an example
    """
    try:
        extra = _parse_extra(connection.extra)
        return WhatsAppConnection(
            config=GraphConfig(
                credentials=Credentials(
                    _parse_token(connection.password),
                    _parse_app_secret(extra.get("app_secret")),
                    timed_proof=_parse_proof(extra.get("proof")),
                ),
                base_url=parse_base_url(connection.host, connection.port),
                version=parse_version(api_version or extra.get("api_version")),
                timeout=_parse_timeout(extra.get("timeout")),
                proxy=_parse_proxy(extra.get("proxy")),
                ca_bundle=_parse_ca_bundle(extra.get("ca_bundle")),
                conn_id=connection.conn_id,
            ),
            business_id=parse_business_id(extra["business_id"]) if "business_id" in extra else None,
            warnings=tuple(_find_ignored(connection, extra)),
        )
    except ValueError as error:
        raise ValueError(f"connection {connection.conn_id!r}, {error}") from None


def parse_base_url(host: str | None, port: int | None = None) -> str:
    """Return the base URL of the Graph API, without a trailing slash.

    :param host: address with or without scheme, port, path and trailing slash; Meta's own if empty
    :param port: port to use if the host has none; 0 counts as none
    :raises ValueError: if the host is not an address, has a user name in it, or is plain http to another machine
    """
    text = (host or "").strip()
    if not text:
        text = DEFAULT_BASE_URL
    if "@" in text:
        # Do not show the address: the part before the @ is probably a secret.
        raise ValueError(f"host: the address has a user name or password in it; for example {DEFAULT_BASE_URL!r}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https", text
    match = _ADDRESS.fullmatch(rest)
    if (
        match is None
        or {".", ".."} & set(rest.split("/"))
        or not _is_ip_if_bracketed(match["name"])
        # A token or app secret without a dot would pass for a host name, and be sent to the name server.
        or ("." not in match["name"] and could_be_secret(match["name"]))
        or redact(text) != text
    ):
        raise ValueError(f"host: {shown(text)} is not an address; for example {DEFAULT_BASE_URL!r}")
    name = match["name"].lower()
    if scheme.lower() not in ("https", "http"):
        raise ValueError(f"host: {shown(text)} is not a web address; for example {DEFAULT_BASE_URL!r}")
    if scheme.lower() == "http" and not _is_loopback(name):
        raise ValueError(
            f"host: {shown(text)} would send the token unencrypted: only https is allowed, http only to loopback "
            f"(127.0.0.1, [::1], localhost); for example {DEFAULT_BASE_URL!r}"
        )
    if re.search(r"/v[0-9]+\.[0-9]+(/|$)", match["path"]):
        raise ValueError(f"host: {shown(text)} has a version in it, which goes into api_version instead")
    number = int(match["port"] or (port if isinstance(port, int) else 0) or 0)
    if not 0 <= number <= 65535 or (match["port"] and number == 0):
        raise ValueError(f"host: {number} is not a port from 1 to 65535")
    return f"{scheme.lower()}://{name}{f':{number}' if number else ''}{match['path']}"


_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_ADDRESS = re.compile(
    rf"(?P<name>{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~-]+)*)/?"
)


def _is_ip_if_bracketed(name: str) -> bool:
    try:
        return not name.startswith("[") or bool(ipaddress.IPv6Address(name.strip("[]")))
    except ValueError:
        return False


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        # Some resolvers read 127.1, 0x7f000001 and other spellings as 127.0.0.1. Only the standard spelling is
        # accepted, because the others may lead to another machine.
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _parse_extra(extra: str | None) -> dict[str, Any]:
    """Return the non-empty extra fields.

    The connection form saves an empty field as an empty string or null, which counts as missing.
    """
    # Airflow's own `extra_dejson` turns text that is not JSON into an empty dict, so requests would silently be sent
    # without an appsecret_proof.
    try:
        value = json.loads(extra or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError('extra: not a JSON object; for example {"business_id": "1906385232743451"}')
    stripped = {name: item.strip() if isinstance(item, str) else item for name, item in value.items()}
    filled = {name: item for name, item in stripped.items() if item is not None and item != ""}
    old = {name.removeprefix(_OLD_PREFIX): item for name, item in filled.items() if name.startswith(_OLD_PREFIX)}
    return {**old, **{name: item for name, item in filled.items() if not name.startswith(_OLD_PREFIX)}}


def _find_ignored(connection: Connection, extra: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence about each filled field that has no meaning here.

    A misspelled `app_secret` would otherwise send all requests without a proof.
    """
    for name in extra:
        if name not in _EXTRA_KEYS:
            hint = did_you_mean(name, _EXTRA_KEYS) or f"; the keys are {', '.join(_EXTRA_KEYS)}"
            yield f"extra: {shown(name)} is not a known key and is ignored{hint}"
    for name in ("login", "schema"):
        if getattr(connection, name):
            yield f"{name}: not used, its value is ignored"


def _parse_token(password: str | None) -> str:
    token = (password or "").strip()
    if not token:
        raise ValueError(
            "password: empty; enter the access token of a system user (Business Settings, System Users). A connection "
            "in an environment variable must be JSON or a URI, without quotes around it"
        )
    if not re.fullmatch(r"[!#-&(-~]+", token):
        raise ValueError("password: the access token has quotes, spaces, line breaks or other characters no token has")
    return token


def _parse_app_secret(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("app_secret: not a string")
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("app_secret: spaces, line breaks or other characters that no app secret has")
    return value


def _parse_proof(value: object) -> bool:
    if value not in (None, "timed", "plain"):
        raise ValueError(f"proof: {shown_if_short(value)} is not one of 'timed' and 'plain'")
    return value != "plain"


def _parse_timeout(value: object) -> float:
    if value is None:
        return _DEFAULT_TIMEOUT
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise ValueError(
            f"timeout: {shown_if_short(value)} is not a number of seconds above 0 and up to {_LONGEST_TIMEOUT:g}; "
            "for example 30"
        )
    return seconds


def _parse_proxy(value: object) -> str | None:
    if value is None:
        return None
    # No path or query is allowed, so that another URL, with a token in it, is not mistaken for the address of a proxy.
    if not isinstance(value, str) or not re.fullmatch(r"https?://(?:(?![/?#])[!-~])+/?", value, re.IGNORECASE):
        # Do not show the value: it may contain a password.
        raise ValueError("proxy: not the address of an HTTP proxy; for example 'http://proxy.example:3128'")
    return value


def _parse_ca_bundle(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not os.path.exists(value):
        raise ValueError(
            f"ca_bundle: {shown(value)} is not a file or directory on this machine; enter the path of a PEM file"
        )
    return value
