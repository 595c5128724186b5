"""Checks for mapped tasks: one object for each of them, and lists that a later task can be mapped over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp._compat import AirflowFailException, conf
from airflow_provider_whatsapp.graph.arguments import shown

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


def check_path_of_mapped_tasks(task: BaseOperator) -> None:
    """Check that mapped tasks do not all write the same object.

    :param task: operator or sensor, mapped or not
    :raises ValueError: if ``output_path`` was given to ``partial`` without a template in it
    """
    dag = task.get_dag()
    given_to_partial = getattr(dag and dag.task_dict.get(task.task_id), "partial_kwargs", {}).get("output_path")
    if isinstance(given_to_partial, str) and not re.search(r"\{[{%]", given_to_partial):
        raise ValueError(
            f"output_path: every mapped task would write the same object, {shown(given_to_partial)}; put what "
            "differs between the tasks into the address, e.g. {{ task.business_id }}"
        )


def short_enough_to_map_over(
    task: BaseOperator, context: Context, rows: Iterable[dict[str, Any]], noun: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows, unless they are too many for a task that is mapped over them.

    Airflow itself refuses a list that is too long only after all of it was read, and then retries the task.

    :param task: operator or sensor that returns the rows to XCom
    :param context: Airflow's context of the task
    :param rows: rows of the listing
    :param noun: name of the rows, for the error
    :raises AirflowFailException: at the first row that is too many
    """
    if not _is_mapped_over(task, context):
        yield from rows
        return
    longest = conf.getint("core", "max_map_length", fallback=1024)
    for number, row in enumerate(rows, start=1):
        if number > longest:
            message = (
                f"A task can be mapped over at most {longest} {noun} ([core] max_map_length) and there are more; give "
                "output_path, or narrow the list"
            )
            task.log.error(message)
            raise AirflowFailException(message)
        yield row


def _is_mapped_over(task: BaseOperator, context: Context) -> bool:
    # These are the conditions under which Airflow refuses a list. If execute() is called directly, e.g. in a test,
    # there may be no task instance and no DAG.
    instance: Any = context.get("ti")
    if instance is None or instance.is_mapped or task.get_dag() is None or not task.do_xcom_push:
        return False
    return any(True for _ in task.iter_mapped_dependants())
