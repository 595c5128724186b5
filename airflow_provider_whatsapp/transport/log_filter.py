"""Keeps secrets out of what the HTTP libraries log."""

from __future__ import annotations

import logging

from airflow_provider_whatsapp.graph.messages import Credentials
from airflow_provider_whatsapp.transport import clock

_LIBRARY_LOGGERS = (
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.response",
    "urllib3.util.retry",
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.proxy",
)


def mask_in_library_logs(credentials: Credentials) -> None:
    """Mask these secrets in the logs of the HTTP libraries from now on, in the whole process."""
    _FILTER.add_credentials(credentials)


class _SecretsFilter(logging.Filter):
    """Takes secrets out of log records.

    The libraries log addresses, in which the proof has to travel, and what servers answer, which can repeat the token.
    """

    def __init__(self) -> None:
        super().__init__()
        # Replaced instead of changed, because other threads may be reading it while they log.
        self._credentials: frozenset[Credentials] = frozenset()

    def add_credentials(self, credentials: Credentials) -> None:
        """Mask these secrets too."""
        self._credentials |= {credentials}
        for name in _LIBRARY_LOGGERS:
            logging.getLogger(name).addFilter(self)

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
        return text


_FILTER = _SecretsFilter()
