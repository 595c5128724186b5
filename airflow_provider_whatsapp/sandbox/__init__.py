"""A local Graph API, to try the provider and to test DAGs without an account at Meta.

.. code-block:: python

    with GraphSandbox(accounts=2500) as graph:
        os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = graph.connection
        graph.fail_next(Fault.throttle(minutes=1))
        ...
        assert graph.requests[0].status == 400

It speaks HTTP/1.1 on loopback and simulates, after Meta's documentation: the WhatsApp Business Accounts a
business owns and those shared with it, their phone numbers and message templates, ``me``, ``me/businesses``
and ``debug_token``; ``fields`` with nested expansion, ``filtering``, ``sort`` and cursor paging; tokens and
``appsecret_proof``; versions that run out; the error envelope and the usage headers. Every way to fail in
:class:`Fault` can be switched on.

It does not simulate: HTTPS, anything but ``GET``, batch requests, ``?ids=``, ``ETag``, webhooks, the sending
of messages, the filters and orders of phone numbers and templates, or a rate limit of its own (its usage
headers rise and mean nothing). Parameters it does not know it ignores. Where Meta's pages are silent it takes
the choice written down beside the code, and the live API may differ.

Only the standard library is used, and nothing else of this package, so that a mistake there is not repeated
here.
"""

from __future__ import annotations

from airflow_provider_whatsapp.transport.clock import no_waits

from .command import main
from .faults import Fault
from .server import GraphSandbox, ReceivedRequest

__all__ = ["Fault", "GraphSandbox", "ReceivedRequest", "main", "no_waits"]
