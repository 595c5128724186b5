"""The trigger that a listing waits on while the app is throttled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

_SECONDS_BETWEEN_LINES = 3600.0


class RateLimitTrigger(BaseTrigger):
    """Fires at a given time, and makes no call until then.

    The standard provider's trigger would write a line into the task's log every few seconds.

    :param moment: when to fire, in unix seconds
    """

    def __init__(self, *, moment: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
        self.moment = moment

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments to recreate the trigger in another process."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"moment": self.moment}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire the event when the time has come; logs once an hour until then."""
        until = datetime.fromtimestamp(self.moment, timezone.utc)
        while (seconds := self.moment - time.time()) > 0:
            self.log.info("Waiting until %s for the API to accept calls again", f"{until:%Y-%m-%d %H:%M:%S} UTC")
            await asyncio.sleep(min(seconds, _SECONDS_BETWEEN_LINES))
        yield TriggerEvent({"status": "waited"})  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
