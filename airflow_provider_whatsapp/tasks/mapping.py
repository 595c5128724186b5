"""Checks for mapped tasks: one object for each of them, and lists that a later task can be mapped over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_whatsapp._compat import AirflowFailException, conf
from airflow_provider_whatsapp.graph.arguments import shown
from airflow_provider_whatsapp.resume.published import is_of_another_mapped_task, record_published

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_whatsapp.resume.published import TaskIdentity
    from airflow_provider_whatsapp.rows import Manifest
    from airflow_provider_whatsapp.storage.target import Target


def check_path_of_mapped_tasks(task: BaseOperator) -> None:
    """Check that mapped tasks do not all write the same object.

    :param task: operator or sensor, mapped or not
    :raises ValueError: if ``output_path`` comes from ``partial`` or ``default_args`` without a template in it
    """
    dag: Any = task.get_dag()
    mapped = dag and dag.task_dict.get(task.task_id)
    if not hasattr(mapped, "partial_kwargs"):
        return
    group = getattr(mapped.task_group, "default_args", None) or {}
    path = {**dag.default_args, **group, **mapped.partial_kwargs}.get("output_path")
    # Otherwise the address comes from expand.
    if path == getattr(task, "output_path", None) and isinstance(path, str) and not re.search(r"\{[{%]", path):
        raise ValueError(
            f"output_path: every mapped task would write the same object, {shown(path)}; put what "
            "differs between the tasks into the address, e.g. {{ task.business_id }}"
        )


def record_unless_of_another_task(target: Target, identity: TaskIdentity, manifest: Manifest, log: Any) -> None:
    """Record what is about to be published, unless another mapped task has written the object.

    :param target: the object
    :param identity: identifies this task instance and what it lists
    :param manifest: manifest of the object
    :param log: logger of the task, for a warning if the store refuses the record
    :raises AirflowFailException: if another mapped task has written it
    """
    is_of_another = False
    try:
        is_of_another = is_of_another_mapped_task(target, identity)
        if not is_of_another:
            record_published(target, identity, manifest)
    except Exception as error:
        # Leave out the exception's message: it comes from another library and may contain a secret.
        log.warning("No record can be stored beside the object (%s)", type(error).__name__)
    if is_of_another:
        fail_for_object_of_another_task(target)


def fail_for_object_of_another_task(target: Target) -> NoReturn:
    """Fail the task, because another mapped task has written its object.

    :param target: the object
    :raises AirflowFailException: always
    """
    raise AirflowFailException(
        f"output_path: another mapped task of this DAG run has written {target.uri}; put what differs between "
        "the tasks into the address, e.g. {{ task.business_id }}"
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
