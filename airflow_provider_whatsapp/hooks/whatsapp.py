"""Calls the Graph API over an Airflow connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_provider_whatsapp.get_provider_info import get_provider_info
from airflow_provider_whatsapp.graph import GraphError
from airflow_provider_whatsapp.graph.arguments import given
from airflow_provider_whatsapp.graph.errors import shorten
from airflow_provider_whatsapp.graph.query import build_edge_query, build_node_query
from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection, aload_connection, load_connection
from airflow_provider_whatsapp.hooks._diagnosis import (
    LONGEST_MESSAGE,
    TOKEN_QUERY,
    days_left,
    describe_token,
    diagnose,
    without_markup,
)
from airflow_provider_whatsapp.hooks._metrics import count_calls, gauge_token

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_whatsapp.graph.query import EdgeQuery, Query
    from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
    from airflow_provider_whatsapp.transport.sync import GraphClient

__all__ = ["WhatsAppHook"]

log = logging.getLogger(__name__)


class WhatsAppHook(BaseHook):
    """Reads WhatsApp Business Accounts (WABAs) and their edges: a complete list, or an error.

    Every method that lists raises :class:`~airflow_provider_whatsapp.graph.GraphError` when the listing cannot be
    completed, and ``ValueError`` before anything is sent if an argument is wrong.

    https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/client_whatsapp_business_accounts

    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``
    :param api_version: version of the Graph API, ``vN.0``, that overrides the one in the connection
    """

    conn_name_attr = "whatsapp_conn_id"
    default_conn_name = "whatsapp_default"
    conn_type = "whatsapp"
    hook_name = "WhatsApp Business"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the standard fields of the connection form for Airflow 3.1; later ones read the provider info."""
        behaviour = _declared_form()["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form for Airflow 3.1; later ones read the provider info."""
        # Not at the top, because only the API server of Airflow 3.1 has wtforms.
        from wtforms import PasswordField, StringField

        return {
            name: (PasswordField if declared["schema"].get("format") == "password" else StringField)(
                declared["label"], description=declared.get("description", "")
            )
            for name, declared in _declared_form()["conn-fields"].items()
        }

    def __init__(self, whatsapp_conn_id: str = default_conn_name, *, api_version: str | None = None) -> None:
        super().__init__()
        self.whatsapp_conn_id = given(whatsapp_conn_id, self.default_conn_name)
        self.api_version = given(api_version, None)

    def iter_wabas(
        self, business_id: str | int | None = None, *, relationship: str = "client", **query: Unpack[Query]
    ) -> Iterator[dict[str, Any]]:
        """Return an iterator over the WABAs of a business, with one page of them in memory.

        :param business_id: id of the business portfolio; by default the one in the connection
        :param relationship: ``"client"`` for accounts that clients share with the business, ``"owned"`` for its own
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return self._iter_rows(self._connection.waba_query(business_id, relationship=relationship, **query))

    def list_wabas(
        self, business_id: str | int | None = None, *, relationship: str = "client", **query: Unpack[Query]
    ) -> list[dict[str, Any]]:
        """Return the WABAs of a business as a list.

        :param business_id: id of the business portfolio; by default the one in the connection
        :param relationship: ``"client"`` for accounts that clients share with the business, ``"owned"`` for its own
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return list(self.iter_wabas(business_id, relationship=relationship, **query))

    def iter_edge(
        self, path: str, *, params: Mapping[str, Any] | None = None, **query: Unpack[Query]
    ) -> Iterator[dict[str, Any]]:
        """Return an iterator over the rows of any paged edge, with one page of them in memory.

        Rows without an ``id``, such as analytics, are not deduplicated.

        :param path: node and edge, e.g. ``"<waba id>/phone_numbers"``
        :param params: other query parameters, e.g. ``{"business": "1906385232743451"}``; values that are not ``str``
            are sent as JSON, and times as unix seconds
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`. Without ``fields``, an edge that the
            package does not know is returned with the API's default fields
        """
        return self._iter_rows(build_edge_query(path, params=params, **query))

    def iter_waba_edge(
        self,
        waba_ids: Any,
        edge: str,
        *,
        params: Mapping[str, Any] | None = None,
        max_concurrency: int = 10,
        on_account_error: str = "fail",
        **query: Unpack[Query],
    ) -> Iterator[dict[str, Any]]:
        """Return an iterator over the rows of one edge of many accounts, in the order of the accounts.

        ``waba_id`` is the first key of each row.

        :param waba_ids: ids, rows with an ``id`` (also an iterator, such as ``iter_wabas()``), the manifest that
            ``WhatsAppListWabasOperator`` returned, or the address of an object with such rows. A repeated account is
            read once
        :param edge: name of the edge, e.g. ``"phone_numbers"``
        :param params: other query parameters of the edge, see :meth:`iter_edge`
        :param max_concurrency: number of accounts to read at once, at most 50
        :param on_account_error: ``"fail"``, or ``"skip"`` to leave out accounts that are gone or that the token is not
            allowed to read, with a warning in the log. If all accounts are left out, the first reason is raised
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`; ``max_items`` counts the rows of all
            accounts, and ``ownership_types``, ``created_after`` and ``created_before`` cannot be given
        :raises ValueError: even during the listing, if an object or an iterator turns out to hold anything but accounts
        """
        # lazy: SQLite
        from airflow_provider_whatsapp.hooks._waba_edge import AccountEdgeReader, WabaEdgeQuery

        edge_query = WabaEdgeQuery.build(
            waba_ids,
            edge,
            params=params,
            max_concurrency=max_concurrency,
            on_account_error=on_account_error,
            **query,
        )
        return iter(AccountEdgeReader(self._client, edge_query))

    def iter_businesses(self, **query: Unpack[Query]) -> Iterator[dict[str, Any]]:
        """Return an iterator over the businesses that the token can see.

        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        return self.iter_edge("me/businesses", **query)

    def get(
        self, path: str, *, fields: str | Sequence[str] | None = None, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return one node.

        :param path: id of the node, or ``me``
        :param fields: sequence of names or comma string, nested ``{}`` allowed; ``id,name`` by default
        :param params: other query parameters; values that are not ``str`` are sent as JSON
        """
        return self._client.node(build_node_query(path, fields=fields, params=params))

    def debug_token(self) -> dict[str, Any]:
        """Return the type, app, validity, expiry and permissions of the token.

        https://developers.facebook.com/docs/graph-api/reference/debug_token
        """
        return _gauged(describe_token(self._client.node(TOKEN_QUERY)), self._connection)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection works, and a message that says what works and what does not; never raises."""
        try:
            diagnosis = diagnose(self._connection, now=datetime.now(timezone.utc))
        except (ValueError, GraphError) as error:
            # Airflow tests a connection under a temporary id, which means nothing to the reader.
            message = str(error).removeprefix(f"connection {self.whatsapp_conn_id!r}, ")
            return False, shorten(without_markup(message), LONGEST_MESSAGE)
        except Exception as error:
            # Leave out the exception's text: it comes from another library and may contain a secret.
            return False, f"The connection could not be tested: {type(error).__name__}."
        for warning in diagnosis.warnings:
            # `airflow connections test` prints the message only if the test fails; with --verbose it prints log lines.
            log.warning("%s", warning)
        return diagnosis.ok, str(diagnosis)

    async def aiter_wabas(
        self, business_id: str | int | None = None, *, relationship: str = "client", **query: Unpack[Query]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the WABAs of a business, for an event loop.

        :param business_id: id of the business portfolio; by default the one in the connection
        :param relationship: ``"client"`` for accounts that clients share with the business, ``"owned"`` for its own
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        connection = await self._aload_connection()
        async with aclosing(
            _aiter_rows(connection, connection.waba_query(business_id, relationship=relationship, **query))
        ) as rows:
            async for row in rows:
                yield row

    async def aiter_edge(
        self, path: str, *, params: Mapping[str, Any] | None = None, **query: Unpack[Query]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the rows of any paged edge, for an event loop.

        :param path: node and edge, e.g. ``"<waba id>/phone_numbers"``
        :param params: other query parameters, see :meth:`iter_edge`
        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        edge_query = build_edge_query(path, params=params, **query)
        async with aclosing(_aiter_rows(await self._aload_connection(), edge_query)) as rows:
            async for row in rows:
                yield row

    async def aiter_businesses(self, **query: Unpack[Query]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the businesses that the token can see, for an event loop.

        :param query: see :class:`~airflow_provider_whatsapp.graph.query.Query`
        """
        async with aclosing(self.aiter_edge("me/businesses", **query)) as rows:
            async for row in rows:
                yield row

    async def aget(
        self, path: str, *, fields: str | Sequence[str] | None = None, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return one node, for an event loop.

        :param path: id of the node, or ``me``
        :param fields: sequence of names or comma string, nested ``{}`` allowed; ``id,name`` by default
        :param params: other query parameters; values that are not ``str`` are sent as JSON
        """
        query = build_node_query(path, fields=fields, params=params)
        async with _open_async_client(await self._aload_connection()) as client:
            return await client.node(query)

    async def adebug_token(self) -> dict[str, Any]:
        """Return the type, app, validity, expiry and permissions of the token, for an event loop.

        https://developers.facebook.com/docs/graph-api/reference/debug_token
        """
        connection = await self._aload_connection()
        async with _open_async_client(connection) as client:
            return _gauged(describe_token(await client.node(TOKEN_QUERY)), connection)

    def _iter_rows(self, query: EdgeQuery) -> Iterator[dict[str, Any]]:
        for page in self._client.pages(query):
            yield from page.rows

    @cached_property
    def _client(self) -> GraphClient:
        # lazy: an HTTP library
        from airflow_provider_whatsapp.transport.sync import GraphClient

        connection = self._connection
        return GraphClient(
            connection.config, on_call=count_calls(connection.config), read_connection=connection.read_config
        )

    @cached_property
    def _connection(self) -> WhatsAppConnection:
        return load_connection(self, self.whatsapp_conn_id, api_version=self.api_version)

    async def _aload_connection(self) -> WhatsAppConnection:
        return await aload_connection(self, self.whatsapp_conn_id, api_version=self.api_version)


def _declared_form() -> dict[str, Any]:
    form: dict[str, Any] = get_provider_info()["connection-types"][0]
    return form


def _open_async_client(connection: WhatsAppConnection) -> AsyncGraphClient:
    # lazy: an HTTP library
    from airflow_provider_whatsapp.transport.aio import AsyncGraphClient

    return AsyncGraphClient(
        connection.config, on_call=count_calls(connection.config), read_connection=connection.aread_config
    )


def _gauged(token: dict[str, Any], connection: WhatsAppConnection) -> dict[str, Any]:
    gauge_token(days_left(token, datetime.now(timezone.utc)), connection.config)
    return token


async def _aiter_rows(connection: WhatsAppConnection, query: EdgeQuery) -> AsyncGenerator[dict[str, Any], None]:
    async with _open_async_client(connection) as client, aclosing(client.pages(query)) as pages:
        async for page in pages:
            for row in page.rows:
                yield row
