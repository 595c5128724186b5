"""Keeps secrets out of what HTTP libraries log."""

from __future__ import annotations

import logging

from airflow_provider_whatsapp.graph.messages import Credentials


def keep_out_of_library_logs(credentials: Credentials) -> None:
    """Mask these secrets in the libraries' logs from now on, in the whole process."""
    _FILTER.guard(credentials)


class _SecretsFilter(logging.Filter):
    """Takes secrets out of what HTTP libraries log: the proof can only travel in the query, and servers echo tokens."""

    def __init__(self) -> None:
        super().__init__()
        # Never changed in place: other threads may be logging.
        self._credentials: frozenset[Credentials] = frozenset()

    def guard(self, credentials: Credentials) -> None:
        """Keep these secrets out of the libraries' logs from now on."""
        self._credentials |= {credentials}
        for name in _LIBRARY_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without secrets."""
        if record.exc_info:
            # A traceback shows what the server sent.
            record.exc_text = self._redacted(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        message = record.getMessage()
        clean = self._redacted(message)
        if clean != message:
            record.msg, record.args = clean, ()
        return True

    def _redacted(self, text: str) -> str:
        for credentials in self._credentials:
            text = credentials.redact(text)
        return text


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
_FILTER = _SecretsFilter()
