"""Cursors, limits and the links between pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sandbox_http import CLIENT, OWNED, client, get, ids, send, walk

from airflow_provider_whatsapp.sandbox import GraphSandbox


class TestPaging:
    def test_default_page(self, sandbox: GraphSandbox) -> None:
        reply = client(sandbox)
        assert ids(reply) == [account["id"] for account in sandbox.accounts[:25]]
        assert set(reply.json["data"][0]) <= {
            "id", "name", "currency", "timezone_id", "message_template_namespace",
        }  # fmt: skip
        assert set(reply.json["paging"]) == {"cursors", "next"}

    @pytest.mark.parametrize("limit", [1, 7, 20, 59, 60, 61, 100])
    def test_pages_make_up_the_list(self, sandbox: GraphSandbox, limit: int) -> None:
        assert walk(sandbox, limit=limit) == [account["id"] for account in sandbox.accounts]
        assert len(sandbox.requests) == -(-60 // limit)

    def test_last_page_has_cursors_and_no_next(self, sandbox: GraphSandbox) -> None:
        paging = client(sandbox, limit=100).json["paging"]
        assert set(paging) == {"cursors"}
        assert set(paging["cursors"]) == {"before", "after"}

    def test_page_after_the_end_is_empty(self, sandbox: GraphSandbox) -> None:
        after = client(sandbox, limit=100).json["paging"]["cursors"]["after"]
        assert client(sandbox, after=after).json == {"data": []}

    def test_before_leads_back(self, sandbox: GraphSandbox) -> None:
        first = client(sandbox, limit=10)
        second = client(sandbox, limit=10, after=first.json["paging"]["cursors"]["after"])
        assert "previous" in second.json["paging"]
        back = client(sandbox, limit=10, before=second.json["paging"]["cursors"]["before"])
        assert ids(back) == ids(first)
        assert "previous" not in back.json["paging"]

    def test_limit_above_100_is_100(self) -> None:
        with GraphSandbox(accounts=120) as sandbox:
            assert len(ids(client(sandbox, limit=500))) == 100

    @pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5"])
    def test_bad_limit(self, sandbox: GraphSandbox, limit: str) -> None:
        assert client(sandbox, limit=limit).error[0] == 100

    @pytest.mark.parametrize("cursor", ["x", "!!!", "YQ==", "é", "MTIz", "A" * 5000])
    @pytest.mark.parametrize("direction", ["after", "before"])
    def test_bad_cursor(self, sandbox: GraphSandbox, cursor: str, direction: str) -> None:
        reply = client(sandbox, **{direction: cursor})
        assert reply.status == 400
        assert reply.json["error"]["message"] == "(#100) Invalid cursors values"

    def test_accounts_that_come_and_go_do_not_shift_pages(self, sandbox: GraphSandbox) -> None:
        first = client(sandbox, limit=10)
        after = first.json["paging"]["cursors"]["after"]
        expected = sandbox.accounts[10]["id"]
        sandbox.accounts.insert(0, {"id": "1", "name": "new"})
        assert ids(client(sandbox, limit=1, after=after)) == [expected]
        del sandbox.accounts[:5]
        assert ids(client(sandbox, limit=1, after=after)) == [expected]

    def test_account_of_the_cursor_itself_goes(self, sandbox: GraphSandbox) -> None:
        after = client(sandbox, limit=10).json["paging"]["cursors"]["after"]
        expected = sandbox.accounts[10]["id"]
        del sandbox.accounts[9]
        assert ids(client(sandbox, limit=1, after=after)) == [expected]

    def test_next_repeats_the_query(self, sandbox: GraphSandbox) -> None:
        reply = client(sandbox, limit=5, fields="id,name", summary="true")
        link = urlsplit(reply.json["paging"]["next"])
        assert f"{link.scheme}://{link.netloc}" == sandbox.url
        assert link.path == f"/v26.0/{sandbox.business_id}/{CLIENT}"
        after = reply.json["paging"]["cursors"]["after"]
        assert parse_qs(link.query) == {
            "limit": ["5"], "fields": ["id,name"], "summary": ["true"], "after": [after],
        }  # fmt: skip
        assert ids(get(sandbox, f"{link.path}?{link.query}")) == ids(client(sandbox, limit=5, after=after))

    def test_next_holds_the_token_when_the_query_did(self, sandbox: GraphSandbox) -> None:
        reply = send(sandbox, f"/v26.0/{sandbox.business_id}/{CLIENT}?access_token={sandbox.token}&limit=2")
        assert f"access_token={sandbox.token}" in reply.json["paging"]["next"]
        assert sandbox.token not in client(sandbox, limit=2).raw.decode()

    def test_empty_listing(self) -> None:
        with GraphSandbox(accounts=0, owned_accounts=0) as sandbox:
            for edge in (CLIENT, OWNED):
                assert get(sandbox, f"{sandbox.business_id}/{edge}").json == {"data": []}

    def test_trailing_slash(self, sandbox: GraphSandbox) -> None:
        assert len(ids(get(sandbox, f"{sandbox.business_id}/{CLIENT}/"))) == 25

    def test_far_page_of_a_long_list_is_quick(self) -> None:
        class Indexed(list[dict[str, Any]]):
            """A list that cannot be walked from its beginning, as a slow way to a far page would do."""

            def __iter__(self) -> Iterator[dict[str, Any]]:
                raise AssertionError("the whole list was walked")

        # A quota of each account must not look for the business among the accounts.
        with GraphSandbox(accounts=5000, calls_per_hour_and_account=5) as sandbox:
            walk(sandbox, edge=OWNED)
            everyone = [account["id"] for account in sandbox.accounts]
            sandbox.accounts = Indexed(sandbox.accounts)
            assert walk(sandbox, limit=100, fields="id") == everyone

    def test_own_accounts_may_have_numbers_as_ids(self, sandbox: GraphSandbox) -> None:
        sandbox.accounts = [{"id": number} for number in range(7)]
        assert len(walk(sandbox, limit=2)) == 7
        assert get(sandbox, "6").json == {"id": 6}
