"""Simulates rate limits, and the headers that report their usage.

https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow_provider_whatsapp.transport import clock

from ..world.accounts import Node
from ..world.api_error import ApiError

REAL_HOUR = timedelta(hours=1)
# Without a quota, this many responses have no usage headers at first, and the usage never exceeds this percentage.
_CALLS_WITHOUT_USAGE = 5
_HIGHEST_USAGE = 75

_MESSAGES = {
    4: "Application request limit reached",
    17: "User request limit reached",
    32: "Page request limit reached",
    613: "Calls to this api have exceeded the rate limit.",
}


def throttle_error(code: int) -> ApiError:
    """Return the refusal of a call that exceeds a rate limit.

    :param code: 80008 for the limit of the WhatsApp Business Management API
    """
    message = _MESSAGES.get(code, "There have been too many calls to this WhatsApp Business account. Wait a bit.")
    return ApiError(code, f"(#{code}) {message}", status=403 if code == 4 else 400)


@dataclass(frozen=True)
class QuotaUse:
    """How much of a quota is used after a call.

    :param percent: calls of the last hour as a percentage of the quota, rounded down; may exceed 100
    :param refused: whether this call exceeds the quota
    :param minutes: minutes until a call is allowed, rounded up; 0 if the next one is
    """

    percent: int
    refused: bool = False
    minutes: int = 0

    def counts(self) -> dict[str, int]:
        """Return the percentages that ``x-app-usage`` and ``x-business-use-case-usage`` both report."""
        return {"call_count": self.percent, "total_cputime": self.percent // 4, "total_time": self.percent // 3}

    def entry(self) -> dict[str, Any]:
        """Return the entry of a business or an account in the second header."""
        return {
            "type": "whatsapp_business_management",
            **self.counts(),
            "estimated_time_to_regain_access": self.minutes,
        }


@dataclass(frozen=True)
class CallUse:
    """How much of the quotas is used after a call.

    :param app: the quota of the whole app; None if the headers do not show it yet
    :param account_id: id of the account that the call names, or None
    :param account: the quota of that account, or None
    """

    app: QuotaUse | None
    account_id: str | None = None
    account: QuotaUse | None = None

    @property
    def refused(self) -> bool:
        """Whether the call exceeds one of the quotas."""
        return any(use is not None and use.refused for use in (self.app, self.account))

    def headers(self, businesses: list[Node]) -> dict[str, str]:
        """Return the usage headers; the app's quota is reported under the id of the first business."""
        headers: dict[str, str] = {}
        entries: dict[str, list[Any]] = {}
        if self.app is not None:
            headers["x-app-usage"] = json.dumps(self.app.counts())
            entries |= {business["id"]: [self.app.entry()] for business in businesses[:1]}
        if self.account_id is not None and self.account is not None:
            entries[self.account_id] = [self.account.entry()]
        if entries:
            headers["x-business-use-case-usage"] = json.dumps(entries)
        return headers


class Quotas:
    """The quota of the whole app, and one for each account: limits on the calls of a rolling hour.

    Every call counts, even a refused one, so a client that keeps calling while it is throttled waits longer.

    The header has only whole minutes, so a client waits for at least one minute, however short the hour is.

    :param calls_per_hour: number of calls allowed within an hour; None for no quota, in which case the usage rises
        slowly and means nothing
    :param calls_per_hour_and_account: number of calls allowed for one account; None for no quota
    :param hour: real length of the simulated hour
    :raises ValueError: if an argument is not positive
    """

    def __init__(self, calls_per_hour: int | None, calls_per_hour_and_account: int | None, hour: timedelta) -> None:
        limits = {"calls_per_hour": calls_per_hour, "calls_per_hour_and_account": calls_per_hour_and_account}
        for name, limit in limits.items():
            is_number = isinstance(limit, int) and not isinstance(limit, bool)
            if limit is not None and not (is_number and limit > 0):
                raise ValueError(f"{name} must be a whole number of at least 1, or None, not {limit!r}")
        if not isinstance(hour, timedelta) or hour <= timedelta(0):
            raise ValueError(f"hour must be a timedelta longer than zero, not {hour!r}")
        self._app_limit = calls_per_hour
        self._account_limit = calls_per_hour_and_account
        self._hour = hour.total_seconds()
        # The times of the app's calls, and of the calls for each account, by id.
        self._calls: defaultdict[str, deque[float]] = defaultdict(deque)

    @property
    def counts_accounts(self) -> bool:
        """Whether each account has a quota."""
        return self._account_limit is not None

    def count_call(self, number: int, account_id: str | None) -> CallUse:
        """Count a call that has just arrived for both quotas, and report how much of them is used.

        :param number: number of calls so far, including this one
        :param account_id: id of the account that the call names, or None
        """
        app = None if number <= _CALLS_WITHOUT_USAGE else QuotaUse(min(1 + number // 50, _HIGHEST_USAGE))
        if self._app_limit is not None:
            app = self._count(self._calls["app"], self._app_limit)
        if account_id is None or self._account_limit is None:
            return CallUse(app)
        return CallUse(app, account_id, self._count(self._calls[account_id], self._account_limit))

    def _count(self, calls: deque[float], limit: int) -> QuotaUse:
        now = clock.now()
        while calls and calls[0] <= now - self._hour:
            calls.popleft()
        # The clock goes back at the end of a no_waits() block. Forget calls that are then in the future: they would
        # throttle a client for hours of real time.
        while calls and calls[-1] > now:
            calls.pop()
        calls.append(now)
        count = len(calls)
        percent = count * 100 // limit
        if count < limit:
            return QuotaUse(percent)
        # A call is allowed if fewer calls than the limit were made in the hour before it.
        remaining = self._hour - (now - calls[count - limit])
        return QuotaUse(percent, count > limit, math.ceil(remaining / 60))

    def forget_calls(self) -> None:
        """Forget all calls, so that the quotas are unused again."""
        self._calls.clear()
