"""Recognizes an object that an earlier try of the same task instance has already published.

A worker can be killed after it has published the object, but before Airflow stores that the task succeeded. Airflow
then tries the task again. A record beside the object has its manifest and identifies the task instance, so that the
new try succeeds with that manifest instead of listing everything again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_whatsapp.storage.names import hidden_path
from airflow_provider_whatsapp.storage.staging import StagingFolder

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.rows import Manifest
    from airflow_provider_whatsapp.storage.store import Store
    from airflow_provider_whatsapp.storage.target import Target

# A record has about 700 bytes, and up to 130 KB if its manifest names accounts that were left out or have changed. A
# larger file is not a record, and is not read.
_LONGEST_RECORD = 256 * 1024


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """Identifies a task instance and what it lists. Clearing a task starts a new series of tries.

    :param run: identifies the task and its DAG run; a hex digest, like ``listing`` and ``owner``
    :param map_index: index of a mapped task, -1 for others
    :param listing: identifies what the task lists
    :param owner: identifies the task instance, its series of tries and what it lists; empty without a task instance
    :param may_be_continued: whether another process may resume this work, after a retry or a wait
    :param is_last: whether no retry follows
    """

    run: str
    map_index: int
    listing: str
    owner: str
    may_be_continued: bool
    is_last: bool

    @classmethod
    def of(cls, context: Context, *, listing: Any, is_deferrable: bool) -> TaskIdentity:
        """Return the identity of the running task instance.

        :param context: Airflow's context of the task; without a task instance in it, nothing can be resumed
        :param listing: everything that the rows depend on, as JSON
        :param is_deferrable: whether the task may defer
        """
        ti = context.get("ti")
        if ti is None:
            return cls("", -1, "", "", may_be_continued=False, is_last=True)
        run = _digest([ti.dag_id, ti.run_id, ti.task_id])
        is_last = ti.try_number > ti.max_tries
        map_index = -1 if ti.map_index is None else ti.map_index
        return cls(
            run,
            map_index,
            _digest(listing),
            _digest([run, map_index, ti.max_tries, listing]),
            may_be_continued=is_deferrable or not is_last,
            is_last=is_last,
        )


def find_published(target: Target, identity: TaskIdentity) -> Manifest | None:
    """Return the manifest that an earlier try of this task instance has published, if that object still exists.

    :param target: address of the object
    :param identity: identifies this task instance and what it lists
    :raises OSError: if the store failed
    """
    record = read_record(target.store, target.key) if identity.owner else None
    if record is None or record.get("owner") != identity.owner:
        return None
    manifest = record.get("manifest")
    if not isinstance(manifest, dict) or not target.holds(manifest.get("bytes"), manifest.get("sha256")):
        return None
    return cast("Manifest", manifest)


def record_published(target: Target, identity: TaskIdentity, manifest: Manifest) -> None:
    """Record what is about to be published.

    :param target: address of the object
    :param identity: identifies this task instance and what it lists
    :param manifest: manifest of the object
    :raises OSError: if the store failed
    """
    if not identity.owner:
        return
    record = {
        "run": identity.run,
        "map_index": identity.map_index,
        "listing": identity.listing,
        "owner": identity.owner,
        "manifest": manifest,
    }
    write_record(target.store, target.key, record, owner=identity.owner)


def is_of_another_mapped_task(target: Target, identity: TaskIdentity) -> bool:
    """Return whether another task of the same mapped operator has published other rows there in the same DAG run.

    If it listed the same, it may be this item: when a task is cleared, the items may have another order.

    :param target: address of the object
    :param identity: identifies this task instance and what it lists
    :raises OSError: if the store failed
    """
    record = read_record(target.store, target.key) if identity.owner and identity.map_index >= 0 else None
    if record is None or record.get("run") != identity.run or not target.exists():
        return False
    return record.get("map_index") != identity.map_index and record.get("listing") != identity.listing


def read_record(store: Store, key: str) -> dict[str, Any] | None:
    """Return the record of the object, or None if there is none that can be read.

    :param store: store of the object
    :param key: path of the object within the store
    :raises OSError: if the store failed
    """
    try:
        with store.open(record_path(key)) as file:
            record = json.loads(file.read(_LONGEST_RECORD))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def write_record(store: Store, key: str, record: dict[str, Any], *, owner: str) -> None:
    """Write the record of the object, replacing an earlier one.

    :param store: store of the object
    :param key: path of the object within the store
    :param record: JSON of less than 256 KB
    :param owner: identifies the task instance that writes; letters and digits
    :raises OSError: if the store failed
    """
    with StagingFolder() as folder:
        staged = folder / "record"
        staged.write_text(json.dumps(record), encoding="utf-8")
        store.upload(staged, record_path(key), content_type="application/json", owner=owner)


def record_path(key: str) -> str:
    """Return the path of the record of an object.

    :param key: path of the object within the store
    """
    return hidden_path(key, "airflow-record")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
