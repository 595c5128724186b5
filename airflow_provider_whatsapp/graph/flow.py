"""What to send, when to wait and when a listing is complete: decided here once, carried out by both clients.

A flow is a generator. It yields a :class:`Request` to send and is sent the :class:`Response` or the
:class:`GraphError` that came of it; it yields a :class:`Wait` to sleep; and it yields what was read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from airflow_provider_whatsapp.graph.errors import (
    GraphError,
    GraphProtocolError,
    GraphServerError,
    error_from,
)
from airflow_provider_whatsapp.graph.fields import Field
from airflow_provider_whatsapp.graph.messages import Credentials, Request, Response, header, unpack
from airflow_provider_whatsapp.graph.pages import Listing, Page, is_nested_edge, parse_json, parse_page
from airflow_provider_whatsapp.graph.query import EdgeRead
from airflow_provider_whatsapp.graph.retry import RetryPolicy
from airflow_provider_whatsapp.graph.usage import Usage, retry_after

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep before going on.

    :param seconds: how long
    """

    seconds: float


#: What came of a request; None after anything else that a flow yields.
Outcome: TypeAlias = Response | GraphError | None
_Read = TypeVar("_Read")
_Returned = TypeVar("_Returned")
#: Yields requests, waits and what was read; takes outcomes; returns what the flow that calls it needs.
Flow: TypeAlias = Generator[Request | Wait | _Read, Outcome, _Returned]

_PATH_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


class GraphFlow:
    """The flow of one read, a node or a whole listing.

    :param credentials: taken out of whatever the API answers
    :param version: of the Graph API that is asked for
    :param policy: how patient to be
    :param random: gives numbers from 0 to 1
    :param answered_versions: versions other than the one asked for that were warned about already
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        version: str,
        policy: RetryPolicy,
        random: Callable[[], float],
        answered_versions: set[str],
    ) -> None:
        self._credentials = credentials
        self._version = version
        self._policy = policy
        self._random = random
        self._answered_versions = answered_versions
        self._waited = 0.0

    def pages(self, read: EdgeRead) -> Flow[Page, None]:
        """Yield the pages of an edge, to its end."""
        listing = Listing(read)
        while listing.more:
            page = yield from self._next_page(listing)
            for row in page.rows:
                yield from self._complete(row, read.fields)
            yield page

    def node(self, request: Request, fields: Sequence[Field] = ()) -> Flow[dict[str, Any], None]:
        """Yield one node."""
        node, _ = yield from self._read(request)
        paging = node.get("paging")
        if isinstance(paging, dict) and paging.get("next") is not None:
            raise GraphProtocolError(f"{request.path} is an edge of several pages, not a node: read it with iter_edge")
        yield from self._complete(node, fields)
        yield node

    def _next_page(self, listing: Listing) -> Flow[_Read, Page]:
        while True:
            try:
                payload, usage = yield from self._read(listing.request())
            except GraphServerError as error:
                if not (error.too_much_data and listing.shrink()):
                    raise
                log.warning("%s Going on with pages half the size.", error)
            else:
                return listing.take(parse_page(payload), usage)

    def _complete(self, node: dict[str, Any], fields: Sequence[Field]) -> Flow[_Read, None]:
        """Fetch what the API cut off from the edges nested in a node."""
        by_key = {field.key: field for field in fields}
        for key, value in node.items():
            field = by_key.get(key) or Field(key)
            if is_nested_edge(value):
                node[key] = yield from self._complete_edge(value, field, node.get("id"))
            elif isinstance(value, dict):
                yield from self._complete(value, field.fields)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, dict):
                        yield from self._complete(item, field.fields)

    def _complete_edge(self, edge: dict[str, Any], field: Field, node_id: Any) -> Flow[_Read, dict[str, Any]]:
        first = parse_page(edge)
        # The limit in the expansion is that of the first helping, not of the whole.
        arguments = {name: value for name, value in field.arguments if name not in ("limit", "after", "as")}
        listing = Listing(EdgeRead(f"{node_id}/{field.name}", field.fields, arguments))
        rows = listing.take(first).rows
        if listing.more and not (isinstance(node_id, str) and _PATH_SEGMENT.fullmatch(node_id)):
            raise GraphProtocolError(f"`{field.key}` came in part, and its node has no id to fetch the rest by")
        while listing.more:
            rows += (yield from self._next_page(listing)).rows
        for row in rows:
            yield from self._complete(row, field.fields)
        # Its `paging` has served its purpose, and holds an address that may carry the token.
        return {**{name: value for name, value in edge.items() if name != "paging"}, "data": rows}

    def _read(self, request: Request) -> Flow[_Read, tuple[dict[str, Any], Usage | None]]:
        attempt = 0
        while True:
            attempt += 1
            outcome = yield request
            try:
                return self._judge(outcome)
            except GraphError as error:
                error.attempts = attempt
                delay = self._policy.delay(error, attempt=attempt, waited=self._waited, chance=self._random())
                if delay is None:
                    raise
                log.warning("%s Trying again in %.1f s.", error, delay)
            self._waited += delay
            yield Wait(delay)

    def _judge(self, outcome: Outcome) -> tuple[dict[str, Any], Usage | None]:
        if isinstance(outcome, GraphError):
            raise outcome
        response = cast("Response", outcome)
        self._compare_version(header(response.headers, "facebook-api-version"))
        payload, not_json = self._payload(response)
        error = error_from(
            response.status,
            payload,
            retry_after=retry_after(response.headers),
            redact=self._credentials.redact,
        )
        if error or not_json:
            raise error or not_json  # type: ignore[misc]  # one of them is an error
        if not isinstance(payload, dict):
            raise GraphProtocolError("the answer is not a JSON object")
        return payload, Usage.from_headers(response.headers)

    def _payload(self, response: Response) -> tuple[Any, GraphError | None]:
        try:
            return parse_json(self._credentials.scrub(unpack(response))), None
        except GraphError as error:
            return None, error

    def _compare_version(self, answered: str) -> None:
        if answered in ("", self._version) or answered in self._answered_versions:
            return
        self._answered_versions.add(answered)
        log.warning(
            "Graph API %s was asked for but %s answered: the version in the connection's api_version has most likely "
            "expired, see https://developers.facebook.com/docs/graph-api/changelog",
            self._version,
            answered,
        )
