"""The ``fields`` parameter of the Graph API, e.g. ``id,name,phone_numbers.limit(5){id,display_phone_number}``.

https://developers.facebook.com/docs/graph-api/guides/field-expansion
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_whatsapp.graph.arguments import could_be_secret, parse_rendered, shown

#: Maximum nesting of fields. Real queries nest two or three levels.
MAX_DEPTH = 10
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXAMPLE = "for example 'id,name,phone_numbers.limit(5){id}'"
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a node, or one of its edges with the fields requested there.

    :param name: the API's name of the field
    :param arguments: name and value of each ``.name(value)`` after the field, e.g. ``(("limit", "5"),)``
    :param fields: fields to request for the nodes below this one; empty leaves the choice to the API
    """

    name: str
    arguments: tuple[tuple[str, str], ...] = ()
    fields: tuple[Field, ...] = ()

    @property
    def key(self) -> str:
        """The key of this field in a response: its alias (``.as(alias)``) if it has one, otherwise its name."""
        return dict(self.arguments).get("as", self.name)

    def __str__(self) -> str:
        arguments = "".join(f".{name}({value})" for name, value in self.arguments)
        return f"{self.name}{arguments}" + (f"{{{join_fields(self.fields)}}}" if self.fields else "")


def join_fields(fields: Sequence[Field]) -> str:
    """Return the fields as one text, in the form that the API's ``fields`` parameter accepts."""
    return ",".join(map(str, fields))


def parse_fields(fields: str | Sequence[str]) -> tuple[Field, ...]:
    """Return the parsed fields.

    :param fields: a comma string, or a sequence of names; nested ``{}`` allowed in both
    :raises ValueError: if there is no field, or the API's ``fields`` parameter would not accept them
    """
    fields = parse_rendered("fields", fields, _EXAMPLE)
    if not isinstance(fields, str):
        if not isinstance(fields, Sequence) or not all(isinstance(field, str) for field in fields):
            raise ValueError(f"fields: {shown(fields)} is not a sequence of names or a comma string; {_EXAMPLE}")
        if not all(field.strip() for field in fields):
            raise ValueError(f"fields: {shown(list(fields))} has an empty name; {_EXAMPLE}")
        fields = ",".join(fields)
    if not fields.strip():
        raise ValueError(f"fields: empty; {_EXAMPLE}")
    return _Parser(fields).parse()


class _Parser:
    """Reads the text from left to right; each method reads one part and moves past it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> tuple[Field, ...]:
        fields = self._fields(0)
        if self._at < len(self._text):
            raise self._error("a ',' or the end")
        return fields

    def _fields(self, depth: int) -> tuple[Field, ...]:
        if depth > MAX_DEPTH:
            raise ValueError(f"fields: nested more than {MAX_DEPTH} levels deep")
        fields = [self._field(depth)]
        while self._take(","):
            fields.append(self._field(depth))
        by_key: dict[str, Field] = {}
        for field in fields:
            if by_key.setdefault(field.key, field) != field:
                raise ValueError(
                    f"fields: {shown(field.key)} is requested twice in different ways: "
                    f"{shown(str(by_key[field.key]))} and {shown(str(field))}"
                )
        return tuple(by_key.values())

    def _field(self, depth: int) -> Field:
        name = self._name()
        arguments = []
        while self._take("."):
            arguments.append((self._name(), self._argument()))
        below: tuple[Field, ...] = ()
        if self._take("{"):
            below = self._fields(depth + 1)
            if not self._take("}"):
                raise self._error("a ',' or a '}'")
        return Field(name, tuple(arguments), below)

    def _name(self) -> str:
        self._skip_space()
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._error("the name of a field")
        self._at = match.end()
        return match.group()

    def _argument(self) -> str:
        if not self._take("("):
            raise self._error("a '('")
        start, expected_closing = self._at, [")"]
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char in _CLOSING:
                expected_closing.append(_CLOSING[char])
            elif char == expected_closing[-1]:
                expected_closing.pop()
                if not expected_closing:
                    return self._text[start : self._at - 1].strip()
            elif char in ")]}":
                break
        raise self._error("a ')'")

    def _take(self, char: str) -> bool:
        self._skip_space()
        taken = self._text.startswith(char, self._at)
        self._at += taken
        return taken

    def _skip_space(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def _error(self, expected: str) -> ValueError:
        found = repr(self._text[self._at : self._at + 20])
        if could_be_secret(self._text):
            # Do not show only the next 20 characters: they could be part of a secret, too short to be recognised.
            found = shown(self._text)
        what = f"{found} stands" if self._at < len(self._text) else "the text ends"
        return ValueError(f"fields: {what} at position {self._at} where {expected} should be; {_EXAMPLE}")
