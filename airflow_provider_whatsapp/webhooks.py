"""Reads Meta's webhooks about WhatsApp Business Accounts: the signature, the handshake and the changes.

Meta can send a delivery when an account is shared, restricted, deleted or reviewed. These functions read deliveries.
They are pure: they open no socket, read no clock and store nothing. This file uses only the standard library and
imports nothing from Airflow or this package, so it also runs on its own in a small web service, a Lambda function or a
queue consumer.

.. code-block:: python

    if not verify_signature(body, headers.get("X-Hub-Signature-256"), app_secret):
        ...  # answer 403
    for change in account_changes(body):
        if change.event == "PARTNER_ADDED":
            ...  # start one DAG run with the run id change.key

``docs/webhooks.md`` has a receiver. Webhooks do not replace a listing: a delivery is not guaranteed to arrive.

Sources:

- signature, handshake, at most 1,000 updates in a delivery, and that ``time`` is when it was sent:
  https://developers.facebook.com/docs/graph-api/webhooks/getting-started
- at most 3 MB, and deliveries that are not answered with 200 are sent again for up to 7 days:
  https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview
- the events of ``account_update``:
  https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/account_update
- the decisions of ``account_review_update``:
  https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/account_review_update
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NoReturn

__all__ = ["AccountChange", "account_changes", "answer_handshake", "verify_signature"]

_OBJECT = "whatsapp_business_account"
# The fields that report on accounts, each with the key of its event.
_EVENT_OF_FIELD = {"account_update": "event", "account_review_update": "decision"}
# In the deliveries of these events, the id of the entry is that of the partner's business portfolio. Some of Meta's
# pages show PARTNER_APP_UNINSTALLED without `waba_info`; such a delivery does not name the account at all.
_ENTRY_IS_THE_PARTNER = frozenset(
    {
        "AD_ACCOUNT_LINKED",
        "MM_LITE_TERMS_SIGNED",
        "PARTNER_ADDED",
        "PARTNER_APP_INSTALLED",
        "PARTNER_APP_UNINSTALLED",
        "PARTNER_REMOVED",
    }
)
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
_LONGEST_EVENT_IN_KEY = 64
# JSON can contain a NUL or a lone surrogate, which databases refuse.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class AccountChange:
    """One change of one account, as reported by a delivery.

    A change may arrive late, twice, out of order, or never. Read the account before you act.

    :param waba_id: id of the account, digits only; None if the delivery does not name it
    :param event: what happened, as in ``PARTNER_ADDED`` or ``ACCOUNT_DELETED``; for ``account_review_update`` the
        decision, as in ``APPROVED``. Meta adds events, so expect unknown ones
    :param field: ``account_update`` or ``account_review_update``
    :param owner_business_id: id of the business portfolio that owns the account; None if the delivery does not name it
    :param sent_at: when Meta sent the delivery, in UTC, not when the change happened; None if it does not say
    :param key: the same string whenever Meta sends the same change again: at most 150 letters, digits, ``-`` and ``_``,
        suitable as the id of a DAG run. It does not depend on ``sent_at``, so an account that is unshared and shared
        again has the same key as the first time
    """

    waba_id: str | None
    event: str
    field: str
    owner_business_id: str | None
    sent_at: datetime | None
    key: str


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

    A delivery has up to 1,000 changes of several accounts and fields. Only ``account_update`` and
    ``account_review_update`` are read. The account is ``waba_info.waba_id``, or otherwise the id of the entry, except
    for events in which that is the id of the partner's business portfolio.

    :param body: the body of the request, after :func:`verify_signature`
    :raises ValueError: if it is not a delivery from Meta, or larger than one can be. The message says what is wrong;
        neither it nor the error contains any of the body
    """
    delivery = _parse_json(body)
    if not isinstance(delivery, dict):
        _refuse("it is not an object")
    if _text_at(delivery, "object") != _OBJECT:
        return []
    found: dict[str, AccountChange] = {}
    count = 0
    for entry in _objects_at(delivery, "entry"):
        for change in _objects_at(entry, "changes"):
            count += 1
            if count > _MAX_CHANGES:
                _refuse(f"it has more than {_MAX_CHANGES} changes")
            if _text_at(change, "field") in _EVENT_OF_FIELD:
                read = _read_change(entry, change)
                found.setdefault(read.key, read)
    return list(found.values())


