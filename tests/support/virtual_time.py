"""An event loop whose clock skips every wait, so that a test can wait for hours in no time."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from airflow_provider_whatsapp.transport.aio import AsyncGraphClient

_Result = TypeVar("_Result")
# When nothing is on its way and nothing has come within this time, the loop waits only for a timer, and the clock can be
# moved on to it.
_GRACE_SECONDS = 0.1
# A request or a thread takes this long at most, however busy the machine is. Only servers that never answer take longer.
_LONGEST_WORK_SECONDS = 60.0


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, is_busy: Callable[[], bool]) -> None:
        super().__init__()
        self.jumped = 0.0
        self._is_busy = is_busy

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= _GRACE_SECONDS:
            return super().select(timeout)
        grace = min(timeout, _LONGEST_WORK_SECONDS if self._is_busy() else _GRACE_SECONDS)
        events = super().select(grace)
        if not events:
            self.jumped += timeout - grace
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that moves its clock on instead of waiting for a timer."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector(self._is_busy)
        self._working: set[asyncio.Future[Any]] = set()
        super().__init__(self._jumping)

    def time(self) -> float:
        return time.monotonic() + self._jumping.jumped

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]  # without its type variables
        work = super().run_in_executor(executor, func, *args)
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        return work

    def _is_busy(self) -> bool:
        attempt = AsyncGraphClient._attempt.__qualname__
        return bool(self._working) or any(
            getattr(task.get_coro(), "__qualname__", "") == attempt for task in asyncio.all_tasks(self)
        )


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
