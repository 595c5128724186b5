"""Decides what to send, how long to wait and when a listing is complete.

A flow is a generator that does no I/O itself, so that the client for tasks and the client for event loops can share it.
It yields a :class:`Request` to send and receives the :class:`Response`, or a :class:`GraphError` if the request failed;
it yields a :class:`Wait` when the client must wait; it yields :class:`ReadConnection` when the connection may have
changed, and receives its settings; and it yields each :class:`Page` or node once that is complete.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from airflow_provider_whatsapp.graph.answer_errors import find_error
from airflow_provider_whatsapp.graph.arguments import is_path_segment
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.decoding import FlatObject, parse_json
from airflow_provider_whatsapp.graph.errors import (
    GraphError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
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
    """Asks the client to wait before it continues.

    :param seconds: length of the wait
    :param error: the error that causes the wait; None if the wait is meant to prevent an error
    """

    seconds: float
    error: GraphError | None = None


@dataclass(frozen=True, slots=True)
class ReadConnection:
    """Asks the client for the settings of the connection, which may have changed since a request failed.

    :param config: the settings that the failed request was sent with
    """

    config: GraphConfig


#: What the client sends into a flow: the response to a request or its failure; the settings of the connection if they
#: have changed; None after anything else.
Outcome: TypeAlias = Response | GraphError | GraphConfig | None
_Result = TypeVar("_Result")
_Returned = TypeVar("_Returned")
#: Yields steps for the client and results, receives outcomes, and returns a value to the flow that called it.
Flow: TypeAlias = Generator[Request | Wait | ReadConnection | _Result, Outcome, _Returned]
#: Called with the usage that a response reported, and whether the request was throttled.
OnCall: TypeAlias = Callable[[Usage | None, GraphError | None], None]
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,2}")


class GraphFlow:
    """Reads one node or one listing.

    :param config: where the API is, the version to request, and the secrets to remove from every response
    :param patience: how often to send a request again, and how long to wait
    :param random: returns random numbers from 0 to 1
    :param now: returns the time in unix seconds
    :param answered_versions: other API versions that have responded to this client; a warning is logged once for each
    :param on_call: called after each request with the usage that its response reported, and its error
    :param waba_id: id of the account to name in errors, if several accounts are read
    """

    def __init__(
        self,
        *,
        config: GraphConfig,
        patience: Patience,
        random: Callable[[], float],
        now: Callable[[], float],
        answered_versions: set[str],
        on_call: OnCall,
        waba_id: str | None = None,
    ) -> None:
        self._config = config
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
        """Yield all pages of an edge.

        With a position, the first page is the one at the position, without rows; the caller must add the ids of the
        rows up to there to ``ids`` before it takes the next page.
        """
        query = query.for_version(self._config.version)
        reader = PageReader(query, position=position, ids=ids)
        if position is not None:
            yield (yield from self._return_to_position(reader))
        while reader.more:
            page = yield from self._next_page(reader, query.fields)
            usage = page.usage
            yield page
            # Thousands of accounts can wait for their next page at once. Each would keep its last page in memory.
            del page
            if reader.more and usage is not None:
                yield from self._pace(usage)

    def node(self, query: NodeQuery) -> Flow[dict[str, Any], None]:
        """Yield one node."""
        payload, _ = yield from self._send_until_answered(query.request())
        # A plain dict, because not every serializer accepts a subclass.
        node = dict(payload)
        if isinstance(node.get("data"), list):
            # This is only the first page of an edge; returning it would hide the rest.
            raise GraphProtocolError(f"{query.path} is an edge, not a node: read it with iter_edge")
        yield from self._complete_nested_edges(node, query.fields)
        yield node

    def _return_to_position(self, reader: PageReader) -> Flow[_Result, Page]:
        try:
            payload, usage = yield from self._send_until_answered(reader.next_request())
            return reader.return_to_position(parse_page(payload), usage)
        except (GraphRequestError, GraphProtocolError, GraphServerError) as error:
            # Meta does not document which error an expired cursor causes. A page that has become too large for one
            # response cannot be requested in halves, because half a page cannot be compared with the checkpoint. If the
            # error has another cause, the listing that starts again will raise it too.
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

        :param reader: provides the request, and takes the response
        :param fields: fields that were requested for each row
        """
        while True:
            try:
                payload, usage = yield from self._send_until_answered(reader.next_request(), reader)
            except GraphError as error:
                if not (error.too_much_data and reader.shrink()):
                    raise
                log.warning("%s - continuing with pages half the size", error)
            else:
                page = reader.take(parse_page(payload), usage)
                # Most pages have no nested edge. Checking a whole page takes a fifth of the time of checking each row.
                if not isinstance(payload, FlatObject) and has_nested_edge(page.rows):
                    for row in page.rows:
                        yield from self._complete_nested_edges(row, fields)
                return page

    def _complete_nested_edges(self, node: dict[str, Any], fields: Sequence[Field]) -> Flow[_Result, None]:
        """Fetch the remaining pages of edges that are nested in a node.

        :param node: the node; changed in place
        :param fields: fields that were requested for the node
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
            # Never build a request from a key that the server chose: it could point anywhere.
            if first.after is not None:
                raise GraphProtocolError("the response holds a partial page of an edge that was not requested")
            field = Field("unasked")
        # `as` is not a parameter of the edge itself. A `limit` is replaced by the listing's page size, because it is
        # the size of the first page and not of the whole edge.
        arguments = {name: value for name, value in field.arguments if name != "as"}
        reader = PageReader(EdgeQuery(f"{node_id}/{field.name}", field.fields, arguments))
        rows = reader.take(first).rows
        if reader.more and not is_path_segment(node_id):
            raise GraphProtocolError(
                f"`{field.key}` is only a partial page, and its node has no id to request the rest from"
            )
        for row in rows:
            yield from self._complete_nested_edges(row, field.fields)
        while reader.more:
            rows += (yield from self._next_page(reader, field.fields)).rows
        # `paging` is left out of the row: it is no longer needed, and its URLs can contain the token.
        return {**{name: value for name, value in edge.items() if name != "paging"}, "data": rows}

    def _send_until_answered(
        self, request: Request, reader: PageReader | None = None
    ) -> Flow[_Result, tuple[dict[str, Any], Usage | None]]:
        """Send a request, again where that helps, and return the response's payload and usage.

        :param request: the request to send
        :param reader: the page reader that the request comes from, which may make it smaller after a fault; None sends
            the same request again
        """
        attempt = 0
        while True:
            attempt += 1
            outcome = yield request
            usage = Usage.from_headers(outcome.headers) if isinstance(outcome, Response) else None
            try:
                payload = self._judge(outcome, request.path)
            except GraphError as error:
                self._on_call(usage, error)
                error.attempts, error.waba_id = attempt, self._waba_id
                delay = self._patience.delay(error, attempt=attempt, waited=self._waited, chance=self._random())
                # The token or the secret may have been rotated, and the host or the proxy moved.
                if isinstance(error, (GraphTokenError, GraphTransportError)) and (yield from self._has_new_settings()):
                    log.warning("%s - continuing with the changed connection", error)
                    attempt = 0
                    continue
                if delay is None:
                    raise
                log.warning("%s - sending it again in %.1f s", error, delay)
                # Drop the response before waiting, and the traceback, which holds it too: each of thousands of waiting
                # accounts would keep one in memory.
                outcome = None
                wait = Wait(delay, error.with_traceback(None))
                if reader is not None and not isinstance(error, GraphRateLimitError):
                    reader.note_fault()
                    request = reader.next_request()
            else:
                self._on_call(usage, None)
                return payload, usage
            self._waited += delay
            yield wait

    def _has_new_settings(self) -> Flow[_Result, bool]:
        """Return whether the connection has changed since the last request; the next one uses its new settings."""
        config = yield ReadConnection(self._config)
        if not isinstance(config, GraphConfig):
            return False
        self._config = config
        return True

    def _judge(self, outcome: Outcome, path: str) -> dict[str, Any]:
        if isinstance(outcome, GraphError):
            raise outcome
        response = cast("Response", outcome)
        answered, date = (printable_header(response.headers, name) for name in ("facebook-api-version", "date"))
        self._warn_about_other_version(answered)
        payload, unreadable = self._parse(response)
        reported = find_error(
            response.status,
            payload,
            retry_after=parse_retry_after(response.headers),
            redact=partial(self._config.credentials.redact, now=self._now()),
            path=path,
            clock_problem=self._config.credentials.describe_clock_problem(date, now=self._now()),
            version_problem=describe_version_problem(self._config.version, answered, now=self._now()),
            is_partial="content-range" in response.headers,
        )
        # Errors found by status come first: the body of an error page is rarely JSON, and "not JSON" would hide the
        # reason.
        if reported is not None:
            raise reported
        if unreadable is not None:
            raise unreadable
        if not isinstance(payload, dict):
            raise GraphProtocolError("the response is not a JSON object")
        return payload

    def _parse(self, response: Response) -> tuple[Any, GraphError | None]:
        """Return the response's payload, or the error if it cannot be read.

        Only this method has the body in a variable: a traceback with local variables would show it, including a token
        that the server echoed.
        """
        try:
            body = decompress(response)
            return parse_json(body, mask=self._config.credentials.mask_for(body, now=self._now())), None
        except GraphError as error:
            return None, error.with_traceback(None)

    def _warn_about_other_version(self, answered: str) -> None:
        if answered == self._config.version or answered in self._answered_versions or not _VERSION.fullmatch(answered):
            return
        self._answered_versions.add(answered)
        log.warning(
            "Graph API %s was requested but %s answered: the version in the connection's api_version has most likely "
            "expired or is not out yet, see https://developers.facebook.com/docs/graph-api/changelog",
            self._config.version,
            answered,
        )
