"""Logs the progress of a listing from time to time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.transport import clock

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.usage import Usage
    from airflow_provider_whatsapp.hooks._waba_edge import EdgeProgress

_SECONDS_BETWEEN_LINES = 30.0


class LoggedRows:
    """Iterates over the rows of all pages of a listing, and logs the progress from time to time.

    :param pages: pages of the listing
    :param log: logger of the task
    """

    def __init__(self, pages: Iterable[Page], log: Any) -> None:
        #: Number of pages read so far.
        self.pages = 0
        #: Whether ``max_items`` ended the listing although the API has more rows.
        self.truncated = False
        self._pages = pages
        self._log = log
        self._count = 0
        self._last_line = clock.monotonic()
        self._count_since = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the rows; possible only once."""
        page = None
        for page in self._pages:
            self.pages = page.number
            self.truncated = page.truncated
            self._count += len(page.rows)
            if not page.is_kept:
                self._count_since += len(page.rows)
            self._log_progress(page)
            yield from page.rows
        if page is not None:
            cut = ", cut by max_items" if page.truncated else ""
            self._log.info(
                "Listed %d accounts on %d pages%s%s", self._count, page.number, cut, _describe_usage(page.usage)
            )

    def _log_progress(self, page: Page) -> None:
        now = clock.monotonic()
        if now < self._last_line + _SECONDS_BETWEEN_LINES:
            return
        self._log.info(
            "%d pages, %d accounts so far, %.0f accounts a minute%s",
            page.number,
            self._count,
            60 * self._count_since / (now - self._last_line),
            _describe_usage(page.usage),
        )
        self._last_line, self._count_since = now, 0


class AccountsProgress:
    """Logs from time to time how many accounts of a listing were read.

    :param log: logger of the task
    :param total: total number of accounts, or None if unknown
    """

    def __init__(self, log: Any, total: int | None) -> None:
        self._log = log
        self._total = "" if total is None else f" of {total:,}"
        self._last_line = clock.monotonic()

    def __call__(self, progress: EdgeProgress) -> None:
        """Log a line, if enough time has passed since the last one.

        :param progress: progress of the listing
        """
        now = clock.monotonic()
        if now >= self._last_line + _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._log.info(
                "%s%s accounts, %s rows%s",
                f"{progress.accounts_read:,}",
                self._total,
                f"{progress.rows_read:,}",
                _describe_usage(progress.usage),
            )


def _describe_usage(usage: Usage | None) -> str:
    return "" if usage is None else f", API usage {usage.percent:g} %"
