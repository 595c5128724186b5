"""The base class and the helpers that the client for tasks and the client for event loops share."""

from __future__ import annotations

import io
import logging
import math
import os
import random
import ssl
from collections.abc import Mapping
from functools import lru_cache
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

log = logging.getLogger(__name__)
#: The API does not need cookies, and a hostile server could use them to make every request larger.
NO_COOKIES = DefaultCookiePolicy(allowed_domains=())
# Seconds after which a connection that had not changed is read again, if requests still fail.
_SECONDS_BETWEEN_READS = 30.0
#: Number of bytes of a body to receive at once.
CHUNK_BYTES = 64 * 1024
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class BaseClient:
    """The part of a client that does no I/O.

    :param config: where the API is and which credentials to use
    :param patience: how often to retry and how long to wait
    :param on_call: called after each request with its usage and its error, or None
    :raises ValueError: if the proxy or the CAs of the connection or the environment cannot be used; the message names
        the setting
    """

    def __init__(self, config: GraphConfig, patience: Patience, on_call: OnCall) -> None:
        check_proxy(config)
        # Otherwise each request would fail with an error of the connection, and be sent again.
        if path := find_trusted_cas(config):
            load_ca_bundle(path)
        self._config = config
        # Settings that failed before. Without them, a connection that alternates between two dead tokens would keep a
        # listing going forever.
        self._given_up: set[GraphConfig] = set()
        self._read_again_at = -math.inf
        self._patience = patience
        self._on_call = on_call
        self._answered_versions: set[str] = set()
        mask_in_library_logs(config)

    @property
    def other_versions(self) -> list[str]:
        """The versions of the API that responded although another one was requested."""
        return sorted(self._answered_versions)

    def _may_read_connection(self, failed: GraphConfig) -> bool:
        """Return whether to read the connection again after a request failed.

        :param failed: settings that the request was sent with
        """
        # Many accounts can fail at once, and a secrets backend is slow.
        return failed == self._config and clock.monotonic() >= self._read_again_at

    def _take_settings(self, failed: GraphConfig, current: GraphConfig) -> bool:
        """Use the settings of the connection from now on, unless they have failed. Returns whether they are new.

        :param failed: settings that a request was sent with
        :param current: settings that the connection has now
        :raises ValueError: if they name a proxy that is not an HTTP proxy
        """
        self._read_again_at = clock.monotonic() + _SECONDS_BETWEEN_READS
        if current == failed or current in self._given_up:
            return False
        check_proxy(current)
        mask_in_library_logs(current)
        self._given_up.add(failed)
        self._config = current
        self._read_again_at = -math.inf
        return True

    def _new_flow(self, *, patience: Patience | None = None, waba_id: str | None = None) -> GraphFlow:
        return GraphFlow(
            config=self._config,
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


def warn_of_unread_connection(error: Exception) -> None:
    """Log that the connection could not be read again, which need not end a listing.

    :param error: what the secrets backend raised
    """
    # Leave out the exception's text: it comes from another library and may contain a secret.
    log.warning("The connection could not be read again after a failed request: %s", type(error).__name__)


class Body:
    """The bytes of a body, collected as they arrive, up to ``MAX_BODY_BYTES``."""

    def __init__(self) -> None:
        # A list of chunks would take the memory twice when they are joined, and leave holes in it.
        self._bytes = io.BytesIO()

    def add(self, chunk: bytes) -> None:
        """Add bytes that arrived.

        :raises GraphProtocolError: if the body has become too large
        """
        self._bytes.write(chunk)
        if self._bytes.tell() > MAX_BODY_BYTES:
            raise too_large_error()

    def joined(self) -> bytes:
        """Return the whole body."""
        return self._bytes.getvalue()


def lower_case_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with lower-case names, as in :class:`Response`."""
    return {name.lower(): value for name, value in headers.items()}


def find_trusted_cas(config: GraphConfig) -> str | None:
    """Return the path of the CAs to trust, or None to trust the CAs of the HTTP library.

    The connection's ``ca_bundle`` overrides the environment variables.
    """
    if config.is_unencrypted:
        return None
    return config.ca_bundle or next(filter(None, map(os.environ.get, _CA_VARIABLES)), None)


def load_ca_bundle(path: str) -> ssl.SSLContext:
    """Return an SSL context that trusts these CAs.

    The CAs are read again only after the file, or the list of files in the folder, has changed.

    :param path: path of a PEM file or folder
    :raises ValueError: if it cannot be read; the message names the setting that it comes from
    """
    try:
        return _load_ca_bundle(path, os.path.getmtime(path))
    except ssl.SSLError:
        reason = "the file holds no CA certificate in PEM format"
    except OSError as error:
        reason = f"the file cannot be read ({error.strerror})"
    setting = next((name for name in _CA_VARIABLES if os.environ.get(name) == path), "ca_bundle")
    # Without the path: the environment may hold anything there.
    raise ValueError(f"{setting}: {reason}; set it to the path of a PEM file or folder with the CAs to trust")


@lru_cache(maxsize=8)
def _load_ca_bundle(path: str, changed: float) -> ssl.SSLContext:
    is_folder = os.path.isdir(path)
    return ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
