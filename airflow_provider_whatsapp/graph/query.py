"""What a user asks of an edge or a node, checked, as the parameters of a read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timezone
from typing import Any, TypedDict

from airflow_provider_whatsapp.graph.fields import Field, join_fields, parse_fields
from airflow_provider_whatsapp.graph.messages import Request

CLIENT_WABAS = "client_whatsapp_business_accounts"
OWNED_WABAS = "owned_whatsapp_business_accounts"

_WABA_FIELDS = (
    "id,name,currency,timezone_id,message_template_namespace,account_review_status,business_verification_status,"
    "ownership_type,country,creation_time,status,owner_business_info"
)
# What the API itself would send differs between its own pages, so `fields` always goes along.
_DEFAULT_FIELDS = {
    CLIENT_WABAS: _WABA_FIELDS,
    OWNED_WABAS: _WABA_FIELDS,
    "businesses": "id,name",
    "phone_numbers": "id,display_phone_number,verified_name,quality_rating",
    "message_templates": "id,name,language,status,category",
}
_FALLBACK_FIELDS = "id"
_NODE_FIELDS = "id,name"

_LATEST_TIME = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
_TIME_EXAMPLE = "a right one looks like '2026-11-01T00:00:00Z', a datetime, or unix seconds (1793491200)"


class Query(TypedDict, total=False):
    """What narrows or shapes a listing; all of it optional.

    - ``fields``: sequence of names or comma string, nested ``{}`` allowed
    - ``ownership_types``: sequence or comma string of ``SELF``, ``CLIENT_OWNED``, ``ON_BEHALF_OF``
    - ``created_after``, ``created_before``: datetime, ISO 8601 string or unix seconds; UTC where no zone is given
    - ``filtering``: list of ``{"field", "operator", "value"}``, added to those above
    - ``sort``: ``creation_time_ascending`` or ``creation_time_descending``
    - ``page_size``: rows a request, default 100
    - ``max_items``: rows after which to stop, default all
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
class EdgeRead:
    """The reading of one edge from its beginning or from a cursor on.

    :param path: node and edge, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param fields: what is wanted of each row; empty when that is left to the API
    :param params: the other query parameters (filtering, sort)
    :param page_size: rows a request
    :param max_items: rows after which to stop, or None for all
    """

    path: str
    fields: tuple[Field, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    page_size: int = 100
    max_items: int | None = None

    @property
    def node_id(self) -> str:
        """Id of the node whose edge it is."""
        return self.path.partition("/")[0]

    def request(self, *, limit: int, after: str | None) -> Request:
        """The request for the rows that follow a cursor.

        :param limit: how many rows at most
        :param after: the cursor; None for the first page
        """
        params = {**self.params, "limit": str(limit)}
        if self.fields:
            params["fields"] = join_fields(self.fields)
        if after is not None:
            params["after"] = after
        return Request(self.path, params)


def edge_read(
    path: str,
    *,
    fields: str | Sequence[str] | None = None,
    ownership_types: str | Sequence[str] | None = None,
    created_after: datetime | date | str | float | None = None,
    created_before: datetime | date | str | float | None = None,
    filtering: Sequence[Mapping[str, Any]] | None = None,
    sort: str | None = None,
    page_size: int | str | None = 100,
    max_items: int | str | None = None,
) -> EdgeRead:
    """The reading of an edge that a user asked for; see :class:`Query` for the parameters.

    :raises ValueError: naming the parameter, what was wrong with it and what a right one looks like
    """
    segments = _path_segments(path)
    if len(segments) < 2:
        raise ValueError(f"path: {path!r} names no edge; a right one looks like '<waba id>/phone_numbers'")
    if fields is None:
        fields = _DEFAULT_FIELDS.get(segments[-1], _FALLBACK_FIELDS)
    wanted = parse_fields(fields)
    if segments[-1] in (CLIENT_WABAS, OWNED_WABAS, "businesses") and "id" not in {f.key for f in wanted}:
        # The promise that no account is missing or there twice rests on its id.
        wanted = (Field("id"), *wanted)
    params = {}
    filters = _filters(ownership_types, created_after, created_before, filtering)
    if filters:
        # Strict JSON although Meta's samples show single quotes: it is what Meta's own SDK sends.
        params["filtering"] = json.dumps(filters, separators=(",", ":"))
    if sort is not None:
        params["sort"] = _sort(sort)
    return EdgeRead(
        path="/".join(segments),
        fields=wanted,
        params=params,
        page_size=count_from("page_size", 100 if page_size is None else page_size),
        max_items=None if max_items is None else count_from("max_items", max_items),
    )


def node_read(
    path: str, *, fields: str | Sequence[str] | None = None, params: Mapping[str, Any] | None = None
) -> tuple[Request, tuple[Field, ...]]:
    """The request for one node, and the fields it asks for.

    :param path: the node's id, or ``me``
    :param fields: default ``id,name``
    :param params: further query parameters, values as the API takes them
    :raises ValueError: naming the parameter and what was wrong with it
    """
    wanted = parse_fields(_NODE_FIELDS if fields is None else fields)
    return Request("/".join(_path_segments(path)), {**_extra_params(params), "fields": join_fields(wanted)}), wanted


def business_id_from(value: object) -> str:
    """The id of a business portfolio.

    :param value: digits as ``str`` or ``int``
    :raises ValueError: it is anything else
    """
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if re.fullmatch(r"[0-9]{1,32}", text) is None:
        raise ValueError(
            f"business_id: {shown(value)} is not the id of a business portfolio, which is digits only; "
            "Business Settings, Business Info shows it, e.g. '1906385232743451'"
        )
    return text


def unix_seconds(name: str, value: datetime | date | str | float) -> int:
    """The moment as unix seconds, UTC where no zone is given.

    :param name: of the parameter, for the error
    :param value: datetime, date, ISO 8601 string or unix seconds
    :raises ValueError: it cannot be read
    """
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"{name}: {shown(value)} is not a time; {_TIME_EXAMPLE}")
    if not 0 <= seconds <= _LATEST_TIME:
        raise ValueError(f"{name}: {shown(value)} lies outside the years 1970 to 9999 (milliseconds?); {_TIME_EXAMPLE}")
    return int(seconds)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and len(text) != len("20261101"):
            return float(text)
        value = _from_iso(text)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    # Without the microseconds, which a float of so many seconds would round.
    return aware.replace(microsecond=0).timestamp()


