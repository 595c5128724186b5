"""A retry policy for tasks that read the Graph API; requires Airflow 3.3.

https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph import GraphError, GraphRateLimitError

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:
    raise ImportError(
        "airflow_provider_whatsapp.retry needs Airflow 3.3 or later, because earlier versions have no retry policies. "
        "Set retry_delay=timedelta(minutes=5) and retry_exponential_backoff=True on the task instead, or "
        "deferrable=True on the operator, which then waits out a rate limit by itself."
    ) from None

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["GraphRetryPolicy"]

_WAIT_WITHOUT_A_NAMED_TIME = timedelta(minutes=5)
_SPREAD = timedelta(minutes=1)
_FIRST_BACKOFF = timedelta(minutes=1)
_LONGEST_BACKOFF = timedelta(minutes=30)


@dataclass(frozen=True)
class GraphRetryPolicy(RetryPolicy):
    """Retries a task when the Graph API is likely to respond again, and fails it if a retry cannot help.

    It works for every task that uses the hook and has ``retries`` of at least 1. Errors that are not a
    :class:`~airflow_provider_whatsapp.graph.GraphError`, and are not raised ``from`` one, are left to the task's own
    ``retries`` and ``retry_delay``.

    .. code-block:: python

        @task(retries=3, retry_policy=GraphRetryPolicy())
        def phone_numbers(waba_id: str) -> list[dict[str, Any]]:
            return list(WhatsAppHook().iter_edge(f"{waba_id}/phone_numbers"))
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Return whether Airflow retries the task, and when; called on the worker after the task has failed.

        :param exception: error that failed the task
        :param try_number: number of the try that failed, from 1
        :param max_tries: not used; Airflow itself stops after the last of the task's ``retries``
        :param context: not used
        """
        error = _find_graph_error(exception)
        if error is None:
            return RetryDecision.default()
        name = type(error).__name__
        if not error.retryable:
            return RetryDecision.fail(f"{name}: a retry cannot help")
        # The random part lets tasks that failed together retry one after the other.
        if error.retry_after is not None:
            delay = error.retry_after + random.random() * _SPREAD
            why = f"the API asked to wait {error.retry_after}"
        elif isinstance(error, GraphRateLimitError):
            delay = _WAIT_WITHOUT_A_NAMED_TIME + random.random() * _SPREAD
            why = "the API did not say how long to wait"
        else:
            delay = _back_off(try_number)
            why = "the fault may be temporary"
        return RetryDecision.retry(delay, f"{name}: {why}, so the next try starts in {_in_seconds(delay)}")

    def serialize(self) -> dict[str, Any]:
        """Return the policy as JSON."""
        return {"__type": "GraphRetryPolicy"}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> GraphRetryPolicy:
        """Return the policy that :meth:`serialize` described.

        :param data: result of :meth:`serialize`
        """
        return cls()


def _find_graph_error(exception: BaseException) -> GraphError | None:
    """Return the first GraphError among the exception and its causes."""
    seen: set[int] = set()
    cause: BaseException | None = exception
    # Code that re-raises stored exceptions can create a loop of causes, which would block the worker forever.
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, GraphError):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def _back_off(try_number: int) -> timedelta:
    """Return the wait after a try, which doubles with each try, less a random part of up to one half."""
    # The exponent is bounded, because clearing a task adds to its tries.
    longest = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * (1 << min(try_number - 1, 10)))
    return longest * random.uniform(0.5, 1.0)


def _in_seconds(delay: timedelta) -> timedelta:
    return timedelta(seconds=round(delay.total_seconds()))
