"""The columns of a format that has columns: their types, and the values in their cells.

The type of a column follows from its name alone. Objects of different days, API versions and ``fields`` then agree in
every column that they share, so that they can be read as one table. ``docs/parquet.md`` describes the rule for users.
To give a column a type, add a row to :data:`TYPED_COLUMNS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Literal, NamedTuple

from airflow_provider_whatsapp.storage.json_text import encode_json

#: Formats whose columns must be known before the first row, with their names in a sentence.
FORMATS_WITH_COLUMNS = {"csv": "a CSV", "parquet": "Parquet"}

ColumnType = Literal["text", "truth", "number", "decimal", "time", "json"]


class Column(NamedTuple):
    """A field that is not written as JSON.

    :param name: name of the field
    :param type: type of its column, wherever a row has such a field
    :param source: page or file of Meta that documents it
    """

    name: str
    type: ColumnType
    source: str


_GRAPH = "https://developers.facebook.com/docs/graph-api/reference"
_WHATSAPP = "https://developers.facebook.com/documentation/business-messaging/whatsapp"
_SDK = "https://github.com/facebook/facebook-python-business-sdk/blob/main/facebook_business/adobjects"
_OPENAPI = "https://github.com/facebook/openapi/blob/main/business-messaging-api_v23.0.yaml"
_ACCOUNT = f"{_SDK}/whatsappbusinessaccount.py"
_PHONE_NUMBER = f"{_GRAPH}/whats-app-business-account-to-number-current-status"
_TEMPLATE = f"{_GRAPH}/whats-app-business-hsm"
_TEMPLATE_GROUP = (
    "https://developers.facebook.com/docs/whatsapp/business-management-api/message-templates/template-groups"
)
_FLOW = f"{_WHATSAPP}/flows/guides/flowsapi"
_SCHEDULE = f"{_WHATSAPP}/reference/whatsapp-business-account/schedules-api"
_CATALOG = f"{_SDK}/productcatalog.py"
_USER = f"{_SDK}/assigneduser.py"
_ACCOUNT_MODEL = f"{_WHATSAPP}/account-model-evolution"
_ANALYTICS = f"{_WHATSAPP}/analytics"

#: All columns that are not JSON. An entry must not be changed or added without a new major version: a table could not
#: be read as one any more when its older objects have another type in a column.
TYPED_COLUMNS = (
    Column("waba_id", "text", "this package: the account of a row"),
    Column("id", "text", _ACCOUNT),
    Column("name", "text", _ACCOUNT),
    Column("currency", "text", _ACCOUNT),
    Column("timezone_id", "text", _ACCOUNT),
    Column("message_template_namespace", "text", _ACCOUNT),
    Column("account_review_status", "text", _ACCOUNT),
    Column("business_verification_status", "text", _ACCOUNT),
    Column("ownership_type", "text", _ACCOUNT),
    Column("country", "text", _ACCOUNT),
    Column("status", "text", _ACCOUNT),
    Column("primary_business_location", "text", _ACCOUNT),
    Column("primary_funding_id", "text", _ACCOUNT),
    Column("purchase_order_number", "text", _ACCOUNT),
    Column("marketing_messages_lite_api_status", "text", _ACCOUNT),
    Column("marketing_messages_onboarding_status", "text", _ACCOUNT),
    Column("whatsapp_business_manager_messaging_limit", "text", _ACCOUNT),
    Column("whatsapp_manager_marketing_messages_max_price_enroll_status", "text", _ACCOUNT),
    Column("service_pricing_policy", "text", _ACCOUNT),
    Column("is_enabled_for_insights", "truth", _ACCOUNT),
    Column("is_shared_with_partners", "truth", _ACCOUNT),
    Column("disable_marketing_messages_on_cloud_api", "truth", _ACCOUNT),
    Column("template_auto_archival_enabled", "truth", _ACCOUNT),
    Column("creation_time", "time", _ACCOUNT),
    Column("display_phone_number", "text", _PHONE_NUMBER),
    Column("verified_name", "text", _PHONE_NUMBER),
    Column("quality_rating", "text", _PHONE_NUMBER),
    Column("code_verification_status", "text", _PHONE_NUMBER),
    Column("platform_type", "text", _PHONE_NUMBER),
    Column("name_status", "text", _PHONE_NUMBER),
    Column("new_name_status", "text", _PHONE_NUMBER),
    Column("account_mode", "text", _PHONE_NUMBER),
    Column("messaging_limit_tier", "text", _PHONE_NUMBER),
    Column("certificate", "text", _PHONE_NUMBER),
    Column("is_official_business_account", "truth", _PHONE_NUMBER),
    Column("is_pin_enabled", "truth", _PHONE_NUMBER),
    Column("last_onboarded_time", "time", _PHONE_NUMBER),
    Column("country_code", "text", _PHONE_NUMBER),
    Column("country_dial_code", "text", _PHONE_NUMBER),
    Column("search_visibility", "text", _PHONE_NUMBER),
    Column("is_on_biz_app", "truth", _PHONE_NUMBER),
    Column("is_preverified_number", "truth", _PHONE_NUMBER),
    Column("waac_id", "text", _ACCOUNT_MODEL),
    Column("language", "text", _TEMPLATE),
    Column("category", "text", _TEMPLATE),
    Column("previous_category", "text", _TEMPLATE),
    Column("sub_category", "text", _TEMPLATE),
    Column("rejected_reason", "text", _TEMPLATE),
    Column("parameter_format", "text", _TEMPLATE),
    Column("library_template_name", "text", _TEMPLATE),
    Column("message_send_ttl_seconds", "number", _TEMPLATE),
    Column("description", "text", _TEMPLATE_GROUP),
    Column("update_time", "time", _TEMPLATE_GROUP),
    Column("json_version", "text", _FLOW),
    Column("data_api_version", "text", _FLOW),
    Column("endpoint_uri", "text", _FLOW),
    Column("updated_at", "time", _FLOW),
    Column("status_for_pending_request", "text", _OPENAPI),
    Column("delivery_time", "time", _SCHEDULE),
    Column("vertical", "text", _CATALOG),
    Column("product_count", "number", _CATALOG),
    Column("user_type", "text", _USER),
    Column("activity_type", "text", _OPENAPI),
    Column("actor_type", "text", _OPENAPI),
    Column("actor_id", "text", _OPENAPI),
    Column("actor_name", "text", _OPENAPI),
    Column("ip_address", "text", _OPENAPI),
    Column("user_agent", "text", _OPENAPI),
    Column("timestamp", "time", _OPENAPI),
    Column("start", "time", _ANALYTICS),
    Column("end", "time", _ANALYTICS),
    Column("phone_number", "text", _ANALYTICS),
    Column("tier", "text", _ANALYTICS),
    Column("pricing_type", "text", _ANALYTICS),
    Column("pricing_category", "text", _ANALYTICS),
    Column("conversation_type", "text", _ANALYTICS),
    Column("conversation_direction", "text", _ANALYTICS),
    Column("conversation_category", "text", _ANALYTICS),
    Column("direction", "text", _ACCOUNT),
    Column("template_id", "text", _ANALYTICS),
    Column("template_group_id", "text", _TEMPLATE_GROUP),
    Column("group_id", "text", _ACCOUNT),
    Column("volume", "number", _ANALYTICS),
    Column("conversation", "number", _ANALYTICS),
    Column("count", "number", _ACCOUNT),
    Column("average_duration", "decimal", _ACCOUNT),
    Column("sent", "number", _ANALYTICS),
    Column("delivered", "number", _ANALYTICS),
    Column("read", "number", _ANALYTICS),
    Column("joined", "number", _ACCOUNT),
    Column("left", "number", _ACCOUNT),
    Column("cost", "decimal", _ANALYTICS),
)
_TYPES = {column.name: column.type for column in TYPED_COLUMNS}
_DIGITS = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_TIME = (datetime.min.replace(tzinfo=timezone.utc) - _EPOCH) // _MICROSECOND
# The digits of a decimal128(38, 18).
_DECIMAL = Context(prec=38, traps=[Inexact, InvalidOperation])
_DECIMAL_PLACES = Decimal("1e-18")
_LAST_TIME = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH) // _MICROSECOND
_LONGEST_SHOWN = 60


class UnfitValueError(ValueError):
    """A row has a value that does not fit the type of its column, so the object could not hold the complete list."""


def type_of(column: str) -> ColumnType:
    """Return the type of a column; that of an unknown field is ``"json"``.

    :param column: name of the column
    """
    return _TYPES.get(column, "json")


def encode_text(value: Any) -> str:
    """Return a text as it is, and any other value as JSON.

    :param value: anything but None
    """
    return value if isinstance(value, str) else encode_json(value)


def encoder_of(column: str) -> Callable[[Any], Any]:
    """Return the function that turns a value into a cell of the column.

    It takes any JSON value except null, and returns a ``str``, ``bool``, ``int`` or ``Decimal``; for a time,
    microseconds since 1970 in UTC. It raises :class:`UnfitValueError` if the value does not fit.

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


def _encode_decimal(value: Any) -> Decimal:
    # The text of a float has the digits of the response; its binary value has many more.
    number = str(value) if isinstance(value, float) else value
    if (isinstance(number, int) and not isinstance(number, bool)) or (
        isinstance(number, str) and _NUMBER.fullmatch(number)
    ):
        try:
            return Decimal(number).quantize(_DECIMAL_PLACES, context=_DECIMAL)
        except (Inexact, InvalidOperation):
            pass
    raise _unfit(value, "a number with at most 20 digits before the point and 18 after it")


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
    """Return the moment of an ISO 8601 text with a zone, such as the Graph API's ``2026-11-01T12:00:00+0000``."""
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
    "decimal": _encode_decimal,
    "time": _encode_time,
    "json": encode_json,
}
