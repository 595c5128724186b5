"""The base class and the helpers that the client for tasks and the client for event loops share."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.flow import GraphFlow, OnCall
from airflow_provider_whatsapp.graph.messages import MAX_BODY_BYTES, too_large_error
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.usage import Usage
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.log_filter import mask_in_library_logs
from airflow_provider_whatsapp.transport.proxies import check_proxy

#: The API does not need cookies, and a hostile server could use them to make every request larger.
NO_COOKIES = DefaultCookiePolicy(allowed_domains=())
#: Number of bytes of a body to receive at once.
CHUNK_BYTES = 64 * 1024


class BaseClient:
    """The part of a client that does no I/O.

    :param config: where the API is and which credentials to use
    :param patience: how often to retry and how long to wait
    :param on_call: called after each request with its usage and its error, or None
    :raises ValueError: if the connection or the environment names a proxy that is not an HTTP proxy
    """

    def __init__(self, config: GraphConfig, patience: Patience, on_call: OnCall) -> None:
        check_proxy(config)
        self._config = config
        self._patience = patience
        self._on_call = on_call
        self._answered_versions: set[str] = set()
        mask_in_library_logs(config)

    @property
    def other_versions(self) -> list[str]:
        """The versions of the API that answered although another one was requested."""
        return sorted(self._answered_versions)

    def _new_flow(self, *, patience: Patience | None = None, waba_id: str | None = None) -> GraphFlow:
        return GraphFlow(
            credentials=self._config.credentials,
            version=self._config.version,
            patience=patience or self._patience,
            random=random.random,
            now=clock.now,
            answered_versions=self._answered_versions,
            on_call=self._on_call,
            waba_id=waba_id,
        )


def ignore_call(usage: Usage | None, error: GraphError | None) -> None:
    """Ignore a request that was sent.

    :param usage: rate-limit usage reported by its response
    :param error: the error that it ended in, or None
    """


class Body:
    """The bytes of a body, collected as they arrive, up to ``MAX_BODY_BYTES``."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Add bytes that arrived.

        :raises GraphProtocolError: if the body has become too large
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise too_large_error()

    def joined(self) -> bytes:
        """Return the whole body."""
        return b"".join(self._chunks)


def lower_case_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with lower-case names, as in :class:`Response`."""
    return {name.lower(): value for name, value in headers.items()}


def find_trusted_cas(config: GraphConfig) -> str | None:
    """Return the path of the CAs to trust, or None for those of the HTTP library.

    The connection's ``ca_bundle`` overrides the environment variables.
    """
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return config.ca_bundle or next((os.environ[name] for name in names if os.environ.get(name)), None)
