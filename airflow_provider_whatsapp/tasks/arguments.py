"""Checks the arguments of operators and sensors once, after Airflow has rendered their templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.graph.arguments import given, parse_percentage, parse_seconds, shown
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import WABA_ONLY_ARGUMENTS, Query
from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection, load_connection
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.tasks.mapping import check_path_of_mapped_tasks

if TYPE_CHECKING:
    from airflow_provider_whatsapp.storage.target import Target

#: The query arguments of a listing of accounts.
QUERY_ARGUMENTS = tuple(Query.__annotations__)
#: The query arguments that every edge accepts.
EDGE_QUERY_ARGUMENTS = tuple(name for name in QUERY_ARGUMENTS if name not in WABA_ONLY_ARGUMENTS)
#: The arguments that say where the rows go.
OUTPUT_ARGUMENTS = ("output_path", "output_conn_id", "output_format")
#: The other templated arguments of the operators: what to do with an object, and how long to wait.
LIST_ARGUMENTS = ("if_exists", "if_empty", "compare_with", "max_wait_in_place", "max_usage")

#: Default of ``max_wait_in_place``, in seconds.
MAX_WAIT_IN_PLACE = 300
#: Default of ``max_usage``, in percent of the app's rate limit.
MAX_USAGE = 95
# A deferrable task gives up its worker slot for a rate limit that lasts longer than this many seconds.
_LONGEST_WAIT_BEFORE_DEFERRING = 60.0
# The first choice is the default.
_CHOICES = {"if_exists": ("overwrite", "fail", "skip"), "if_empty": ("succeed", "skip", "fail")}


def rendered(task: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the named arguments of a task.

    :param task: operator or sensor, with rendered templates
    :param names: names of the arguments, which are attributes of the task
    """
    return {name: getattr(task, name) for name in names}


@dataclass(frozen=True, slots=True)
class OutputArguments:
    """Where the rows go.

    :param path: address of the object, or None if the rows go to XCom
    :param conn_id: Airflow connection of the store, or None for the one in the address or the store's default
    :param format: format of the object, or None to derive it from the suffix of the address
    """

    path: str | None
    conn_id: str | None
    format: str | None

    @classmethod
    def of(cls, task: Any) -> OutputArguments:
        """Return the checked output arguments of an operator or sensor.

        :param task: operator or sensor, with rendered templates
        :raises ValueError: if an argument is wrong, or if every mapped task would write the same object
        """
        output = cls(task.output_path, given(task.output_conn_id, None), given(task.output_format, None))
        if output.path is not None:
            check_path_of_mapped_tasks(task)
        elif output.conn_id or output.format:
            raise ValueError("output_path: missing; output_conn_id and output_format have no effect without it")
        return output

    def open_target(self) -> Target | None:
        """Return the object to write, or None if the rows go to XCom.

        :raises ValueError: if the address, the connection or the format is wrong
        :raises StoreRefusedError: if the store does not accept the credentials
        :raises StoreError: if the store cannot be reached
        """
        if self.path is None:
            return None
        # lazy: fsspec
        from airflow_provider_whatsapp.storage.target import Target

        return Target(self.path, conn_id=self.conn_id, format=self.format)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListArguments:
    """The arguments of an operator other than its query arguments.

    :param output: where the rows go
    :param if_exists: ``"overwrite"``, ``"fail"`` or ``"skip"``
    :param if_empty: ``"succeed"``, ``"skip"`` or ``"fail"``
    :param compare_with: address of the earlier object to compare with, or None
    :param deferrable: whether the task may wait without a worker slot
    :param max_wait_in_place: total seconds that a try may wait in its worker slot
    :param max_usage: percentage of the app's rate limit from which the task waits before the next page
    :param checkpoint_interval: seconds between two checkpoints of the rows
    """

    output: OutputArguments
    if_exists: str
    if_empty: str
    compare_with: str | None
    deferrable: bool
    max_wait_in_place: float
    max_usage: float
    checkpoint_interval: float

    @classmethod
    def of(cls, operator: Any) -> ListArguments:
        """Return the checked arguments of an operator.

        :param operator: operator, with rendered templates
        :raises ValueError: if an argument is wrong
        """
        arguments = cls(
            output=OutputArguments.of(operator),
            if_exists=_parse_choice("if_exists", operator.if_exists),
            if_empty=_parse_choice("if_empty", operator.if_empty),
            compare_with=operator.compare_with,
            deferrable=operator.deferrable,
            max_wait_in_place=parse_seconds("max_wait_in_place", given(operator.max_wait_in_place, MAX_WAIT_IN_PLACE)),
            max_usage=parse_percentage("max_usage", given(operator.max_usage, MAX_USAGE)),
            checkpoint_interval=operator.checkpoint_interval,
        )
        if arguments.compare_with is not None and arguments.output.path is None:
            raise ValueError("compare_with: the differences are reported in the manifest, which needs output_path")
        return arguments

    @property
    def patience(self) -> Patience:
        """The limits of a try's waits in its worker slot, for faults, rate limits and usage."""
        longest = self.max_wait_in_place
        return Patience(
            longest_named_wait=min(longest, _LONGEST_WAIT_BEFORE_DEFERRING) if self.deferrable else longest,
            budget=longest,
            max_usage=self.max_usage,
            # Rows that go to XCom are lost in a deferral, so such a task defers only when the API refuses a call.
            raises_when_used_up=self.deferrable and self.output.path is not None,
        )


def _parse_choice(name: str, value: str | None) -> str:
    choices = _CHOICES[name]
    choice = given(value, choices[0])
    if choice not in choices:
        raise ValueError(f"{name}: {shown(choice)} is not one of {', '.join(map(repr, choices))}")
    return choice


def load_task_connection(task: Any) -> WhatsAppConnection:
    """Return the checked Airflow connection of an operator or sensor.

    :param task: operator or sensor, with rendered templates
    :raises ValueError: if a field of the connection is wrong
    """
    hook = WhatsAppHook(task.whatsapp_conn_id)
    return load_connection(hook, hook.whatsapp_conn_id)
