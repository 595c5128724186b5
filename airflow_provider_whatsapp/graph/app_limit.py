"""Tracks the rate limit that all accounts share while one edge of many accounts is listed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from airflow_provider_whatsapp.graph.error_codes import is_limit_of_one_account
from airflow_provider_whatsapp.graph.errors import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.usage import Usage

#: If this many accounts in a row are throttled, the limit does not belong to a single account.
ACCOUNTS_OF_A_WIDER_LIMIT = 5
#: Within this many percentage points of `max_usage`, fewer and fewer requests are sent concurrently. Those in flight
#: when the limit is reached would all be refused, and Meta extends a throttle for each refused call.
SLOWING_DOWN = 20.0


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait of one account, or of all.

    :param until: when the wait ends, in seconds of the flow's clock
    :param named_until: end of the wait without its random part: the time that the API named, or a default
    :param error: error to raise if the listing cannot wait so long; None for a wait that may end early
    """

    until: float = 0.0
    named_until: float = 0.0
    error: GraphError | None = None


class AppLimit:
    """How much of the shared limit is used, and until when no account may be requested.

    :param max_usage: percentage of the limit from which the listing pauses
    :param max_concurrency: maximum number of requests in flight
    :param now: returns the seconds since a fixed moment; never goes back
    :param percent: percentage used of the limit, if already known
    """

    def __init__(
        self, *, max_usage: float, max_concurrency: int, now: Callable[[], float], percent: float | None = None
    ) -> None:
        #: The wait of all accounts.
        self.pause = Pause()
        self._max_usage = max_usage
        self._max_concurrency = max_concurrency
        self._now = now
        # None before the first response and after a pause: one request is then sent alone to find out.
        self._percent = percent
        # Number of the account whose request was sent alone.
        self._ahead = -1
        self._refused_since_last_page: set[str] = set()

    @property
    def is_paused(self) -> bool:
        """Whether all accounts wait now."""
        return self.pause.until > self._now()

    def has_room(self, in_flight: Collection[int]) -> bool:
        """Return whether another request may be sent beside those in flight.

        :param in_flight: numbers of the accounts whose requests are in flight
        """
        if self._percent is None:
            return self._ahead not in in_flight and len(in_flight) < self._max_concurrency
        share = min(1.0, (self._max_usage - self._percent) / SLOWING_DOWN)
        return len(in_flight) < max(1.0, self._max_concurrency * share)

    def note_sent(self, number: int) -> None:
        """Record that a request is sent.

        :param number: number of the account
        """
        if self._percent is None:
            self._ahead = number

    def note_page(self, usage: Usage | None) -> bool:
        """Record the usage reported with a page. Returns whether it is recent enough to count.

        :param usage: usage of the shared limit, or None if none was reported
        """
        self._refused_since_last_page.clear()
        # A response that arrives during a pause was requested before it, and says nothing about the time after it.
        if self.is_paused:
            return False
        self._percent = 0.0 if usage is None else usage.percent
        return True

    def note_left_out(self) -> None:
        """Record a response for an account that is left out."""
        if self._percent is None:
            # Otherwise thousands of accounts that are left out would be requested one after the other.
            self._percent = 0.0

    def note_refusal(self, waba_id: str, error: GraphRateLimitError, pause: Pause) -> None:
        """Record a throttled call, and make all accounts wait if the limit is shared.

        :param waba_id: id of the account that was requested
        :param error: the error that the API returned
        :param pause: the wait of the account
        """
        self._refused_since_last_page.add(waba_id)
        if not is_limit_of_one_account(error) or len(self._refused_since_last_page) >= ACCOUNTS_OF_A_WIDER_LIMIT:
            self.wait(pause)

    def wait(self, pause: Pause) -> None:
        """Make all accounts wait, unless they already wait for longer."""
        self.pause = max(self.pause, pause, key=lambda one: one.until)
        if self.is_paused:
            self._percent = None

    def go_on(self) -> None:
        """End the wait of all accounts."""
        self.pause = Pause()
