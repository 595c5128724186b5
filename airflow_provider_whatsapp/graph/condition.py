"""Checks whether the accounts of a listing meet the condition that a sensor waits for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_whatsapp.graph.arguments import (
    could_be_secret,
    did_you_mean,
    given,
    parse_count,
    parse_rendered,
    parse_waba_id,
    shown,
)
from airflow_provider_whatsapp.graph.fields import Field

Row = dict[str, Any]
# Maximum numbers of accounts, and of values of a field, that a reason names.
_MOST_ACCOUNTS = 3
_MOST_VALUES = 10
_WHERE_EXAMPLE = "for example {'country': 'BR'} or {'owner_business_info.name': ['A', 'B']}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition on the accounts of a listing.

    :param waba_ids: ids of accounts that must all exist; only these accounts match. Empty lets every account match
    :param min_count: number of accounts that must match
    :param where: fields and their allowed values; an account matches if each field has one of its values. A dot in the
        name of a field leads into an object
    """

    waba_ids: frozenset[str]
    min_count: int
    where: tuple[tuple[str, tuple[Any, ...]], ...]

    @property
    def matches_needed(self) -> int:
        """The number of accounts that must match before the condition is met."""
        return max(self.min_count, len(self.waba_ids))

    def matches(self, row: Row) -> bool:
        """Return whether the account matches."""
        if self.waba_ids and row.get("id") not in self.waba_ids:
            return False
        return all(any(_equals(_value_of(row, name), value) for value in values) for name, values in self.where)

    def describe_mismatch(self, row: Row) -> str:
        """Return which field of an account does not have the wanted value, e.g. ``status is PENDING, not APPROVED``."""
        name, wanted = next(
            (name, wanted)
            for name, wanted in self.where
            if not any(_equals(_value_of(row, name), value) for value in wanted)
        )
        return f"{name} is {_in_words(_value_of(row, name))}, not {_one_of(wanted)}"

    def new_tally(self) -> Tally:
        """Return a new tally for one reading of a listing."""
        return Tally(self)

    def needed_fields(self, fields: Sequence[Field]) -> tuple[Field, ...]:
        """Return the subset of *fields* needed to evaluate the condition.

        :param fields: fields that the listing requests
        :raises ValueError: if a field of ``where`` is not among them
        """
        by_key = {field.key: field for field in fields}
        for name, _ in self.where:
            _check_asked_for(name, fields)
        return tuple(by_key[key] for key in dict.fromkeys(["id", *(name.partition(".")[0] for name, _ in self.where)]))

    def to_json(self) -> dict[str, Any]:
        """Return the condition as JSON: arguments for :func:`build_condition`."""
        return {
            "waba_ids": sorted(self.waba_ids) or None,
            "min_count": self.min_count,
            "where": {name: list(values) for name, values in self.where} or None,
        }


def build_condition(
    *,
    waba_ids: str | int | Sequence[str | int] | None = None,
    min_count: int | str | None = None,
    where: Mapping[str, Any] | str | None = None,
) -> Condition:
    """Return the condition that a user gave; without arguments, that at least one account exists.

    :param waba_ids: ids as a sequence or a comma string
    :param min_count: at least 1
    :param where: value or list of values by field, or the text of such an object
    :raises ValueError: if an argument is wrong; the message names it and shows an example
    """
    ids = _parse_waba_ids(waba_ids)
    count = parse_count("min_count", given(min_count, max(1, len(ids))))
    if ids and count > len(ids):
        raise ValueError(f"min_count: {count} can never be reached by the {len(ids)} accounts of waba_ids")
    return Condition(ids, count, _parse_where(where))


