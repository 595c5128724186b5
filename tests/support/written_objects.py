"""Writes objects as an operator does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow_provider_whatsapp.storage.target import StoredObject, Target


def write_object(
    target: Target, rows: Iterable[dict[str, Any]], columns: Sequence[str], *, replace: bool = True
) -> StoredObject:
    """Stage and publish an object.

    :param target: address of the object
    :param rows: its rows
    :param columns: columns of a CSV or of Parquet
    :param replace: whether an existing object may be replaced
    """
    with target.stage(rows, columns) as staged:
        staged.publish(replace=replace)
        return staged.stored
