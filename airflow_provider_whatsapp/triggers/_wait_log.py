"""Reports the progress of a wait in the triggerer to the log of its task."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow_provider_whatsapp.graph.errors import GraphError, shorten

# Seconds after which a wait without news logs a line, because a silent log looks like a task that hangs.
_SECONDS_OF_SILENCE = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The result of one look at the accounts, for one wait.

    :param count: number of accounts that match its condition; None if the listing could not be read
    :param is_met: whether its condition is met
    :param error: why the listing could not be read
    :param next_look_in: seconds until the next look
    """

    count: int | None = None
    is_met: bool = False
    error: GraphError | None = None
    next_look_in: float = 0.0


class WaitLog:
    """Logs the first look of a wait, each change of the count, each error, and a line every hour.

    Airflow finds the log of a task through the context variables of its trigger, so every method must be called in the
    trigger's context.

    :param log: logger of the trigger
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._looks = 0
        self._count: int | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._set_alarm()

    def add(self, look: Look) -> None:
        """Log what is new in a look, if anything."""
        self._looks += 1
        if look.error is not None:
            error = shorten(str(look.error))
            self._write(logging.WARNING, "%s - looking again in %s", error, _duration(look.next_look_in))
        elif look.is_met:
            self._write(logging.INFO, "%d accounts match; condition met", look.count)
        elif look.count != self._count:
            self._write(
                logging.INFO,
                "%d accounts match; condition not met yet - looking again in %s",
                look.count,
                _duration(look.next_look_in),
            )
        if look.count is not None:
            self._count = look.count

    def add_new_token(self) -> None:
        """Log that the API refused the token, and that the connection now has a new one."""
        self._write(logging.WARNING, "The API refused the token - continuing with the new token from the connection")

    def close(self) -> None:
        """Stop logging."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _write(self, level: int, message: str, *values: object) -> None:
        self._log.log(level, message, *values)
        self._set_alarm()

    def _set_alarm(self) -> None:
        self.close()
        self._alarm = self._loop.call_later(_SECONDS_OF_SILENCE, self._write_sign_of_life)

    def _write_sign_of_life(self) -> None:
        self._write(
            logging.INFO,
            "Still waiting after %s in this triggerer and %d looks; %s",
            _duration(self._loop.time() - self._started),
            self._looks,
            "no look has succeeded yet" if self._count is None else f"{self._count} accounts match",
        )


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
