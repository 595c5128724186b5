from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from airflow.sdk import BaseHook

from airflow_provider_whatsapp import _compat
from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph import GraphProtocolError
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.sandbox import GraphSandbox


async def collect(rows: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row async for row in rows]


def test_the_hook_reads_nothing_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", raising=False)
    hook = WhatsAppHook()
    assert (hook.whatsapp_conn_id, hook.conn_type) == ("whatsapp_default", "whatsapp")
    assert isinstance(hook, BaseHook)


def test_client_and_owned_accounts(connected: GraphSandbox) -> None:
    hook = WhatsAppHook()
    clients = hook.list_wabas()
    assert [row["id"] for row in clients] == [account["id"] for account in connected.accounts]
    assert set(clients[0]) > {"id", "name", "currency"}
    assert list(hook.iter_wabas(connected.business_id)) == clients
    assert list(hook.iter_wabas(int(connected.business_id), max_items=3)) == clients[:3]
    owned = hook.list_wabas(relationship="owned")
    assert [row["id"] for row in owned] == [account["id"] for account in connected.owned_accounts]
    assert list(hook.iter_wabas(relationship="owned")) == owned
    assert connected.connections == 1


def test_the_filters_reach_the_api(connected: GraphSandbox) -> None:
    timed = [account for account in connected.accounts if "creation_time" in account]
    times = sorted(account["creation_time"] for account in timed)
    rows = WhatsAppHook().list_wabas(
        fields="id,creation_time,ownership_type",
        ownership_types=["CLIENT_OWNED"],
        created_after=times[50],
        created_before=times[200],
        filtering=[{"field": "ownership_type", "operator": "EQUAL", "value": "CLIENT_OWNED"}],
        sort="creation_time_descending",
        page_size=40,
    )
    expected = [
        account
        for account in timed
        if account.get("ownership_type") == "CLIENT_OWNED" and times[50] <= account["creation_time"] <= times[200]
    ]
    assert {row["id"] for row in rows} == {account["id"] for account in expected}
    assert [row["creation_time"] for row in rows] == sorted((row["creation_time"] for row in rows), reverse=True)
    assert connected.requests[0].params["limit"] == "40"


def test_edges_nodes_and_businesses(connected: GraphSandbox) -> None:
    hook = WhatsAppHook()
    waba = next(hook.iter_wabas(fields="id,phone_numbers{id}"))
    phones = list(hook.iter_edge(f"{waba['id']}/phone_numbers"))
    assert [phone["id"] for phone in phones] == [phone["id"] for phone in waba["phone_numbers"]["data"]]
    assert hook.get(waba["id"], fields=["id", "currency"])["currency"] == connected.accounts[0]["currency"]
    assert [business["id"] for business in hook.iter_businesses()] == [connected.business_id]
    assert all("fields" in request.params for request in connected.requests)


def test_the_version_of_the_hook_is_requested(connected: GraphSandbox) -> None:
    WhatsAppHook(api_version="v25.0").get(connected.business_id)
    assert connected.requests[0].path.startswith("/v25.0/")


@pytest.mark.parametrize("blank", ["", " ", "None"])
def test_a_template_without_a_value_counts_as_not_given(connected: GraphSandbox, blank: str) -> None:
    hook = WhatsAppHook(blank, api_version=blank)
    assert hook.list_wabas(relationship=blank, fields=blank, max_items=blank) == WhatsAppHook().list_wabas()
    assert hook.get(connected.business_id, fields=blank) == WhatsAppHook().get(connected.business_id)


def test_debug_token(connected: GraphSandbox) -> None:
    token = WhatsAppHook().debug_token()
    assert token["type"] == "SYSTEM_USER"
    assert token["is_valid"] is True
    assert "whatsapp_business_management" in token["scopes"]


def test_debug_token_without_data_is_an_error(connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = WhatsAppHook()
    monkeypatch.setattr(hook._client, "node", lambda *args: {"data": []})
    with pytest.raises(GraphProtocolError, match="debug_token"):
        hook.debug_token()


def test_the_async_twins_give_the_same(connected: GraphSandbox) -> None:
    hook = WhatsAppHook()
    query: dict[str, Any] = {"fields": "id,phone_numbers.limit(1){id}", "max_items": 150}
    assert asyncio.run(collect(hook.aiter_wabas(**query))) == hook.list_wabas(**query)
    waba = connected.accounts[0]["id"]
    phones = f"{waba}/phone_numbers"
    assert asyncio.run(collect(hook.aiter_edge(phones))) == list(hook.iter_edge(phones))
    assert asyncio.run(hook.aget(waba)) == hook.get(waba)
    assert asyncio.run(collect(hook.aiter_wabas(relationship="owned"))) == hook.list_wabas(relationship="owned")
    assert asyncio.run(collect(hook.aiter_businesses())) == list(hook.iter_businesses())
    assert asyncio.run(hook.adebug_token()) == hook.debug_token()


def test_an_async_listing_that_is_left_early_closes_its_connection(connected: GraphSandbox) -> None:
    async def first() -> dict[str, Any]:
        rows = WhatsAppHook().aiter_wabas(connected.business_id)
        try:
            return await rows.__anext__()
        finally:
            await rows.aclose()

    assert asyncio.run(first())["id"] == connected.accounts[0]["id"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"business_id": "../me"}, "business_id"),
    ({"business_id": " "}, "business_id"),
    ({"fields": ","}, "fields"),
    ({"fields": []}, "fields"),
    ({"filtering": [{"field": "country"}]}, "filtering"),
    ({"created_after": "soon"}, "created_after"),
    ({"created_after": 2, "created_before": 1}, "created_after"),
    ({"page_size": 0}, "page_size"),
    ({"max_items": 0}, "max_items"),
    ({"ownership_types": []}, "ownership_types"),
]


