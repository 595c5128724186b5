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
    """The result of one look at the accounts, for one wait, or an interruption of the look.

    :param count: number of accounts that match its condition; None if the listing was not read completely
    :param is_met: whether its condition is met
    :param reason: why its condition is not met
    :param error: why the listing could not be read, or why the look was interrupted
    :param pages: number of pages read so far
    :param seconds: how long the look has taken so far
    :param is_interrupted: whether the look was interrupted and will continue after the last page that it read
    :param next_look_in: seconds until the next look, or until the look continues
    """

    count: int | None = None
    is_met: bool = False
    reason: str = ""
    error: GraphError | None = None
    pages: int = 0
    seconds: float = 0.0
    is_interrupted: bool = False
    next_look_in: float = 0.0


class WaitLog:
    """Logs the first look of a wait, each change of its result, each error, and a line every hour.

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
        self._reason = ""
        self._alarm: asyncio.TimerHandle | None = None
        self._set_alarm()

    def add(self, look: Look) -> None:
        """Log what is new in a look, if anything."""
        if look.is_interrupted:
            self._write(
                logging.WARNING,
                "%s - the look continues after page %d in %s. It has taken %s so far: if looks take longer than "
                "poke_interval, increase that, or list fewer accounts or larger pages",
                "The rate limit is nearly used up" if look.error is None else shorten(str(look.error)),
                look.pages,
                _duration(look.next_look_in),
                _duration(look.seconds),
            )
            return
        self._looks += 1
        if look.error is not None:
            error = shorten(str(look.error))
            self._write(logging.WARNING, "%s - looking again in %s", error, _duration(look.next_look_in))
        elif look.is_met:
            self._write(logging.INFO, "%d accounts match; condition met", look.count)
        elif (look.count, look.reason) != (self._count, self._reason):
            self._write(
                logging.INFO,
                "%d accounts match; condition not met yet%s - looking again in %s",
                look.count,
                f": {look.reason}" if look.reason else "",
                _duration(look.next_look_in),
            )
        if look.count is not None:
            self._count, self._reason = look.count, look.reason

    def add_new_settings(self) -> None:
        """Log that the connection has changed."""
        self._write(logging.WARNING, "The connection has changed - continuing with its new settings")

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
            "no look has succeeded yet"
            if self._count is None
            else f"{self._count} accounts match" + (f": {self._reason}" if self._reason else ""),
        )


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
