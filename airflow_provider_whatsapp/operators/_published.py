"""Tells a retry that an earlier try of the same task instance has published its object already.

A worker can be killed after it published the object and before Airflow knows of the success. No code of an operator
runs after that, so a record beside the object holds its manifest and says which task instance published it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp.storage.record import read_record, write_record

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.storage.target import Target


@dataclass(frozen=True, slots=True)
class Tries:
    """What the tries of one task instance have in common. Clearing a task begins a new series of tries.

    :param run: identifies the task and its DAG run; a digest in hex, as is ``owner``
    :param map_index: index of a mapped task, -1 for others
    :param series: grows when the task is cleared
    :param owner: identifies the task instance, its series of tries and what it lists; empty without a task instance
    :param may_be_continued: whether another process may go on with the work of this one, after a retry or a wait
    :param is_last: whether no retry follows
    """

    run: str
    map_index: int
    series: int
    owner: str
    may_be_continued: bool
    is_last: bool

    @classmethod
    def of(cls, context: Context, *, listing: Any, is_deferrable: bool) -> Tries:
        """The tries of the task instance that runs now.

        :param context: Airflow's context of the task; without a task instance in it, nothing can be continued
        :param listing: all on which the rows depend, as JSON
        :param is_deferrable: whether the task instance may wait without a worker
        """
        ti = context.get("ti")
        if ti is None:
            return cls("", -1, 0, "", may_be_continued=False, is_last=True)
        run = _digest([ti.dag_id, ti.run_id, ti.task_id])
        is_last = ti.try_number > ti.max_tries
        map_index = -1 if ti.map_index is None else ti.map_index
        return cls(
            run,
            map_index,
            ti.max_tries,
            _digest([run, map_index, ti.max_tries, listing]),
            may_be_continued=is_deferrable or not is_last,
            is_last=is_last,
        )


def find_published(target: Target, tries: Tries) -> dict[str, Any] | None:
    """The manifest of what an earlier try of this task instance has published, if that object is there now.

    :param target: address of the object
    :param tries: the tries of this task instance
    :raises OSError: if the store failed
    """
    record = read_record(target.store, target.key) if tries.owner else None
    if record is None or record.get("owner") != tries.owner:
        return None
    manifest = record.get("manifest")
    if not isinstance(manifest, dict) or not target.holds(manifest.get("bytes"), manifest.get("sha256")):
        return None
    return manifest


def record_published(target: Target, tries: Tries, manifest: dict[str, Any]) -> None:
    """Write down what is about to be published.

    :param target: address of the object
    :param tries: the tries of this task instance
    :param manifest: manifest of the object
    :raises OSError: if the store failed
    """
    write_record(
        target.store,
        target.key,
        {
            "run": tries.run,
            "map_index": tries.map_index,
            "series": tries.series,
            "owner": tries.owner,
            "manifest": manifest,
        },
        owner=tries.owner,
    )


def is_of_another_mapped_task(target: Target, tries: Tries) -> bool:
    """Whether another task of the same mapped operator has published the object in the same DAG run.

    An object from before the task was cleared does not count: the items that are mapped over may have had another
    order then.

    :param target: address of the object
    :param tries: the tries of this task instance
    :raises OSError: if the store failed
    """
    record = read_record(target.store, target.key) if tries.owner and tries.map_index >= 0 else None
    if record is None or record.get("run") != tries.run or not target.exists():
        return False
    series = record.get("series")
    return record.get("map_index") != tries.map_index and isinstance(series, int) and series >= tries.series


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