@pytest.mark.parametrize(("query", "name"), BAD)
def test_bad_input_is_refused_before_anything_is_sent(
    connected: GraphSandbox, query: dict[str, Any], name: str
) -> None:
    hook = WhatsAppHook()
    for relationship in ("client", "owned"):
        for method in (hook.iter_wabas, hook.list_wabas):
            with pytest.raises(ValueError, match=f"^{name}: "):
                method(**query, relationship=relationship)  # not only when it is iterated over
    with pytest.raises(ValueError, match=f"^{name}: "):
        asyncio.run(collect(hook.aiter_wabas(**query)))
    assert connected.connections == 0


def test_bad_paths_are_refused_before_anything_is_sent(connected: GraphSandbox) -> None:
    hook = WhatsAppHook()
    with pytest.raises(ValueError, match="^path: "):
        hook.iter_edge("https://evil/1/x")
    with pytest.raises(ValueError, match="^path: "):
        hook.get("1?fields=x")
    with pytest.raises(ValueError, match="^relationship: 'other' is not one of 'client', 'owned'"):
        hook.iter_wabas("1", relationship="other")
    assert connected.connections == 0


def test_large_pages_are_for_the_api_to_judge(connected: GraphSandbox) -> None:
    WhatsAppHook().list_wabas(page_size=500)
    assert connected.requests[0].params["limit"] == "500"


def test_no_business_id_anywhere(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_WHATSAPP_DEFAULT",
        json.dumps({"conn_type": "whatsapp", "host": sandbox.url, "password": sandbox.token}),
    )
    with pytest.raises(ValueError, match="^business_id: neither given nor in the connection's extra"):
        WhatsAppHook().list_wabas()
    assert len(WhatsAppHook().list_wabas(sandbox.business_id)) == 250


def test_test_connection(connected: GraphSandbox) -> None:
    ok, message = WhatsAppHook().test_connection()
    assert ok
    assert connected.business_id in message


def test_test_connection_never_raises(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", raising=False)
    assert WhatsAppHook().test_connection()[0] is False
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection.replace(sandbox.token, "EAAwrong"))
    ok, message = WhatsAppHook().test_connection()
    assert not ok
    assert "create a new system user token" in message
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection.replace("http://", "ftp://"))
    ok, message = WhatsAppHook().test_connection()
    assert not ok
    assert "host: " in message
    assert sandbox.token not in message


def test_secrets_are_masked_in_airflows_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow_provider_whatsapp.hooks._connection.mask_secret", masked.append)
    with GraphSandbox(accounts=1, app_secret="5ecre7" * 5) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        hook = WhatsAppHook()
        hook.list_wabas()
        assert masked[:2] == [sandbox.token, sandbox.app_secret]
        assert len(masked) == 3
        assert not [secret for secret in masked if secret in repr(vars(hook))]


def test_the_async_methods_mask_the_same_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []

    async def mask(secret: str) -> None:
        masked.append(secret)

    monkeypatch.setattr(_compat, "amask_secret", mask)
    with GraphSandbox(accounts=1, app_secret="5ecre7" * 5) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        for call in (collect(WhatsAppHook().aiter_wabas()), WhatsAppHook().aget("me"), WhatsAppHook().adebug_token()):
            masked.clear()
            asyncio.run(call)
            assert masked[:2] == [sandbox.token, sandbox.app_secret]
            assert len(masked) == 3


def test_no_secret_in_the_log_of_a_listing(connected: GraphSandbox, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        WhatsAppHook().list_wabas()
        WhatsAppHook().debug_token()
        asyncio.run(collect(WhatsAppHook().aiter_wabas()))
    assert "debug_token?input_token=***" in caplog.text
    assert connected.token not in caplog.text


def test_a_missing_connection_fails_a_task_of_ones_own_at_once() -> None:
    calls: list[Callable[[], object]] = [
        WhatsAppHook("nowhere").list_wabas,
        WhatsAppHook("nowhere").debug_token,
        lambda: asyncio.run(WhatsAppHook("nowhere").adebug_token()),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="^whatsapp_conn_id: there is no connection 'nowhere'; create") as caught:
            call()
        assert isinstance(caught.value, AirflowFailException)
