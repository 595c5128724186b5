"""Where the Graph API is and how to reach it."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_whatsapp import __version__
from airflow_provider_whatsapp.graph.messages import Credentials, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphConfig:
    """Where the Graph API is and how to reach it, checked.

    :param credentials: token and app secret
    :param base_url: ``https://host[:port][/path]``, or ``http://`` on loopback, without a trailing slash
    :param version: ``vN.0``
    :param timeout: seconds for one HTTP attempt: connecting, waiting for the answer, and its last byte
    :param proxy: address of an HTTP proxy; None leaves that to the usual environment variables
    :param ca_bundle: path of a PEM file or folder with the CAs to trust; None leaves that to the environment
    """

    credentials: Credentials
    base_url: str
    version: str
    timeout: float = 30.0
    # A proxy's address may hold its password.
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every request says of itself."""
        return {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"airflow-provider-whatsapp/{__version__}",
        }

    @property
    def on_loopback(self) -> bool:
        """Whether requests go to this machine unencrypted; then no proxy may see them."""
        return self.base_url.startswith("http://")

    def url(self, request: Request) -> str:
        """Address of the request, without its parameters."""
        return f"{self.base_url}/{self.version}/{request.path}"
