"""Turns exceptions of the HTTP libraries into errors that say what happened."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphTransportError
from airflow_provider_whatsapp.transport.proxies import name_proxy

ErrorTypes = tuple[type[BaseException], ...]
# How http.client and httpcore begin the text of their exceptions.
_PROXY_ANSWER = re.compile(r"(?:Tunnel connection failed: )?([1-9][0-9]{2}) ")
_ADVICE = "check the network, the proxy and the connection's host"


def build_transport_error(
    error: BaseException,
    config: GraphConfig,
    *,
    timeouts: ErrorTypes,
    refusals: ErrorTypes,
    failures: ErrorTypes,
    proxy_errors: ErrorTypes,
) -> GraphTransportError:
    """Return the error for a request that got no usable response.

    It never contains the library's own message, because that contains URLs with their parameters.

    :param error: exception of the HTTP library
    :param config: where the request was sent
    :param timeouts: the library's exceptions for a timeout
    :param refusals: exceptions that the library derives from a timeout although they are not one
    :param failures: the library's exceptions for a network failure, which may be temporary; others are not retried
    :param proxy_errors: the library's exceptions for an error response of a proxy; their text has the status
    """
    host = config.base_url.partition("://")[2]
    proxy = name_proxy(config)
    if proxy:
        host = f"{host} through the proxy {proxy}"
    causes = list(_chain_of(error))
    answers = (_PROXY_ANSWER.match(str(cause)) for cause in causes if proxy and isinstance(cause, proxy_errors))
    if status := next((found[1] for found in answers if found), None):
        advice = "it needs a user and a password in its address" if status == "407" else "ask who runs it"
        return GraphTransportError(
            f"no connection to {host}, which answered HTTP {status}; {advice}", retryable=status != "407"
        )
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return GraphTransportError(
            f"the TLS certificate of {host} is not signed by a trusted CA; a proxy of your own needs ca_bundle",
            retryable=False,
        )
    if any(isinstance(cause, timeouts) and not isinstance(cause, refusals) for cause in causes):
        return GraphTransportError(f"no complete response from {host} within {config.timeout:g} s; {_ADVICE}")
    reasons = (_system_reason(cause) for cause in reversed(causes) if isinstance(cause, OSError))
    return GraphTransportError(
        f"no complete response from {host}: {next(filter(None, reasons), type(causes[-1]).__name__)}; {_ADVICE}",
        retryable=isinstance(error, (OSError, *failures)),
    )


def _system_reason(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed; is it an https address?"
    # Use the operating system's message for the number, because the exception's own may contain what was sent. The
    # numbers of failed name resolutions are negative and have no such message.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and its causes.

    urllib3 keeps causes in ``args`` and ``reason``; anyio raises a group when no address of a name accepts.
    """
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        inner = [*following.args, getattr(following, "reason", None), *getattr(following, "exceptions", ())]
        following = following.__cause__ or next(
            (value for value in inner if isinstance(value, BaseException)), following.__context__
        )
