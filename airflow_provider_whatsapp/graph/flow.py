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
from airflow_provider_whatsapp.graph.query import EdgeRead, is_path_segment
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
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,2}")


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
        if isinstance(node.get("data"), list):
            # Taken for a node, its first page would pass for the whole of it.
            raise GraphProtocolError(f"{request.path} is an edge, not a node: read it with iter_edge")
        yield from self._complete(node, fields)
        yield node

    def _next_page(self, listing: Listing) -> Flow[_Read, Page]:
        while True:
            try:
                payload, usage = yield from self._read(listing.request())
            except GraphServerError as error:
                if not (error.too_much_data and listing.shrink()):
                    raise
                log.warning("%s - going on with pages half the size", error)
            else:
                return listing.take(parse_page(payload), usage)

    def _complete(self, node: dict[str, Any], fields: Sequence[Field]) -> Flow[_Read, None]:
        """Fetch what the API cut off from the edges nested in a node."""
        by_key = {field.key: field for field in fields}
        for key, value in node.items():
            field = by_key.get(key)
            below = field.fields if field else ()
            if is_nested_edge(value):
                node[key] = yield from self._complete_edge(value, field, node.get("id"))
            elif isinstance(value, dict):
                yield from self._complete(value, below)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, dict):
                        yield from self._complete(item, below)

    def _complete_edge(self, edge: dict[str, Any], field: Field | None, node_id: Any) -> Flow[_Read, dict[str, Any]]:
        first = parse_page(edge)
        if field is None:
            # Its name is not ours, so no request is made of it.
            if first.after is not None:
                raise GraphProtocolError("an edge that was not asked for came in part")
            field = Field("unasked")
        # A limit among them is that of the first helping, not of the whole; the reading sets its own.
        arguments = {name: value for name, value in field.arguments if name != "as"}
        listing = Listing(EdgeRead(f"{node_id}/{field.name}", field.fields, arguments))
        rows = listing.take(first).rows
        if listing.more and not is_path_segment(node_id):
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
                log.warning("%s - trying again in %.1f s", error, delay)
            self._waited += delay
            yield Wait(delay)

    def _judge(self, outcome: Outcome) -> tuple[dict[str, Any], Usage | None]:
        if isinstance(outcome, GraphError):
            raise outcome
        response = cast("Response", outcome)
        self._compare_version(header(response.headers, "facebook-api-version"))
        unreadable = None
        try:
            body = unpack(response)
            payload = parse_json(body, mask=self._credentials.mask_for(body))
        except GraphError as error:
            payload, unreadable = None, error
        error_told = error_from(
            response.status,
            payload,
            retry_after=retry_after(response.headers),
            redact=self._credentials.redact,
        )
        # What the API says of itself goes before what its body looks like: error pages are seldom JSON.
        if error_told is not None:
            raise error_told
        if unreadable is not None:
            raise unreadable
        if not isinstance(payload, dict):
            raise GraphProtocolError("the answer is not a JSON object")
        return payload, Usage.from_headers(response.headers)

    def _compare_version(self, answered: str) -> None:
        if answered == self._version or answered in self._answered_versions or not _VERSION.fullmatch(answered):
            return
        self._answered_versions.add(answered)
        log.warning(
            "Graph API %s was asked for but %s answered: the version in the connection's api_version has most likely "
            "expired or is not out yet, see https://developers.facebook.com/docs/graph-api/changelog",
            self._version,
            answered,
        )
