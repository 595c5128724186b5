"""Remembers beside an object which task instance published it, and when.

A worker can be killed after it published its object and before Airflow knows that the task succeeded. The record tells
the retry that the object is its own, so that it neither lists again nor takes the object for somebody else's.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_whatsapp.storage.names import hidden_path
from airflow_provider_whatsapp.storage.staging import StagingFolder
from airflow_provider_whatsapp.storage.store import Store

# A record has some 700 bytes, and up to 130 KB if its manifest names accounts that were left out or have changed. Do
# not read more of what somebody else may have put there.
_LONGEST_RECORD = 256 * 1024


def read_record(store: Store, key: str) -> dict[str, Any] | None:
    """The record of the object, or None when there is none that can be read.

    :param store: store of the object
    :param key: path of the object within the store
    :raises OSError: if the store failed
    """
    try:
        with store.open(record_path(key)) as file:
            record = json.loads(file.read(_LONGEST_RECORD))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(store: Store, key: str, record: dict[str, Any], *, owner: str) -> None:
    """Write the record of the object, in place of the one before.

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
    """The path of the record of an object.

    :param key: path of the object within the store
    """
    return hidden_path(key, "airflow-record")
