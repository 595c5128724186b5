"""Which proxy a connection uses, whether it can be used, and the passwords in its address."""

from __future__ import annotations

import base64
import importlib.util
import urllib.request
from collections.abc import Iterator
from urllib.parse import quote, unquote

from requests.utils import get_environ_proxies, select_proxy

from airflow_provider_whatsapp.graph.config import GraphConfig


def find_proxy(config: GraphConfig) -> str | None:
    """The address of the proxy to use: that of the connection, or else that of the environment.

    Both clients ask here, so that they treat variables such as ``HTTPS_PROXY`` and ``NO_PROXY`` alike.
    """
    if config.is_unencrypted:
        return None
    proxy = config.proxy or select_proxy(config.base_url, get_environ_proxies(config.base_url))
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def check_proxy(config: GraphConfig, *, socks_schemes: tuple[str, ...], module: str, install: str) -> None:
    """Check that the HTTP library can use the proxy.

    :param config: where the API is and which proxy leads there
    :param socks_schemes: kinds of SOCKS proxies that the library knows
    :param module: module that the library needs for them
    :param install: command that installs the module
    :raises ValueError: if the library does not know this kind of proxy, or the module is missing
    """
    # The address is not kept in a variable, because a traceback with local variables would show its password.
    scheme = (find_proxy(config) or "http://").partition("://")[0].lower()
    if scheme in ("http", "https"):
        return
    if scheme not in socks_schemes:
        known = ", ".join(("http", "https", *socks_schemes))
        raise ValueError(f"proxy: that of the connection or the environment is unusable; its scheme is none of {known}")
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"proxy: the environment names a SOCKS proxy, for which a package is missing: {install}")


def find_proxy_passwords(config: GraphConfig) -> frozenset[str]:
    """The passwords of the connection's and the environment's proxies, in every spelling that a log can have."""
    addresses = [config.proxy or "", *urllib.request.getproxies().values()]
    return frozenset(spelling for address in addresses for spelling in _spell_password(address) if spelling)


def _spell_password(address: str) -> Iterator[str]:
    """The password of an address as it is, percent-encoded, as ``repr`` shows it, and within a Basic authorization."""
    before, found, _ = address.rpartition("@")
    if not found:
        return
    user, _, password = before.rpartition("://")[2].partition(":")
    # Without a password, the user name is most likely a key.
    secret = password or user
    plain = unquote(secret)
    yield from (secret, plain, quote(plain, safe=""), quote(plain))
    for encoding in ("utf-8", "latin-1"):
        encoded = plain.encode(encoding, "replace")
        yield repr(encoded)[2:-1]
        yield base64.b64encode(unquote(f"{user}:{password}").encode(encoding, "replace")).decode()
