"""Finds the proxy of a connection, checks it, and finds the passwords in its address."""

from __future__ import annotations

import base64
import os
import re
import urllib.request
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from airflow_provider_whatsapp.graph.config import GraphConfig


def find_proxy(config: GraphConfig) -> str | None:
    """Return the address of the proxy to use: from the connection, or otherwise from the environment.

    Both clients use this, so that they treat variables such as ``HTTPS_PROXY`` and ``NO_PROXY`` alike.
    """
    if config.is_unencrypted:
        return None
    proxy = config.proxy or select_proxy(config.base_url, get_environ_proxies(config.base_url))
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def check_proxy(config: GraphConfig) -> None:
    """Check that the proxy is an HTTP proxy.

    :param config: where the API is and which proxy to use
    :raises ValueError: if it is not, e.g. a SOCKS proxy, or a password that is not percent-encoded; the message names
        the environment variable that it comes from
    """
    # The address is not kept in a variable, because a traceback with local variables would show its password.
    if _is_http_proxy(find_proxy(config)):
        return
    names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    place = "proxy" if config.proxy else next(filter(os.environ.get, names), "the proxy of this machine's settings")
    raise ValueError(
        f"{place}: not the address of an HTTP proxy; others, such as SOCKS, are not supported; in a password, write "
        "%23 for #, %2F for / and %3F for ?; or set `proxy` in the connection's extra, for example to "
        "'http://proxy.example:3128'"
    )


def _is_http_proxy(address: str | None) -> bool:
    """Return whether the address belongs to an HTTP proxy; True for None."""
    if address is None:
        return True
    # A password with a `#` would end the address there: the user would be taken for the proxy's name.
    if re.fullmatch(r"https?://(?:(?![/?#])[!-~])+/?", address, re.IGNORECASE) is None:
        return False
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def name_proxy(config: GraphConfig) -> str:
    """Return the host and port of the proxy to use, without user and password, or an empty text if there is none."""
    return (find_proxy(config) or "").rpartition("://")[2].rpartition("@")[2].rstrip("/")


def find_proxy_passwords(config: GraphConfig) -> frozenset[str]:
    """Return the passwords of the connection's and the environment's proxies, in every spelling that logs can show."""
    addresses = [config.proxy or "", *urllib.request.getproxies().values()]
    return frozenset(spelling for address in addresses for spelling in _spell_password(address) if spelling)


def _spell_password(address: str) -> Iterator[str]:
    """Yield the password of an address: as it is, percent-encoded, as in ``repr``, and as in Basic authorization."""
    before, found, _ = address.rpartition("@")
    if not found:
        return
    user, _, password = before.rpartition("://")[2].partition(":")
    # Without a password, the user name is probably a key.
    secret = password or user
    plain = unquote(secret)
    yield from (secret, plain, quote(plain, safe=""), quote(plain))
    for encoding in ("utf-8", "latin-1"):
        encoded = plain.encode(encoding, "replace")
        yield repr(encoded)[2:-1]
        yield base64.b64encode(unquote(f"{user}:{password}").encode(encoding, "replace")).decode()
