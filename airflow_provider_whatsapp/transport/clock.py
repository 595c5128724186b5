"""The clock that the clients wait by. Tests can make it skip every wait.

This module imports only the standard library, so that the sandbox can use the same clock as the clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class SkippedWaits:
    """The waits that were skipped within one :func:`no_waits` block."""

    def __init__(self) -> None:
        #: Length of each skipped wait in seconds, in the order of the waits.
        self.seconds: list[float] = []

    @property
    def total(self) -> float:
        """The total number of seconds that the clients would have waited."""
        return sum(self.seconds)


# The active no_waits() blocks, the innermost one last. Skipped waits are recorded in the innermost one.
_open_blocks: list[SkippedWaits] = []


@contextmanager
def no_waits() -> Iterator[SkippedWaits]:
    """Make the clients of this process skip their waits within the block.

    A skipped wait advances the clock, for the clients and for a ``GraphSandbox`` in the same process, so that a rate
    limit that lifts in an hour has lifted when the client continues.
    """
    skipped = SkippedWaits()
    _open_blocks.append(skipped)
    try:
        yield skipped
    finally:
        _open_blocks.remove(skipped)


def now() -> float:
    """Return the time in unix seconds, advanced by the skipped waits."""
    return time.time() + sum(block.total for block in _open_blocks)


def monotonic() -> float:
    """Return the seconds since a fixed moment, advanced by the skipped waits.

    Unlike :func:`now`, it does not go back when the machine's clock is set.
    """
    return time.monotonic() + sum(block.total for block in _open_blocks)


def wait(seconds: float) -> None:
    """Wait; within a :func:`no_waits` block, record the wait and return immediately.

    :param seconds: length of the wait
    """
    if _open_blocks:
        _open_blocks[-1].seconds.append(seconds)
    else:
        time.sleep(seconds)


def moment_in(seconds: float) -> float:
    """Return the time until which a task must be deferred to wait this long, in unix seconds.

    Within a :func:`no_waits` block, the wait is recorded, and the time returned has already passed.

    :param seconds: length of the wait
    """
    if _open_blocks:
        _open_blocks[-1].seconds.append(seconds)
        return time.time()
    return time.time() + seconds


async def async_wait(seconds: float) -> None:
    """Wait without blocking the event loop; within a :func:`no_waits` block, only record the wait.

    :param seconds: length of the wait
    """
    if _open_blocks:
        _open_blocks[-1].seconds.append(seconds)
        # Let other tasks of the loop run, as they would during a real wait.
        await asyncio.sleep(0)
    else:
        await asyncio.sleep(seconds)
