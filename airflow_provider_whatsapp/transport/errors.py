"""What an exception of an HTTP library means."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphTransportError


def transport_error(
    error: BaseException,
    config: GraphConfig,
    *,
    timeouts: tuple[type[BaseException], ...],
    no_timeouts: tuple[type[BaseException], ...],
    known: tuple[type[BaseException], ...],
) -> GraphTransportError:
    """The error without the library's own text, which holds addresses with their parameters."""
    host = config.base_url.partition("://")[2]
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return GraphTransportError(
            f"the TLS certificate of {host} is not signed by a trusted CA; a proxy of your own needs ca_bundle",
            retryable=False,
        )
    if any(isinstance(cause, timeouts) and not isinstance(cause, no_timeouts) for cause in causes):
        return GraphTransportError(f"no complete answer from {host} within {config.timeout:g} s")
    reasons = (_system_reason(cause) for cause in reversed(causes) if isinstance(cause, OSError))
    return GraphTransportError(
        f"no complete answer from {host}: {next(filter(None, reasons), type(causes[-1]).__name__)}",
        retryable=isinstance(error, known),
    )


def _system_reason(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed; is it an https address?"
    # Its own text may hold what was sent; name resolution has numbers of its own, below zero.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        inner = [*following.args, getattr(following, "reason", None)]
        following = following.__cause__ or next(
            (value for value in inner if isinstance(value, BaseException)), following.__context__
        )
