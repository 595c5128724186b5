"""Decides what to ask the Graph API and what its answers mean, without doing any input or output itself.

The errors that a listing can end in are public and are imported from here. The modules of this package are private.
"""

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
