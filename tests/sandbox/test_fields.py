"""The ``fields`` parameter and nested edges."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from sandbox_http import CLIENT, OWNED, client, get, ids

from airflow_provider_whatsapp.sandbox import GraphSandbox


class TestFields:
    def test_chosen_fields(self, sandbox: GraphSandbox) -> None:
        for row, account in zip(client(sandbox, fields="name,country").json["data"], sandbox.accounts, strict=False):
            assert row == {name: account[name] for name in ("name", "country", "id") if name in account}

    def test_unset_fields_are_left_out(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts[0] = {"id": "1", "name": None}
        assert client(sandbox, fields="id,name,currency", limit=1).json["data"] == [{"id": "1"}]

    def test_own_fields_of_an_account_can_be_read(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts[0]["loyalty"] = {"id": 7, "level": "gold"}
        assert client(sandbox, fields="loyalty{level}", limit=1).json["data"] == [
            {"loyalty": {"level": "gold", "id": 7}, "id": sandbox.accounts[0]["id"]}
        ]

    def test_embedded_objects(self, sandbox: GraphSandbox) -> None:
        account = next(account for account in sandbox.accounts if "owner_business_info" in account)
        row = get(sandbox, account["id"], {"fields": "owner_business_info{name}.as(x),health_status"})
        assert row.error[0] == 2500
        row = get(sandbox, account["id"], {"fields": "owner_business_info.as(owner){name},health_status"})
        assert row.json["owner"] == account["owner_business_info"]
        assert row.json["health_status"]["entities"][0]["id"] == account["id"]

    @pytest.mark.parametrize("path", [f"{{business}}/{CLIENT}", "{business}", "{account}"])
    def test_nonexisting_field(self, sandbox: GraphSandbox, path: str) -> None:
        path = path.format(business=sandbox.business_id, account=sandbox.accounts[0]["id"])
        reply = get(sandbox, path, {"fields": "id,hologram"})
        assert reply.error[0] == 100
        assert "Tried accessing nonexisting field (hologram) on node type (" in reply.json["error"]["message"]

    def test_fields_depend_on_the_version(self, sandbox: GraphSandbox) -> None:
        path = f"{sandbox.business_id}/{CLIENT}?fields=marketing_messages_onboarding_status"
        assert get(sandbox, f"/v23.0/{path}").status == 200
        assert get(sandbox, f"/v22.0/{path}").error[0] == 100

    @pytest.mark.parametrize(
        "fields",
        ["id,,name", "id{", "a{b", "id}", ",", "phone_numbers.limit(5", "id.loud(1)", "é", "a{" * 50],
    )
    def test_syntax_error(self, sandbox: GraphSandbox, fields: str) -> None:
        reply = client(sandbox, fields=fields)
        assert reply.error[0] == 2500
        assert reply.json["error"]["message"].startswith("Syntax error")

    def test_permitted_tasks_only_on_the_client_edge(self, sandbox: GraphSandbox) -> None:
        assert "MESSAGING" in client(sandbox, fields="permitted_tasks").json["data"][0]["permitted_tasks"]
        assert "permitted_tasks" not in client(sandbox).json["data"][0]
        for path in (f"{sandbox.business_id}/{OWNED}", sandbox.accounts[0]["id"]):
            assert get(sandbox, path, {"fields": "permitted_tasks"}).error[0] == 100

    def test_nested_edges_page_on_their_own(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts[0]["phone_numbers"] = [{"id": str(number), "verified_name": "x"} for number in range(30)]
        sandbox.accounts[1]["phone_numbers"] = []
        fields = "name,phone_numbers.limit(4).as(numbers){id,verified_name}"
        full, none = client(sandbox, fields=fields, limit=2).json["data"]
        assert none["numbers"] == {"data": []}
        assert [row["id"] for row in full["numbers"]["data"]] == ["0", "1", "2", "3"]
        assert set(full["numbers"]["paging"]) == {"cursors", "next"}
        link = urlsplit(full["numbers"]["paging"]["next"])
        assert link.path == f"/v26.0/{full['id']}/phone_numbers"
        assert ids(get(sandbox, f"{link.path}?{link.query}")) == ["4", "5", "6", "7"]
        after = full["numbers"]["paging"]["cursors"]["after"]
        again = client(sandbox, fields=f"phone_numbers.limit(2).after({after}){{id}}", limit=1).json["data"][0]
        assert [row["id"] for row in again["phone_numbers"]["data"]] == ["4", "5"]
        assert len(client(sandbox, fields="phone_numbers{id}", limit=1).json["data"][0]["phone_numbers"]["data"]) == 25

    def test_edges_of_a_business(self, sandbox: GraphSandbox) -> None:
        reply = get(sandbox, sandbox.business_id, {"fields": f"name,{CLIENT}.limit(3){{id}},{OWNED}{{ownership_type}}"})
        assert [row["id"] for row in reply.json[CLIENT]["data"]] == [row["id"] for row in sandbox.accounts[:3]]
        assert {row.get("ownership_type") for row in reply.json[OWNED]["data"]} <= {"SELF", None}


def test_a_new_app_has_no_aliases() -> None:
    with GraphSandbox(accounts=1, new_app=True) as sandbox:
        assert client(sandbox, fields="name.as(title)").error[0] == 2500
        assert client(sandbox, fields="phone_numbers.limit(1){id}").status == 200