# Python 3.10 reads less of ISO 8601 than 3.11 does; what a DAG may say shall not hang on that.
_ISO = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,]\d+)?)?\s*(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)


def _from_iso(text: str) -> datetime | None:
    match = _ISO.fullmatch(text.upper())
    if match is None:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    offset = "+0000" if zone in (None, "Z") else zone.replace(":", "").ljust(5, "0")
    try:
        return datetime.strptime(
            f"{year}{month}{day}{hour or '00'}{minute or '00'}{second or '00'}{offset}", "%Y%m%d%H%M%S%z"
        )
    except ValueError:
        return None


def _filters(
    ownership_types: str | Sequence[str] | None,
    created_after: datetime | date | str | float | None,
    created_before: datetime | date | str | float | None,
    filtering: Sequence[Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    filters = []
    if ownership_types is not None:
        filters.append({"field": "ownership_type", "operator": "IN", "value": _ownership_types(ownership_types)})
    after = None if created_after is None else unix_seconds("created_after", created_after)
    before = None if created_before is None else unix_seconds("created_before", created_before)
    if after is not None and before is not None:
        if after > before:
            raise ValueError(
                f"created_after: {shown(created_after)} lies after created_before, {shown(created_before)}; swap them"
            )
        # One range instead of two filters: only that is documented.
        # https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/owned_whatsapp_business_accounts
        filters.append({"field": "creation_time", "operator": "IN_RANGE", "value": [str(after), str(before)]})
    elif after is not None:
        filters.append({"field": "creation_time", "operator": "GREATER_THAN", "value": str(after)})
    elif before is not None:
        filters.append({"field": "creation_time", "operator": "LESS_THAN", "value": str(before)})
    return filters + _own_filters(filtering)


def _ownership_types(value: str | Sequence[str]) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if (
        not isinstance(names, Sequence)
        or not names
        or not all(isinstance(name, str) and name.strip() for name in names)
    ):
        raise ValueError(f"ownership_types: {shown(value)} has no names; a right one looks like ['CLIENT_OWNED']")
    return [name.strip() for name in names]


def _own_filters(filtering: object) -> list[dict[str, Any]]:
    if filtering is None:
        return []
    example = "a right one looks like [{'field': 'ownership_type', 'operator': 'IN', 'value': ['SELF']}]"
    if isinstance(filtering, str):
        try:
            filtering = json.loads(filtering)
        except ValueError:
            raise ValueError(f"filtering: {shown(filtering)} is not JSON; {example}") from None
    if not isinstance(filtering, Sequence):
        raise ValueError(f"filtering: {shown(filtering)} is not a list; {example}")
    for one in filtering:
        if not isinstance(one, Mapping) or set(one) != {"field", "operator", "value"}:
            raise ValueError(f"filtering: {shown(one)} is not one field, operator and value; {example}")
        if not all(isinstance(one[name], str) and one[name] for name in ("field", "operator")):
            raise ValueError(f"filtering: {shown(one)} has a field or operator without a name; {example}")
        values = one["value"] if isinstance(one["value"], (list, tuple)) else [one["value"]]
        if not values or not all(_is_filter_value(value) for value in values):
            raise ValueError(f"filtering: {shown(one)} has no value to compare with; {example}")
    return [dict(one) for one in filtering]


def _is_filter_value(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int)) and value != ""


def _sort(value: object) -> str:
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z_.]+", value) is None:
        raise ValueError(f"sort: {shown(value)} is not a sort order; a right one is 'creation_time_descending'")
    return value


def count_from(name: str, value: object) -> int:
    """A whole number of at least 1.

    :param name: of the parameter, for the error
    :raises ValueError: it is anything else
    """
    # Templates render numbers as text.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: {shown(value)} is not a whole number of at least 1; a right one is 100")
    return value


def is_path_segment(value: object) -> bool:
    """Whether the value can stand between two slashes of a path as it is."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]+", value) is not None


def _path_segments(path: object) -> list[str]:
    segments = path.strip("/").split("/") if isinstance(path, str) else [""]
    if not all(map(is_path_segment, segments)):
        raise ValueError(
            f"path: {shown(path)} is not the path of a node or edge below the version; "
            "a right one looks like '<waba id>/phone_numbers'"
        )
    return segments


def _extra_params(params: Mapping[str, Any] | None) -> dict[str, str]:
    taken = {"fields", "access_token", "appsecret_proof", "appsecret_time", "input_token"}
    if wrong := taken & set(params or {}):
        raise ValueError(f"params: {sorted(wrong)} cannot be given here: the hook sets them itself")
    return {
        name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in (params or {}).items()
        if value is not None
    }


def shown(value: object) -> str:
    """The value as an error shows it, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
