"""The ``filtering`` and ``sort`` parameters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sandbox_http import OWNED, client, get, ids, walk

from airflow_provider_whatsapp.sandbox import GraphSandbox


def filtered(*filters: tuple[str, str, Any]) -> str:
    return json.dumps([{"field": field, "operator": operator, "value": value} for field, operator, value in filters])


class TestFilteringAndSorting:
    @pytest.fixture(autouse=True)
    def _accounts(self, sandbox: GraphSandbox) -> None:
        kinds = ("CLIENT_OWNED", "ON_BEHALF_OF")
        sandbox.accounts[:] = [
            {"id": f"{n}", "creation_time": 100 + n, "ownership_type": kinds[n % 2], "country": "BR"} for n in range(6)
        ]
        sandbox.owned_accounts[:] = [{"id": "8", "country": "BR"}, {"id": "9", "country": "IN"}, {"id": "10"}]

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ([("ownership_type", "EQUAL", "ON_BEHALF_OF")], "135"),
            ([("ownership_type", "IN", ["CLIENT_OWNED", "SELF"])], "024"),
            ([("creation_time", "GREATER_THAN", "103")], "45"),
            ([("creation_time", "GREATER_THAN", 103)], "45"),
            ([("creation_time", "LESS_THAN", 102)], "01"),
            ([("creation_time", "IN_RANGE", ["101", "103"])], "123"),
            ([("creation_time", "IN_RANGE", [101, 103]), ("ownership_type", "EQUAL", "ON_BEHALF_OF")], "13"),
            ([], "012345"),
        ],
    )
    def test_filters(self, sandbox: GraphSandbox, filters: list[tuple[str, str, Any]], found: str) -> None:
        assert walk(sandbox, filtering=filtered(*filters), limit=2) == list(found)

    def test_single_quotes_as_on_metas_pages(self, sandbox: GraphSandbox) -> None:
        text = "[{'field':'ownership_type','operator':'IN','value':['SELF','CLIENT_OWNED']}]"
        assert ids(client(sandbox, filtering=text)) == ["0", "2", "4"]

    def test_country_is_a_filter_of_owned_accounts_only(self, sandbox: GraphSandbox) -> None:
        text = filtered(("country", "IN", ["IN", "US"]))
        assert ids(get(sandbox, f"{sandbox.business_id}/{OWNED}", {"filtering": text})) == ["9"]
        assert client(sandbox, filtering=text).error[0] == 100

    def test_onboarding_status_is_a_filter_of_client_accounts_only(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts[3]["marketing_messages_onboarding_status"] = "ELIGIBLE"
        text = filtered(("marketing_messages_onboarding_status", "IN", ["ELIGIBLE"]))
        assert ids(client(sandbox, filtering=text)) == ["3"]
        assert get(sandbox, f"{sandbox.business_id}/{OWNED}", {"filtering": text}).error[0] == 100

    def test_partners_are_a_filter_of_client_accounts_only(self, sandbox: GraphSandbox) -> None:
        for account, partners in zip(sandbox.accounts, (["7"], ["7", "8"], ["8"]), strict=False):
            account["partners"] = partners
        assert ids(client(sandbox, filtering=filtered(("partners", "ALL", ["7"])))) == ["0", "1"]
        text = filtered(("partners", "ALL", ["7", "8"]))
        assert ids(client(sandbox, filtering=text)) == ["1"]
        assert get(sandbox, f"{sandbox.business_id}/{OWNED}", {"filtering": text}).error[0] == 100
        assert client(sandbox, fields="id,partners").error[0] == 100

    def test_find(self, sandbox: GraphSandbox) -> None:
        assert ids(client(sandbox, find="4")) == ["4"]
        assert client(sandbox, find="9").json == {"data": []}

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "[", "null", "7", "{}", "[7]", '[{"field":"name"}]', "[" * 5000, "__import__('os')",
            filtered(("name", "EQUAL", "x")), filtered(("creation_time", "EQUAL", 1)),
            filtered(("creation_time", "GREATER_THAN", "soon")),
            filtered(("creation_time", "LESS_THAN", True)),
            filtered(("creation_time", "IN_RANGE", [1])), filtered(("creation_time", "IN_RANGE", 1)),
            filtered(("ownership_type", "IN", "SELF")), filtered(("ownership_type", "IN", [])),
            filtered(("ownership_type", "EQUAL", ["SELF"])), filtered(("ownership_type", "EQUAL", "MINE")),
            filtered(("partners", "ALL", "7")), filtered(("partners", "ALL", [])), filtered(("partners", "IN", ["7"])),
        ],
    )  # fmt: skip
    def test_bad_filter(self, sandbox: GraphSandbox, text: str) -> None:
        reply = client(sandbox, filtering=text)
        assert (reply.status, reply.error[0]) == (400, 100)

    def test_sort(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts.reverse()
        assert walk(sandbox, sort="creation_time_ascending", limit=4) == list("012345")
        text = filtered(("ownership_type", "EQUAL", "ON_BEHALF_OF"))
        assert walk(sandbox, sort="creation_time_descending", filtering=text, limit=2) == list("531")
        assert client(sandbox, sort="name").error[0] == 100


def test_an_account_is_shared_with_its_business() -> None:
    with GraphSandbox(accounts=3, businesses=2) as sandbox:
        for business in sandbox.businesses:
            text = filtered(("partners", "ALL", [business["id"]]))
            assert len(client(sandbox, filtering=text).json["data"]) == (
                3 if business["id"] == sandbox.business_id else 0
            )
