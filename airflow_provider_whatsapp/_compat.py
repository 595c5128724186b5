"""What differs between the supported versions of Airflow: where names are, and which calls hold the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from airflow.sdk import conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
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
    """Airflow's metrics, with the methods ``incr`` and ``gauge``."""
    # Imported here, because parsing a DAG file must not wait for it.
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # Airflow 3.1
        from airflow.stats import Stats
    return Stats


async def aget_connection(hook: BaseHook, conn_id: str) -> Connection:
    """The connection, read without holding the event loop.

    :param hook: hook to ask, because a subclass may read its connections in another way
    :param conn_id: id of the connection
    """
    from airflow.sdk import Connection
    from asgiref.sync import sync_to_async

    # Before Airflow 3.3.2, which also added `aextra_dejson`, the hook's aget_connection masked secrets by a synchronous
    # call, which cannot be made on the event loop.
    if hasattr(Connection, "aextra_dejson"):
        return await hook.aget_connection(conn_id)
    connection: Connection = await sync_to_async(hook.get_connection)(conn_id)
    return connection


async def amask_secret(secret: str) -> None:
    """Mask the secret in Airflow's logs, without holding the event loop.

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
    """The state store of each asset that a trigger is attached to, with ``aget`` and ``aset``.

    :param accessors: the trigger's ``asset_state_store``, or None
    """
    # Airflow runs one trigger for all assets whose watchers have the same arguments. Its public methods need the asset
    # then, which the trigger does not know.
    return [] if accessors is None else [*accessors._by_name.values(), *accessors._by_uri.values()]
