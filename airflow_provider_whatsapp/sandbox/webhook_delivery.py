"""Sends webhook deliveries as Meta does when accounts are shared or change."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_whatsapp.transport import clock

from .webhook_examples import EXAMPLES, make_change
from .world.accounts import Node

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Meta shows deliveries of this topic without the time of sending.
_WITHOUT_TIME = "account_settings_update"
# Maximum number of updates that Meta sends at once.
MOST_CHANGES = 1000
_TIMEOUT = 120.0


@dataclass
class WebhookDelivery:
    """A delivery that was sent, and the responses of the receiver.

    :param url: the address that it was sent to
    :param waba_ids: ids of the accounts that it reports
    :param changes: the objects in ``changes`` of its one entry
    :param entry_id: id of that entry: of an account or, for some topics, of the business with which it is shared
    :param secret: app secret that it is signed with
    :param statuses: HTTP status of each response, in order
    """

    url: str
    waba_ids: list[str]
    changes: list[dict[str, Any]]
    entry_id: str
    secret: str = field(repr=False)
    statuses: list[int]

    @property
    def status(self) -> int:
        """The HTTP status of the last response."""
        return self.statuses[-1]

    def repeat(self) -> int:
        """Send the delivery again, as Meta does after every response but 200, and return the status of the response.

        The repeated delivery has a new time of sending.

        :raises OSError: if there is no response
        """
        entry: dict[str, Any] = {"id": self.entry_id, "changes": self.changes}
        if self.changes[0]["field"] != _WITHOUT_TIME:
            entry["time"] = int(clock.now()) + len(self.statuses)
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
        signature = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"}
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=_TIMEOUT)
        try:
            path = f"{address.path or '/'}?{address.query}" if address.query else address.path or "/"
            connection.request("POST", path, body, headers)
            self.statuses.append(connection.getresponse().status)
        finally:
            connection.close()
        return self.status


def make_delivery(url: str, topic: str, accounts: Sequence[Node], *, business_id: str, secret: str) -> WebhookDelivery:
    """Return a delivery, not sent yet, that reports the same change of several accounts.

    :param topic: a key of ``EXAMPLES``
    :param business_id: id of the business with which the accounts are shared
    :raises ValueError: if there is no such topic
    """
    if topic not in EXAMPLES:
        raise ValueError(f"topic must be one of {', '.join(EXAMPLES)}, not {topic!r}")
    changes = []
    for account in accounts:
        owner_id = account.get("owner_business_info", {}).get("id", business_id)
        entry_id, change = make_change(topic, waba_id=account["id"], owner_id=owner_id, partner_id=business_id)
        changes.append(change)
    return WebhookDelivery(url, [account["id"] for account in accounts], changes, entry_id, secret, [])


def check_receiver(url: str, app_secret: str | None) -> None:
    """Check that deliveries can be signed, and that an address is on this machine.

    :raises ValueError: if not
    """
    if app_secret is None:
        raise ValueError("deliveries are signed with the app secret: give the sandbox an app_secret")
    address = urlsplit(url)
    if address.scheme != "http" or address.hostname not in _LOOPBACK:
        raise ValueError(
            "url: the sandbox sends webhooks only to this machine, for example http://127.0.0.1:8000/whatsapp"
        )
