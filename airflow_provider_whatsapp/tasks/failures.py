"""Logs in one line why a task fails, and fails it without retries if a retry cannot help."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph import GraphError
from airflow_provider_whatsapp.graph.errors import shorten
from airflow_provider_whatsapp.storage.errors import StoreError, StoreRefusedError

log = logging.getLogger(__name__)

#: The exceptions that are raised when a store fails.
STORE_ERRORS = (StoreError, StoreRefusedError)


@contextmanager
def failing_fast(errors: type[Exception] | tuple[type[Exception], ...] = GraphError) -> Iterator[None]:
    """Log in one line the error that fails the task, and prevent retries if a retry cannot help.

    Other errors are left to the task's ``retries``.

    :param errors: the errors to handle; a retryable ``GraphError`` and a ``StoreError`` pass unchanged
    :raises AirflowFailException: instead of an error that a retry cannot fix, which becomes its ``__cause__``
    """
    try:
        yield
    except errors as error:
        log.error("%s", _describe(error))
        if _may_pass(error):
            raise
        # Drop the frames of the error: with them, the log would end in two long tracebacks.
        raise AirflowFailException(str(error)) from error.with_traceback(None)


def _may_pass(error: Exception) -> bool:
    return error.retryable if isinstance(error, GraphError) else isinstance(error, StoreError)


def _describe(error: Exception) -> str:
    """Return on one line what happened and what to do."""
    line = shorten(str(error))
    if not (isinstance(error, GraphError) and error.retryable):
        return line
    when = "" if error.retry_after is None else f" after {error.retry_after}"
    return f"{line} - retry{when}, if the task has `retries`"
