"""The rate limit of the sandbox, and the headers that tell how much of it is used.

https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_whatsapp.transport import clock

from .http_exchange import ApiError
from .sample_accounts import Node

REAL_HOUR = timedelta(hours=1)
# Without a quota, the first answers have no usage headers, and the usage stops rising at some share.
_CALLS_WITHOUT_USAGE = 5
_HIGHEST_USAGE = 75

_MESSAGES = {
    4: "Application request limit reached",
    17: "User request limit reached",
    32: "Page request limit reached",
    613: "Calls to this api have exceeded the rate limit.",
}


def throttle_error(code: int) -> ApiError:
    """The refusal of a call that exceeds a rate limit.

    :param code: 80008 for the limit of the WhatsApp Business Management API
    """
    message = _MESSAGES.get(code, "There have been too many calls to this WhatsApp Business account. Wait a bit.")
    return ApiError(code, f"(#{code}) {message}", status=403 if code == 4 else 400)


def usage_headers(businesses: list[Node], percent: int, minutes: int = 0) -> dict[str, str]:
    """The two headers that tell how much of its rate limit an app has used.

    :param businesses: the header is keyed by the id of the first one
    :param percent: share of the limit that is used, in whole percent
    :param minutes: ``estimated_time_to_regain_access``
    """
    usage = {"call_count": percent, "total_cputime": percent // 4, "total_time": percent // 3}
    entry = {"type": "whatsapp_business_management", **usage, "estimated_time_to_regain_access": minutes}
    return {
        "x-app-usage": json.dumps(usage),
        "x-business-use-case-usage": json.dumps({business["id"]: [entry] for business in businesses[:1]}),
    }


@dataclass(frozen=True)
class QuotaUse:
    """How much of the quota is used after a call.

    :param percent: calls of the last hour in percent of the quota, rounded down; may exceed 100
    :param refused: whether this call exceeds the quota
    :param minutes: minutes until a call is let through, rounded up; 0 when the next one is
    """

    percent: int
    refused: bool = False
    minutes: int = 0

    def headers(self, businesses: list[Node]) -> dict[str, str]:
        """The headers that tell a client about it."""
        return usage_headers(businesses, self.percent, self.minutes)


class Quota:
    """A limit on the calls of a rolling hour, for the whole sandbox.

    Every call counts, also one that is refused, so a client that keeps calling while it is throttled waits longer.

    The header knows only whole minutes. So a client waits for at least one minute, however short the hour is.

    :param calls_per_hour: number of calls that are let through within an hour; None for all calls, in which case the
        usage rises slowly and means nothing
    :param hour: real length of the simulated hour
    :raises ValueError: one of them is not positive
    """

    def __init__(self, calls_per_hour: int | None, hour: timedelta) -> None:
        is_number = isinstance(calls_per_hour, int) and not isinstance(calls_per_hour, bool)
        if calls_per_hour is not None and not (is_number and calls_per_hour > 0):
            raise ValueError(f"calls_per_hour must be a whole number of at least 1, or None, not {calls_per_hour!r}")
        if not isinstance(hour, timedelta) or hour <= timedelta(0):
            raise ValueError(f"hour must be a timedelta longer than zero, not {hour!r}")
        self._limit = calls_per_hour
        self._hour = hour
        self._calls: deque[float] = deque()

    def count_call(self, number: int) -> QuotaUse | None:
        """Count a call that has just arrived, and tell how much is used. None when the headers do not tell it yet.

        :param number: number of calls so far, with this one
        """
        if self._limit is None:
            quiet = number <= _CALLS_WITHOUT_USAGE
            return None if quiet else QuotaUse(min(1 + number // 50, _HIGHEST_USAGE))
        now, hour = clock.now(), self._hour.total_seconds()
        while self._calls and self._calls[0] <= now - hour:
            self._calls.popleft()
        # The clock goes back at the end of a no_waits() block. Calls that are in the future by then are forgotten,
        # since they would throttle a client for hours of real time.
        while self._calls and self._calls[-1] > now:
            self._calls.pop()
        self._calls.append(now)
        count = len(self._calls)
        percent = count * 100 // self._limit
        if count < self._limit:
            return QuotaUse(percent)
        # A call is let through when fewer than the limit were made in the hour before it.
        remaining = hour - (now - self._calls[count - self._limit])
        return QuotaUse(percent, count > self._limit, math.ceil(remaining / 60))

    def forget_calls(self) -> None:
        """Forget all calls, so that the whole quota is free again."""
        self._calls.clear()
