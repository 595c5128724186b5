from __future__ import annotations

from typing import Any, cast

import pytest

from airflow_provider_whatsapp.links.whatsapp import WhatsAppManagerLink
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

MANAGER = "https://business.facebook.com/latest/whatsapp_manager/overview/"


def link_of(operator: Any) -> str:
    (link,) = operator.operator_extra_links
    assert isinstance(link, WhatsAppManagerLink)
    return link.get_link(operator, ti_key=cast("Any", None))


def test_to_the_business_that_was_named() -> None:
    assert link_of(WhatsAppListWabasOperator(task_id="t", business_id="123")) == f"{MANAGER}?business_id=123"


def test_to_the_business_of_the_connection_once_it_is_known(connected: GraphSandbox) -> None:
    operator = WhatsAppListWabasOperator(task_id="t")
    assert link_of(operator) == ""
    operator.execute({})
    assert link_of(operator) == f"{MANAGER}?business_id={connected.business_id}"
    assert len(connected.requests) == 3  # the three pages; the link made no request


def test_to_the_account_that_is_waited_for(connected: GraphSandbox) -> None:
    sensor = WhatsAppWabasSensor(task_id="t", waba_ids=[connected.accounts[0]["id"]])
    sensor.poke({})
    assert link_of(sensor) == f"{MANAGER}?business_id={connected.business_id}&asset_id={connected.accounts[0]['id']}"
    several = WhatsAppWabasSensor(task_id="t", waba_ids=["1", "2"])
    several.poke({})
    assert "asset_id" not in link_of(several)


@pytest.mark.parametrize("business_id", ["{{ params.x }}", "javascript:alert(1)", "1&x=y", None])
def test_to_nowhere_else(business_id: Any) -> None:
    assert link_of(WhatsAppListWabasOperator(task_id="t", business_id=business_id)) == ""
