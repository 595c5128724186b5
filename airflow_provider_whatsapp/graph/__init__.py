"""Decides what to request from the Graph API and what its responses mean; does no I/O itself.

The errors that a listing can raise are public; import them from here. The modules of this package are private.
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