def _read_change(entry: dict[str, Any], change: dict[str, Any]) -> AccountChange:
    """Return the change of an account that an object in ``changes`` reports."""
    field, value, entry_id = change["field"], _object_at(change, "value"), _id_at(entry, "id")
    event = _UNSTORABLE.sub("\ufffd", _text_at(value, _EVENT_OF_FIELD[field]))
    info = _object_at(value, "waba_info") if value.get("waba_info") is not None else {}
    waba_id = None if event in _ENTRY_IS_THE_PARTNER else entry_id
    if info.get("waba_id") is not None:
        waba_id = _id_at(info, "waba_id")
    return AccountChange(
        waba_id=waba_id,
        event=event,
        field=field,
        owner_business_id=None if info.get("owner_business_id") is None else _id_at(info, "owner_business_id"),
        sent_at=None if entry.get("time") is None else _time_at(entry, "time"),
        key=_make_key(waba_id, event, [field, entry_id, value]),
    )


def _make_key(waba_id: str | None, event: str, identity: list[Any]) -> str:
    """Return the key of a change.

    It starts with ``waba-``, because Airflow refuses a run id that starts like one of its own, and uses only characters
    that ``[scheduler] allowed_run_id_pattern`` allows.

    :param identity: what distinguishes this change from all others, as JSON
    """
    _check_depth(identity)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    readable = re.sub(r"[^A-Za-z0-9_]", "_", event[:_LONGEST_EVENT_IN_KEY])
    return f"waba-{waba_id or 'unknown'}-{readable}-{digest}"


def _parse_json(body: bytes) -> Any:
    """Return the value of a JSON text, within bounds."""
    if len(body) > _MAX_BYTES:
        _refuse(f"it is larger than {_MAX_BYTES} bytes")
    # Counted before parsing, because the parser blocks the whole process.
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > _MAX_VALUES:
        _refuse("it has too many values")
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_make_object,
            parse_constant=_reject_number,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
    except ValueError:
        problem = "it is not JSON as Meta writes it"
    except RecursionError:
        problem = "it is nested too deeply"
    # Raised outside the except block: otherwise the JSON library's error, which holds the whole body, would become the
    # __context__ of this one.
    _refuse(problem)


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        # Parsers differ in which value of a repeated key they take. Part of the delivery would be lost silently.
        raise ValueError("a key occurs twice")
    return value


def _parse_int(text: str) -> int:
    return int(text) if len(text) <= _LONGEST_NUMBER else _reject_number(text)


def _parse_float(text: str) -> float:
    return float(text) if len(text) <= _LONGEST_NUMBER else _reject_number(text)


def _reject_number(text: str) -> NoReturn:
    raise ValueError("not a number as Meta writes them")


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        _refuse("it is nested too deeply")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)


def _object_at(node: dict[str, Any], name: str) -> dict[str, Any]:
    value = node.get(name)
    return value if isinstance(value, dict) else _refuse(f"`{name}` must be an object")


def _objects_at(node: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = node.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _refuse(f"`{name}` must be a list of objects")
    return value


def _text_at(node: dict[str, Any], name: str) -> str:
    value = node.get(name)
    return value if isinstance(value, str) and value else _refuse(f"`{name}` must be a string")


def _id_at(node: dict[str, Any], name: str) -> str:
    value = node.get(name)
    # Some of Meta's examples show ids as numbers.
    text = str(value) if isinstance(value, (str, int)) else ""
    return text if _ID.fullmatch(text) else _refuse(f"`{name}` must be an id, which is digits only")


def _time_at(node: dict[str, Any], name: str) -> datetime:
    value = node.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LATEST_TIME:
        _refuse(f"`{name}` must be a time in unix seconds")
    return datetime.fromtimestamp(value, tz=timezone.utc)


def _refuse(problem: str) -> NoReturn:
    raise ValueError(f"This is not a delivery from Meta's webhooks: {problem}.")
