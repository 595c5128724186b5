"""Decides how often a wait looks at the accounts, and when it looks again after an error."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_whatsapp.graph.errors import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT

#: Shortest time between two looks, in seconds. With less, one trigger would occupy the event loop and the API.
SHORTEST_INTERVAL = 1.0
#: Default of ``max_usage`` of sensors and triggers, lower than for operators, so that waits leave calls for exports.
MAX_USAGE_OF_LOOKS = 80.0
#: After a restart of the triggerer, overdue looks are spread over this many seconds.
SECONDS_TO_SPREAD = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a wait looks at the accounts. All times are in seconds.

    :param interval: time between two looks
    :param exponential: whether to double the interval with each look
    :param longest: longest interval when it doubles, or None
    """

    interval: float
    exponential: bool = False
    longest: float | None = None

    def next_interval(self, waited: float, chance: float) -> float:
        """Return the seconds until the next look.

        :param waited: seconds that the wait has lasted so far, including those before a restart of the triggerer
        :param chance: random number from 0 to 1, so that waits that started together do not stay together
        """
        # An interval as long as the whole wait so far doubles with each look, even after a restart.
        interval = max(self.interval, waited) if self.exponential else self.interval
        interval *= 1 + chance / 10
        # As in every Airflow sensor, the upper bound applies only if the interval grows.
        return min(interval, self.longest) if self.exponential and self.longest is not None else interval


def pause_after(error: GraphError) -> float:
    """Return the seconds in which no call may be made after the error; 0 if the next look may happen as usual.

    :param error: error of the last look
    """
    if error.retry_after is not None:
        return error.retry_after.total_seconds()
    return UNNAMED_WAIT if isinstance(error, GraphRateLimitError) else 0.0
