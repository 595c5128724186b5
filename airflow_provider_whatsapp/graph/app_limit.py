"""The rate limit that all accounts share while one edge of many accounts is listed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from airflow_provider_whatsapp.graph.error_codes import is_limit_of_one_account
from airflow_provider_whatsapp.graph.errors import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.usage import Usage

#: If so many accounts in a row are refused, the limit that they have reached is not one of a single account.
ACCOUNTS_OF_A_WIDER_LIMIT = 5
#: Within so many percent of the use at which the listing pauses, fewer and fewer requests are sent side by side. Those
#: on their way when the limit is reached would all be refused, and Meta lengthens a throttle for each refused call.
SLOWING_DOWN = 20.0


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait of one account, or of all.

    :param until: moment at which it ends, in the seconds of the flow's clock
    :param named_until: the same without the random part of the wait; the API or this package named this moment
    :param error: what the listing ends in if it cannot wait so long; None for a wait that may be cut short
    """

    until: float = 0.0
    named_until: float = 0.0
    error: GraphError | None = None


class AppLimit:
    """How much of the shared limit is used, and until when no account may be asked for.

    :param max_usage: percentage of the limit at which the listing pauses
    :param max_concurrency: number of requests that may be on their way at the same time
    :param now: gives the seconds since a fixed moment, and never goes back
    :param percent: use of the limit, if it is known already
    """

    def __init__(
        self, *, max_usage: float, max_concurrency: int, now: Callable[[], float], percent: float | None = None
    ) -> None:
        #: The wait of all accounts.
        self.pause = Pause()
        self._max_usage = max_usage
        self._max_concurrency = max_concurrency
        self._now = now
        # None before the first answer and after a pause: one request then goes ahead of the others to find it out.
        self._percent = percent
        # Number of the account whose request went ahead of the others.
        self._ahead = -1
        self._refused_since_last_page: set[str] = set()

    @property
    def is_paused(self) -> bool:
        """Whether all accounts wait now."""
        return self.pause.until > self._now()

    def has_room(self, in_flight: Collection[int]) -> bool:
        """Whether another request may be sent beside those that are on their way.

        :param in_flight: numbers of the accounts whose requests are on their way
        """
        if self._percent is None:
            return self._ahead not in in_flight and len(in_flight) < self._max_concurrency
        share = min(1.0, (self._max_usage - self._percent) / SLOWING_DOWN)
        return len(in_flight) < max(1.0, self._max_concurrency * share)

    def note_sent(self, number: int) -> None:
        """Take note of a request that is sent.

        :param number: number of the account
        """
        if self._percent is None:
            self._ahead = number

    def note_page(self, usage: Usage | None) -> bool:
        """Take note of a page. Returns whether the use that it reported counts.

        :param usage: the use of the shared limit, or None if none was reported
        """
        self._refused_since_last_page.clear()
        # What arrives during a pause was asked for before it, and says nothing of the time after it.
        if self.is_paused:
            return False
        self._percent = 0.0 if usage is None else usage.percent
        return True

    def note_left_out(self) -> None:
        """Take note of an answer for an account that is left out."""
        if self._percent is None:
            # Otherwise thousands of accounts that are left out would be asked for one after the other.
            self._percent = 0.0

    def note_refusal(self, waba_id: str, error: GraphRateLimitError, pause: Pause) -> None:
        """Take note of a call that was refused because of a rate limit. All accounts wait if the limit is shared.

        :param waba_id: id of the account that was asked for
        :param error: the refusal
        :param pause: the wait of the account
        """
        self._refused_since_last_page.add(waba_id)
        if not is_limit_of_one_account(error) or len(self._refused_since_last_page) >= ACCOUNTS_OF_A_WIDER_LIMIT:
            self.wait(pause)

    def wait(self, pause: Pause) -> None:
        """Let all accounts wait, unless they wait for longer already."""
        self.pause = max(self.pause, pause, key=lambda one: one.until)
        if self.is_paused:
            self._percent = None

    def go_on(self) -> None:
        """End the wait of all accounts."""
        self.pause = Pause()
