"""Remembers beside an object which task instance published it, and when.

A worker can be killed after it published its object and before Airflow knows that the task succeeded. The record tells
the retry that the object is its own, so that it neither lists again nor takes the object for somebody else's.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_whatsapp.storage.publish import hidden_path, publish
from airflow_provider_whatsapp.storage.staging import StagingFolder

# A record has some 700 bytes, and up to 130 KB if its manifest names accounts that were left out or have changed. Do
# not read more of what somebody else may have put there.
_LONGEST_RECORD = 256 * 1024


def read_record(fs: Any, key: str) -> dict[str, Any] | None:
    """The record of the object, or None when there is none that can be read.

    :param fs: fsspec file system of the object
    :param key: path of the object within the store
    :raises OSError: if the store failed
    """
    fs.invalidate_cache()
    try:
        with fs.open(record_path(key), "rb") as file:
            record = json.loads(file.read(_LONGEST_RECORD))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(fs: Any, key: str, record: dict[str, Any], *, owner: str) -> None:
    """Write the record of the object, in place of the one before.

    :param fs: fsspec file system of the object
    :param key: path of the object within the store
    :param record: JSON of less than 256 KB
    :param owner: tells the task instance that writes from others; letters and digits
    :raises OSError: if the store failed
    """
    path = record_path(key)
    with StagingFolder() as folder:
        staged = folder / "record"
        staged.write_text(json.dumps(record), encoding="utf-8")
        publish(staged, fs, path, uri=path, owner=owner, content_type="application/json")


def record_path(key: str) -> str:
    """The path of the record of an object.

    :param key: path of the object within the store
    """
    return hidden_path(key, "airflow-record")
