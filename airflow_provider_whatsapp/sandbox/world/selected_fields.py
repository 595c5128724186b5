"""Parses the ``fields`` parameter, e.g. ``id,name,phone_numbers.limit(5){id}``, to a tree of fields.

https://developers.facebook.com/docs/graph-api/guides/field-expansion
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

from .api_error import ApiError

# An argument may contain brackets and quotes, e.g. .dimensions(["COUNTRY"]). A parenthesis counts only outside quotes.
_ARGUMENT = r"""(?:"[^"]*"|'[^']*'|[^()"'])*"""
_FIELD = re.compile(rf"([A-Za-z_][A-Za-z0-9_]*)((?:\.[a-z_]+\({_ARGUMENT}\))*)")
_MODIFIER = re.compile(rf"\.([a-z_]+)\(({_ARGUMENT})\)")
_SPACE_OR_QUOTED = re.compile(r"""("[^"]*"|'[^']*')|\s+""")
_DEEPEST = 20


@dataclass(frozen=True)
class SelectedField:
    """One requested field.

    :param modifiers: values by modifier name: ``{"limit": "5"}`` for ``.limit(5)``
    :param fields: the fields selected within it
    :param text: the text between its braces
    """

    name: str
    modifiers: dict[str, str] = field(default_factory=dict)
    fields: tuple[SelectedField, ...] = ()
    text: str = ""

    @property
    def key(self) -> str:
        """The key of the field in the response."""
        return self.modifiers.get("as", self.name)

    @property
    def params(self) -> dict[str, str]:
        """The parameters that a separate request for the field would have."""
        params = {name: value for name, value in self.modifiers.items() if name != "as"}
        return {**params, "fields": self.text} if self.text else params


def parse_fields(text: str, modifiers: Set[str]) -> tuple[SelectedField, ...]:
    """Return the fields that a ``fields`` parameter selects.

    :param modifiers: names of the modifiers that may follow a field
    :raises ApiError: (2500) if the text is not a list of fields
    """
    text = _SPACE_OR_QUOTED.sub(lambda found: found[1] or "", text)
    selected, end = _parse_list(text, 0, 0, modifiers)
    if end < len(text):
        raise _syntax_error(text, end, "end of string")
    return selected


def _parse_list(text: str, at: int, depth: int, known: Set[str]) -> tuple[tuple[SelectedField, ...], int]:
    """Parse a list that begins at a position. Return the fields and the position after the last of them."""
    if depth > _DEEPEST:
        raise _syntax_error(text, at, "a shallower expansion")
    selected = []
    while True:
        match = _FIELD.match(text, at)
        if match is None:
            raise _syntax_error(text, at, "a field name")
        modifiers = dict(_MODIFIER.findall(match[2]))
        if not modifiers.keys() <= known:
            raise _syntax_error(text, at, "a known modifier")
        at = match.end()
        inner: tuple[SelectedField, ...] = ()
        inner_text = ""
        if text.startswith("{", at):
            inner, end = _parse_list(text, at + 1, depth + 1, known)
            if not text.startswith("}", end):
                raise _syntax_error(text, end, '"}"')
            inner_text, at = text[at + 1 : end], end + 1
        selected.append(SelectedField(match[1], modifiers, inner, inner_text))
        if not text.startswith(",", at):
            return tuple(selected), at
        at += 1


def _syntax_error(text: str, at: int, expected: str) -> ApiError:
    return ApiError(2500, f'Syntax error "Expected {expected}." at character {at}: {text}')


def pick(value: Any, selection: tuple[SelectedField, ...]) -> Any:
    """Return the selected members of an embedded object, and always its id. Any other value is returned unchanged."""
    if not selection or not isinstance(value, dict):
        return value
    kept = {item.key: pick(value[item.name], item.fields) for item in selection if value.get(item.name) is not None}
    return {**kept, "id": value["id"]} if "id" in value else kept
