"""Checks the arguments of a trigger that Airflow has stored in its database, when they are used.

Another release may have stored them, so missing values take their defaults, and unknown ones are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from airflow_provider_whatsapp.graph.arguments import LATEST_TIME

_Stored = TypeVar("_Stored")
#: A time in unix seconds, up to the year 9999.
_Moment = Annotated[float, msgspec.Meta(ge=0, le=LATEST_TIME)]
#: A number of seconds; at most a century, so that it is finite.
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=100 * 366 * 86_400)]


class StoredCondition(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of :func:`~airflow_provider_whatsapp.graph.condition.build_condition`, which checks them."""

    waba_ids: Any = None
    min_count: Any = None
    where: Any = None


class StoredPace(msgspec.Struct, frozen=True, kw_only=True):
    """How often to look, see :class:`~airflow_provider_whatsapp.triggers.whatsapp.WhatsAppWabasTrigger`."""

    poke_interval: _Seconds = 60.0
    exponential_backoff: bool = False
    max_wait: _Seconds | None = None


class StoredClock(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a wait, see :class:`~airflow_provider_whatsapp.triggers.whatsapp.WhatsAppWabasTrigger`."""

    started: _Moment
    looked: _Moment
    deadline: _Moment | None = None
    not_before: _Moment = 0.0


def read_stored(name: str, value: object, kind: type[_Stored]) -> _Stored:
    """Return the checked value of a stored argument.

    :param name: name of the argument, for the error
    :param value: the stored value
    :param kind: type of the result
    :raises ValueError: if the value does not fit; the message names the argument and the position in it, but shows no
        value
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        # The message is "Expected `float`, got `str` - at `$.started`", without a position if the whole value is wrong.
        what, _, place = str(error).partition(" - at `$.")
        raise ValueError(f"{place.rstrip('`') or name}: {what}") from None
