"""The clock that the clients wait by. Tests can make it skip every wait.

This module uses the standard library only and imports nothing of this package, so that the sandbox can keep the same
time as the clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class SkippedWaits:
    """The waits that were skipped within one :func:`no_waits` block."""

    def __init__(self) -> None:
        #: Length of each skipped wait in seconds, in the order in which the clients asked for them.
        self.seconds: list[float] = []

    @property
    def total(self) -> float:
        """Seconds that the clients would have waited in all."""
        return sum(self.seconds)


# The no_waits() blocks that are active now, the innermost one last. Skipped waits are recorded in that one.
_open_blocks: list[SkippedWaits] = []


@contextmanager
def no_waits() -> Iterator[SkippedWaits]:
    """Let the clients of this process wait no real time within the block.

    A skipped wait moves the clock on, for the clients and for a ``GraphSandbox`` in the same process, so that a rate
    limit that lifts in an hour has lifted when the client goes on.
    """
    skipped = SkippedWaits()
    _open_blocks.append(skipped)
    try:
        yield skipped
    finally:
        _open_blocks.remove(skipped)


def now() -> float:
    """The time in unix seconds, moved on by the waits that were skipped."""
    return time.time() + sum(block.total for block in _open_blocks)


def monotonic() -> float:
    """Seconds since a fixed moment, moved on by the waits that were skipped.

    Unlike :func:`now`, it does not go back when the clock of the machine is set.
    """
    return time.monotonic() + sum(block.total for block in _open_blocks)


def wait(seconds: float) -> None:
    """Wait, or record the wait and return at once within a :func:`no_waits` block.

    :param seconds: length of the wait
    """
    if _open_blocks:
        _open_blocks[-1].seconds.append(seconds)
    else:
        time.sleep(seconds)


def moment_in(seconds: float) -> float:
    """The moment until which a task must be deferred to wait so long, in unix seconds.

    Within a :func:`no_waits` block, the wait is recorded, and the moment is one that has already come.

    :param seconds: length of the wait
    """
    if _open_blocks:
        _open_blocks[-1].seconds.append(seconds)
        return time.time()
    return time.time() + seconds


async def async_wait(seconds: float) -> None:
    """Wait without holding the event loop, or record the wait within a :func:`no_waits` block.

    :param seconds: length of the wait
    """
    if _open_blocks:
        _open_blocks[-1].seconds.append(seconds)
        # Other tasks of the loop must get their turn, as they would during a real wait.
        await asyncio.sleep(0)
    else:
        await asyncio.sleep(seconds)
