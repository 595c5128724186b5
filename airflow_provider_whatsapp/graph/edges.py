"""The edges that can be listed, in one table. To add an edge, add a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

#: The edge of a business that lists its WABAs, by their relationship to the business.
RELATIONSHIPS = {"client": "client_whatsapp_business_accounts", "owned": "owned_whatsapp_business_accounts"}


@dataclass(frozen=True, slots=True)
class Edge:
    """What is known about an edge.

    :param name: the API's name of the edge
    :param source: page or file of Meta that documents it
    :param fields: fields to read of its rows by default; empty leaves the choice to the API
    :param since: default fields that only newer versions have, each with the first major version that has it
    :param lists_nodes: whether each row must have an ``id``. Without it, the listing could not notice that a row is
        missing or there twice
    :param required: parameters that the API refuses a request without, each with an example of a value
    """

    name: str
    source: str
    fields: str = ""
    lists_nodes: bool = False
    required: Mapping[str, Any] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)

    def check_required(self, params: Mapping[str, str]) -> None:
        """Check that the parameters that the edge needs are there.

        :param params: parameters that the user gave
        :raises ValueError: if one is missing
        """
        missing = [name for name in self.required if name not in params]
        if missing:
            raise ValueError(f"params: {self.name} needs {', '.join(missing)}; for example {json.dumps(self.required)}")


_REFERENCE = "https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference"
_BUSINESS = f"{_REFERENCE}/business"
_WHATSAPP = "https://developers.facebook.com/documentation/business-messaging/whatsapp"
_GRAPH = "https://developers.facebook.com/docs/graph-api/reference"
_SDK = "https://github.com/facebook/facebook-python-business-sdk/blob/main/facebook_business/adobjects"
_ACCOUNT_IN_SDK = f"{_SDK}/whatsappbusinessaccount.py"
_OPENAPI = "https://github.com/facebook/openapi/blob/main/business-messaging-api_v23.0.yaml"
_ANALYTICS = f"{_WHATSAPP}/analytics"
_PAYMENTS = f"{_WHATSAPP}/payments/payments-in/onboarding-apis"
_TEMPLATE_GROUPS = (
    "https://developers.facebook.com/docs/whatsapp/business-management-api/message-templates/template-groups"
)

_WABA_FIELDS = (
    "id,name,currency,timezone_id,message_template_namespace,account_review_status,business_verification_status,"
    "ownership_type,country,creation_time,status,owner_business_info"
)
# The limit of all numbers of a portfolio. The tier of a number has been null since Meta introduced it.
_PORTFOLIO_LIMIT = "whatsapp_business_manager_messaging_limit"
_DAY = {"start": 1793491200, "end": 1793577600, "granularity": "DAILY"}

# `fields` is sent for the edges with fields here, because Meta's pages do not agree on what the API returns without it.
# The rows of the others have no id, or it is not known whether they do, and a request for it could be refused.
#: The edges of an account.
EDGES_OF_ACCOUNT = (
    Edge(
        "phone_numbers",
        f"{_GRAPH}/whats-app-business-account-to-number-current-status",
        f"id,display_phone_number,verified_name,status,name_status,quality_rating,throughput,{_PORTFOLIO_LIMIT}",
        lists_nodes=True,
        since={_PORTFOLIO_LIMIT: 24},
    ),
    Edge(
        "message_templates",
        f"{_GRAPH}/whats-app-business-hsm",
        "id,name,language,status,category",
        lists_nodes=True,
    ),
    Edge("flows", f"{_WHATSAPP}/flows/guides/flowsapi", "id,name,status,categories", lists_nodes=True),
    Edge("solutions", _OPENAPI, "id,name,status,status_for_pending_request", lists_nodes=True),
    Edge(
        "schedules",
        f"{_WHATSAPP}/reference/whatsapp-business-account/schedules-api",
        "id,name,status",
        lists_nodes=True,
    ),
    Edge("product_catalogs", f"{_SDK}/productcatalog.py", "id,name", lists_nodes=True),
    Edge("dataset", f"{_SDK}/dataset.py", "id,name", lists_nodes=True),
    Edge("template_groups", _TEMPLATE_GROUPS, "id,name,description", lists_nodes=True),
    Edge(
        "assigned_users",
        f"{_SDK}/assigneduser.py",
        "id,name,tasks",
        lists_nodes=True,
        required={"business": "1906385232743451"},
    ),
    Edge("activities", _OPENAPI),
    Edge("audiences", _ACCOUNT_IN_SDK),
    Edge("message_campaigns", _ACCOUNT_IN_SDK),
    Edge("signups", f"{_WHATSAPP}/in-app-signup"),
    Edge("subscribed_apps", _OPENAPI),
    Edge("welcome_message_sequences", _ACCOUNT_IN_SDK),
    Edge("degrees_of_freedom_spec", _ACCOUNT_IN_SDK),
    Edge("payment_configurations", _PAYMENTS),
    Edge("payment_configuration", _PAYMENTS, required={"configuration_name": "upi-test"}),
    Edge("message_template_previews", _ACCOUNT_IN_SDK, required={"category": "AUTHENTICATION"}),
    Edge("pricing_analytics", _ANALYTICS, required=_DAY),
    Edge("conversation_analytics", _ANALYTICS, required=_DAY),
    Edge("call_analytics", _ACCOUNT_IN_SDK, required=_DAY),
    Edge("template_analytics", _ANALYTICS, required={**_DAY, "template_ids": ["1026573095658757"]}),
    Edge("template_group_analytics", _TEMPLATE_GROUPS, required={**_DAY, "template_group_ids": ["1026573095658757"]}),
    Edge(
        "group_analytics",
        _ACCOUNT_IN_SDK,
        required={"start": 1793491200, "end": 1793577600, "group_ids": ["Y2FwaV9ncm91cDox"]},
    ),
)
#: All edges about which something is known.
EDGES = (
    *(Edge(name, f"{_BUSINESS}/{name}", _WABA_FIELDS, lists_nodes=True) for name in RELATIONSHIPS.values()),
    Edge(
        "assigned_whatsapp_business_accounts",
        f"{_REFERENCE}/system-user/assigned_whatsapp_business_accounts",
        f"{_WABA_FIELDS},tasks",
        lists_nodes=True,
    ),
    Edge("businesses", f"{_SDK}/user.py", "id,name", lists_nodes=True),
    *EDGES_OF_ACCOUNT,
)
_BY_NAME = {edge.name: edge for edge in EDGES}


def describe_node(path: str) -> str:
    """Return whose id the path of an edge must begin with, as a sentence, or an empty text if that is not known.

    :param path: path of a request, e.g. ``"102290129340398/phone_numbers"``
    """
    edge = path.partition("/")[2]
    if edge in RELATIONSHIPS.values():
        return (
            "Accounts are listed by the id of a business portfolio (see Business Info), not by the id of a WABA, an "
            "app or a phone number."
        )
    if edge in {it.name for it in EDGES_OF_ACCOUNT}:
        return f"{edge} are listed by the id of a WABA, not of a business portfolio, an app or a phone number."
    return ""


def suggest_edge(path: str) -> str:
    """Return the known edge that an unknown edge is most likely meant to be, as a sentence, or an empty text.

    :param path: path of a request, e.g. ``"102290129340398/phonenumbers"``
    """
    edge = path.partition("/")[2]
    near = get_close_matches(edge, _BY_NAME, n=1)
    return f"{edge} is not a known edge: did you mean {near[0]}?" if near and edge not in _BY_NAME else ""


def find_edge(name: str) -> Edge:
    """Return what is known about an edge. An unknown edge has no default fields and needs no parameters.

    :param name: the API's name of the edge
    """
    return _BY_NAME.get(name) or Edge(name, source="unknown")
