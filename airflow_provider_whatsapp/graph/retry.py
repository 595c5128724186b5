"""Whether to send a request once more, and how long to wait before."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_whatsapp.graph.errors import GraphApiError, GraphError, GraphRateLimitError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient a read is before its task sees the error. All times in seconds.

    :param attempts: how often one request is sent at most
    :param first_delay: upper bound of the wait after the first failure; doubles with each further one
    :param max_delay: upper bound of the wait after any failure
    :param longest_named_wait: longest wait named by the API that is waited out in place
    :param budget: for all waits of one listing, so that a worker slot is not held for hours
    """

    attempts: int = 6
    first_delay: float = 1.0
    max_delay: float = 30.0
    longest_named_wait: float = 60.0
    budget: float = 600.0

    def delay(self, error: GraphError, *, attempt: int, waited: float, chance: float) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        :param error: what the last attempt ended in
        :param attempt: how often the request was sent, at least 1
        :param waited: seconds that the listing has waited so far
        :param chance: random, from 0 to 1: many tasks that fail together shall not come back together
        """
        if not error.retryable or attempt >= self.attempts:
            return None
        named = self._named_wait(error)
        if named is None and isinstance(error, GraphRateLimitError):
            # Calls made while throttled lengthen the throttle.
            return None
        backoff = chance * min(self.max_delay, self.first_delay * 2.0 ** min(attempt - 1, 60))
        if named is not None and named > self.longest_named_wait:
            return None
        delay = backoff + (named or 0.0)
        return delay if waited + delay <= self.budget else None

    @staticmethod
    def _named_wait(error: GraphError) -> float | None:
        if isinstance(error, GraphApiError) and error.retry_after is not None:
            return error.retry_after.total_seconds()
        return None
