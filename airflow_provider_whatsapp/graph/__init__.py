"""The Graph API as pure logic: no socket, no clock, no file; the errors it can end in are here to import."""

from airflow_provider_whatsapp.graph.errors import (
    GraphApiError,
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
)

__all__ = [
    "GraphApiError",
    "GraphError",
    "GraphPermissionError",
    "GraphProtocolError",
    "GraphRateLimitError",
    "GraphRequestError",
    "GraphServerError",
    "GraphTokenError",
    "GraphTransportError",
]
