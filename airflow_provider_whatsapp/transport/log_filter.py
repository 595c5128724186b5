"""Keeps secrets out of what the HTTP libraries log."""

from __future__ import annotations

import logging

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.proxies import find_proxy_passwords

# A filter sees the records of its own logger only, not those of the loggers below it.
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
    """Mask the secrets of a connection in the logs of the HTTP libraries from now on, in the whole process.

    :param config: the connection; the passwords of its proxy and of the environment's are masked too
    """
    _FILTER.add_credentials(config.credentials)
    _FILTER.add_passwords(find_proxy_passwords(config))


class _SecretsFilter(logging.Filter):
    """Takes secrets out of log records.

    The libraries log addresses, in which the proof has to travel, what servers answer, which can repeat the token, and
    how they log in to a proxy.
    """

    def __init__(self) -> None:
        super().__init__()
        # Replaced instead of changed, because other threads may be reading them while they log.
        self._credentials: frozenset[Credentials] = frozenset()
        self._passwords: frozenset[str] = frozenset()

    def add_credentials(self, credentials: Credentials) -> None:
        """Mask these secrets too."""
        self._credentials |= {credentials}
        for name in _LIBRARY_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def add_passwords(self, passwords: frozenset[str]) -> None:
        """Mask these texts too."""
        self._passwords |= passwords

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the secrets in a record, and let every record pass."""
        if record.exc_info:
            # A traceback is formatted now, because it can show what the server sent.
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
