"""Runs an operator as Airflow does: through its deferrals and retries, each in what could be another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from airflow.sdk import BaseOperator

from airflow_provider_whatsapp._compat import AirflowFailException, AirflowSkipException, TaskDeferred


class TaskInstance:
    """One task instance of an operator.

    :param build: makes the operator, once for each process
    :param retries: how often Airflow tries again
    """

    def __init__(self, build: Callable[[], BaseOperator], *, retries: int = 0, run_id: str = "run") -> None:
        self.build = build
        self.ti = SimpleNamespace(
            dag_id="dag",
            run_id=run_id,
            task_id="accounts",
            map_index=-1,
            is_mapped=False,
            try_number=1,
            max_tries=retries,
        )
        #: How often the task was deferred.
        self.deferrals = 0
        #: What each process ended with, except for the last one.
        self.failures: list[BaseException] = []

    def run(self) -> Any:
        """The result of the task, or the error that its last try ended with."""
        first: tuple[str, dict[str, Any]] = ("execute", {})
        method, kwargs = first
        while True:
            try:
                operator: Any = self.build()
                return getattr(operator, method)({"ti": self.ti}, **kwargs)
            except TaskDeferred as deferred:
                self.deferrals += 1
                event = asyncio.run(anext(aiter(deferred.trigger.run()))).payload
                method, kwargs = deferred.method_name, {"event": event, **(deferred.kwargs or {})}
            except (AirflowFailException, AirflowSkipException):
                raise
            except BaseException as error:
                if self.ti.try_number > self.ti.max_tries:
                    raise
                self.failures.append(error)
                self.ti.try_number += 1
                method, kwargs = first
