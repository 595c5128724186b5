"""Reads Meta's webhooks about WhatsApp Business Accounts: the signature, the handshake and the changes.

Meta can send a delivery when an account is shared, restricted, deleted or reviewed, and when its phone numbers,
templates or flows change. These functions read deliveries. They open no socket, read no clock and store nothing. This
file uses only the standard library and imports nothing from this package, so it also runs on its own in a small web
service, a Lambda function or a queue consumer.

.. code-block:: python

    if not verify_signature(body, headers.get("X-Hub-Signature-256"), app_secret):
        ...  # respond with 403
    for change in account_changes(body):
        if change.event == "PARTNER_ADDED":
            ...  # start one DAG run with the run id change.key

``docs/webhooks.md`` has a receiver. Webhooks do not replace a listing: a delivery is not guaranteed to arrive.

Sources:

- signature, handshake, at most 1,000 updates in a delivery, and that ``time`` is when it was sent:
  https://developers.facebook.com/docs/graph-api/webhooks/getting-started
- at most 3 MB, and deliveries without a 200 response are sent again for up to 7 days:
  https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview
- each topic: ``TOPICS`` names the page
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import logging
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urljoin

__all__ = ["AccountChange", "account_changes", "answer_handshake", "verify_signature"]

_LOG = logging.getLogger(__name__)
_OBJECT = "whatsapp_business_account"
_WHATSAPP = "https://developers.facebook.com/documentation/business-messaging/whatsapp/"


class Topic(NamedTuple):
    """A field of Meta's webhooks that reports on accounts and what belongs to them, not on messages.

    :param field: name of the field, to which an app subscribes
    :param event: key of the value that says what happened; empty if there is none, and the event is then the field
    :param page: page on which Meta documents the value, if it is not the reference page of the field; see ``source``
    :param inside: key of an object in the value that holds the event
    """

    field: str
    event: str
    page: str = ""
    inside: str = ""

    @property
    def source(self) -> str:
        """The address of the page on which Meta documents the value."""
        return urljoin(_WHATSAPP, self.page or f"webhooks/reference/{self.field}")


TOPICS = (
    # The sample of the App Dashboard's test button has no `alert_info` around the alert.
    Topic("account_alerts", "alert_type", inside="alert_info"),
    Topic("account_review_update", "decision"),
    Topic("account_settings_update", "type", "calling/call-settings"),
    Topic("account_update", "event"),
    Topic("business_capability_update", ""),
    Topic("business_status_update", "event", "/docs/graph-api/webhooks/reference/whatsapp-business-account"),
    Topic("business_username_updates", "status", "business-scoped-user-ids"),
    Topic("flows", "event", "flows/guides/flowswebhooks"),
    Topic("message_template_components_update", ""),
    Topic("message_template_quality_update", "new_quality_score"),
    Topic("message_template_status_update", "event"),
    Topic("partner_solutions", "event"),
    Topic("payment_configuration_update", "status"),
    Topic("phone_number_name_update", "decision"),
    Topic("phone_number_quality_update", "event"),
    Topic("security", "event"),
    Topic("template_category_update", "new_category"),
    Topic("template_correct_category_detection", "correct_category", "direct-send/integrity-and-content-guidelines"),
)
# In the deliveries of these topics and events, the id of the entry belongs to a business portfolio. Some of Meta's
# pages show PARTNER_APP_UNINSTALLED without `waba_info`; such a delivery does not name the account at all.
ENTRY_IS_A_BUSINESS = {
    "business_status_update", "partner_solutions",
    "AD_ACCOUNT_LINKED", "MM_LITE_TERMS_SIGNED", "PARTNER_ADDED", "PARTNER_APP_INSTALLED", "PARTNER_APP_UNINSTALLED",
    "PARTNER_REMOVED",
}  # fmt: skip
# PARTNER_REMOVED has one of these, and no `waba_info`, when a client of the WhatsApp Business app is disconnected:
# https://developers.facebook.com/documentation/business-messaging/whatsapp/embedded-signup/onboarding-business-app-users
_OF_A_CLIENT = {"phone_number", "disconnection_info"}
_MAX_BYTES = 3 * 1024 * 1024
_MAX_CHANGES = 1000
# A value takes up to fifty times its bytes in memory. Real deliveries have about ten values per change.
_MAX_VALUES = 500_000
# Real changes are nested five levels deep.
_MAX_DEPTH = 32
# None of Meta's numbers has more digits. Python takes quadratic time in the digits of an integer.
_LONGEST_NUMBER = 40
_LATEST_TIME = 253_402_300_799  # the last second of the year 9999
_ID = re.compile(r"[0-9]{1,32}")
# Meta documents a number. Anything that a browser could take for markup is refused.
_CHALLENGE = re.compile(r"[A-Za-z0-9_.~-]{1,512}")
# JSON can contain a NUL or a lone surrogate, which databases refuse.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class AccountChange:
    """One change of an account or of something that belongs to it, as reported by a delivery.

    A change may arrive late, twice, out of order, or never. Read the account before you act.

    :param waba_id: id of the account, digits only; None if the delivery does not name it
    :param event: what happened, as in ``PARTNER_ADDED``, ``ACCOUNT_DELETED`` or ``FLAGGED``; the name of the field for
        topics without events. Meta adds events, so expect unknown ones
    :param field: topic of the change, as in ``account_update``
    :param owner_business_id: id of the business portfolio that owns the account; None if the delivery does not name it
    :param sent_at: when Meta sent the delivery, in UTC, not when the change happened; None if it does not say
    :param key: the same string whenever Meta sends the same change again: at most 150 letters, digits, ``-`` and ``_``,
        suitable as the id of a DAG run. It does not depend on ``sent_at``, so a change that happens again, such as an
        account that is unshared and shared once more, has the same key as the first time
    :param value: what Meta sent about the change, whole. Only NUL and lone halves of surrogate pairs, which databases
        refuse, are replaced by U+FFFD
    """

    waba_id: str | None
    event: str
    field: str
    owner_business_id: str | None
    sent_at: datetime | None
    key: str
    value: dict[str, Any] = dataclasses.field(hash=False)


def verify_signature(body: bytes, header: str | None, app_secret: str) -> bool:
    """Return whether Meta signed the body with your app's secret; call it before anything else reads the body.

    The comparison takes the same time for every wrong signature.
    See https://developers.facebook.com/docs/graph-api/webhooks/getting-started#validate-payloads

    :param body: the body of the request, byte for byte as received
    :param header: value of ``X-Hub-Signature-256``, which is ``sha256=`` and 64 hexadecimal digits; None if missing
    :param app_secret: the secret of the Meta app. If it is empty, nothing is accepted, because anyone could sign then
    """
    if not header or not app_secret or not app_secret.strip():
        return False
    digest = hmac.new(app_secret.encode("utf-8", "replace"), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={digest}".encode(), header.encode("utf-8", "replace"))


def answer_handshake(query: Mapping[str, str] | None, verify_token: str) -> str | None:
    """Return the response to Meta's handshake, or None if the request must be refused, for example with 403.

    Meta sends this ``GET`` request when the address of the webhook is entered or changed in the app's dashboard.
    See https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests

    :param query: the parameters of the request: ``hub.mode``, ``hub.verify_token`` and ``hub.challenge``
    :param verify_token: the text that you entered in the dashboard. If it is empty, nothing is accepted
    """
    values = [(query or {}).get(f"hub.{name}") for name in ("mode", "verify_token", "challenge")]
    mode, token, challenge = (value if isinstance(value, str) else "" for value in values)
    if mode != "subscribe" or not verify_token or not verify_token.strip():
        return None
    if not hmac.compare_digest(token.encode("utf-8", "replace"), verify_token.encode("utf-8", "replace")):
        return None
    return challenge if _CHALLENGE.fullmatch(challenge) else None


def account_changes(body: bytes) -> list[AccountChange]:
    """Return the account changes in a delivery, in order and without duplicates; empty if there are none.

    A delivery has up to 1,000 changes of several accounts and topics. Topics about messages are left out. So is a
    change that cannot be understood: the others are returned, and a warning in the log says how many were left out and
    why, without any of the body.

    The account is ``waba_info.waba_id``, or otherwise the id of the entry, except where that is the id of a business
    portfolio, or the 0 of Meta's samples.

    :param body: the body of the request, after :func:`verify_signature`
    :raises ValueError: if it is not a delivery from Meta, or larger than one can be. The message says what is wrong;
        neither it nor the error contains any of the body
    """
    delivery = _parse_json(body)
    if not isinstance(delivery, dict) or not isinstance(delivery.get("object"), str):
        _refuse("it is not an object with an `object`")
    if delivery["object"] != _OBJECT:
        return []
    if not isinstance(delivery.get("entry"), list):
        _refuse("`entry` must be a list")
    found: dict[str, AccountChange] = {}
    problems = []
    count = 0
    for entry in delivery["entry"]:
        changes = entry.get("changes") if isinstance(entry, dict) else None
        for change in changes if isinstance(changes, list) else [None]:
            count += 1
            if count > _MAX_CHANGES:
                _refuse(f"it has more than {_MAX_CHANGES} changes")
            try:
                if (read := _read_change(entry, change)) is not None:
                    found.setdefault(read.key, read)
            except ValueError as error:
                problems.append(str(error))
    if problems:
        _LOG.warning("%d of %d changes of a delivery were left out: %s.", len(problems), count, problems[0])
    return list(found.values())


def _read_change(entry: dict[str, Any], change: Any) -> AccountChange | None:
    """Return what an object in ``changes`` reports; None if it is of a topic about messages.

    :raises ValueError: if it cannot be understood
    """
    if not isinstance(change, dict) or not isinstance(change.get("field"), str):
        raise ValueError("it is not an object with a `field`")
    topic = next((topic for topic in TOPICS if topic.field == change["field"]), None)
    if topic is None:
        return None
    value, entry_id = _clean(_object_at(change, "value")), _id_at(entry, "id")
    event = _find_event(topic, value)
    info = _object_at(value, "waba_info") if value.get("waba_info") is not None else {}
    waba_id = _id_at(info, "waba_id") or _find_account(topic, event, value, entry_id)
    return AccountChange(
        waba_id=waba_id,
        event=event,
        field=topic.field,
        owner_business_id=_id_at(info, "owner_business_id"),
        sent_at=_read_time(entry.get("time")),
        key=_make_key(waba_id, event, [topic.field, entry_id, value]),
        value=value,
    )


def _find_event(topic: Topic, value: dict[str, Any]) -> str:
    inner = value.get(topic.inside) if topic.inside else value
    event = (inner if isinstance(inner, dict) else value).get(topic.event) if topic.event else topic.field
    if not isinstance(event, str) or not event:
        raise ValueError(f"`{topic.event}` of {topic.field} must be a string")
    return event


def _find_account(topic: Topic, event: str, value: dict[str, Any], entry_id: str | None) -> str | None:
    """Return the id of the account of a change that names it only in its entry."""
    of_client = event == "PARTNER_REMOVED" and _OF_A_CLIENT & value.keys()
    if ENTRY_IS_A_BUSINESS & {topic.field, event} and not of_client:
        return None
    return None if entry_id == "0" else entry_id  # Meta's samples and its pages on calls have 0 instead of an id


def _make_key(waba_id: str | None, event: str, identity: list[Any]) -> str:
    """Return the key of a change.

    It starts with ``waba-``, because Airflow refuses a run id that starts like one of its own, and uses only characters
    that ``[scheduler] allowed_run_id_pattern`` allows.

    :param identity: what distinguishes this change from all others
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    readable = re.sub(r"[^A-Za-z0-9_]", "_", event[:64])
    return f"waba-{waba_id or 'unknown'}-{readable}-{digest}"


