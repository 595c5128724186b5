"""Decides what to send, how long to wait and when a listing is complete.

A flow is a generator that does no input or output itself, so that the client for tasks and the client for event loops
can share it. It yields a :class:`Request` to be sent and is sent the :class:`Response`, or the :class:`GraphError` that
came instead; it yields a :class:`Wait` to be waited; and it yields each :class:`Page` or node when that is complete.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from airflow_provider_whatsapp.graph.arguments import is_path_segment
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.decoding import FlatObject, parse_json
from airflow_provider_whatsapp.graph.error_codes import find_error
from airflow_provider_whatsapp.graph.errors import (
    GraphError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
)
from airflow_provider_whatsapp.graph.fields import Field
from airflow_provider_whatsapp.graph.messages import Request, Response, decompress, printable_header
from airflow_provider_whatsapp.graph.pages import (
    ListingMovedError,
    Page,
    PageReader,
    Position,
    has_nested_edge,
    is_nested_edge,
    parse_page,
)
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery, NodeQuery
from airflow_provider_whatsapp.graph.usage import Usage, parse_retry_after
from airflow_provider_whatsapp.graph.versions import describe_version_problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wait:
    """Asks the client to wait before it goes on.

    :param seconds: length of the wait
    :param error: what is waited for to pass; None when the wait is meant to prevent an error
    """

    seconds: float
    error: GraphError | None = None


#: What the client sends into a flow: the answer to a request or its failure, and None after anything else.
Outcome: TypeAlias = Response | GraphError | None
_Result = TypeVar("_Result")
_Returned = TypeVar("_Returned")
#: Yields requests, waits and results, is sent outcomes, and returns a value to the flow that called it.
Flow: TypeAlias = Generator[Request | Wait | _Result, Outcome, _Returned]
#: Is told the usage that an answer reported, and whether the request was refused because of a rate limit.
OnCall: TypeAlias = Callable[[Usage | None, bool], None]
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,2}")


class GraphFlow:
    """Reads one node or one listing.

    :param credentials: secrets that are taken out of every answer
    :param version: version of the Graph API that is asked for
    :param patience: how often and how long to try again
    :param random: gives random numbers from 0 to 1
    :param now: gives the time in unix seconds
    :param answered_versions: other versions that have answered this client; each is warned about once
    :param on_call: is called after each request with the usage that its answer reported, and with whether the request
        was refused because of a rate limit
    :param waba_id: id of the account that the errors must name, if several accounts are read
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        version: str,
        patience: Patience,
        random: Callable[[], float],
        now: Callable[[], float],
        answered_versions: set[str],
        on_call: OnCall,
        waba_id: str | None = None,
    ) -> None:
        self._credentials = credentials
        self._version = version
        self._patience = patience
        self._random = random
        self._now = now
        self._answered_versions = answered_versions
        self._on_call = on_call
        self._waba_id = waba_id
        self._waited = 0.0

    def pages(
        self, query: EdgeQuery, *, position: Position | None = None, ids: set[str] | None = None
    ) -> Flow[Page, None]:
        """Yield the pages of an edge to its end.

        With a position, the first page is that of the position, without its rows; the caller adds the ids of the rows
        up to there to ``ids`` before it asks for the next page.
        """
        reader = PageReader(query, position=position, ids=ids)
        if position is not None:
            yield (yield from self._return_to_position(reader))
        while reader.more:
            page = yield from self._next_page(reader, query.fields)
            usage = page.usage
            yield page
            # Thousands of accounts can wait for their next page at the same time. Each would hold the rows of its last.
            del page
            if reader.more and usage is not None:
                yield from self._pace(usage)

    def node(self, query: NodeQuery) -> Flow[dict[str, Any], None]:
        """Yield one node."""
        payload, _ = yield from self._send_until_answered(query.request())
        # A plain dict, because not every serializer takes a subclass.
        node = dict(payload)
        if isinstance(node.get("data"), list):
            # This is the first page of an edge, which must not be taken for the whole of it.
            raise GraphProtocolError(f"{query.path} is an edge, not a node: read it with iter_edge")
        yield from self._complete_nested_edges(node, query.fields)
        yield node

    def _return_to_position(self, reader: PageReader) -> Flow[_Result, Page]:
        try:
            payload, usage = yield from self._send_until_answered(reader.next_request())
            return reader.return_to_position(parse_page(payload), usage)
        except (GraphRequestError, GraphProtocolError, GraphServerError) as error:
            # Meta's documentation does not say with which error the API answers a cursor that has stopped working. A
            # page that has become too large for one answer cannot be requested in halves either, because it could not
            # be compared with the kept one then. If the error has another cause, the listing that begins anew ends in
            # it, too.
            raise ListingMovedError(str(error)) from error

    def _pace(self, usage: Usage) -> Flow[_Result, None]:
        """Wait before the next page when the app has nearly used up its rate limit."""
        pause = self._patience.pause(usage, waited=self._waited)
        if pause:
            log.info("API usage is %g %%: waiting %.0f s before the next page", usage.percent, pause)
            self._waited += pause
            yield Wait(pause)

    def _next_page(self, reader: PageReader, fields: Sequence[Field]) -> Flow[_Result, Page]:
        """Read a page, and complete the edges that are nested in its rows.

        :param reader: gives the request, and takes the answer
        :param fields: fields that were asked for of each row
        """
        while True:
            try:
                payload, usage = yield from self._send_until_answered(reader.next_request())
            except GraphServerError as error:
                if not (error.too_much_data and reader.shrink()):
                    raise
                log.warning("%s - going on with pages half the size", error)
            else:
                page = reader.take(parse_page(payload), usage)
                # Most pages have no nested edge. Looking at a page as a whole takes a fifth of the time.
                if not isinstance(payload, FlatObject) and has_nested_edge(page.rows):
                    for row in page.rows:
                        yield from self._complete_nested_edges(row, fields)
                return page

    def _complete_nested_edges(self, node: dict[str, Any], fields: Sequence[Field]) -> Flow[_Result, None]:
        """Fetch the further pages of edges that are nested in a node.

        :param node: is changed in place
        :param fields: fields that were asked for of the node
        """
        by_key = {field.key: field for field in fields}
        for key, value in node.items():
            field = by_key.get(key)
            below = field.fields if field else ()
            if is_nested_edge(value):
                node[key] = yield from self._complete_edge(value, field, node.get("id"))
            elif isinstance(value, dict):
                yield from self._complete_nested_edges(value, below)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, dict):
                        yield from self._complete_nested_edges(item, below)

    def _complete_edge(self, edge: dict[str, Any], field: Field | None, node_id: Any) -> Flow[_Result, dict[str, Any]]:
        first = parse_page(edge)
        if field is None:
            # Do not build a request from a key that the server chose: it could point anywhere.
            if first.after is not None:
                raise GraphProtocolError("an edge that was not asked for came in part")
            field = Field("unasked")
        # `as` is no parameter of the edge itself. A `limit` among the arguments is replaced by the listing's page size,
        # because it is the size of the first page and not of the whole edge.
        arguments = {name: value for name, value in field.arguments if name != "as"}
        reader = PageReader(EdgeQuery(f"{node_id}/{field.name}", field.fields, arguments))
        rows = reader.take(first).rows
        if reader.more and not is_path_segment(node_id):
            raise GraphProtocolError(f"`{field.key}` came in part, and its node has no id to fetch the rest by")
        for row in rows:
            yield from self._complete_nested_edges(row, field.fields)
        while reader.more:
            rows += (yield from self._next_page(reader, field.fields)).rows
        # `paging` is left out of the row: it is of no use any more, and its addresses can contain the token.
        return {**{name: value for name, value in edge.items() if name != "paging"}, "data": rows}

    def _send_until_answered(self, request: Request) -> Flow[_Result, tuple[dict[str, Any], Usage | None]]:
        """Send a request, again where that helps, and return the answer's payload and usage."""
        attempt = 0
        while True:
            attempt += 1
            outcome = yield request
            usage = Usage.from_headers(outcome.headers) if isinstance(outcome, Response) else None
            try:
                payload = self._judge(outcome)
            except GraphError as error:
                self._on_call(usage, isinstance(error, GraphRateLimitError))
                error.attempts, error.waba_id = attempt, self._waba_id
                delay = self._patience.delay(error, attempt=attempt, waited=self._waited, chance=self._random())
                if delay is None:
                    raise
                log.warning("%s - trying again in %.1f s", error, delay)
                # Without the answer, which the traceback holds too: thousands of accounts can wait at the same time.
                outcome = None
                wait = Wait(delay, error.with_traceback(None))
            else:
                self._on_call(usage, False)
                return payload, usage
            self._waited += delay
            yield wait

    def _judge(self, outcome: Outcome) -> dict[str, Any]:
        if isinstance(outcome, GraphError):
            raise outcome
        response = cast("Response", outcome)
        answered = printable_header(response.headers, "facebook-api-version")
        self._warn_about_other_version(answered)
        payload, unreadable = self._parse(response)
        reported = find_error(
            response.status,
            payload,
            retry_after=parse_retry_after(response.headers),
            redact=partial(self._credentials.redact, now=self._now()),
            version_problem=describe_version_problem(self._version, answered, now=self._now()),
        )
        # Errors by status come first: the body of an error page is seldom JSON, and "not JSON" would hide the reason.
        if reported is not None:
            raise reported
        if unreadable is not None:
            raise unreadable
        if not isinstance(payload, dict):
            raise GraphProtocolError("the answer is not a JSON object")
        return payload

    def _parse(self, response: Response) -> tuple[Any, GraphError | None]:
        """The answer's payload, or the reason why it cannot be read.

        The body is a variable of this method only: a traceback with local variables would show it, with the token if
        the server repeated that.
        """
        try:
            body = decompress(response)
            return parse_json(body, mask=self._credentials.mask_for(body, now=self._now())), None
        except GraphError as error:
            return None, error.with_traceback(None)

    def _warn_about_other_version(self, answered: str) -> None:
        if answered == self._version or answered in self._answered_versions or not _VERSION.fullmatch(answered):
            return
        self._answered_versions.add(answered)
        log.warning(
            "Graph API %s was asked for but %s answered: the version in the connection's api_version has most likely "
            "expired or is not out yet, see https://developers.facebook.com/docs/graph-api/changelog",
            self._version,
            answered,
        )
