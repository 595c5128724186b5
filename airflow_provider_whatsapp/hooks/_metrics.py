"""Sends Airflow metrics about the calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_whatsapp._compat import load_stats

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.usage import Usage


def count_call(usage: Usage | None, is_throttled: bool) -> None:
    """Send the metrics ``whatsapp.requests``, ``whatsapp.throttled`` and ``whatsapp.api_usage`` of one request.

    :param usage: rate-limit usage reported by its response
    :param is_throttled: whether the API refused the request because of a rate limit
    """
    stats = load_stats()
    stats.incr("whatsapp.requests")
    if is_throttled:
        stats.incr("whatsapp.throttled")
    if usage is not None:
        stats.gauge("whatsapp.api_usage", usage.percent)
