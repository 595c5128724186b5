"""The columns of a format that has columns: their types, and the values in their cells.

The type of a column follows from its name alone. Objects of different days, API versions and ``fields`` then agree in
every column that they share, so that they can be read as one table. ``docs/parquet.md`` describes the rule for users.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from airflow_provider_whatsapp.storage.json_text import encode_json

#: Formats whose columns must be known before the first row, with their names in a sentence.
FORMATS_WITH_COLUMNS = {"csv": "a CSV", "parquet": "Parquet"}

ColumnType = Literal["text", "truth", "number", "time", "json"]

#: The columns that are not JSON, by their type. An entry must not be changed or added without a new major version:
#: a table could not be read as one any more when its older objects have another type in a column.
TYPED_COLUMNS: dict[ColumnType, tuple[str, ...]] = {
    "text": (
        "waba_id",
        "id",
        "name",
        "description",
        "status",
        # accounts
        "currency",
        "timezone_id",
        "message_template_namespace",
        "account_review_status",
        "business_verification_status",
        "ownership_type",
        "country",
        "primary_business_location",
        "primary_funding_id",
        "purchase_order_number",
        "marketing_messages_lite_api_status",
        "marketing_messages_onboarding_status",
        "whatsapp_business_manager_messaging_limit",
        "whatsapp_manager_marketing_messages_max_price_enroll_status",
        "service_pricing_policy",
        # phone numbers
        "display_phone_number",
        "verified_name",
        "quality_rating",
        "code_verification_status",
        "platform_type",
        "name_status",
        "new_name_status",
        "account_mode",
        "messaging_limit_tier",
        "certificate",
        # message templates
        "language",
        "category",
        "previous_category",
        "sub_category",
        "rejected_reason",
        "parameter_format",
        "library_template_name",
        # flows, solutions, product catalogs, users and activities
        "json_version",
        "data_api_version",
        "endpoint_uri",
        "status_for_pending_request",
        "vertical",
        "user_type",
        "activity_type",
        "actor_type",
        "actor_id",
        "actor_name",
        "ip_address",
        "user_agent",
    ),
    "truth": (
        "is_enabled_for_insights",
        "is_shared_with_partners",
        "disable_marketing_messages_on_cloud_api",
        "template_auto_archival_enabled",
        "is_official_business_account",
        "is_pin_enabled",
    ),
    "number": ("product_count", "message_send_ttl_seconds"),
    "time": ("creation_time", "update_time", "updated_at", "last_onboarded_time", "delivery_time", "timestamp"),
}
_TYPES = {name: type for type, names in TYPED_COLUMNS.items() for name in names}
_DIGITS = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_TIME = (datetime.min.replace(tzinfo=timezone.utc) - _EPOCH) // _MICROSECOND
_LAST_TIME = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH) // _MICROSECOND
_LONGEST_SHOWN = 60


class UnfitValueError(ValueError):
    """A row has a value that does not fit the type of its column, so the object could not hold the complete list."""


def type_of(column: str) -> ColumnType:
    """The type of a column; that of an unknown field is ``"json"``.

    :param column: name of the column
    """
    return _TYPES.get(column, "json")


def encode_text(value: Any) -> str:
    """A text as it is, and the JSON text of any other value.

    :param value: anything but None
    """
    return value if isinstance(value, str) else encode_json(value)


def encoder_of(column: str) -> Callable[[Any], Any]:
    """What makes a cell of a value: a ``str``, ``bool`` or ``int``; for a time, microseconds since 1970 in UTC.

    It takes any JSON value but null, and raises :class:`UnfitValueError` if the value does not fit.

    :param column: name of the column
    """
    return _ENCODERS[type_of(column)]


def _encode_truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _unfit(value, "true or false")


def _encode_number(value: Any) -> int:
    if (number := _whole_number(value)) is not None and -(2**63) <= number < 2**63:
        return number
    raise _unfit(value, "a whole number of 64 bits")


def _encode_time(value: Any) -> int:
    seconds = _whole_number(value)
    moment = _microseconds(value) if seconds is None else seconds * 1_000_000
    if moment is not None and _FIRST_TIME <= moment <= _LAST_TIME:
        return moment
    raise _unfit(value, "a time in unix seconds, or in ISO 8601 with its zone")


def _whole_number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else None


def _microseconds(value: Any) -> int | None:
    """The moment of an ISO 8601 text with a zone, such as the Graph API's ``2026-11-01T12:00:00+0000``."""
    if isinstance(value, str):
        for format in ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"):
            try:
                return (datetime.strptime(value, format) - _EPOCH) // _MICROSECOND
            except ValueError:
                continue
    return None


def _unfit(value: Any, expected: str) -> UnfitValueError:
    shown = json.dumps(value)
    if len(shown) > _LONGEST_SHOWN:
        shown = f"{shown[:_LONGEST_SHOWN]}..."
    return UnfitValueError(f"{shown} is not {expected}")


_ENCODERS: dict[ColumnType, Callable[[Any], Any]] = {
    "text": encode_text,
    "truth": _encode_truth,
    "number": _encode_number,
    "time": _encode_time,
    "json": encode_json,
}
