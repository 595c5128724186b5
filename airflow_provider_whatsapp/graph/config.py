"""Where the Graph API is and how to reach it."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_whatsapp import __version__
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.messages import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphConfig:
    """The settings of an Airflow connection, checked and ready for a client.

    :param credentials: access token and app secret
    :param base_url: ``https://host[:port][/path]`` without a trailing slash; ``http://`` only for this machine
    :param version: version of the Graph API, ``vN.0``
    :param timeout: seconds for one HTTP attempt, from connecting to the last byte of the response
    :param proxy: address of an HTTP proxy; None uses the usual environment variables
    :param ca_bundle: path of a PEM file or directory with the certificate authorities (CAs) to trust; None uses the
        usual environment variables
    :param conn_id: id of the Airflow connection, for metrics
    """

    credentials: Credentials
    base_url: str
    version: str
    timeout: float = 30.0
    # Not in the repr, because the address of a proxy may contain a password.
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    # Not compared, so that two connections to the same app share what they read.
    conn_id: str = field(default="", compare=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that are the same for every request."""
        return {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"airflow-provider-whatsapp/{__version__}",
        }

    @property
    def is_unencrypted(self) -> bool:
        """Whether requests are sent over plain HTTP, which is allowed only on this machine.

        A proxy must not be used then, because it would see the token.
        """
        return self.base_url.startswith("http://")

    def url(self, request: Request) -> str:
        """Return the URL of a request, without its query parameters."""
        return f"{self.base_url}/{self.version}/{request.path}"