class Tally:
    """Counts the accounts of one listing that match a condition.

    :param condition: the condition
    """

    #: Whether the listing must be read completely, even if no other wait on it needs more rows.
    needs_whole_listing = False

    def __init__(self, condition: Condition) -> None:
        #: Number of accounts that have matched so far.
        self.count = 0
        self._condition = condition
        self._seen: set[str] = set()
        # Why the first accounts do not match, by their ids; only accounts of `waba_ids` if there are any.
        self._mismatches: dict[str, str] = {}
        # Some of the values that the accounts have in each field of `where`.
        self._values: dict[str, set[str]] = {name: set() for name, _ in condition.where}

    def add(self, row: Row) -> bool:
        """Count the account if it matches. Returns whether it matched."""
        matches = self._condition.matches(row)
        self.count += matches
        if self._condition.waba_ids and row.get("id") in self._condition.waba_ids:
            self._seen.add(row["id"])
        elif self._condition.waba_ids or not self._condition.where:
            return matches
        for name, found in self._values.items():
            if len(found) < _MOST_VALUES:
                found.add(_in_words(_value_of(row, name)))
        if not matches and len(self._mismatches) < _MOST_ACCOUNTS:
            self._mismatches[str(row.get("id"))] = self._condition.describe_mismatch(row)
        return matches

    def reason(self, *, listed: str) -> str:
        """Return why the accounts so far do not meet the condition, as a text for the log; empty if no reason is known.

        :param listed: what an account of the listing is: ``"shared"`` or ``"owned"``
        """
        wanted = self._condition
        missing = sorted(wanted.waba_ids - self._seen)
        reasons = [f"{waba_id} is not {listed}" for waba_id in missing[:_MOST_ACCOUNTS]]
        reasons += [f"{waba_id} is {listed}, but {mismatch}" for waba_id, mismatch in self._mismatches.items()]
        del reasons[_MOST_ACCOUNTS:]
        if not wanted.waba_ids and wanted.min_count > 1:
            reasons.insert(0, f"{wanted.min_count} are needed")
        if wanted.waba_ids and (left_out := len(wanted.waba_ids) - self.count - len(reasons)):
            reasons.append(f"and {left_out} more")
        return "; ".join([*reasons, *self._hints()])

    def _hints(self) -> Iterator[str]:
        """Yield what is probably wrong: a value that no account has, or that differs only in upper and lower case."""
        for name, values in self._condition.where:
            found = self._values[name]
            words = {_in_words(value) for value in values}
            if not found or len(found) == _MOST_VALUES or found & words:
                continue
            if {word.lower() for word in found} & {word.lower() for word in words}:
                yield f"upper and lower case matter: {name} is {' or '.join(sorted(found))}"
            elif not self._condition.waba_ids:
                only = "" if found == {"missing"} else f" {_one_of(values)}, only {' or '.join(sorted(found))}"
                yield f"no account has {name}{only}"

    @property
    def is_met(self) -> bool:
        """Whether the condition is met, regardless of the accounts that follow."""
        return self.count >= self._condition.matches_needed

    @property
    def is_complete(self) -> bool:
        """Whether no further account can match, so that the rest of the listing need not be read."""
        return 0 < len(self._condition.waba_ids) == self.count

    def matching(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows that match. Reading stops when no further row can match.

        :param rows: rows of one listing
        """
        for row in rows:
            if self.add(row):
                yield row
            if self.is_complete:
                return


def _one_of(values: Sequence[Any]) -> str:
    return " or ".join(map(_in_words, values[:_MOST_VALUES]))


def _in_words(value: Any) -> str:
    """Return a value for a sentence: a word as it is, and anything else as it is shown in errors."""
    if isinstance(value, str) and re.fullmatch(r"[\w.-]{1,40}", value) and not could_be_secret(value):
        return value
    return "missing" if value is None else shown(value)


def _parse_waba_ids(value: object) -> frozenset[str]:
    if value is None:
        return frozenset()
    example = "for example ['102290129340398']"
    ids = [value] if isinstance(value, int) else parse_rendered("waba_ids", value, example)
    ids = ids.split(",") if isinstance(ids, str) else ids
    if not isinstance(ids, Sequence) or not ids:
        raise ValueError(f"waba_ids: {shown(value)} has no ids; {example}")
    return frozenset(map(parse_waba_id, ids))


def _parse_where(value: object) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if value is None:
        return ()
    value = parse_rendered("where", value, _WHERE_EXAMPLE)
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"where: {shown(value)} names no field; {_WHERE_EXAMPLE}")
    pairs = []
    for name, wanted in value.items():
        if not isinstance(name, str) or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name, re.ASCII) is None:
            raise ValueError(f"where: {shown(name)} is not the name of a field; {_WHERE_EXAMPLE}")
        values = wanted if isinstance(wanted, (list, tuple)) else (wanted,)
        if not values or not all(one is None or isinstance(one, (str, int, float)) for one in values):
            raise ValueError(
                f"where: {shown(wanted)} is not a value or list of values for {shown(name)}; {_WHERE_EXAMPLE}"
            )
        pairs.append((name, tuple(_as_in_an_answer(name, one) for one in values)))
    return tuple(pairs)


def _as_in_an_answer(name: str, value: Any) -> Any:
    # Rows have ids as text, so an id that a DAG gives as a number must become text to equal one.
    is_id = name.rpartition(".")[2] == "id" or name.endswith("_id")
    return str(value) if is_id and isinstance(value, int) and not isinstance(value, bool) else value


def _value_of(row: Row, name: str) -> Any:
    value: Any = row
    for part in name.split("."):
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            raise ValueError(
                f"where: {shown(name)} leads through an edge, which has many values; it can only lead into objects"
            )
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _equals(answered: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and isinstance(answered, (bool, int, float)):
        # Templates render numbers and booleans to text.
        return json.dumps(answered) == wanted.lower()
    # In Python, unlike in JSON, True equals 1.
    return isinstance(answered, bool) == isinstance(wanted, bool) and bool(answered == wanted)


def _check_asked_for(name: str, fields: Sequence[Field]) -> None:
    for part in name.split("."):
        by_key = {field.key: field for field in fields}
        if part not in by_key:
            asked_for = ", ".join(map(shown, by_key))
            hint = did_you_mean(part, by_key) or "; add it there"
            raise ValueError(f"where: {shown(part)} of {shown(name)} is not among the fields {asked_for}{hint}")
        fields = by_key[part].fields
        if not fields:
            # Without nested fields, the API decides what the object holds.
            return
