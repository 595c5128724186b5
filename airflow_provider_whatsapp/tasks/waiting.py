"""Defers a task until a rate limit has lifted, without holding a worker slot."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_whatsapp.graph import GraphRateLimitError
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.triggers._rate_limit import RateLimitTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

# A listing whose rows were lost during a wait starts again at most this many times.
_MAX_RESTARTS = 1
#: Tasks that wait for the same rate limit are spread over at least this many seconds.
SHORTEST_SPREAD = 10.0


@dataclass(frozen=True, slots=True)
class Resumption:
    """The state of a listing that Airflow stores during a deferral.

    :param restarts: number of times that the listing has started again because its rows were lost
    :param is_kept: whether the rows read so far were checkpointed before the wait
    """

    restarts: int = 0
    is_kept: bool = False


def defer_until_lifted(task: BaseOperator, error: GraphRateLimitError, resumption: Resumption) -> NoReturn:
    """Defer the task until the rate limit has lifted.

    :param task: operator whose ``execute_complete`` accepts the fields of the resumption
    :param error: the rate-limit error
    :param resumption: state to pass to the task when it resumes
    :raises GraphRateLimitError: if the rows were lost too often
    """
    if resumption.restarts > _MAX_RESTARTS:
        raise GraphRateLimitError(
            f"{error} - the rows read so far were lost again; set output_path to a store in which every worker can "
            "list, read and write, so that they are checkpointed while the task waits",
            code=error.code,
            retry_after=error.retry_after,
        ) from error
    seconds = UNNAMED_WAIT if error.retry_after is None else error.retry_after.total_seconds()
    # Otherwise all tasks that are throttled together would resume together and be throttled again.
    seconds += random.uniform(0, max(SHORTEST_SPREAD, seconds / 10))  # noqa: S311  # not for cryptography
    moment = clock.moment_in(seconds)
    task.log.warning(
        "Waiting without a worker slot until %s: %s",
        f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d %H:%M:%S} UTC",
        error,
    )
    task.defer(trigger=RateLimitTrigger(moment=moment), method_name="execute_complete", kwargs=asdict(resumption))
    raise AssertionError("defer() raises")
