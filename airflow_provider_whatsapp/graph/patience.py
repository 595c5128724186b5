"""Decides whether to retry a request, and how long to wait first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_whatsapp.graph.errors import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.usage import Usage

#: Seconds to pause when the rate limit is nearly or fully used up and the API names no time.
UNNAMED_WAIT = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The limits within which a listing retries before it raises an error. All times are in seconds.

    :param attempts: maximum number of times one request is sent
    :param first_delay: longest wait after the first failure; it doubles with each further failure
    :param max_delay: longest wait after any failure
    :param longest_named_wait: longest wait named by the API that a listing waits in place
    :param budget: longest total wait of one listing, for faults, rate limits and ``max_usage``, so that it does not
        hold a worker slot for hours
    :param unnamed_wait: how long to wait when the API throttles a call and names no time; None gives up
    :param max_usage: percentage of the app's rate limit from which a listing waits before its next page
    :param raises_when_used_up: whether a wait for ``max_usage`` that is longer than ``longest_named_wait``, or than the
        rest of the budget, raises a :class:`GraphRateLimitError`, so that the caller can wait without holding a worker
        slot; by default the listing waits for the rest of the budget, and then continues until the API refuses a call
    """

    attempts: int = 6
    first_delay: float = 1.0
    max_delay: float = 30.0
    longest_named_wait: float = 60.0
    budget: float = 600.0
    unnamed_wait: float | None = None
    max_usage: float = 95.0
    raises_when_used_up: bool = False

    def delay(self, error: GraphError, *, attempt: int, waited: float, chance: float) -> float | None:
        """Return the seconds to wait before the next attempt, or None to give up.

        :param error: how the last attempt ended
        :param attempt: number of times the request has been sent, at least 1
        :param waited: seconds that the listing has waited so far
        :param chance: random number from 0 to 1, so that tasks that fail together do not all retry together
        """
        if not error.retryable or attempt >= self.attempts:
            return None
        named = None if error.retry_after is None else error.retry_after.total_seconds()
        if named is None and isinstance(error, GraphRateLimitError):
            # Meta extends a throttle with every call made during it, so a short guess does harm.
            if self.unnamed_wait is None:
                return None
            named = self.unnamed_wait
        if named is not None and named > self.longest_named_wait:
            return None
        # The exponent is bounded, because 2.0 ** 1024 overflows a float.
        backoff = chance * min(self.max_delay, self.first_delay * 2.0 ** min(attempt - 1, 60))
        delay = backoff + (named or 0.0)
        return delay if waited + delay <= self.budget else None

    def pause(self, usage: Usage, *, waited: float) -> float:
        """Return the seconds to wait before the next page, given how much of its rate limit the app has used.

        :param usage: rate-limit usage reported by the last response
        :param waited: seconds that the listing has waited so far
        :raises GraphRateLimitError: if the wait is too long to wait in place
        """
        needed = self.needed_pause(usage)
        left = max(0.0, self.budget - waited)
        if self.raises_when_used_up and needed > min(self.longest_named_wait, left):
            raise used_up_error(usage, needed)
        return min(needed, left)

    def needed_pause(self, usage: Usage) -> float:
        """Return the seconds until calls are available again, regardless of the budget; 0 below ``max_usage``.

        :param usage: rate-limit usage reported by the last response
        """
        if usage.percent < self.max_usage:
            return 0.0
        return UNNAMED_WAIT if usage.regain_access is None else usage.regain_access.total_seconds()


def used_up_error(usage: Usage, seconds: float) -> GraphRateLimitError:
    """Return the error for a wait that is too long to wait in place, before the API refuses a call.

    :param usage: rate-limit usage reported by the last response
    :param seconds: how long to wait
    """
    return GraphRateLimitError(
        f"{usage.percent:g} % of the rate limit is used; the listing resumes when calls are available again",
        retry_after=timedelta(seconds=seconds),
    )
