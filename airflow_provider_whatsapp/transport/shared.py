"""What both clients share."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.flow import GraphFlow
from airflow_provider_whatsapp.graph.messages import MAX_BODY_BYTES, too_large
from airflow_provider_whatsapp.graph.retry import RetryPolicy
from airflow_provider_whatsapp.transport.log_filter import keep_out_of_library_logs

#: For both clients: the API has no use for cookies, and a hostile server could make every request grow by them.
NO_COOKIES = DefaultCookiePolicy(allowed_domains=())


class BaseClient:
    """What both clients share: the flow of each read."""

    def __init__(self, config: GraphConfig, policy: RetryPolicy) -> None:
        self._config = config
        self._policy = policy
        self._answered_versions: set[str] = set()
        keep_out_of_library_logs(config.credentials)

    @property
    def other_versions(self) -> list[str]:
        """Versions of the API that answered although another was asked for."""
        return sorted(self._answered_versions)

    def _flow(self) -> GraphFlow:
        return GraphFlow(
            credentials=self._config.credentials,
            version=self._config.version,
            policy=self._policy,
            random=random.random,
            answered_versions=self._answered_versions,
        )


class Body:
    """The bytes of a body as they come, up to the limit."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Take the next bytes.

        :raises GraphProtocolError: there are too many
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise too_large()

    def joined(self) -> bytes:
        """All of them."""
        return b"".join(self._chunks)


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def trusted_cas(config: GraphConfig) -> str | None:
    """Path of the CAs to trust; None for the ones that come with the HTTP library."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return config.ca_bundle or next((os.environ[name] for name in names if os.environ.get(name)), None)