def _parse_json(body: bytes) -> Any:
    """Return the value of a JSON text, within bounds; an object or number that Meta would not write is a ValueError."""
    if len(body) > _MAX_BYTES:
        _refuse(f"it is larger than {_MAX_BYTES} bytes")
    # Counted before parsing, because the parser blocks the whole process.
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > _MAX_VALUES:
        _refuse("it has too many values")
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_make_object,
            parse_constant=_parse_number,
            parse_float=_parse_number,
            parse_int=_parse_number,
        )
    except ValueError:
        problem = "it is not JSON as Meta writes it"
    except RecursionError:
        problem = "it is nested too deeply"
    # Raised outside the except block: otherwise the JSON library's error, which holds the whole body, would become the
    # __context__ of this one.
    _refuse(problem)


# These two return their error, and `_clean` raises it. Raised while parsing, it would lose the other changes.
def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | ValueError:
    value = dict(pairs)
    # Parsers differ in which value of a repeated key they return. Part of the change would be lost silently.
    return value if len(value) == len(pairs) else ValueError("a key occurs twice")


def _parse_number(text: str) -> float | ValueError:
    if len(text) > _LONGEST_NUMBER:
        return ValueError("a number is too long")
    number = int(text) if text.lstrip("-").isdigit() else float(text)
    # Airflow accepts neither NaN nor infinity in the conf of a run.
    return number if math.isfinite(number) else ValueError("a number is not finite")


def _clean(value: Any, depth: int = 0) -> Any:
    """Return a copy of a parsed value that a database takes.

    :raises ValueError: if it has something that Meta would not write
    """
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, ValueError):
        raise value
    if isinstance(value, dict):
        return {_clean(name): _clean(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    return _UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) else value


def _object_at(node: dict[str, Any], name: str) -> dict[str, Any]:
    value = node.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` must be an object")
    return value


def _id_at(node: dict[str, Any], name: str) -> str | None:
    value = node.get(name)
    # Some of Meta's examples show ids as numbers.
    if value is None or (isinstance(value, (str, int)) and _ID.fullmatch(str(value))):
        return None if value is None else str(value)
    raise ValueError(f"`{name}` must be an id, which is digits only")


def _read_time(value: Any) -> datetime | None:
    """Return a time in unix seconds or milliseconds, as a number or text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not re.fullmatch("[0-9]{1,14}", str(value)):
        return None
    seconds = float(value)
    return datetime.fromtimestamp(seconds if seconds <= _LATEST_TIME else seconds / 1000, tz=timezone.utc)


def _refuse(problem: str) -> NoReturn:
    raise ValueError(f"This is not a delivery from Meta's webhooks: {problem}.")
