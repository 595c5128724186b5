"""What is known of each edge: the answers that Meta documents can be listed, and what a request needs is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_whatsapp.graph import GraphProtocolError
from airflow_provider_whatsapp.graph.edges import EDGES, RELATIONSHIPS, find_edge
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.graph.pages import PageReader, parse_page
from airflow_provider_whatsapp.graph.query import build_edge_query

DAYS = {"start": 1793491200, "end": 1793577600, "granularity": "DAILY"}
POINT = {"start": 1793491200, "end": 1793577600}
CURSORS = {"cursors": {"before": "QkVGT1JF", "after": "QUZURVI="}}
NEXT = "https://graph.facebook.com/v26.0/102/edge?limit=25&after=QUZURVI%3D"


def nodes(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": [{"id": str(9000 + number), **row} for number, row in enumerate(rows)], **more}


def data_points(*points: dict[str, Any], **row: Any) -> dict[str, Any]:
    return {"data": [{**row, "data_points": [{**POINT, **point} for point in points]}]}


# Answers in the shapes of Meta's reference, guides and OpenAPI description, the odd ones included: pages with only some
# cursors, null values, ids that are no numbers, rows that wrap other rows, totals beside the rows.
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "client_whatsapp_business_accounts": [nodes({"name": "A", "currency": "EUR"}, {"name": "B"}, paging=CURSORS)],
    "owned_whatsapp_business_accounts": [nodes({"name": "A"}, paging={**CURSORS, "next": NEXT})],
    "assigned_whatsapp_business_accounts": [nodes({"name": "A", "tasks": ["MANAGE"]}, paging=CURSORS, summary={"total_count": 1})],
    "businesses": [nodes({"name": "Biz"}, paging=CURSORS), {"data": []}],
    "phone_numbers": [
        nodes(
            {"display_phone_number": "+1 555-010-0001", "verified_name": "Shop", "quality_rating": "GREEN"},
            {"display_phone_number": "+1 555-010-0002", "status": "PENDING", "username": None},
            paging={"cursors": {"after": "QUZURVI="}},
        ),
        nodes({"verified_name": "Shop"}),
    ],
    "message_templates": [
        nodes(
            {"name": "sale", "language": "en_US", "components": [{"type": "BODY", "text": "Hi {{1}}", "example": {"body_text": [["Ann", "x"]]}}]},
            {"name": "sale", "language": "de", "previous_category": "UTILITY"},
            paging=CURSORS,
        )
    ],
    "flows": [{"data": [{"id": "flow-1", "name": "f", "status": "DRAFT", "categories": ["SIGN_UP"], "validation_errors": [{"error": "X", "line_start": 4}]}, {"id": "flow-2"}], "paging": CURSORS}],
    "solutions": [
        nodes({"name": "s", "owner_app": {"id": "77", "name": "App"}, "owner_permissions": ["DEVELOP"]}, paging={**CURSORS, "next": NEXT}),
        {"data": [], "paging": {"cursors": {}}},
    ],
    "schedules": [nodes({"name": "sch", "status": "SCHEDULED", "delivery_time": 1793491200}, {"days_of_week": ["MONDAY"], "is_active": True, "recurrence_pattern": {"interval": 1}})],
    "product_catalogs": [nodes({"name": "shoes"})],
    "dataset": [nodes({}), {"data": []}],
    "template_groups": [nodes({"name": "g", "description": "d"}, paging=CURSORS)],
    "assigned_users": [
        nodes(
            {"name": "Ana", "user_type": "SYSTEM_USER", "business": {"id": "77", "name": "Biz"}, "tasks": ["MANAGE"]},
            paging={**CURSORS, "next": NEXT + "&access_token=YOUR_TOKEN"},
            summary={"total_count": 15},
        ),
        nodes({"name": "Bo"}, summary={"total_count": 1}),
    ],
    "activities": [
        nodes({"activity_type": "USER_ADDED", "timestamp": "2026-01-02T03:04:05Z", "details": {"user_id": "5"}}, paging={**CURSORS, "next": NEXT}),
        {"data": [{"activity_type": "USER_ADDED"}, {"activity_type": "USER_ADDED"}]},
    ],
    "audiences": [nodes({}), {"data": [{"name": "a"}]}],
    "message_campaigns": [nodes({}), {"data": []}],
    "signups": [nodes({}), {"data": []}],
    "subscribed_apps": [
        {"data": [{"whatsapp_business_api_data": {"id": "501", "name": "A", "link": "https://www.facebook.com/games/?app_id=501"}}] * 2},
        {"data": [{"whatsapp_business_api_data": {"id": "501"}, "override_callback_uri": "https://hook.example/x"}]},
    ],
    "welcome_message_sequences": [{"data": [{"sequence_id": "861", "name": "w", "welcome_message_sequence": "{}"}]}, nodes({"name": "w"})],
    "degrees_of_freedom_spec": [{"data": [{"creative_features_spec": [{"key": "IMAGE_TOUCHUPS", "value": {"enroll_status": "OPT_IN"}}]}]}],
    "payment_configurations": [{"data": [{"payment_configurations": [{"configuration_name": "p", "merchant_category_code": {"code": "0000"}, "created_timestamp": 1720000000}]}]}],
    "payment_configuration": [{"data": [{"configuration_name": "p", "status": "Active", "merchant_vpa": "a@b"}]}],
    "message_template_previews": [{"data": [{"language": language, "body": "*{{1}}*", "buttons": [{"text": "Copy"}]} for language in ("en_US", "de")]}],
    "pricing_analytics": [data_points({"volume": 3, "cost": 0.4, "tier": "0:MAX"}, {"volume": 1, "cost": 0})],
    "conversation_analytics": [data_points({"conversation": 3, "conversation_direction": "UNKNOWN", "cost": 0.02})],
    "call_analytics": [data_points({"count": 3, "cost": 0.1, "average_duration": 60})],
    "template_analytics": [
        {**data_points({"template_id": "9101", "sent": 5, "clicked": [{"type": "url_button", "button_content": "Go", "count": 1}], "cost": [{"type": "amount_spent", "value": 0.1}]}, granularity="DAILY", product_type="cloud_api"), "paging": CURSORS}
    ],
    "template_group_analytics": [{**data_points({"template_group_id": "851", "sent": 5}, granularity="DAILY"), "paging": CURSORS}],
    "group_analytics": [{**data_points({"group_id": "G1", "joined": 1, "left": 0}, granularity="DAILY"), "paging": CURSORS}],
}  # fmt: skip
LISTS_NODES = {
    *RELATIONSHIPS.values(), "assigned_whatsapp_business_accounts", "businesses", "phone_numbers", "message_templates", "flows", "solutions", "schedules", "product_catalogs",
    "dataset", "template_groups", "assigned_users",
}  # fmt: skip
REQUIRED: dict[str, list[str]] = {
    "assigned_users": ["business"],
    "payment_configuration": ["configuration_name"],
    "message_template_previews": ["category"],
    **{f"{name}_analytics": ["start", "end", "granularity"] for name in ("pricing", "conversation", "call")},
    "template_analytics": ["start", "end", "granularity", "template_ids"],
    "template_group_analytics": ["start", "end", "granularity", "template_group_ids"],
    "group_analytics": ["start", "end", "group_ids"],
}


def test_every_edge_has_an_example() -> None:
    assert list(EXAMPLES) == [edge.name for edge in EDGES]
    assert {edge.name for edge in EDGES if edge.lists_nodes} == LISTS_NODES
    assert {edge.name: list(edge.required) for edge in EDGES if edge.required} == REQUIRED


@pytest.mark.parametrize(
    ("edge", "answer"), [(edge, answer) for edge, answers in EXAMPLES.items() for answer in answers]
)
def test_answers_as_meta_documents_them_are_listed(edge: str, answer: dict[str, Any]) -> None:
    reader = PageReader(build_edge_query(f"102/{edge}", params=find_edge(edge).required))
    page = reader.take(parse_page(json.loads(json.dumps(answer))))
    assert page.rows == answer["data"]
    assert reader.more is ("next" in answer.get("paging", {}))
    if reader.more:
        assert reader.next_request().params["after"] == "QUZURVI="


@pytest.mark.parametrize("edge", EXAMPLES)
def test_a_row_without_an_id(edge: str) -> None:
    reader = PageReader(build_edge_query(f"102/{edge}", params=find_edge(edge).required))
    twice = parse_page({"data": [{"name": "a"}, {"name": "a"}]})
    if edge in LISTS_NODES:
        with pytest.raises(GraphProtocolError, match="no usable `id`"):
            reader.take(twice)
    else:
        assert len(reader.take(twice).rows) == 2


@pytest.mark.parametrize("edge", EXAMPLES)
def test_default_fields(edge: str) -> None:
    fields = find_edge(edge).fields
    query = build_edge_query(f"102/{edge}", params=find_edge(edge).required)
    assert join_fields(query.fields) == fields
    assert query.request(limit=1, after=None).params.get("fields", "") == fields
    # Without the id among them, rows could not be distinguished; the others may not have such a field.
    assert fields.startswith("id,") if edge in LISTS_NODES else fields == ""


@pytest.mark.parametrize(("edge", "name"), [(edge, name) for edge, names in REQUIRED.items() for name in names])
def test_a_needed_parameter_that_is_missing(edge: str, name: str) -> None:
    required = dict(find_edge(edge).required)
    build_edge_query(f"102/{edge}", params=required)
    missing = {other: value for other, value in required.items() if other != name}
    with pytest.raises(ValueError, match=rf"^params: {edge} needs {name}; for example {{") as caught:
        build_edge_query(f"102/{edge}", params=missing)
    assert json.loads(str(caught.value).partition("for example ")[2]) == required
    with pytest.raises(ValueError, match=f"^params: {edge} needs {name}; "):
        build_edge_query(f"102/{edge}", params={**missing, name: None})


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="^params: group_analytics needs start, group_ids; "):
        build_edge_query("102/group_analytics", params={"end": 1})


def test_an_edge_that_is_not_known_is_left_to_the_api() -> None:
    edge = find_edge("shiny_new_edge")
    assert (edge.name, edge.fields, edge.lists_nodes, edge.required) == ("shiny_new_edge", "", False, {})
    assert build_edge_query("102/shiny_new_edge").request(limit=3, after=None).params == {"limit": "3"}
