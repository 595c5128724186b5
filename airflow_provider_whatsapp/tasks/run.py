"""Runs a job: reads the rows, stages the object, decides whether to publish it, and publishes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_whatsapp.graph import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.pages import ListingMovedError
from airflow_provider_whatsapp.hooks._metrics import count, count_calls
from airflow_provider_whatsapp.resume.checkpoint import Checkpoint
from airflow_provider_whatsapp.resume.files import RowsLostError
from airflow_provider_whatsapp.resume.published import (
    TaskIdentity,
    find_published,
    is_of_another_mapped_task,
    record_published,
)
from airflow_provider_whatsapp.storage.columns import FORMATS_WITH_COLUMNS
from airflow_provider_whatsapp.storage.errors import ObjectExistsError
from airflow_provider_whatsapp.tasks.failures import STORE_ERRORS, failing_fast
from airflow_provider_whatsapp.tasks.lineage import Lineage, announce
from airflow_provider_whatsapp.tasks.mapping import fail_for_object_of_another_task, short_enough_to_map_over
from airflow_provider_whatsapp.tasks.waiting import Resumption, defer_until_lifted

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_whatsapp.graph.patience import Patience
    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.rows import Manifest
    from airflow_provider_whatsapp.storage.target import StoredObject, Target
    from airflow_provider_whatsapp.tasks.arguments import ListArguments
    from airflow_provider_whatsapp.tasks.comparison import Comparison
    from airflow_provider_whatsapp.tasks.jobs import Job
    from airflow_provider_whatsapp.transport.sync import GraphClient

Row = dict[str, Any]
_Rows = TypeVar("_Rows", bound=Iterable[Row])


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task gives to XCom and to lineage.

    :param result: the rows, or the manifest of the object that holds them
    :param lineage: what was read and written; None if no object was written
    """

    result: list[Row] | Manifest
    lineage: Lineage | None = None


def run(
    operator: BaseOperator,
    context: Context,
    job: Job[_Rows],
    arguments: ListArguments,
    resumption: Resumption | None = None,
) -> TaskResult:
    """Return the rows that a job lists, or the manifest of the object that they were written to.

    :param operator: the operator that runs
    :param context: Airflow's context of the task
    :param job: what to list
    :param arguments: where to write the rows, and how long to wait
    :param resumption: state from before a deferral, or None if the task was not deferred
    :raises AirflowFailException: if a retry cannot help
    :raises AirflowException: if there are no rows with ``if_empty="fail"``
    :raises AirflowSkipException: if ``if_exists`` or ``if_empty`` says to skip
    :raises GraphError: if the fault may be temporary
    """
    with failing_fast((ValueError, *STORE_ERRORS)):
        target = arguments.output.open_target()
        check_columns(target, job.columns)
    identity = TaskIdentity.of(
        context,
        listing=[*what_it_reads(job), arguments.output.format, arguments.compare_with],
        is_deferrable=arguments.deferrable,
    )
    restarts = resumption.restarts if resumption else 0
    patience = arguments.patience
    # At the end of its `with` block, the checkpoint removes rows that are no longer needed. So the block includes the
    # check whether the object exists, which may end the task.
    with (
        Checkpoint(target, identity, operator.log, interval=arguments.checkpoint_interval) as checkpoint,
        failing_fast((GraphError, ValueError, *STORE_ERRORS)),
    ):
        if target is not None:
            manifest = _find_published(target, identity, checkpoint, arguments)
            if manifest is not None:
                operator.log.info("An earlier try of this task has already published %s", target.uri)
                return _announce(operator, context, job, manifest)
            _check_may_publish(target, identity, checkpoint, arguments)
        comparison = _open_comparison(operator, arguments, job.columns)
        has_rows = checkpoint.find_rows(counts_waits=resumption is not None)
        if resumption and resumption.is_kept and not has_rows:
            restarts += 1
        while True:
            try:
                with open_client(job.connection, patience) as client:
                    listed = job.read(client, checkpoint)
                    rows = listed if comparison is None else comparison.watch(listed)
                    if target is None:
                        found = list(short_enough_to_map_over(operator, context, rows, job.noun))
                        _check_empty(len(found), arguments)
                        count("whatsapp.rows", len(found), job.connection.config)
                        return TaskResult(found)
                    with target.stage(rows, job.columns) as staged:
                        _check_empty(staged.stored.count, arguments)
                        facts = job.facts(listed)
                        changes = {} if comparison is None else comparison.describe(truncated=facts["truncated"])
                        manifest = cast("Manifest", {**asdict(staged.stored), **facts, **changes})
                        _check_may_publish(target, identity, checkpoint, arguments)
                        checkpoint.ask_store(record_published, target, identity, manifest)
                        staged.publish(owner=identity.owner, replace=arguments.if_exists == "overwrite")
                    log_published(operator, job, staged.stored)
                    return _announce(operator, context, job, manifest)
            except ObjectExistsError as error:
                _refuse_to_replace(str(error), arguments)
            except (ListingMovedError, RowsLostError) as problem:
                checkpoint.forget()
                operator.log.warning("%s; the listing starts again", problem)
                patience = replace(patience, budget=max(0.0, patience.budget - client.waited))
            except GraphRateLimitError as error:
                if not arguments.deferrable:
                    raise
                is_kept = checkpoint.keep_for_wait(error)
                count("whatsapp.deferrals", 1, job.connection.config)
                defer_until_lifted(operator, error, Resumption(restarts + (not is_kept), is_kept))


