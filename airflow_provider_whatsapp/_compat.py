"""Hides the differences between the supported versions of Airflow.

Airflow parses DAG files again and again, so modules that load slowly are imported within functions instead of at the
top. A comment ``# lazy: X`` marks such an import, where X is what would slow down the parsing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from airflow.sdk import conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferred,
    )
except ImportError:  # Airflow 3.1
    from airflow.configuration import conf  # type: ignore[assignment]
    from airflow.exceptions import (  # type: ignore[attr-defined,no-redef]
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferred,
    )

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, Connection

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "TaskDeferred",
    "aget_connection",
    "amask_secret",
    "conf",
    "load_stats",
    "stores_of_watched_assets",
]


def load_stats() -> Any:
    """Return Airflow's metrics, with the methods ``incr`` and ``gauge``."""
    # lazy: the metrics client
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # Airflow 3.1
        from airflow.stats import Stats
    return Stats


async def aget_connection(hook: BaseHook, conn_id: str) -> Connection:
    """Return the connection, read without blocking the event loop.

    :param hook: hook to read it with, because a subclass may read its connections differently
    :param conn_id: id of the connection
    """
    from airflow.sdk import Connection
    from asgiref.sync import sync_to_async

    # Before Airflow 3.3.2, which also added `aextra_dejson`, the hook's aget_connection masked secrets with a
    # synchronous call, which is not possible on the event loop.
    if hasattr(Connection, "aextra_dejson"):
        return await hook.aget_connection(conn_id)
    connection: Connection = await sync_to_async(hook.get_connection)(conn_id)
    return connection


async def amask_secret(secret: str) -> None:
    """Mask the secret in Airflow's logs, without blocking the event loop.

    :param secret: text to mask
    """
    try:
        from airflow.sdk.log import amask_secret as airflow_amask_secret
    except ImportError:  # before Airflow 3.3
        from airflow.sdk.log import mask_secret
        from asgiref.sync import sync_to_async

        await sync_to_async(mask_secret)(secret)
    else:
        await airflow_amask_secret(secret)


def stores_of_watched_assets(accessors: Any) -> list[Any]:
    """Return the state store of each asset that a trigger is attached to, with ``aget`` and ``aset``.

    :param accessors: the trigger's ``asset_state_store``, or None
    """
    # Airflow runs one trigger for all assets whose watchers have the same arguments. The public methods then need the
    # asset, which the trigger does not know.
    return [] if accessors is None else [*accessors._by_name.values(), *accessors._by_uri.values()]
