"""An event loop whose clock skips every wait, so that a test can wait for hours in no time."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")
# Bytes that are on their way over loopback arrive within this time. When none has come, the loop waits only for a
# timer, and the clock can be moved on to it.
_GRACE_SECONDS = 0.1


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= _GRACE_SECONDS:
            return super().select(timeout)
        events = super().select(_GRACE_SECONDS)
        if not events:
            self.jumped += timeout - _GRACE_SECONDS
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that moves its clock on instead of waiting for a timer."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return time.monotonic() + self._jumping.jumped


def run_virtually(coroutine: Coroutine[Any, Any, _Result]) -> tuple[_Result, float]:
    """Run the coroutine; give its result, and the seconds that it took on the loop's clock."""
    loop = VirtualLoop()
    try:
        started = loop.time()
        result = loop.run_until_complete(coroutine)
        loop.run_until_complete(loop.shutdown_asyncgens())
        return result, loop.time() - started
    finally:
        loop.close()
