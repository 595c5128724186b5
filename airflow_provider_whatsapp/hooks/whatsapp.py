"""The calls of the Graph API that a DAG makes, over an Airflow connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_provider_whatsapp import _compat
from airflow_provider_whatsapp.get_provider_info import get_provider_info
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.query import (
    CLIENT_WABAS,
    OWNED_WABAS,
    EdgeRead,
    business_id_from,
    edge_read,
    node_read,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.graph.query import Query
    from airflow_provider_whatsapp.graph.retry import RetryPolicy
    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
    from airflow_provider_whatsapp.transport.sync import GraphClient

#: Edges of a business that list WABAs, by the short name that users give.
EDGES = {"client": CLIENT_WABAS, "owned": OWNED_WABAS}


class WhatsAppHook(BaseHook):
    """Reads WhatsApp Business Accounts (WABAs) and what hangs on them: a complete list, or an error.

    Every listing raises :class:`~airflow_provider_whatsapp.graph.GraphError` when it cannot be completed, and
    ``ValueError`` before anything is sent when what it was asked for makes no sense.

    https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/client_whatsapp_business_accounts

    :param whatsapp_conn_id: connection of type ``whatsapp``
    :param api_version: ``vN.0``; beats the one in the connection
    """

    conn_name_attr = "whatsapp_conn_id"
    default_conn_name = "whatsapp_default"
    conn_type = "whatsapp"
    hook_name = "WhatsApp Business"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The form's standard fields, for Airflow 3.1; later ones read the provider's declaration."""
        behaviour = _declared_form()["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form's own fields, for Airflow 3.1; later ones read the provider's declaration."""
        # Here, since only that Airflow's server has them.
        from wtforms import PasswordField, StringField

        return {
            name: (PasswordField if declared["schema"].get("format") == "password" else StringField)(
                declared["label"], description=declared.get("description", "")
            )
            for name, declared in _declared_form()["conn-fields"].items()
        }

    def __init__(self, whatsapp_conn_id: str = default_conn_name, *, api_version: str | None = None) -> None:
        super().__init__()
        self.whatsapp_conn_id = whatsapp_conn_id
        self.api_version = api_version

    def iter_client_wabas(
        self, business_id: str | int | None = None, **query: Unpack[Query]
    ) -> Iterator[dict[str, Any]]:
        """The WABAs that clients share with the business, one by one, in constant memory.

        :param business_id: business portfolio id; default that of the connection
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return self._rows(self.waba_read("client", business_id, **query))

    def list_client_wabas(self, business_id: str | int | None = None, **query: Unpack[Query]) -> list[dict[str, Any]]:
        """The WABAs that clients share with the business.

        :param business_id: business portfolio id; default that of the connection
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return list(self.iter_client_wabas(business_id, **query))

    def iter_owned_wabas(
        self, business_id: str | int | None = None, **query: Unpack[Query]
    ) -> Iterator[dict[str, Any]]:
        """The WABAs that the business owns, one by one, in constant memory.

        https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/owned_whatsapp_business_accounts

        :param business_id: business portfolio id; default that of the connection
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return self._rows(self.waba_read("owned", business_id, **query))

    def list_owned_wabas(self, business_id: str | int | None = None, **query: Unpack[Query]) -> list[dict[str, Any]]:
        """The WABAs that the business owns.

        :param business_id: business portfolio id; default that of the connection
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return list(self.iter_owned_wabas(business_id, **query))

    def iter_edge(self, path: str, **query: Unpack[Query]) -> Iterator[dict[str, Any]]:
        """The rows of any paged edge, one by one, in constant memory.

        :param path: node and edge, e.g. ``"<waba id>/phone_numbers"``
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`; without ``fields``, edges other
            than those of accounts, phone numbers, templates and businesses give ids only
        """
        return self._rows(edge_read(path, **query))

    def iter_businesses(self, **query: Unpack[Query]) -> Iterator[dict[str, Any]]:
        """The businesses that the token can see, one by one.

        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return self.iter_edge("me/businesses", **query)

    def get(
        self, path: str, *, fields: str | Sequence[str] | None = None, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One node.

        :param path: its id, or ``me``
        :param fields: sequence of names or comma string, nested ``{}`` allowed; default ``id,name``
        :param params: further query parameters
        """
        return self.get_conn().node(*node_read(path, fields=fields, params=params))

    def debug_token(self) -> dict[str, Any]:
        """What the token is: type, app, validity, expiry, scopes."""
        from airflow_provider_whatsapp.hooks._diagnosis import read_token

        return read_token(self.get_conn())

    def test_connection(self) -> tuple[bool, str]:
        """Whether the connection works, and a message that says what does and what does not. Never raises."""
        from airflow_provider_whatsapp.hooks._diagnosis import diagnose

        try:
            diagnosis = diagnose(self.get_conn(), self._connection, now=datetime.now(timezone.utc))
        except (ValueError, GraphError) as error:
            # Airflow tests under a name that nobody gave.
            return False, str(error).removeprefix(f"connection {self.whatsapp_conn_id!r}, ")
        except Exception as error:
            # No text: it was written by nobody here, and may hold anything.
            return False, f"The connection could not be tested: {type(error).__name__}."
        return diagnosis.ok, str(diagnosis)

    async def aiter_client_wabas(
        self, business_id: str | int | None = None, **query: Unpack[Query]
    ) -> AsyncIterator[dict[str, Any]]:
        """The WABAs that clients share with the business, for an event loop.

        :param business_id: business portfolio id; default that of the connection
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        connection = await self._aconnection()
        read = _waba_read("client", _business_id(business_id, connection), query)
        async with aclosing(_arows(connection, read)) as rows:
            async for row in rows:
                yield row

    async def aiter_edge(self, path: str, **query: Unpack[Query]) -> AsyncIterator[dict[str, Any]]:
        """The rows of any paged edge, for an event loop.

        :param path: node and edge, e.g. ``"<waba id>/phone_numbers"``
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        read = edge_read(path, **query)
        async with aclosing(_arows(await self._aconnection(), read)) as rows:
            async for row in rows:
                yield row

    async def aget(
        self, path: str, *, fields: str | Sequence[str] | None = None, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One node, for an event loop.

        :param path: its id, or ``me``
        :param fields: sequence of names or comma string, nested ``{}`` allowed; default ``id,name``
        :param params: further query parameters
        """
        request, wanted = node_read(path, fields=fields, params=params)
        async with _async_client(await self._aconnection()) as client:
            return await client.node(request, wanted)

    async def aget_config(self) -> GraphConfig:
        """What the connection says now, read anew each time, for an event loop."""
        return (await self._aconnection()).config

    def get_conn(self, *, policy: RetryPolicy | None = None) -> GraphClient:
        """The client that the hook's own calls go through, or one that is as patient as it is told.

        :param policy: how patient to be; default that of the hook's own calls
        """
        if policy is None:
            return self._client
        from airflow_provider_whatsapp.transport.sync import GraphClient

        return GraphClient(self._connection.config, policy=policy)

    def waba_read(self, edge: str, business_id: str | int | None = None, **query: Unpack[Query]) -> EdgeRead:
        """What :meth:`GraphClient.pages` needs to list the WABAs of a business page by page.

        :param edge: ``"client"`` or ``"owned"``
        :param business_id: business portfolio id; default that of the connection
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        :raises ValueError: naming the parameter and what was wrong with it
        """
        if business_id is None:
            business_id = _business_id(None, self._connection)
        return _waba_read(edge, business_id_from(business_id), query)

    def _rows(self, read: EdgeRead) -> Iterator[dict[str, Any]]:
        for page in self.get_conn().pages(read):
            yield from page.rows

    @cached_property
    def _client(self) -> GraphClient:
        # Here, since neither library shall load while a DAG file is parsed.
        from airflow_provider_whatsapp.transport.sync import GraphClient

        return GraphClient(self._connection.config)

    @cached_property
    def _connection(self) -> WhatsAppConnection:
        from airflow_provider_whatsapp.hooks._connection import read_connection

        connection = read_connection(self.get_connection(self.whatsapp_conn_id), api_version=self.api_version)
        for secret in connection.config.credentials.secrets:
            mask_secret(secret)
        return connection

    async def _aconnection(self) -> WhatsAppConnection:
        from airflow_provider_whatsapp.hooks._connection import read_connection

        connection = read_connection(
            await _compat.aget_connection(self, self.whatsapp_conn_id), api_version=self.api_version
        )
        for secret in connection.config.credentials.secrets:
            await _compat.amask_secret(secret)
        return connection


def _declared_form() -> dict[str, Any]:
    form: dict[str, Any] = get_provider_info()["connection-types"][0]
    return form


def _waba_read(edge: str, business_id: str, query: Query) -> EdgeRead:
    if edge not in EDGES:
        raise ValueError(f"edge: {edge!r} is not one of {', '.join(map(repr, EDGES))}")
    return edge_read(f"{business_id}/{EDGES[edge]}", **query)


def _business_id(business_id: str | int | None, connection: WhatsAppConnection) -> str:
    if business_id is not None:
        return business_id_from(business_id)
    if connection.business_id is None:
        raise ValueError(
            "business_id: neither given nor in the connection's extra; Business Settings, Business Info shows it, "
            "e.g. '1906385232743451'"
        )
    return connection.business_id


def _async_client(connection: WhatsAppConnection) -> AsyncGraphClient:
    from airflow_provider_whatsapp.transport.aio import AsyncGraphClient

    return AsyncGraphClient(connection.config)


async def _arows(connection: WhatsAppConnection, read: EdgeRead) -> AsyncGenerator[dict[str, Any], None]:
    async with _async_client(connection) as client, aclosing(client.pages(read)) as pages:
        async for page in pages:
            for row in page.rows:
                yield row
