"""An Airflow connection of type ``whatsapp`` as a checked :class:`GraphConfig`."""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.messages import Credentials
from airflow_provider_whatsapp.graph.query import business_id_from
from airflow_provider_whatsapp.graph.versions import version_from

if TYPE_CHECKING:
    from airflow.sdk import Connection

DEFAULT_BASE_URL = "https://graph.facebook.com"
_DEFAULT_TIMEOUT = 30.0
_LONGEST_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class WhatsAppConnection:
    """What a connection says.

    :param config: where the API is and who asks
    :param business_id: default business portfolio id, or None
    """

    config: GraphConfig
    business_id: str | None


def read_connection(connection: Connection, *, api_version: str | None = None) -> WhatsAppConnection:
    """What the connection says, checked.

    :param connection: as Airflow gives it; extras may be strings, as a URI has them
    :param api_version: beats the one in the connection
    :raises ValueError: naming the connection, the field, what was wrong and what a right one looks like
    """
    try:
        extra = _extra(connection.extra)
        return WhatsAppConnection(
            config=GraphConfig(
                credentials=Credentials(
                    _token(connection.password), _app_secret(extra), timed_proof=_timed_proof(extra.get("proof"))
                ),
                base_url=base_url_from(connection.host, connection.port),
                version=version_from(api_version or extra.get("api_version")),
                timeout=_timeout(extra.get("timeout")),
                proxy=_proxy(extra.get("proxy")),
                ca_bundle=_ca_bundle(extra.get("ca_bundle")),
            ),
            business_id=_business_id(extra.get("business_id")),
        )
    except ValueError as error:
        raise ValueError(f"connection {connection.conn_id!r}, {error}") from None


def base_url_from(host: str | None, port: int | None = None) -> str:
    """Address of the Graph API without a trailing slash.

    :param host: with or without scheme, port, path and trailing slash; empty means Meta's own
    :param port: added where the host has none; 0 counts as none
    :raises ValueError: not https (http on loopback apart), with userinfo, or not an address at all
    """
    text = (host or "").strip()
    if not text:
        text = DEFAULT_BASE_URL
    if "@" in text:
        # Not shown: what stands before the @ is most likely a secret.
        raise ValueError(
            f"host: the address has a user name or password in it; a right one looks like {DEFAULT_BASE_URL!r}"
        )
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https", text
    match = _ADDRESS.fullmatch(rest)
    if match is None or {".", ".."} & set(rest.split("/")) or not _is_ip_if_bracketed(match["name"]):
        raise ValueError(f"host: {text!r} is not an address; a right one looks like {DEFAULT_BASE_URL!r}")
    name = match["name"].lower()
    if scheme.lower() not in ("https", "http"):
        raise ValueError(f"host: {text!r} is no web address; a right one looks like {DEFAULT_BASE_URL!r}")
    if scheme.lower() == "http" and not _is_loopback(name):
        raise ValueError(
            f"host: {text!r} would send the token unencrypted: only https is allowed, http only to loopback "
            f"(127.0.0.1, [::1], localhost); a right one looks like {DEFAULT_BASE_URL!r}"
        )
    if re.search(r"/v[0-9]+\.[0-9]+(/|$)", match["path"]):
        raise ValueError(f"host: {text!r} has a version in it, which goes into api_version instead")
    number = int(match["port"] or (port if isinstance(port, int) else 0) or 0)
    if not 0 <= number <= 65535 or (match["port"] and number == 0):
        raise ValueError(f"host: {number} is not a port; a right one is from 1 to 65535")
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
        # Strict on purpose: of the many spellings that some resolvers take for 127.0.0.1 only the plain one counts.
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _extra(extra: str | None) -> dict[str, Any]:
    # Not through `extra_dejson`: it takes what is not JSON for empty, and a proof would silently be missing.
    try:
        value = json.loads(extra or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError('extra: not a JSON object; a right one looks like {"business_id": "1906385232743451"}')
    return value


def _token(password: str | None) -> str:
    token = (password or "").strip()
    if not token:
        raise ValueError(
            "password: empty; it takes the access token of a system user (Business Settings, System Users)"
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("password: the access token has blanks, line breaks or other characters that no token has")
    return token


def _app_secret(extra: dict[str, Any]) -> str | None:
    secret = _text(extra, "app_secret")
    if secret and not re.fullmatch(r"[!-~]+", secret):
        raise ValueError("app_secret: blanks, line breaks or other characters that no app secret has")
    return secret


def _timed_proof(value: Any) -> bool:
    if value not in (None, "", "timed", "plain"):
        raise ValueError(f"proof: {str(value)[:40]!r} is not one of 'timed' and 'plain'")
    return bool(value != "plain")


def _business_id(value: Any) -> str | None:
    return None if value is None or value == "" else business_id_from(value)


def _timeout(value: Any) -> float:
    if value is None or value == "":
        return _DEFAULT_TIMEOUT
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise ValueError(
            f"timeout: {str(value)[:40]!r} is not a number of seconds from above 0 to {_LONGEST_TIMEOUT:g}; "
            "a right one is 30"
        )
    return seconds


def _proxy(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-~]+", value.strip(), re.IGNORECASE):
        # Not shown: it may hold a password.
        raise ValueError("proxy: not the address of an HTTP proxy; a right one looks like 'http://proxy.example:3128'")
    return value.strip()


def _ca_bundle(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not os.path.exists(value):
        raise ValueError(
            f"ca_bundle: {value!r} is no file or folder on this machine; a right one is the path of a PEM file"
        )
    return value


def _text(extra: dict[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name}: not a text")
    return value.strip() or None