def check_columns(target: Target | None, columns: Sequence[str]) -> None:
    """Check that the columns are known if the format of the object needs them.

    :param target: the object to write, or None
    :param columns: names of the columns
    :raises ValueError: if they are missing
    """
    if target is not None and not columns and (what := FORMATS_WITH_COLUMNS.get(target.format)):
        raise ValueError(f"fields: {what} needs the names of its columns; give fields, or another output_format")


def what_it_reads(job: Job[Any]) -> list[Any]:
    """Return all that the rows of a job depend on, as JSON.

    :param job: what is listed
    """
    connection = job.connection
    return [connection.conn_id, connection.config.base_url, connection.config.version, job.depends_on]


def log_published(task: BaseOperator, job: Job[Any], stored: StoredObject) -> None:
    """Log and count the object that a task has published.

    :param task: operator or sensor that published it
    :param job: what was listed
    :param stored: the object
    """
    count("whatsapp.rows", stored.count, job.connection.config)
    task.log.info("Wrote %d %s, %d bytes, to %s", stored.count, job.noun, stored.bytes, stored.uri)


@contextmanager
def open_client(connection: WhatsAppConnection, patience: Patience) -> Iterator[GraphClient]:
    """Open a client for a connection that counts its calls and its waits in Airflow's metrics.

    :param connection: where the API is and which credentials to use
    :param patience: how often to retry and how long to wait
    """
    # lazy: an HTTP library
    from airflow_provider_whatsapp.transport.sync import GraphClient

    config = connection.config
    with GraphClient(
        config, patience=patience, on_call=count_calls(config), read_connection=connection.read_config
    ) as client:
        try:
            yield client
        finally:
            count("whatsapp.waited_seconds", client.waited, config)


def _find_published(
    target: Target, identity: TaskIdentity, checkpoint: Checkpoint, arguments: ListArguments
) -> Manifest | None:
    if arguments.if_exists == "overwrite":
        # If the store fails, the rows are listed again, and replace the object.
        return checkpoint.ask_store(find_published, target, identity)
    # If the store fails, the task must fail and try again: it would take its own object for somebody else's.
    with target.place.errors("read"):
        return find_published(target, identity)


def _open_comparison(operator: BaseOperator, arguments: ListArguments, columns: Sequence[str]) -> Comparison | None:
    if arguments.compare_with is None:
        return None
    # lazy: fsspec
    from airflow_provider_whatsapp.storage.reader import ObjectReader
    from airflow_provider_whatsapp.tasks.comparison import Comparison

    earlier = ObjectReader("compare_with", arguments.compare_with, default_conn_id=arguments.output.conn_id)
    if not earlier.exists():
        operator.log.info("There is no %s to compare with", earlier.uri)
        return Comparison(None, columns)
    return Comparison(earlier, columns)


def _check_may_publish(
    target: Target, identity: TaskIdentity, checkpoint: Checkpoint, arguments: ListArguments
) -> None:
    if arguments.if_exists != "overwrite" and target.exists():
        _refuse_to_replace(f"{target.uri} already exists", arguments)
    if checkpoint.ask_store(is_of_another_mapped_task, target, identity):
        fail_for_object_of_another_task(target)


def _refuse_to_replace(reason: str, arguments: ListArguments) -> NoReturn:
    message = f"{reason}, and if_exists is {arguments.if_exists!r}"
    raise AirflowSkipException(message) if arguments.if_exists == "skip" else AirflowFailException(message)


def _check_empty(count: int, arguments: ListArguments) -> None:
    if count or arguments.if_empty == "succeed":
        return
    message = f"the listing is empty, and if_empty is {arguments.if_empty!r}"
    raise AirflowSkipException(message) if arguments.if_empty == "skip" else AirflowException(message)


def _announce(operator: BaseOperator, context: Context, job: Job[Any], manifest: Manifest) -> TaskResult:
    lineage = Lineage(job.inputs, manifest, job.columns)
    announce(operator, context, job.connection, lineage)
    return TaskResult(manifest, lineage)
