"""The edges that can be listed: what is read of their rows by default, and which parameters they need.

https://developers.facebook.com/docs/graph-api/reference/whats-app-business-account
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The edge of a business that lists its WABAs, by their relationship to the business.
RELATIONSHIPS = {"client": "client_whatsapp_business_accounts", "owned": "owned_whatsapp_business_accounts"}


@dataclass(frozen=True, slots=True)
class Edge:
    """What is known of an edge.

    :param name: the API's name of the edge
    :param fields: fields to read of its rows by default; empty leaves the choice to the API
    :param lists_nodes: whether each row must have an ``id``. Without it, the listing could not tell whether a row is
        missing or there twice
    :param required: parameters that the API refuses a request without, each with an example of a value
    """

    name: str
    fields: str = ""
    lists_nodes: bool = False
    required: Mapping[str, Any] = field(default_factory=dict)

    def check_required(self, params: Mapping[str, str]) -> None:
        """Check that the parameters that the edge needs are there.

        :param params: parameters that the user gave
        :raises ValueError: if one is missing
        """
        missing = [name for name in self.required if name not in params]
        if missing:
            raise ValueError(
                f"params: {self.name} needs {', '.join(missing)}; a right one looks like {json.dumps(self.required)}"
            )


_WABA_FIELDS = (
    "id,name,currency,timezone_id,message_template_namespace,account_review_status,business_verification_status,"
    "ownership_type,country,creation_time,status,owner_business_info"
)
_DAY = {"start": 1793491200, "end": 1793577600, "granularity": "DAILY"}

# `fields` is sent for the edges with fields here, because Meta's pages do not agree on what the API answers without it.
# The rows of the others have no id, or it is not known whether they do, and a request for it could be refused.
_EDGES = {
    edge.name: edge
    for edge in (
        *(Edge(name, _WABA_FIELDS, lists_nodes=True) for name in RELATIONSHIPS.values()),
        Edge("businesses", "id,name", lists_nodes=True),
        # The edges of an account, as Meta's SDK 26.0 and Meta's guides have them.
        Edge("phone_numbers", "id,display_phone_number,verified_name,quality_rating", lists_nodes=True),
        Edge("message_templates", "id,name,language,status,category", lists_nodes=True),
        Edge("flows", "id,name,status,categories", lists_nodes=True),
        Edge("solutions", "id,name,status,status_for_pending_request", lists_nodes=True),
        Edge("schedules", "id,name,status", lists_nodes=True),
        Edge("product_catalogs", "id,name", lists_nodes=True),
        Edge("dataset", "id,name", lists_nodes=True),
        Edge("template_groups", "id,name,description", lists_nodes=True),
        Edge("assigned_users", "id,name,tasks", lists_nodes=True, required={"business": "1906385232743451"}),
        Edge("activities"),
        Edge("audiences"),
        Edge("message_campaigns"),
        Edge("subscribed_apps"),
        Edge("welcome_message_sequences"),
        Edge("degrees_of_freedom_spec"),
        Edge("payment_configurations"),
        Edge("payment_configuration", required={"configuration_name": "upi-test"}),
        Edge("message_template_previews", required={"category": "AUTHENTICATION"}),
        Edge("pricing_analytics", required=_DAY),
        Edge("conversation_analytics", required=_DAY),
        Edge("call_analytics", required=_DAY),
        Edge("template_analytics", required={**_DAY, "template_ids": ["1026573095658757"]}),
        Edge("template_group_analytics", required={**_DAY, "template_group_ids": ["1026573095658757"]}),
        Edge("group_analytics", required={"start": 1793491200, "end": 1793577600, "group_ids": ["Y2FwaV9ncm91cDox"]}),
    )
}


def find_edge(name: str) -> Edge:
    """What is known of an edge; an edge that nothing is known of has no default fields and needs no parameters.

    :param name: the API's name of the edge
    """
    return _EDGES.get(name) or Edge(name)
