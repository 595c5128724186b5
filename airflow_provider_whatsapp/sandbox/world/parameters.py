"""Parses the parameters of an edge or an analytics field of an account."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from .accounts import Node
from .api_error import ApiError


@dataclass(frozen=True)
class AccountRead:
    """One request for an edge or an analytics field of an account.

    :param params: the parameters of the request, or the arguments of the field
    :param application: the app that sends the request
    """

    seed: int
    account: Node
    params: dict[str, str]
    application: Node

    def text(self, name: str, default: str = "") -> str:
        """Return the value of a parameter without surrounding quotes."""
        return self.params.get(name, default).strip("\"'")

    def require(self, names: Iterable[str]) -> None:
        """Check that the parameters are given.

        :raises ApiError: (100) if one is missing or empty
        """
        for name in names:
            if not self.params.get(name):
                raise ApiError(100, f"(#100) The parameter {name} is required")

    def words(self, name: str, allowed: Iterable[str] | None = None, most: int | None = None) -> list[str] | None:
        """Return the values of a list parameter, or None if the request does not have it.

        Meta's pages write lists as ``["A","B"]``, ``['A','B']``, ``[1,2]`` and ``A,B``; all forms are accepted.

        :param allowed: the existing values, in upper case; the case of given values is ignored
        :param most: maximum length of the list
        :raises ApiError: (100) if the list is truncated, too long, or contains a value that does not exist
        """
        text = self.params.get(name, "").strip()
        if text.startswith("[") != text.endswith("]"):
            raise ApiError(100, f"(#100) Param {name} must be an array.")
        values = [value for part in text.strip("[]").split(",") if (value := part.strip().strip("\"'"))]
        if not values:
            return None
        if most is not None and len(values) > most:
            raise ApiError(100, f"(#100) Param {name} must have at most {most} elements.")
        if allowed is not None:
            values = [value.upper() for value in values]
            _check(name, values, allowed)
        return values

    def one_of(self, name: str, *allowed: str) -> str:
        """Return the value of a parameter that must be one of these words.

        :raises ApiError: (100) if it is another one
        """
        value = self.params.get(name, "")
        _check(name, [value], allowed)
        return value

    def check_seconds(self, *names: str) -> None:
        """Check parameters for which Meta documents unix seconds only.

        :raises ApiError: (100) if one is anything else
        """
        for name in names:
            if re.fullmatch("[0-9]{1,11}", self.text(name)) is None:
                raise ApiError(100, f"(#100) Param {name} must be a unix timestamp in seconds")

    def moment(self, name: str) -> int | None:
        """Return the time of a parameter in unix seconds, or None if the request does not have it.

        :raises ApiError: (100) if it is neither a number nor a date
        """
        text = self.text(name)
        if not text:
            return None
        if text.isdecimal() and len(text) < 12:
            return int(text)
        # Python 3.10 accepts neither a Z nor an offset without colon at the end of a time.
        text = re.sub(r"(T.*[+-]\d\d)(\d\d)$", r"\1:\2", text.replace("Z", "+00:00"))
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ApiError(100, f"(#100) Param {name} must be a valid date or unix timestamp") from None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp())


def _check(name: str, values: Iterable[str], allowed: Iterable[str]) -> None:
    if not set(values) <= set(allowed):
        raise ApiError(100, f"(#100) Param {name} must be one of {{{', '.join(allowed)}}}")
