"""Decides when a wait looks at the accounts: how often, and how much later after an error."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_whatsapp.graph.errors import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT

#: Shortest time between two looks, in seconds. With less, one trigger would keep the event loop and the API busy.
SHORTEST_INTERVAL = 1.0
#: After a restart of the triggerer, the looks that are overdue are spread over this many seconds.
SECONDS_TO_SPREAD = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a wait looks at the accounts. All times are in seconds.

    :param interval: time between two looks
    :param exponential: whether to double the interval with each look
    :param longest: upper bound of an interval that doubles, or None
    """

    interval: float
    exponential: bool = False
    longest: float | None = None

    def next_interval(self, waited: float, chance: float) -> float:
        """Seconds until the next look.

        :param waited: seconds that the wait has lasted so far, those before a restart of the triggerer included
        :param chance: random number from 0 to 1, so that waits that began together do not stay together
        """
        # An interval as long as the whole wait so far doubles with each look, and goes on to do so after a restart.
        interval = max(self.interval, waited) if self.exponential else self.interval
        interval *= 1 + chance / 10
        # As in every Airflow sensor, the upper bound has a meaning only where the interval grows.
        return min(interval, self.longest) if self.exponential and self.longest is not None else interval


def pause_after(error: GraphError) -> float:
    """Seconds in which no call may be made after the error; 0 when the next look may come as usual.

    :param error: how a look ended
    """
    if error.retry_after is not None:
        return error.retry_after.total_seconds()
    return UNNAMED_WAIT if isinstance(error, GraphRateLimitError) else 0.0
