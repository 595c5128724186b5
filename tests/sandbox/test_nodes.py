"""Nodes, edges, API versions, and the accounts that a sandbox makes up."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sandbox_http import CLIENT, OWNED, get, ids, send

from airflow_provider_whatsapp.sandbox import GraphSandbox


class TestNodes:
    def test_single_nodes(self, sandbox: GraphSandbox) -> None:
        account = next(a for a in sandbox.accounts if get(sandbox, f"{a['id']}/phone_numbers").json["data"])
        number = get(sandbox, f"{account['id']}/phone_numbers").json["data"][0]
        assert set(number) == {"id", "display_phone_number", "verified_name", "quality_rating"}
        business = sandbox.businesses[0]
        assert get(sandbox, business["id"]).json == {"id": business["id"], "name": business["name"]}
        assert get(sandbox, account["id"], {"fields": "status"}).json == {
            "status": account["status"], "id": account["id"],
        }  # fmt: skip
        assert get(sandbox, "app").json == get(sandbox, get(sandbox, "app").json["id"]).json
        assert get(sandbox, "me").json == get(sandbox, get(sandbox, "me").json["id"]).json

    def test_removed_and_replaced_accounts(self, sandbox: GraphSandbox) -> None:
        gone = sandbox.accounts[5]["id"]
        assert get(sandbox, gone).status == 200
        del sandbox.accounts[5]
        assert get(sandbox, gone).error == (100, 33)
        assert get(sandbox, sandbox.accounts[7]["id"]).status == 200
        sandbox.accounts = [{"id": "77", "name": "x"}]
        sandbox.owned_accounts = []
        assert get(sandbox, "77").json == {"id": "77", "name": "x"}
        assert get(sandbox, f"{sandbox.business_id}/{OWNED}").json == {"data": []}

    def test_businesses(self) -> None:
        with GraphSandbox(accounts=4, businesses=30) as sandbox:
            first = get(sandbox, "me/businesses")
            rest = get(sandbox, "me/businesses", {"after": first.json["paging"]["cursors"]["after"]})
            assert ids(first) + ids(rest) == [business["id"] for business in sandbox.businesses]
            other = sandbox.businesses[7]["id"]
            listed = ids(get(sandbox, f"{other}/{CLIENT}"))
            assert listed == [row["id"] for row in sandbox.client_accounts_of(other)]
            assert not set(listed) & {row["id"] for row in sandbox.accounts}
            assert len(sandbox.owned_accounts_of(other)) == 3
            sandbox.businesses.append({"id": "5", "name": "Ours"})
            assert get(sandbox, f"5/{CLIENT}").json == {"data": []}
            sandbox.client_accounts_of("5").append({"id": "55"})
            assert ids(get(sandbox, f"5/{CLIENT}")) == ["55"]

    def test_what_is_not_there(self, sandbox: GraphSandbox) -> None:
        missing = get(sandbox, f"123456/{CLIENT}")
        assert (missing.status, missing.error) == (400, (100, 33))
        assert "Object with ID '123456' does not exist" in missing.json["error"]["message"]
        assert get(sandbox, "123456").error == (100, 33)
        assert get(sandbox, f"{sandbox.business_id}/hologram").error[0] == 2500
        assert get(sandbox, f"{sandbox.business_id}/{CLIENT}/x").error[0] == 2500
        assert get(sandbox, f"me/{CLIENT}").error[0] == 100
        on_account = get(sandbox, f"{sandbox.accounts[0]['id']}/{CLIENT}")
        assert "on node type (WhatsAppBusinessAccount)" in on_account.json["error"]["message"]
        assert get(sandbox, "/").error == (100, 33)

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_only_get(self, sandbox: GraphSandbox, method: str) -> None:
        reply = send(sandbox, f"/v26.0/{sandbox.business_id}/{CLIENT}", method=method, body="a=b")
        assert (reply.status, reply.error[0]) == (400, 100)


class TestVersions:
    @pytest.mark.parametrize(
        ("path", "ran"),
        [
            ("/v26.0/me", "v26.0"),
            ("/v21.0/me", "v21.0"),
            ("/v20.0/me", "v21.0"),
            ("/v2.11/me", "v21.0"),
            ("/me", "v26.0"),
        ],
    )
    def test_version_that_ran(self, sandbox: GraphSandbox, path: str, ran: str) -> None:
        assert get(sandbox, path).headers["facebook-api-version"] == ran

    @pytest.mark.parametrize("path", ["/v99.0/me", "/v25.1/me"])
    def test_version_that_never_was(self, sandbox: GraphSandbox, path: str) -> None:
        assert get(sandbox, path).error[0] == 2500

    def test_newer_version(self) -> None:
        with GraphSandbox(api_version="v30.0") as sandbox:
            assert get(sandbox, "/me").headers["facebook-api-version"] == "v30.0"
            assert json.loads(sandbox.connection)["extra"]["api_version"] == "v30.0"

    @pytest.mark.parametrize("bad", [{"api_version": "26"}, {"businesses": 0}])
    def test_bad_arguments(self, bad: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must"):
            GraphSandbox(**bad)


class TestSampleAccounts:
    def test_same_for_the_same_seed(self) -> None:
        assert GraphSandbox(accounts=40).accounts == GraphSandbox(accounts=90).accounts[:40]
        assert GraphSandbox().owned_accounts == GraphSandbox().owned_accounts
        assert GraphSandbox(seed=1).accounts != GraphSandbox().accounts

    def test_realistic(self) -> None:
        accounts = GraphSandbox(accounts=3000).accounts
        numbers = [account["id"] for account in accounts]
        assert len(set(numbers)) == 3000
        assert all(re.fullmatch(r"\d{15,17}", number) for number in numbers)
        assert any(int(float(number)) != int(number) for number in numbers)
        names = "".join(account.get("name", "") for account in accounts)
        assert all(sign in names for sign in "é北\u0645\u0936К🍕\"',;\n")
        assert {account.get("ownership_type") for account in accounts} == {
            "CLIENT_OWNED", "AGENCY_OWNED", "ON_BEHALF_OF",
        }  # fmt: skip
        assert {len(account) for account in accounts} > {17}
        assert all(re.fullmatch(r"[\da-f_]{36}", a.get("message_template_namespace", "_" * 36)) for a in accounts)
        assert all(a.get("business_verification_status", "x").islower() for a in accounts)
