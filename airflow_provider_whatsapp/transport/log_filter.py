"""Keeps secrets out of what the HTTP libraries log."""

from __future__ import annotations

import logging

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.proxies import find_proxy_passwords

# A filter sees only the records of its own logger, not those of child loggers.
_LIBRARY_LOGGERS = (
    "requests",
    "urllib3",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.proxy",
)


def mask_in_library_logs(config: GraphConfig) -> None:
    """Mask the secrets of a connection in the logs of the HTTP libraries, in the whole process from now on.

    :param config: the connection; passwords of its proxy and of the environment's proxies are also masked
    """
    _FILTER.add_credentials(config.credentials)
    _FILTER.add_passwords(find_proxy_passwords(config))


class _SecretsFilter(logging.Filter):
    """Masks secrets in log records.

    The libraries log URLs, which contain the proof, responses, which may echo the token, and how they log in to a
    proxy.
    """

    def __init__(self) -> None:
        super().__init__()
        # Replaced instead of changed in place, because other threads may be reading it while they log.
        self._credentials: frozenset[Credentials] = frozenset()
        self._passwords: frozenset[str] = frozenset()

    def add_credentials(self, credentials: Credentials) -> None:
        """Mask these credentials too."""
        self._credentials |= {credentials}
        for name in _LIBRARY_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def add_passwords(self, passwords: frozenset[str]) -> None:
        """Mask these passwords too."""
        self._passwords |= passwords

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the secrets in a record; every record passes."""
        if record.exc_info:
            # The traceback must be formatted now to be masked; it can show what the server sent.
            record.exc_text = self._redact(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        message = record.getMessage()
        clean = self._redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        return True

    def _redact(self, text: str) -> str:
        for credentials in self._credentials:
            text = credentials.redact(text, now=clock.now())
        for password in self._passwords:
            text = text.replace(password, "***")
        return text


_FILTER = _SecretsFilter()
