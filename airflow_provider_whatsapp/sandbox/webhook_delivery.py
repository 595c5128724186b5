"""Sends webhook deliveries as Meta does when clients share their accounts.

They follow Meta's example of ``PARTNER_ADDED``, in which the id of the entry is that of the partner's business:
https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/account_update
"""

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

from .world.accounts import Node

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Maximum number of updates that Meta sends at once.
MOST_CHANGES = 1000
_TIMEOUT = 120.0


@dataclass
class WebhookDelivery:
    """A delivery that was sent, and the responses of the receiver.

    :param url: the address that it was sent to
    :param waba_ids: ids of the accounts that it reports
    :param changes: the objects in ``changes`` of its one entry
    :param business_id: id of the business with which the accounts are shared
    :param secret: app secret that it is signed with
    :param statuses: HTTP status of each response, in order
    """

    url: str
    waba_ids: list[str]
    changes: list[dict[str, Any]]
    business_id: str
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
        entry = {"id": self.business_id, "time": int(clock.now()) + len(self.statuses), "changes": self.changes}
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


def deliver(url: str, accounts: Sequence[Node], *, business_id: str, secret: str) -> WebhookDelivery:
    """Report shared accounts to a receiver, all in one delivery.

    :raises OSError: if there is no response
    """
    changes = [
        {
            "value": {
                "event": "PARTNER_ADDED",
                "waba_info": {"waba_id": account["id"], "owner_business_id": account["owner_business_info"]["id"]},
            },
            "field": "account_update",
        }
        for account in accounts
    ]
    ids = [account["id"] for account in accounts]
    delivery = WebhookDelivery(url, ids, changes, business_id, secret, [])
    delivery.repeat()
    return delivery


def check_address(url: str) -> None:
    """Check that an address is on this machine.

    :raises ValueError: if it is not
    """
    address = urlsplit(url)
    if address.scheme != "http" or address.hostname not in _LOOPBACK:
        raise ValueError(
            "url: the sandbox sends webhooks only to this machine, for example http://127.0.0.1:8000/whatsapp"
        )
