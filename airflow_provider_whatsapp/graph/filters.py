"""Builds the filters of a listing from the arguments that a user gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_whatsapp.graph.arguments import did_you_mean, parse_rendered, parse_time, shown

# The values of `ownership_type`. Meta may add more, so only a near miss of one of these is refused.
_OWNERSHIP_TYPES = ("SELF", "CLIENT_OWNED", "AGENCY_OWNED", "ON_BEHALF_OF")
_FILTERING_EXAMPLE = "for example [{'field': 'ownership_type', 'operator': 'IN', 'value': ['SELF']}]"


def build_filters(
    ownership_types: str | Sequence[str] | None,
    created_after: object,
    created_before: object,
    filtering: Sequence[Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    """Return the filters of a listing, in the form that the API's ``filtering`` parameter accepts.

    :param ownership_types: names as a sequence or a comma string, or None
    :param created_after: see :func:`~airflow_provider_whatsapp.graph.arguments.parse_time`, or None
    :param created_before: the same
    :param filtering: further filters, or None
    :raises ValueError: if an argument is wrong; the message names it and shows an example
    """
    filters = []
    if ownership_types is not None:
        filters.append({"field": "ownership_type", "operator": "IN", "value": _parse_ownership_types(ownership_types)})
    after = None if created_after is None else parse_time("created_after", created_after)
    before = None if created_before is None else parse_time("created_before", created_before)
    if after is not None and before is not None:
        if after > before:
            raise ValueError(
                f"created_after: {shown(created_after)} is later than created_before, {shown(created_before)}; "
                "swap them"
            )
        # Use one IN_RANGE filter for both times, because Meta does not document two filters on the same field.
        # https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/owned_whatsapp_business_accounts
        filters.append({"field": "creation_time", "operator": "IN_RANGE", "value": [str(after), str(before)]})
    elif after is not None:
        filters.append({"field": "creation_time", "operator": "GREATER_THAN", "value": str(after)})
    elif before is not None:
        filters.append({"field": "creation_time", "operator": "LESS_THAN", "value": str(before)})
    return filters + _parse_filtering(filtering)


def _parse_ownership_types(value: str | Sequence[str]) -> list[str]:
    example = "for example ['CLIENT_OWNED']"
    names = parse_rendered("ownership_types", value, example)
    names = names.split(",") if isinstance(names, str) else names
    if (
        not isinstance(names, Sequence)
        or not names
        or not all(isinstance(name, str) and name.strip() for name in names)
    ):
        raise ValueError(f"ownership_types: {shown(value)} has no names; {example}")
    names = [name.strip() for name in names]
    for name in names:
        if name not in _OWNERSHIP_TYPES and (hint := did_you_mean(name, _OWNERSHIP_TYPES)):
            raise ValueError(f"ownership_types: {shown(name)} is not a known type{hint}")
    return names


def _parse_filtering(filtering: object) -> list[dict[str, Any]]:
    if filtering is None:
        return []
    filtering = parse_rendered("filtering", filtering, _FILTERING_EXAMPLE)
    if isinstance(filtering, str) or not isinstance(filtering, Sequence):
        raise ValueError(f"filtering: {shown(filtering)} is not a list; {_FILTERING_EXAMPLE}")
    for one in filtering:
        if not isinstance(one, Mapping) or set(one) != {"field", "operator", "value"}:
            raise ValueError(f"filtering: {shown(one)} is not one field, operator and value; {_FILTERING_EXAMPLE}")
        if not all(isinstance(one[name], str) and one[name] for name in ("field", "operator")):
            raise ValueError(f"filtering: {shown(one)} has a field or operator without a name; {_FILTERING_EXAMPLE}")
        values = one["value"] if isinstance(one["value"], (list, tuple)) else [one["value"]]
        if not values or not all(_is_filter_value(value) for value in values):
            raise ValueError(f"filtering: {shown(one)} has no value to compare with; {_FILTERING_EXAMPLE}")
    return [dict(one) for one in filtering]


def _is_filter_value(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int)) and value != ""
