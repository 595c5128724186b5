"""Sends Airflow metrics about the calls, the rows, the waits and the token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_whatsapp._compat import load_stats
from airflow_provider_whatsapp.graph.errors import GraphRateLimitError

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.graph.errors import GraphError
    from airflow_provider_whatsapp.graph.flow import OnCall
    from airflow_provider_whatsapp.graph.usage import Usage

#: Type and description of each metric. All have the tag ``conn_id``, so that two apps do not overwrite each other.
METRICS = {
    "whatsapp.requests": ("counter", "Requests that were sent, repeated ones included."),
    "whatsapp.errors": (
        "counter",
        "Requests that ended in an error, even if a later attempt succeeded. The tag `error` is the class.",
    ),
    "whatsapp.throttled": ("counter", "Requests that the API refused because of a rate limit."),
    "whatsapp.api_usage": ("gauge", "Percentage of the rate limit that was used, as last reported by the API."),
    "whatsapp.rows": ("counter", "Rows that operators and sensors gave to XCom or wrote to an object."),
    "whatsapp.waited_seconds": ("counter", "Seconds that operators and sensors waited in a worker slot for the API."),
    "whatsapp.deferrals": ("counter", "Deferrals of operators because of a rate limit."),
    "whatsapp.token_days_left": (
        "gauge",
        "Days until the token expires or loses its access to data, whichever comes first. Sent by `debug_token()` and "
        "the connection test, and not for a token that does not expire.",
    ),
}


def count_calls(config: GraphConfig) -> OnCall:
    """Return a function that counts each request over a connection.

    :param config: the connection
    """
    tags = {"conn_id": config.conn_id}

    def count_call(usage: Usage | None, error: GraphError | None) -> None:
        stats = load_stats()
        stats.incr("whatsapp.requests", tags=tags)
        if error is not None:
            stats.incr("whatsapp.errors", tags={**tags, "error": type(error).__name__})
        if isinstance(error, GraphRateLimitError):
            stats.incr("whatsapp.throttled", tags=tags)
        if usage is not None:
            stats.gauge("whatsapp.api_usage", usage.percent, tags=tags)

    return count_call


def count(name: str, number: float, config: GraphConfig) -> None:
    """Add to a counter of a connection.

    :param name: a name in :data:`METRICS`
    :param number: what to add; nothing is sent for less than 1
    :param config: the connection
    """
    if number >= 1:
        load_stats().incr(name, int(number), tags={"conn_id": config.conn_id})


def gauge_token(days_left: float | None, config: GraphConfig) -> None:
    """Send the number of days until the token of a connection expires or loses its access to data.

    :param days_left: number of days, or None if it does not expire
    :param config: the connection
    """
    if days_left is not None:
        load_stats().gauge("whatsapp.token_days_left", round(days_left, 2), tags={"conn_id": config.conn_id})
