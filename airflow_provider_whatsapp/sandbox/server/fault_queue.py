"""Queues faults, and selects the one that acts on a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..world.accounts import ACCOUNT_EDGES
from ..world.node_types import EDGES
from .faults import Fault
from .http_exchange import IncomingRequest


@dataclass(eq=False)
class _QueuedFault:
    """A fault that is not done, and its state between requests."""

    fault: Fault
    memory: dict[str, Any] = field(default_factory=dict)


class FaultQueue:
    """Faults in the order in which they act; one at a time acts on a node, and the next waits until it is done."""

    def __init__(self) -> None:
        self._faults: list[_QueuedFault] = []

    def add(self, *faults: Fault) -> None:
        """Queue faults."""
        self._faults.extend(map(_QueuedFault, faults))

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def take(self, request: IncomingRequest) -> tuple[Fault | None, dict[str, Any]]:
        """Return the fault that acts on a request, if any, and its state between requests."""
        queued = next((one for one in self._faults if one.fault.node in {None, *request.segments}), None)
        if queued is None:
            return None, {}
        fault = queued.fault
        if fault.requests_before:
            queued.fault = fault.after(fault.requests_before - 1)
            return None, {}
        if not _can_act_on(fault, request):
            return None, {}
        if fault.requests_hit > 1:
            queued.fault = fault.times(fault.requests_hit - 1)
        else:
            self._faults.remove(queued)
        return fault, queued.memory


def _can_act_on(fault: Fault, request: IncomingRequest) -> bool:
    edge = request.segments[-1] if len(request.segments) > 1 and request.segments[-1] in EDGES else None
    fits = {
        "any": True,
        "edge": edge is not None,
        "account edge": edge in ACCOUNT_EDGES,
        "later page": edge is not None and "after" in request.params,
    }
    return fits[fault.acts_on] and request.limit > fault.above
