"""Checks the query parameters that users give, and refuses those that would change what a request does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from types import MappingProxyType

from airflow_provider_whatsapp.graph.arguments import given, parse_rendered, parse_time, shown
from airflow_provider_whatsapp.graph.fields import Field

_SIGNED = "the connection says with which token and app secret requests are signed"
_PAGED = "the listing goes through all pages itself"
_SHAPED = "it would change the shape of the response"
_READ_ONLY = "only single reads are sent, and it would change what the request does"
_PAGING_PARAMS = ("after", "before", "first", "last", "offset", "__paging_token")
# Parameters that every path of the Graph API accepts and that would change the method, identity, address or shape of a
# request, with the reason why each is refused. The `metadata` of a node and `return_ssl_resources` add addresses that
# can hold a token. https://developers.facebook.com/docs/graph-api/overview
_REFUSED_PARAMS = {
    "fields": "give the `fields` argument instead",
    "limit": "give the `page_size` argument of a listing instead",
    **dict.fromkeys(_PAGING_PARAMS, _PAGED),
    **dict.fromkeys(("access_token", "appsecret_proof", "appsecret_time", "input_token", "oauth_token"), _SIGNED),
    **dict.fromkeys(("app_secret", "client_id", "client_secret", "fb_exchange_token", "signed_request"), _SIGNED),
    **dict.fromkeys(("method", "batch", "attached_files", "relative_url"), _READ_ONLY),
    **dict.fromkeys(("id", "ids"), "the path says what is read"),
    **dict.fromkeys(("callback", "format", "pretty", "debug", "metadata", "include_headers"), _SHAPED),
    **dict.fromkeys(("suppress_http_code", "redirect", "return_ssl_resources", "date_format"), _SHAPED),
}
# A field can be an edge, which has pages of its own: `phone_numbers.limit(5)`.
_REFUSED_FIELD_ARGUMENTS = {
    name: reason for name, reason in _REFUSED_PARAMS.items() if name not in ("fields", "limit", *_PAGING_PARAMS)
}
# Parameters for times. Meta documents unix seconds for `start` and `end`, and unix seconds or a date for the others.
# https://developers.facebook.com/documentation/business-messaging/whatsapp/analytics
_TIMES = ("start", "end", "since", "until")
# The API's language (PHP) also reads `fields[0]`, `access.token` and `access token` as these names.
_PARAM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PARAMS_EXAMPLE = "for example {'business': '1906385232743451'}"


def parse_params(params: object, *, refused: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Return the query parameters that a user gave, in the form in which they are sent.

    :param params: values by name, as a mapping or its text, or None. Times are sent in unix seconds, including
        times that are given as text in a parameter for a time. Other values that are not ``str`` are sent as JSON,
        and empty values are left out
    :param refused: more names that must not be given, each with what to do instead
    :raises ValueError: if a parameter would change what is read or how, has no name, or has a value that is not JSON
    """
    if params is None:
        return {}
    params = parse_rendered("params", params, _PARAMS_EXAMPLE)
    if not isinstance(params, Mapping):
        raise ValueError(f"params: {shown(params)} is not an object; {_PARAMS_EXAMPLE}")
    parsed = {}
    for name, value in params.items():
        key = name.strip().lower() if isinstance(name, str) else ""
        if reason := _REFUSED_PARAMS.get(key) or refused.get(key):
            raise ValueError(f"params: {shown(name)} cannot be given here: {reason}")
        if not isinstance(name, str) or _PARAM_NAME.fullmatch(name) is None:
            raise ValueError(f"params: {shown(name)} is not the name of a parameter; {_PARAMS_EXAMPLE}")
        if given(value, None) is not None:
            parsed[name] = _encode(name, value)
    return parsed


def _encode(name: str, value: object) -> str:
    if isinstance(value, date) or (name in _TIMES and isinstance(value, (int, float))):
        return str(parse_time(f"params: {name}", value))
    if isinstance(value, str):
        return _encode_time(f"params: {name}", value) if name in _TIMES else value
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(f"params: the value of {shown(name)}, {shown(value)}, is not JSON") from None


def _encode_time(where: str, text: str) -> str:
    try:
        return str(parse_time(where, text.strip("\"' ")))
    except ValueError:
        # Meta reads words such as `yesterday` in these two.
        # https://developers.facebook.com/docs/graph-api/results
        if where.endswith(("since", "until")) and not any(map(str.isdigit, text)):
            return text
        raise


def parse_field_arguments(fields: Sequence[Field]) -> tuple[Field, ...]:
    """Return the fields with their arguments, e.g. ``limit`` in ``phone_numbers.limit(5)``, in the form to send.

    :raises ValueError: if an argument would change what is read or how, or is a time that cannot be read
    """
    # These arguments become query parameters when the remaining pages of a nested edge are requested.
    parsed = []
    for one in fields:
        arguments = []
        for name, value in one.arguments:
            if reason := _REFUSED_FIELD_ARGUMENTS.get(name.lower()):
                raise ValueError(f"fields: {shown(f'{one.name}.{name}')} cannot be given here: {reason}")
            arguments.append((name, _encode_time(f"fields: {one.name}.{name}", value) if name in _TIMES else value))
        parsed.append(replace(one, arguments=tuple(arguments), fields=parse_field_arguments(one.fields)))
    return tuple(parsed)
