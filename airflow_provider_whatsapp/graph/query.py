"""Checks the arguments of a query for an edge or a node, and builds its requests.

To add a query argument, add it to :class:`Query` and to :func:`build_edge_query`, and to the operators and sensors.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_whatsapp.graph.arguments import (
    check_holds_no_token,
    given,
    parse_business_id,
    parse_count,
    parse_edge_name,
    parse_path,
    parse_waba_id,
    shown,
)
from airflow_provider_whatsapp.graph.edges import RELATIONSHIPS, find_edge
from airflow_provider_whatsapp.graph.fields import Field, join_fields, parse_fields
from airflow_provider_whatsapp.graph.filters import build_filters
from airflow_provider_whatsapp.graph.messages import Request
from airflow_provider_whatsapp.graph.params import parse_field_arguments, parse_params

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger(__name__)
_DEFAULT_FIELDS_OF_A_NODE = "id,name"
#: Query arguments that only a listing of accounts accepts.
WABA_ONLY_ARGUMENTS = ("ownership_types", "created_after", "created_before")
# Query parameters of the API that have an argument of their own.
_ARGUMENTS = {name: f"give the `{name}` argument instead" for name in ("filtering", "sort")}


class Query(TypedDict, total=False):
    """The optional arguments that narrow or shape a listing.

    A blank string and the string ``None``, which an empty template renders to, count as not given.

    - ``fields``: sequence of names or comma string, nested ``{}`` allowed
    - ``ownership_types``: sequence or comma string of ``SELF``, ``CLIENT_OWNED``, ``AGENCY_OWNED``, ``ON_BEHALF_OF``
    - ``created_after``, ``created_before``: datetime, ISO 8601 string or unix seconds; UTC if no time zone is given
    - ``filtering``: list of ``{"field", "operator", "value"}``, added to the filters above
    - ``sort``: ``creation_time_ascending`` or ``creation_time_descending``
    - ``page_size``: number of rows to request at a time, 100 by default
    - ``max_items``: number of rows after which to stop, unlimited by default
    """

    fields: str | Sequence[str] | None
    ownership_types: str | Sequence[str] | None
    created_after: datetime | date | str | float | None
    created_before: datetime | date | str | float | None
    filtering: Sequence[Mapping[str, Any]] | None
    sort: str | None
    page_size: int | str | None
    max_items: int | str | None


@dataclass(frozen=True, slots=True)
class EdgeQuery:
    """A checked query for all rows of one edge.

    :param path: node and edge, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param fields: fields to request for each row; empty leaves the choice to the API
    :param params: the other query parameters, such as ``filtering`` and ``sort``
    :param page_size: number of rows to request at a time
    :param max_items: number of rows after which to stop, or None for all
    """

    path: str
    fields: tuple[Field, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    page_size: int = 100
    max_items: int | None = None

    def __post_init__(self) -> None:
        """Check that no argument holds a token."""
        _check_sends_no_token(self.path, self.fields, self.params)

    @property
    def node_id(self) -> str:
        """The id of the node that the edge belongs to."""
        return self.path.partition("/")[0]

    def request(self, *, limit: int, after: str | None) -> Request:
        """Return the request for one page.

        :param limit: number of rows to request
        :param after: cursor to continue after, or None for the first page
        """
        params = {**self.params, "limit": str(limit)}
        if self.fields:
            params["fields"] = join_fields(self.fields)
        if after is not None:
            params["after"] = after
        return Request(self.path, params)

    def for_version(self, version: str) -> EdgeQuery:
        """Return the query without the default fields that a version does not know.

        The API would refuse the whole request because of them. Fields that a user chose are never left out.

        :param version: version of the API, ``vN.0``
        """
        edge = find_edge(self.path.rpartition("/")[2])
        if not edge.since or join_fields(self.fields) != edge.fields:
            return self
        major = int(version[1:].partition(".")[0])
        return replace(self, fields=tuple(field for field in self.fields if edge.since.get(field.name, 0) <= major))

    def to_json(self) -> dict[str, Any]:
        """Return the query as JSON, for :meth:`from_json`."""
        return {
            "path": self.path,
            "fields": join_fields(self.fields),
            "params": dict(self.params),
            "page_size": self.page_size,
            "max_items": self.max_items,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EdgeQuery:
        """Return the query that :meth:`to_json` described, checked again.

        :param value: result of :meth:`to_json`; missing keys take their defaults, except for ``path``
        :raises ValueError: if a value is wrong; the message names it
        """
        fields, max_items = value.get("fields"), value.get("max_items")
        return cls(
            path=_parse_edge_path(value.get("path")),
            fields=_parse_fields(fields) if fields else (),
            params=parse_params(value.get("params")),
            page_size=parse_count("page_size", value.get("page_size", 100)),
            max_items=None if max_items is None else parse_count("max_items", max_items),
        )


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """A checked query for one node.

    :param path: id of the node, or ``me``
    :param fields: fields to request; empty leaves the choice to the API
    :param params: the other query parameters
    :param inspects_own_token: whether the query is about the token itself (``debug_token``)
    """

    path: str
    fields: tuple[Field, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    inspects_own_token: bool = False

    def __post_init__(self) -> None:
        """Check that no argument holds a token."""
        _check_sends_no_token(self.path, self.fields, self.params)

    def request(self) -> Request:
        """Return the request for the node."""
        fields = {"fields": join_fields(self.fields)} if self.fields else {}
        return Request(self.path, {**self.params, **fields}, inspects_own_token=self.inspects_own_token)


def build_edge_query(
    path: str,
    *,
    params: Mapping[str, Any] | str | None = None,
    fields: str | Sequence[str] | None = None,
    ownership_types: str | Sequence[str] | None = None,
    created_after: datetime | date | str | float | None = None,
    created_before: datetime | date | str | float | None = None,
    filtering: Sequence[Mapping[str, Any]] | None = None,
    sort: str | None = None,
    page_size: int | str | None = 100,
    max_items: int | str | None = None,
) -> EdgeQuery:
    """Return the query for an edge, built from the arguments that a user gave.

    :param path: node and edge, e.g. ``"<waba id>/phone_numbers"``; for the other parameters, see :class:`Query`
    :param params: further query parameters, e.g. ``{"business": "1906385232743451"}``; values that are not ``str`` are
        sent as JSON, and times as unix seconds
    :raises ValueError: if an argument is wrong, or one that the edge needs is missing; the message names it and shows
        an example
    """
    path = _parse_edge_path(path)
    edge = find_edge(path.rpartition("/")[2])
    wanted_fields = given(fields, edge.fields or None)
    wanted = () if wanted_fields is None else _parse_fields(wanted_fields)
    _warn_of_aliases(wanted)
    if edge.lists_nodes and "id" not in {field.key for field in wanted}:
        wanted = (Field("id"), *wanted)
    sent = parse_params(given(params, None), refused=_ARGUMENTS)
    edge.check_required(sent)
    filters = build_filters(
        given(ownership_types, None), given(created_after, None), given(created_before, None), given(filtering, None)
    )
    if filters:
        # Meta's samples use single quotes, which is not JSON; Meta's own SDKs send JSON, and so does this.
        sent["filtering"] = json.dumps(filters, separators=(",", ":"))
    if (order := given(sort, None)) is not None:
        sent["sort"] = _parse_sort(order)
    return EdgeQuery(
        path=path,
        fields=wanted,
        params=sent,
        page_size=parse_count("page_size", given(page_size, 100)),
        max_items=None if (most := given(max_items, None)) is None else parse_count("max_items", most),
    )


def build_waba_query(business_id: str | int, relationship: str, **query: Unpack[Query]) -> EdgeQuery:
    """Return the query for the WABAs of a business, built from the arguments that a user gave.

    :param business_id: id of the business portfolio
    :param relationship: ``"client"`` or ``"owned"``
    :raises ValueError: if an argument is wrong; the message names it and shows an example
    """
    edge = RELATIONSHIPS[parse_relationship(relationship)]
    return build_edge_query(f"{parse_business_id(business_id)}/{edge}", **query)


def build_waba_edge_query(
    edge: str, *, params: Mapping[str, Any] | str | None = None, **query: Unpack[Query]
) -> Callable[[str], EdgeQuery]:
    """Return a factory that takes a WABA id and returns the query for that account's edge.

    The arguments are checked once, before the first account is known.

    :param edge: name of the edge, e.g. ``"phone_numbers"``
    :param params: further query parameters of the edge
    :raises ValueError: if an argument is wrong or one that the edge needs is missing
    """
    for name in WABA_ONLY_ARGUMENTS:
        if given(query.get(name), None) is not None:
            raise ValueError(f"{name}: the edges of an account have no such field; filter the list of accounts instead")
    name = parse_edge_name(edge)
    example = build_edge_query(f"0/{name}", params=params, **query)
    return lambda waba_id: replace(example, path=f"{parse_waba_id(waba_id)}/{name}")


def parse_relationship(relationship: str | None) -> str:
    """Return the relationship of accounts to a business, ``"client"`` if none is given.

    :param relationship: ``"client"`` or ``"owned"``
    :raises ValueError: if it is anything else
    """
    name = given(relationship, "client")
    if name not in RELATIONSHIPS:
        raise ValueError(f"relationship: {shown(relationship)} is not one of {', '.join(map(repr, RELATIONSHIPS))}")
    return name


def build_node_query(
    path: str, *, fields: str | Sequence[str] | None = None, params: Mapping[str, Any] | None = None
) -> NodeQuery:
    """Return the query for one node, built from the arguments that a user gave.

    :param path: id of the node, or ``me``
    :param fields: sequence of names or comma string, nested ``{}`` allowed; ``id,name`` by default
    :param params: other query parameters; values that are not ``str`` are sent as JSON
    :raises ValueError: if an argument is wrong; the message names it and says what is wrong
    """
    wanted = _parse_fields(given(fields, _DEFAULT_FIELDS_OF_A_NODE))
    _warn_of_aliases(wanted)
    return NodeQuery(
        path="/".join(parse_path(path)),
        fields=wanted,
        params=parse_params(given(params, None)),
    )


def _parse_fields(fields: str | Sequence[str]) -> tuple[Field, ...]:
    return parse_field_arguments(parse_fields(fields))


def _check_sends_no_token(path: str, fields: Sequence[Field], params: Mapping[str, str]) -> None:
    check_holds_no_token("path", path)
    check_holds_no_token("fields", join_fields(fields))
    for name, value in params.items():
        check_holds_no_token(name if name in _ARGUMENTS else f"params: {name}", value)


def _warn_of_aliases(fields: Sequence[Field]) -> None:
    """Log a warning for each field with an alias, because Meta is removing aliases.

    https://developers.facebook.com/blog/post/2026/11/04/introducing-graph-api-v27-and-marketing-api-v27/
    """
    below = list(fields)
    while below:
        one = below.pop()
        if one.key != one.name:
            log.warning(
                "fields: %s.as(%s) is an alias; Meta refuses aliases for apps created since 2026-11-04, and for all "
                "apps from v28.0 on; request the field by its own name",
                one.name,
                one.key,
            )
        below += one.fields


def _parse_edge_path(path: object) -> str:
    segments = parse_path(path)
    if len(segments) < 2:
        raise ValueError(f"path: {shown(path)} names no edge; for example '<waba id>/phone_numbers'")
    return "/".join(segments)


def _parse_sort(value: object) -> str:
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z_.]+", value) is None:
        raise ValueError(f"sort: {shown(value)} is not a sort order; for example 'creation_time_descending'")
    return value
