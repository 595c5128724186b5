"""A local Graph API, to try the provider and test DAGs without a Meta account.

.. code-block:: python

    with GraphSandbox(accounts=2500) as sandbox:
        os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = sandbox.connection
        sandbox.fail_next(Fault.throttle(minutes=1))
        ...
        assert sandbox.requests[0].status == 400

    with GraphSandbox(accounts=50_000, calls_per_hour=200) as sandbox, no_waits() as skipped:
        ...  # a client that is throttled here waits no real time
        print(skipped.total)  # seconds that it would have waited

It serves HTTP/1.1 on loopback and simulates, as Meta's documentation describes them:

- the WhatsApp Business Accounts that a business owns and those that clients share with it, ``me``, ``me/businesses``
  and ``debug_token``
- the edges of an account, such as phone numbers, message templates, flows, subscribed apps and assigned users
- the analytics of an account, as edges and as fields with arguments
- ``fields`` with nested expansion, ``filtering``, ``sort`` and cursor paging
- access tokens, ``appsecret_proof`` and API versions that expire
- the error envelope, the usage headers, a quota of calls per hour and one for each account
- every failure in :class:`Fault`
- the webhooks about accounts, see :meth:`GraphSandbox.share_account` and :meth:`GraphSandbox.deliver`

It does not simulate HTTPS, methods other than ``GET``, batch requests, ``?ids=``, ``ETag``, webhooks about messages,
sending messages, ``filtering`` and ``sort`` of the edges of an account, or separate quotas for each app. Unknown
parameters are ignored. Where Meta's documentation is silent, a comment in the code says what the sandbox does; the live
API may differ. Without a quota, the reported usage rises slowly with the number of calls, but nothing is limited.

The sandbox uses only the standard library. Apart from the clock, it imports nothing else from this package, so that a
mistake in the clients is not repeated here.
"""

from __future__ import annotations

from airflow_provider_whatsapp.transport.clock import SkippedWaits, no_waits

from .command import main
from .graph_sandbox import GraphSandbox
from .server.faults import Fault
from .server.received_requests import ReceivedRequest
from .webhook_delivery import WebhookDelivery

__all__ = ["Fault", "GraphSandbox", "ReceivedRequest", "SkippedWaits", "WebhookDelivery", "main", "no_waits"]
