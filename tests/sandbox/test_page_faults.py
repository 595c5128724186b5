"""Faults in paging, rows and headers."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from sandbox_http import client, ids, walk

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox


class TestPageFaults:
    def everyone(self, sandbox: GraphSandbox) -> list[str]:
        return [account["id"] for account in sandbox.accounts]

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_empty_page(self, sandbox: GraphSandbox, after: int) -> None:
        sandbox.fail_next(Fault.empty_page().after(after), Fault.empty_page())
        assert walk(sandbox) == self.everyone(sandbox)
        asked = [request.params.get("after") for request in sandbox.requests]
        assert len(set(asked)) == len(asked) == 5
        sandbox.reset()
        sandbox.fail_next(Fault.empty_page())
        page = client(sandbox, **({"after": asked[after]} if after else {})).json
        assert page["data"] == []
        assert "next" in page["paging"]

    def test_repeated_cursor(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.repeated_cursor())
        first = client(sandbox).json["paging"]["cursors"]["after"]
        paging = client(sandbox, after=first).json["paging"]
        assert paging["cursors"]["after"] == first
        assert f"after={quote(first)}" in paging["next"]

    @pytest.mark.parametrize("limit", [20, 30])
    def test_cursor_cycle(self, sandbox: GraphSandbox, limit: int) -> None:
        sandbox.fail_next(Fault.cursor_cycle())
        seen: list[str] = []
        params: dict[str, Any] = {"limit": limit}
        for _ in range(7):
            paging = client(sandbox, **params).json["paging"]
            assert "next" in paging
            params["after"] = paging["cursors"]["after"]
            seen.append(params["after"])
        assert seen[0] != seen[1]
        assert seen == [seen[0], seen[1]] * 3 + [seen[0]]

    def test_next_elsewhere(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.next_elsewhere())
        assert client(sandbox).json["paging"]["next"].startswith("https://graph.facebook.example/v26.0/")
        sandbox.fail_next(Fault.next_elsewhere().times(9))
        assert walk(sandbox) == self.everyone(sandbox)

    def test_next_without_cursors(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.next_without_cursors())
        paging = client(sandbox).json["paging"]
        assert set(paging) == {"next"}
        (after,) = parse_qs(urlsplit(paging["next"]).query)["after"]
        assert ids(client(sandbox, after=after))[0] == sandbox.accounts[25]["id"]

    def test_next_with_token(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.next_with_token())
        assert f"access_token={sandbox.token}" in client(sandbox).json["paging"]["next"]

    def test_duplicated_row(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.duplicated_row())
        everyone = self.everyone(sandbox)
        assert walk(sandbox) == everyone[:25] + everyone[24:]

    @pytest.mark.parametrize("fault", [Fault.account_added(), Fault.account_removed()])
    def test_the_list_changes(self, sandbox: GraphSandbox, fault: Fault) -> None:
        before = self.everyone(sandbox)
        sandbox.fail_next(fault.after(1).times(2))
        assert walk(sandbox) == before
        after = self.everyone(sandbox)
        longer, shorter = sorted((before, after), key=len, reverse=True)
        assert longer[2:] == shorter
        assert len(set(after)) == (62 if fault.kind == "account_added" else 58)

    def test_numeric_ids(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.numeric_ids())
        rows = client(sandbox, fields="id,owner_business_info,phone_numbers{id}").json["data"]
        assert [row["id"] for row in rows] == [int(account["id"]) for account in sandbox.accounts[:25]]
        assert isinstance(rows[0]["owner_business_info"]["id"], int)

    def test_unknown_values(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.unknown_values())
        rows = client(sandbox, fields="status").json["data"]
        assert rows[0]["status"] == "NEVER_SEEN_BEFORE"
        assert rows[0]["hologram_tier"]

    def test_headers(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.high_usage(), Fault.malformed_usage(), Fault.version_upgrade("v31.0"))
        assert json.loads(client(sandbox).headers["x-app-usage"])["call_count"] == 95
        malformed = client(sandbox).headers["x-app-usage"]
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(malformed)
        assert client(sandbox).headers["facebook-api-version"] == "v31.0"

    def test_shapes(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(
            Fault.no_data(),
            Fault.data_not_a_list(),
            Fault.row_not_an_object(),
            Fault.paging_not_an_object(),
            Fault.nan(),
        )
        assert set(client(sandbox).json) == {"paging"}
        assert isinstance(client(sandbox).json["data"], dict)
        assert client(sandbox).json["data"][-1] == "not an object"
        assert client(sandbox).json["paging"] == "next"
        assert b'"creation_time":NaN' in client(sandbox).raw
