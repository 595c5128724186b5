"""The sandbox against what Meta documents, over real HTTP; nothing here knows how it is made."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

CLIENT = "client_whatsapp_business_accounts"
OWNED = "owned_whatsapp_business_accounts"


@dataclass
class Reply:
    """An answer as it lay on the wire, unpacked when it was packed."""

    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def json(self) -> Any:
        packed = self.headers["Content-Encoding"] == "gzip"
        return json.loads(gzip.decompress(self.raw) if packed else self.raw)

    @property
    def error(self) -> tuple[int, int | None]:
        return self.json["error"]["code"], self.json["error"].get("error_subcode")


def address(graph: GraphSandbox) -> tuple[str, int]:
    parts = urlsplit(graph.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def send(graph: GraphSandbox, path: str, *, method: str = "GET", body: str | None = None, **headers: str) -> Reply:
    connection = http.client.HTTPConnection(*address(graph), timeout=5)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def get(graph: GraphSandbox, path: str, params: dict[str, Any] | None = None, **headers: str) -> Reply:
    """Read with the right token, from v26.0 unless the path says otherwise."""
    headers.setdefault("Authorization", f"Bearer {graph.token}")
    versioned = path if path.startswith("/") else f"/v26.0/{path}"
    return send(graph, versioned + (f"?{urlencode(params)}" if params else ""), **headers)


def client(graph: GraphSandbox, **params: Any) -> Reply:
    return get(graph, f"{graph.business_id}/{CLIENT}", params)


def ids(reply: Reply) -> list[str]:
    assert reply.status == 200, reply.raw
    return [row["id"] for row in reply.json["data"]]


def walk(graph: GraphSandbox, *, edge: str = CLIENT, pages: int = 100, **params: Any) -> list[str]:
    """Walk a listing as documented: until there is no ``next``, by ``cursors.after``."""
    found = []
    for _ in range(pages):
        reply = get(graph, f"{graph.business_id}/{edge}", params)
        found += ids(reply)
        paging = reply.json.get("paging", {})
        if "next" not in paging:
            return found
        params["after"] = paging["cursors"]["after"]
    raise AssertionError("no end of pages")


def on_the_wire(graph: GraphSandbox, **params: Any) -> tuple[bytes, bool]:
    """Give every byte that comes, and whether a reset ended it."""
    query = urlencode({"access_token": graph.token, **params})
    received = b""
    with socket.create_connection(address(graph), timeout=5) as wire:
        wire.sendall(f"GET /v26.0/{graph.business_id}/{CLIENT}?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            while piece := wire.recv(65536):
                received += piece
        except ConnectionResetError:
            return received, True
    return received, False


@pytest.fixture
def graph() -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=60) as sandbox:
        yield sandbox


class TestPaging:
    def test_default_page(self, graph: GraphSandbox) -> None:
        reply = client(graph)
        assert ids(reply) == [account["id"] for account in graph.accounts[:25]]
        assert set(reply.json["data"][0]) <= {
            "id", "name", "currency", "timezone_id", "message_template_namespace",
        }  # fmt: skip
        assert set(reply.json["paging"]) == {"cursors", "next"}

    @pytest.mark.parametrize("limit", [1, 7, 20, 59, 60, 61, 100])
    def test_pages_make_up_the_list(self, graph: GraphSandbox, limit: int) -> None:
        assert walk(graph, limit=limit) == [account["id"] for account in graph.accounts]
        assert len(graph.requests) == -(-60 // limit)

    def test_last_page_has_cursors_and_no_next(self, graph: GraphSandbox) -> None:
        paging = client(graph, limit=100).json["paging"]
        assert set(paging) == {"cursors"}
        assert set(paging["cursors"]) == {"before", "after"}

    def test_page_behind_the_end_is_empty(self, graph: GraphSandbox) -> None:
        after = client(graph, limit=100).json["paging"]["cursors"]["after"]
        assert client(graph, after=after).json == {"data": []}

    def test_before_leads_back(self, graph: GraphSandbox) -> None:
        first = client(graph, limit=10)
        second = client(graph, limit=10, after=first.json["paging"]["cursors"]["after"])
        assert "previous" in second.json["paging"]
        back = client(graph, limit=10, before=second.json["paging"]["cursors"]["before"])
        assert ids(back) == ids(first)
        assert "previous" not in back.json["paging"]

    def test_limit_above_100_is_100(self) -> None:
        with GraphSandbox(accounts=120) as graph:
            assert len(ids(client(graph, limit=500))) == 100

    @pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5"])
    def test_bad_limit(self, graph: GraphSandbox, limit: str) -> None:
        assert client(graph, limit=limit).error[0] == 100

    @pytest.mark.parametrize("cursor", ["x", "!!!", "YQ==", "é", "MTIz", "A" * 5000])
    @pytest.mark.parametrize("direction", ["after", "before"])
    def test_bad_cursor(self, graph: GraphSandbox, cursor: str, direction: str) -> None:
        reply = client(graph, **{direction: cursor})
        assert reply.status == 400
        assert reply.json["error"]["message"] == "(#100) Invalid cursors values"

    def test_accounts_that_come_and_go_do_not_shift_pages(self, graph: GraphSandbox) -> None:
        first = client(graph, limit=10)
        after = first.json["paging"]["cursors"]["after"]
        expected = graph.accounts[10]["id"]
        graph.accounts.insert(0, {"id": "1", "name": "new"})
        assert ids(client(graph, limit=1, after=after)) == [expected]
        del graph.accounts[:5]
        assert ids(client(graph, limit=1, after=after)) == [expected]

    def test_account_of_the_cursor_itself_goes(self, graph: GraphSandbox) -> None:
        after = client(graph, limit=10).json["paging"]["cursors"]["after"]
        expected = graph.accounts[10]["id"]
        del graph.accounts[9]
        assert ids(client(graph, limit=1, after=after)) == [expected]

    def test_next_repeats_the_query(self, graph: GraphSandbox) -> None:
        reply = client(graph, limit=5, fields="id,name", summary="true")
        link = urlsplit(reply.json["paging"]["next"])
        assert f"{link.scheme}://{link.netloc}" == graph.url
        assert link.path == f"/v26.0/{graph.business_id}/{CLIENT}"
        after = reply.json["paging"]["cursors"]["after"]
        assert parse_qs(link.query) == {
            "limit": ["5"], "fields": ["id,name"], "summary": ["true"], "after": [after],
        }  # fmt: skip
        assert ids(get(graph, f"{link.path}?{link.query}")) == ids(client(graph, limit=5, after=after))

    def test_next_holds_the_token_when_the_query_did(self, graph: GraphSandbox) -> None:
        reply = send(graph, f"/v26.0/{graph.business_id}/{CLIENT}?access_token={graph.token}&limit=2")
        assert f"access_token={graph.token}" in reply.json["paging"]["next"]
        assert graph.token not in client(graph, limit=2).raw.decode()

    def test_empty_listing(self) -> None:
        with GraphSandbox(accounts=0, owned_accounts=0) as graph:
            assert client(graph).json == {"data": []}
            assert get(graph, f"{graph.business_id}/{OWNED}").json == {"data": []}

    def test_trailing_slash(self, graph: GraphSandbox) -> None:
        assert len(ids(get(graph, f"{graph.business_id}/{CLIENT}/"))) == 25

    def test_far_page_of_a_long_list_is_quick(self) -> None:
        with GraphSandbox(accounts=100_000) as graph:
            walk(graph, edge=OWNED)
            after = client(graph, limit=100).json["paging"]["cursors"]["after"]
            begun = time.perf_counter()
            for _ in range(20):
                after = client(graph, limit=100, after=after, fields="id").json["paging"]["cursors"]["after"]
            assert time.perf_counter() - begun < 1

    def test_own_accounts_may_have_numbers_as_ids(self, graph: GraphSandbox) -> None:
        graph.accounts = [{"id": number} for number in range(7)]
        assert len(walk(graph, limit=2)) == 7
        assert get(graph, "6").json == {"id": 6}


class TestFields:
    def test_chosen_fields(self, graph: GraphSandbox) -> None:
        for row, account in zip(client(graph, fields="name,country").json["data"], graph.accounts, strict=False):
            assert row == {name: account[name] for name in ("name", "country", "id") if name in account}

    def test_unset_fields_are_left_out(self, graph: GraphSandbox) -> None:
        graph.accounts[0] = {"id": "1", "name": None}
        assert client(graph, fields="id,name,currency", limit=1).json["data"] == [{"id": "1"}]

    def test_own_fields_of_an_account_can_be_read(self, graph: GraphSandbox) -> None:
        graph.accounts[0]["loyalty"] = {"id": 7, "level": "gold"}
        assert client(graph, fields="loyalty{level}", limit=1).json["data"] == [
            {"loyalty": {"level": "gold", "id": 7}, "id": graph.accounts[0]["id"]}
        ]

    def test_embedded_objects(self, graph: GraphSandbox) -> None:
        account = next(account for account in graph.accounts if "owner_business_info" in account)
        row = get(graph, account["id"], {"fields": "owner_business_info{name}.as(x),health_status"})
        assert row.error[0] == 2500
        row = get(graph, account["id"], {"fields": "owner_business_info.as(owner){name},health_status"})
        assert row.json["owner"] == account["owner_business_info"]
        assert row.json["health_status"]["entities"][0]["id"] == account["id"]

    @pytest.mark.parametrize("path", [f"{{business}}/{CLIENT}", "{business}", "{account}"])
    def test_nonexisting_field(self, graph: GraphSandbox, path: str) -> None:
        path = path.format(business=graph.business_id, account=graph.accounts[0]["id"])
        reply = get(graph, path, {"fields": "id,hologram"})
        assert reply.error[0] == 100
        assert "Tried accessing nonexisting field (hologram) on node type (" in reply.json["error"]["message"]

    def test_fields_depend_on_the_version(self, graph: GraphSandbox) -> None:
        path = f"{graph.business_id}/{CLIENT}?fields=marketing_messages_onboarding_status"
        assert get(graph, f"/v23.0/{path}").status == 200
        assert get(graph, f"/v22.0/{path}").error[0] == 100

    @pytest.mark.parametrize(
        "fields",
        ["id,,name", "id{", "a{b", "id}", ",", "phone_numbers.limit(5", "id.loud(1)", "é", "a{" * 50],
    )
    def test_syntax_error(self, graph: GraphSandbox, fields: str) -> None:
        reply = client(graph, fields=fields)
        assert reply.error[0] == 2500
        assert reply.json["error"]["message"].startswith("Syntax error")

    def test_permitted_tasks_only_on_the_client_edge(self, graph: GraphSandbox) -> None:
        assert "MESSAGING" in client(graph, fields="permitted_tasks").json["data"][0]["permitted_tasks"]
        assert "permitted_tasks" not in client(graph).json["data"][0]
        for path in (f"{graph.business_id}/{OWNED}", graph.accounts[0]["id"]):
            assert get(graph, path, {"fields": "permitted_tasks"}).error[0] == 100

    def test_nested_edges_page_on_their_own(self, graph: GraphSandbox) -> None:
        graph.accounts[0]["phone_numbers"] = [{"id": str(number), "verified_name": "x"} for number in range(30)]
        graph.accounts[1]["phone_numbers"] = []
        fields = "name,phone_numbers.limit(4).as(numbers){id,verified_name}"
        full, none = client(graph, fields=fields, limit=2).json["data"]
        assert none["numbers"] == {"data": []}
        assert [row["id"] for row in full["numbers"]["data"]] == ["0", "1", "2", "3"]
        assert set(full["numbers"]["paging"]) == {"cursors", "next"}
        link = urlsplit(full["numbers"]["paging"]["next"])
        assert link.path == f"/v26.0/{full['id']}/phone_numbers"
        assert ids(get(graph, f"{link.path}?{link.query}")) == ["4", "5", "6", "7"]
        after = full["numbers"]["paging"]["cursors"]["after"]
        again = client(graph, fields=f"phone_numbers.limit(2).after({after}){{id}}", limit=1).json["data"][0]
        assert [row["id"] for row in again["phone_numbers"]["data"]] == ["4", "5"]
        assert len(client(graph, fields="phone_numbers{id}", limit=1).json["data"][0]["phone_numbers"]["data"]) == 25

    def test_edges_of_a_business(self, graph: GraphSandbox) -> None:
        reply = get(graph, graph.business_id, {"fields": f"name,{CLIENT}.limit(3){{id}},{OWNED}{{ownership_type}}"})
        assert [row["id"] for row in reply.json[CLIENT]["data"]] == [row["id"] for row in graph.accounts[:3]]
        assert {row.get("ownership_type") for row in reply.json[OWNED]["data"]} <= {"SELF", None}


def filtered(*filters: tuple[str, str, Any]) -> str:
    return json.dumps([{"field": field, "operator": operator, "value": value} for field, operator, value in filters])


class TestFilteringAndSorting:
    @pytest.fixture(autouse=True)
    def _accounts(self, graph: GraphSandbox) -> None:
        kinds = ("CLIENT_OWNED", "ON_BEHALF_OF")
        graph.accounts[:] = [
            {"id": f"{n}", "creation_time": 100 + n, "ownership_type": kinds[n % 2], "country": "BR"} for n in range(6)
        ]
        graph.owned_accounts[:] = [{"id": "8", "country": "BR"}, {"id": "9", "country": "IN"}, {"id": "10"}]

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
    def test_filters(self, graph: GraphSandbox, filters: list[tuple[str, str, Any]], found: str) -> None:
        assert walk(graph, filtering=filtered(*filters), limit=2) == list(found)

    def test_single_quotes_as_on_metas_pages(self, graph: GraphSandbox) -> None:
        text = "[{'field':'ownership_type','operator':'IN','value':['SELF','CLIENT_OWNED']}]"
        assert ids(client(graph, filtering=text)) == ["0", "2", "4"]

    def test_country_is_a_filter_of_owned_accounts_only(self, graph: GraphSandbox) -> None:
        text = filtered(("country", "IN", ["IN", "US"]))
        assert ids(get(graph, f"{graph.business_id}/{OWNED}", {"filtering": text})) == ["9"]
        assert client(graph, filtering=text).error[0] == 100

    def test_onboarding_status_is_a_filter_of_client_accounts_only(self, graph: GraphSandbox) -> None:
        graph.accounts[3]["marketing_messages_onboarding_status"] = "ELIGIBLE"
        text = filtered(("marketing_messages_onboarding_status", "IN", ["ELIGIBLE"]))
        assert ids(client(graph, filtering=text)) == ["3"]
        assert get(graph, f"{graph.business_id}/{OWNED}", {"filtering": text}).error[0] == 100

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
        ],
    )  # fmt: skip
    def test_bad_filter(self, graph: GraphSandbox, text: str) -> None:
        reply = client(graph, filtering=text)
        assert (reply.status, reply.error[0]) == (400, 100)

    def test_sort(self, graph: GraphSandbox) -> None:
        graph.accounts.reverse()
        assert walk(graph, sort="creation_time_ascending", limit=4) == list("012345")
        text = filtered(("ownership_type", "EQUAL", "ON_BEHALF_OF"))
        assert walk(graph, sort="creation_time_descending", filtering=text, limit=2) == list("531")
        assert client(graph, sort="name").error[0] == 100


class TestNodes:
    def test_single_nodes(self, graph: GraphSandbox) -> None:
        account = next(a for a in graph.accounts if get(graph, f"{a['id']}/phone_numbers").json["data"])
        number = get(graph, f"{account['id']}/phone_numbers").json["data"][0]
        assert set(number) == {"id", "display_phone_number", "verified_name", "quality_rating"}
        assert get(graph, number["id"]).json == number
        assert get(graph, graph.business_id).json == {
            "id": graph.business_id,
            "name": graph.businesses[0]["name"],
        }
        assert get(graph, account["id"], {"fields": "status"}).json == {
            "status": account["status"], "id": account["id"],
        }  # fmt: skip
        assert get(graph, "app").json == get(graph, get(graph, "app").json["id"]).json
        assert get(graph, "me").json == get(graph, get(graph, "me").json["id"]).json

    def test_templates(self, graph: GraphSandbox) -> None:
        found = [ids(get(graph, f"{a['id']}/message_templates?limit=100")) for a in graph.accounts]
        template = next(rows[0] for rows in found if rows)
        assert get(graph, template).json["language"]
        assert max(map(len, found)) > 25

    def test_phone_numbers_vary(self) -> None:
        with GraphSandbox(accounts=200) as graph:
            fields = "phone_numbers.limit(100){id}"
            rows = [row for reply in (client(graph, limit=100, fields=fields),) for row in reply.json["data"]]
            counts = {len(row["phone_numbers"]["data"]) for row in rows}
            assert min(counts) == 0
            assert max(counts) > 25
            assert ids(get(graph, f"{rows[0]['id']}/phone_numbers", {"limit": 100})) == [
                row["id"] for row in rows[0]["phone_numbers"]["data"]
            ]

    def test_removed_and_replaced_accounts(self, graph: GraphSandbox) -> None:
        gone = graph.accounts[5]["id"]
        assert get(graph, gone).status == 200
        del graph.accounts[5]
        assert get(graph, gone).error == (100, 33)
        assert get(graph, graph.accounts[7]["id"]).status == 200
        graph.accounts = [{"id": "77", "name": "x"}]
        graph.owned_accounts = []
        assert get(graph, "77").json == {"id": "77", "name": "x"}
        assert get(graph, f"{graph.business_id}/{OWNED}").json == {"data": []}

    def test_businesses(self) -> None:
        with GraphSandbox(accounts=4, businesses=30) as graph:
            assert walk_businesses(graph) == [business["id"] for business in graph.businesses]
            other = graph.businesses[7]["id"]
            listed = ids(get(graph, f"{other}/{CLIENT}"))
            assert listed == [row["id"] for row in graph.client_accounts_of(other)]
            assert not set(listed) & {row["id"] for row in graph.accounts}
            assert len(graph.owned_accounts_of(other)) == 3
            graph.businesses.append({"id": "5", "name": "Ours"})
            assert get(graph, f"5/{CLIENT}").json == {"data": []}
            graph.client_accounts_of("5").append({"id": "55"})
            assert ids(get(graph, f"5/{CLIENT}")) == ["55"]

    def test_what_is_not_there(self, graph: GraphSandbox) -> None:
        missing = get(graph, f"123456/{CLIENT}")
        assert (missing.status, missing.error) == (400, (100, 33))
        assert "Object with ID '123456' does not exist" in missing.json["error"]["message"]
        assert get(graph, "123456").error == (100, 33)
        assert get(graph, f"{graph.business_id}/hologram").error[0] == 2500
        assert get(graph, f"{graph.business_id}/{CLIENT}/x").error[0] == 2500
        assert get(graph, f"me/{CLIENT}").error[0] == 100
        on_account = get(graph, f"{graph.accounts[0]['id']}/{CLIENT}")
        assert "on node type (WhatsAppBusinessAccount)" in on_account.json["error"]["message"]
        assert get(graph, "/").error == (100, 33)

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_only_get(self, graph: GraphSandbox, method: str) -> None:
        reply = send(graph, f"/v26.0/{graph.business_id}/{CLIENT}", method=method, body="a=b")
        assert (reply.status, reply.error[0]) == (400, 100)


def walk_businesses(graph: GraphSandbox) -> list[str]:
    first = get(graph, "me/businesses")
    return ids(first) + ids(get(graph, "me/businesses", {"after": first.json["paging"]["cursors"]["after"]}))


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
    def test_version_that_ran(self, graph: GraphSandbox, path: str, ran: str) -> None:
        assert get(graph, path).headers["facebook-api-version"] == ran

    @pytest.mark.parametrize("path", ["/v99.0/me", "/v25.1/me"])
    def test_version_that_never_was(self, graph: GraphSandbox, path: str) -> None:
        assert get(graph, path).error[0] == 2500

    def test_newer_version(self) -> None:
        with GraphSandbox(api_version="v30.0") as graph:
            assert get(graph, "/me").headers["facebook-api-version"] == "v30.0"
            assert json.loads(graph.connection)["extra"]["api_version"] == "v30.0"

    @pytest.mark.parametrize("bad", [{"api_version": "26"}, {"businesses": 0}])
    def test_bad_arguments(self, bad: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must"):
            GraphSandbox(**bad)


def proof(message: str, secret: str = "s3cret") -> str:
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


class TestTokens:
    @pytest.mark.parametrize("scheme", ["Bearer", "OAuth", "bearer"])
    def test_header(self, graph: GraphSandbox, scheme: str) -> None:
        assert get(graph, "me", Authorization=f"{scheme} {graph.token}").status == 200

    def test_wrong_token(self, graph: GraphSandbox) -> None:
        for reply in (
            get(graph, "me", Authorization="Bearer EAAx"),
            send(graph, "/v26.0/me?access_token=EAA\u00e9".replace("\u00e9", "%C3%A9")),
        ):
            assert (reply.status, reply.error) == (401, (190, None))
            assert reply.json["error"]["type"] == "OAuthException"
            assert reply.headers["WWW-Authenticate"].startswith('OAuth "Facebook Platform" "invalid_token" "')

    def test_no_token(self, graph: GraphSandbox) -> None:
        assert send(graph, f"/v26.0/{graph.business_id}/{CLIENT}").error[0] == 104
        assert send(graph, f"/v26.0/{graph.business_id}", Authorization="Basic eDp5").error[0] == 104
        assert send(graph, "/v26.0/me").error[0] == 2500

    def test_looks(self) -> None:
        assert re.fullmatch("EAA[A-Za-z0-9]{60,}", GraphSandbox().token)
        assert GraphSandbox(seed=4).token == GraphSandbox(seed=4).token != GraphSandbox().token
        assert GraphSandbox(token="mine").token == "mine"

    def test_proof(self) -> None:
        with GraphSandbox(app_secret="s3cret") as graph:
            token, now = graph.token, int(time.time())
            missing = get(graph, "me")
            assert missing.error[0] == 100
            assert missing.json["error"]["message"] == ("API calls from the server require an appsecret_proof argument")
            assert get(graph, "me", {"appsecret_proof": proof(token)}).status == 200
            timed = {"appsecret_proof": proof(f"{token}|{now - 200}"), "appsecret_time": now - 200}
            assert get(graph, "me", timed).status == 200
            for wrong in (
                {"appsecret_proof": proof(token, "other")},
                {"appsecret_proof": "\u00e9"},
                {"appsecret_proof": proof(f"{token}|{now - 400}"), "appsecret_time": now - 400},
                {"appsecret_proof": proof(f"{token}|soon"), "appsecret_time": "soon"},
                {"appsecret_proof": proof(token), "appsecret_time": now},
            ):
                reply = get(graph, "me", wrong)
                assert (reply.status, reply.error[0]) == (400, 100)
                assert reply.json["error"]["message"] == ("Invalid appsecret_proof provided in the API argument")
            page = client(graph, limit=2, **timed)
            assert "appsecret" not in page.json["paging"]["next"]

    def test_debug_token(self, graph: GraphSandbox) -> None:
        data = get(graph, "debug_token", {"input_token": graph.token}).json["data"]
        assert data["is_valid"] is True
        assert data["type"] == "SYSTEM_USER"
        assert data["expires_at"] == data["data_access_expires_at"] == 0
        assert "whatsapp_business_management" in data["scopes"]
        assert all(set(scope) == {"scope"} for scope in data["granular_scopes"])
        graph.token_info["expires_at"] = 5
        assert get(graph, "debug_token", {"input_token": graph.token}).json["data"]["expires_at"] == 5
        unknown = get(graph, "debug_token", {"input_token": "EAAx"}).json["data"]
        assert unknown["is_valid"] is False
        assert unknown["error"]["code"] == 190
        assert get(graph, "debug_token").error[0] == 100

    def test_debug_token_by_the_app(self) -> None:
        with GraphSandbox(app_secret="s3cret") as graph:
            app = get(graph, "app", {"appsecret_proof": proof(graph.token)}).json["id"]
            token = f"{app}|s3cret"
            params = {"input_token": graph.token, "appsecret_proof": proof(token)}
            reply = get(graph, "debug_token", params, Authorization=f"Bearer {token}")
            assert reply.json["data"]["app_id"] == app
            assert get(graph, "me", params, Authorization=f"Bearer {token}").error[0] == 190


class TestHeaders:
    def test_of_a_good_answer(self, graph: GraphSandbox) -> None:
        headers = client(graph).headers
        assert headers["Content-Type"] == "application/json; charset=UTF-8"
        assert headers["facebook-api-version"] == "v26.0"
        assert headers["x-fb-trace-id"]
        assert headers["x-fb-request-id"]

    def test_of_an_error(self, graph: GraphSandbox) -> None:
        reply = get(graph, f"{graph.business_id}/x%0d%0aSet-Cookie:%20a=b")
        assert reply.json["error"]["fbtrace_id"]
        assert reply.headers["WWW-Authenticate"].startswith('OAuth "Facebook Platform" "invalid_token"')
        assert reply.headers["Set-Cookie"] is None

    def test_usage_appears_with_traffic(self, graph: GraphSandbox) -> None:
        seen = [get(graph, "me").headers["x-app-usage"] for _ in range(8)]
        assert seen[0] is None
        assert json.loads(seen[-1])["call_count"] >= 1
        usage = json.loads(get(graph, "me").headers["x-business-use-case-usage"])
        (entry,) = usage[graph.business_id]
        assert entry["type"] == "whatsapp_business_management"
        assert entry["estimated_time_to_regain_access"] == 0

    @pytest.mark.parametrize("accepted", ["gzip", "deflate, gzip;q=0.5", "*"])
    def test_gzip(self, graph: GraphSandbox, accepted: str) -> None:
        path = f"{graph.business_id}/{CLIENT}"
        packed = get(graph, path, Accept_Encoding=accepted)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.json == get(graph, path).json
        assert get(graph, "me", Accept_Encoding=accepted).headers["Content-Encoding"] is None

    def test_no_gzip_unasked(self, graph: GraphSandbox) -> None:
        reply = get(graph, f"{graph.business_id}/{CLIENT}", Accept_Encoding="br, gzip;q=0")
        assert reply.headers["Content-Encoding"] is None

    def test_any_script_survives(self, graph: GraphSandbox) -> None:
        graph.accounts[:] = [{"id": "1", "name": "ÀÞ 北京 🍕 \"'\n\\ </script> \ud800"}]
        reply = client(graph, fields="name")
        assert reply.json["data"][0]["name"] == graph.accounts[0]["name"]
        assert b"<\\/script>" in reply.raw


class TestServer:
    def test_keep_alive_and_records(self, graph: GraphSandbox) -> None:
        connection = http.client.HTTPConnection(*address(graph), timeout=5)
        query = f"access_token={graph.token}&appsecret_proof=aa&input_token={graph.token}&limit=3"
        for method, path in (
            ("GET", f"/v26.0/{graph.token}/x?{query}"),
            ("POST", "/v26.0/me"),
            ("GET", "/me"),
        ):
            connection.request(method, path, "x=1" if method == "POST" else None, {"X-Seen": f"={graph.token}"})
            connection.getresponse().read()
        connection.close()
        get(graph, "me")
        assert [request.connection for request in graph.requests] == [0, 0, 0, 1]
        assert [request.status for request in graph.requests] == [400, 400, 400, 200]
        assert graph.connections == 2
        first = graph.requests[0]
        assert first.path == "/v26.0/***/x"
        assert first.params == {
            "access_token": "***", "appsecret_proof": "***", "input_token": "***", "limit": "3",
        }  # fmt: skip
        assert first.headers["x-seen"] == "=***"
        assert graph.requests[3].headers["authorization"] == "Bearer ***"
        assert graph.token not in repr(graph.requests)
        graph.reset()
        assert graph.requests == []

    def test_strange_tokens_are_masked_too(self, graph: GraphSandbox) -> None:
        get(graph, "me", Authorization="Bearer something-else-entirely", X_Copy="something-else-entirely")
        assert "something-else" not in repr(graph.requests)

    def test_stop_with_idle_connections(self) -> None:
        before = threading.active_count()
        graph = GraphSandbox().start()
        idle = [socket.create_connection(address(graph)) for _ in range(20)]
        get(graph, "me")
        url = graph.url
        begun = time.perf_counter()
        graph.stop()
        assert time.perf_counter() - begun < 0.5
        assert threading.active_count() == before
        assert graph.url == url
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address(graph))
        for connection in idle:
            connection.close()
        graph.stop()
        with graph:
            assert get(graph, "me").status == 200

    def test_stop_ends_slow_answers(self) -> None:
        graph = GraphSandbox(latency=30).start()
        with socket.create_connection(address(graph)) as wire:
            wire.sendall(b"GET /me HTTP/1.1\r\nHost: x\r\n\r\n")
            begun = time.perf_counter()
            graph.stop()
            assert time.perf_counter() - begun < 0.5

    def test_started_once(self, graph: GraphSandbox) -> None:
        with pytest.raises(RuntimeError, match="already"):
            graph.start()
        with pytest.raises(RuntimeError, match="not started"):
            _ = GraphSandbox().url

    def test_latency_does_not_add_up(self) -> None:
        with GraphSandbox(latency=0.1) as graph:
            begun = time.perf_counter()
            threads = [threading.Thread(target=get, args=(graph, "me")) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert 0.1 <= time.perf_counter() - begun < 0.5
            assert len(graph.requests) == 8

    def test_many_clients_at_once(self, graph: GraphSandbox) -> None:
        wires = [socket.create_connection(address(graph)) for _ in range(300)]
        for wire in wires:
            wire.sendall(f"GET /me?access_token={graph.token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert all(wire.recv(12) == b"HTTP/1.1 200" for wire in wires)
        for wire in wires:
            wire.close()
        assert graph.connections == 300

    def test_reached_as_a_proxy(self, graph: GraphSandbox) -> None:
        path = f"http://graph.facebook.example/v26.0/me?access_token={graph.token}"
        assert send(graph, path).status == 200
        assert graph.requests[0].path == "/v26.0/me"

    def test_connection_json(self, graph: GraphSandbox) -> None:
        assert json.loads(graph.connection) == {
            "conn_type": "whatsapp",
            "host": graph.url,
            "password": graph.token,
            "extra": {"business_id": graph.business_id, "api_version": "v26.0"},
        }
        with GraphSandbox(app_secret="s") as other:
            assert json.loads(other.connection)["extra"]["app_secret"] == "s"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_command(self, number: signal.Signals) -> None:
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "airflow_provider_whatsapp.sandbox",
            "--accounts",
            "7",
        ]
        served = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        with served:
            assert served.stdout
            assert served.stderr
            try:
                lines = [served.stdout.readline() for _ in range(3)]
                match = re.fullmatch("export AIRFLOW_CONN_WHATSAPP_DEFAULT='(.*)'\n", lines[2])
                assert match
                connection = json.loads(match[1])
                assert connection["host"] in lines[0]
                assert connection["extra"]["business_id"] in lines[1]
                parts = urlsplit(connection["host"])
                with socket.create_connection((parts.hostname, parts.port)):
                    served.send_signal(number)
                    assert served.wait(5) == 0
                assert served.stderr.read() == ""
            finally:
                served.kill()

    def test_needs_only_the_standard_library(self) -> None:
        code = (
            "import sys, airflow_provider_whatsapp.sandbox as s;"
            "own = s.__name__.split('.')[0];"
            "print([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names | {own}"
            " or m.startswith(own + '.') and not m.startswith(s.__name__)])"
        )
        run = subprocess.run(
            [sys.executable, "-S", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": os.getcwd()},
        )
        assert run.stdout.strip() == "['__main__']" or run.stdout.strip() == "[]"


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
        assert {account.get("ownership_type") for account in accounts} == {"CLIENT_OWNED", "ON_BEHALF_OF"}
        assert {len(account) for account in accounts} > {17}
        assert all(re.fullmatch(r"[\da-f_]{36}", a.get("message_template_namespace", "_" * 36)) for a in accounts)
        assert all(a.get("business_verification_status", "x").islower() for a in accounts)

    def test_a_hundred_thousand(self) -> None:
        begun = time.perf_counter()
        assert len(GraphSandbox(accounts=100_000).accounts) == 100_000
        assert time.perf_counter() - begun < 5


class TestFaults:
    def test_queue(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.server_error(502, times=2, after=1), Fault.unavailable())
        statuses = [client(graph).status for _ in range(5)]
        assert statuses == [200, 502, 502, 500, 200]
        assert [request.status for request in graph.requests] == statuses
        graph.fail_next(Fault.unavailable())
        graph.reset()
        assert client(graph).status == 200

    def test_page_faults_wait_for_a_page(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.no_data())
        assert get(graph, "me").status == 200
        assert "data" not in client(graph).json

    def test_catalogue(self) -> None:
        catalogue = Fault.catalogue()
        assert len(catalogue) >= 55
        assert {fault.nature for fault in catalogue.values()} == {"harmless", "passing", "fatal"}
        for name, fault in catalogue.items():
            assert fault.after == 0
            assert getattr(Fault, name)(times=3, after=2).times == 3
            assert getattr(Fault, name)(times=3, after=2).after == 2

    @pytest.mark.parametrize("name", sorted(Fault.catalogue()))
    def test_each_lets_the_server_live(self, graph: GraphSandbox, name: str) -> None:
        graph.fail_next(Fault.catalogue()[name])
        on_the_wire_briefly(graph)
        graph.reset()
        assert client(graph).status == 200

    @pytest.mark.parametrize(
        ("fault", "status", "code", "subcode"),
        [
            (Fault.throttle(), 400, 80008, None),
            (Fault.throttle(4), 403, 4, None),
            (Fault.throttle(17), 400, 17, None),
            (Fault.throttle(32), 400, 32, None),
            (Fault.throttle(613), 400, 613, None),
            (Fault.unknown_error(), 500, 1, None),
            (Fault.unavailable(), 500, 2, None),
            (Fault.error_on_200(), 200, 2, None),
            (Fault.error_data_text(), 500, 131000, None),
            (Fault.expired_token(), 401, 190, 463),
            (Fault.revoked_token(), 401, 190, 467),
            (Fault.echoed_token(), 401, 190, None),
            (Fault.bad_proof(), 400, 104, None),
            (Fault.no_advanced_access(), 403, 200, None),
            (Fault.no_permission(), 403, 10, None),
            (Fault.no_capability(), 400, 3, None),
            (Fault.blocked(), 400, 368, None),
            (Fault.wrong_business(), 400, 100, 33),
            (Fault.nonexisting_field(), 400, 100, None),
        ],
    )
    def test_envelopes(self, graph: GraphSandbox, fault: Fault, status: int, code: int, subcode: int | None) -> None:
        graph.fail_next(fault)
        reply = client(graph)
        assert (reply.status, reply.error) == (status, (code, subcode))
        assert reply.json["error"]["fbtrace_id"]
        assert reply.headers["WWW-Authenticate"]
        assert client(graph).status == 200

    def test_throttle_tells_when(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.throttle(minutes=7, retry_after=9), Fault.throttle(minutes=None))
        reply = client(graph)
        (usage,) = json.loads(reply.headers["x-business-use-case-usage"])[graph.business_id]
        assert usage["estimated_time_to_regain_access"] == 7
        assert reply.headers["Retry-After"] == "9"
        silent = client(graph).headers
        assert silent["x-business-use-case-usage"] is None
        assert silent["Retry-After"] is None

    def test_details_of_errors(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.echoed_token(), Fault.transient_error(), Fault.error_data_text())
        assert client(graph).json["error"]["message"] == f"Malformed access token {graph.token}"
        assert client(graph).json["error"]["is_transient"] is True
        assert json.loads(client(graph).json["error"]["error_data"])["messaging_product"] == "whatsapp"

    def test_reduce_data(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.reduce_data(above=10))
        for _ in range(3):
            reply = client(graph, limit=11)
            assert reply.status == 500
            assert set(reply.json["error"]) == {"code", "message"}
        assert client(graph).status == 500
        assert client(graph, limit=10).status == 200
        assert get(graph, "me").status == 200

    @pytest.mark.parametrize(
        ("fault", "status", "content"),
        [
            (Fault.too_many_requests(retry_after=3), 429, b"Too Many Requests"),
            (Fault.server_error(500), 500, b"<html>"),
            (Fault.server_error(502), 502, b"<html>"),
            (Fault.server_error(), 503, b"<html>"),
            (Fault.html_on_200(), 200, b"<html>"),
            (Fault.empty_body(), 200, b""),
            (Fault.error_not_an_object(), 500, b'{"error":"Service'),
            (Fault.error_without_code(), 500, b'{"error":{"message":"Something went wrong"}}'),
            (Fault.deep_json(1000), 200, b"[" * 1000 + b"]" * 1000),
        ],
    )
    def test_no_graph_answers(self, graph: GraphSandbox, fault: Fault, status: int, content: bytes) -> None:
        graph.fail_next(fault)
        reply = client(graph)
        assert reply.status == status
        assert content in reply.raw
        assert bool(reply.raw) is bool(content)
        assert reply.headers["Retry-After"] == ("3" if status == 429 else None)

    def test_half_json(self, graph: GraphSandbox) -> None:
        whole = client(graph).raw
        graph.fail_next(Fault.half_json())
        assert client(graph).raw == whole[: len(whole) // 2]

    def test_unreadable_encodings(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.cut_gzip(), Fault.unknown_encoding(), Fault.odd_content_type())
        cut = client(graph)
        assert cut.headers["Content-Encoding"] == "gzip"
        with pytest.raises(EOFError):
            gzip.decompress(cut.raw)
        unknown = client(graph)
        assert unknown.headers["Content-Encoding"] not in {None, "gzip", "deflate", "br", "zstd"}
        assert b"data" not in unknown.raw
        odd = client(graph)
        assert odd.headers["Content-Type"].startswith("text/javascript")
        assert len(odd.json["data"]) == 25

    def test_huge_body(self, graph: GraphSandbox) -> None:
        expected = client(graph).json
        graph.fail_next(Fault.huge_body(3))
        reply = client(graph)
        assert len(reply.raw) > 3 * 1024 * 1024
        assert {**reply.json, "padding": ""} == {**expected, "padding": ""}

    def test_huge_body_is_dropped_by_a_client_that_leaves(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.huge_body())
        on_the_wire_briefly(graph)
        assert client(graph).status == 200

    def test_gzip_bomb(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.gzip_bomb(20))
        reply = client(graph)
        assert len(reply.raw) < 100_000
        assert len(gzip.decompress(reply.raw)) > 20 * 1024 * 1024
        assert len(reply.json["data"]) == 25

    def test_redirect(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.redirect("http://127.0.0.1:9"))
        reply = client(graph)
        assert reply.status == 302
        assert reply.headers["Location"].startswith(f"http://127.0.0.1:9/v26.0/{graph.business_id}/{CLIENT}")


def on_the_wire_briefly(graph: GraphSandbox) -> None:
    """Ask, read a little, leave."""
    with socket.create_connection(address(graph), timeout=5) as wire:
        query = f"access_token={graph.token}&limit=50"
        wire.sendall(f"GET /v26.0/{graph.business_id}/{CLIENT}?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            wire.recv(100)
        except ConnectionResetError:
            return


def parted(received: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    return dict(line.split(": ", 1) for line in lines[1:]), body


class TestConnectionFaults:
    def test_truncated_body(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.truncated_body())
        received, was_reset = on_the_wire(graph)
        headers, body = parted(received)
        assert not was_reset
        assert len(body) == int(headers["Content-Length"]) // 2
        assert graph.requests[0].status is None

    def test_cut_chunked(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.cut_chunked())
        received, was_reset = on_the_wire(graph)
        headers, body = parted(received)
        assert not was_reset
        assert headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in headers
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length:] == b"\r\n1000\r\n{"

    @pytest.mark.parametrize("fault", [Fault.reset(), Fault.closed()])
    def test_no_reply(self, graph: GraphSandbox, fault: Fault) -> None:
        graph.fail_next(fault)
        assert on_the_wire(graph) == (b"", fault.kind == "reset")
        assert graph.requests[0].status is None
        assert graph.requests[0].params["access_token"] == "***"

    def test_reset_mid_reply(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.reset_mid_reply())
        received, was_reset = on_the_wire(graph)
        headers, body = parted(received)
        assert was_reset
        assert 0 < len(body) < int(headers["Content-Length"])

    def test_slow_reply(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.slow_reply(0.15))
        begun = time.perf_counter()
        assert client(graph).status == 200
        assert time.perf_counter() - begun >= 0.15

    def test_slow_drip(self, graph: GraphSandbox) -> None:
        expected = client(graph).json
        graph.fail_next(Fault.slow_drip(pause=0.01, drops=5), Fault.slow_drip(pause=0.0001, drops=None))
        begun = time.perf_counter()
        assert client(graph).json == expected
        assert time.perf_counter() - begun >= 0.05
        assert get(graph, "me").json

    @pytest.mark.parametrize("fault", [Fault.slow_reply(60), Fault.slow_drip(60)])
    def test_stop_ends_them(self, fault: Fault) -> None:
        graph = GraphSandbox().start()
        graph.fail_next(fault)
        with socket.create_connection(address(graph)) as wire:
            wire.sendall(f"GET /me?access_token={graph.token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            while not graph.requests:
                time.sleep(0.001)
            begun = time.perf_counter()
            graph.stop()
            assert time.perf_counter() - begun < 0.5


class TestPageFaults:
    def everyone(self, graph: GraphSandbox) -> list[str]:
        return [account["id"] for account in graph.accounts]

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_empty_page(self, graph: GraphSandbox, after: int) -> None:
        graph.fail_next(Fault.empty_page(times=2, after=after))
        cursors = []
        params: dict[str, Any] = {"limit": 25}
        found = []
        while True:
            reply = client(graph, **params)
            found.append(ids(reply))
            if "next" not in reply.json["paging"]:
                break
            params["after"] = reply.json["paging"]["cursors"]["after"]
            cursors.append(params["after"])
        assert list(chain.from_iterable(found)) == self.everyone(graph)
        assert found[after] == found[after + 1] == []
        assert len(set(cursors)) == len(cursors)

    def test_repeated_cursor(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.repeated_cursor())
        first = client(graph).json["paging"]["cursors"]["after"]
        paging = client(graph, after=first).json["paging"]
        assert paging["cursors"]["after"] == first
        assert f"after={quote(first)}" in paging["next"]

    @pytest.mark.parametrize("limit", [20, 30])
    def test_cursor_cycle(self, graph: GraphSandbox, limit: int) -> None:
        graph.fail_next(Fault.cursor_cycle())
        seen: list[str] = []
        params: dict[str, Any] = {"limit": limit}
        for _ in range(7):
            paging = client(graph, **params).json["paging"]
            assert "next" in paging
            params["after"] = paging["cursors"]["after"]
            seen.append(params["after"])
        assert seen[0] != seen[1]
        assert seen == [seen[0], seen[1]] * 3 + [seen[0]]

    def test_next_elsewhere(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.next_elsewhere())
        assert client(graph).json["paging"]["next"].startswith("https://graph.facebook.example/v26.0/")
        graph.fail_next(Fault.next_elsewhere(times=9))
        assert walk(graph) == self.everyone(graph)

    def test_next_without_cursors(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.next_without_cursors())
        paging = client(graph).json["paging"]
        assert set(paging) == {"next"}
        (after,) = parse_qs(urlsplit(paging["next"]).query)["after"]
        assert ids(client(graph, after=after))[0] == graph.accounts[25]["id"]

    def test_next_with_token(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.next_with_token())
        assert f"access_token={graph.token}" in client(graph).json["paging"]["next"]

    def test_duplicated_row(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.duplicated_row())
        everyone = self.everyone(graph)
        assert walk(graph) == everyone[:25] + everyone[24:]

    def test_account_added(self, graph: GraphSandbox) -> None:
        before = self.everyone(graph)
        graph.fail_next(Fault.account_added(after=1, times=2))
        assert walk(graph) == before
        assert self.everyone(graph)[2:] == before
        assert len(set(self.everyone(graph))) == 62

    def test_account_removed(self, graph: GraphSandbox) -> None:
        before = self.everyone(graph)
        graph.fail_next(Fault.account_removed(after=1, times=2))
        assert walk(graph) == before
        assert self.everyone(graph) == before[2:]

    def test_numeric_ids(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.numeric_ids())
        rows = client(graph, fields="id,owner_business_info,phone_numbers{id}").json["data"]
        assert [row["id"] for row in rows] == [int(account["id"]) for account in graph.accounts[:25]]
        assert isinstance(rows[0]["owner_business_info"]["id"], int)

    def test_unknown_values(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.unknown_values())
        rows = client(graph, fields="status").json["data"]
        assert rows[0]["status"] == "NEVER_SEEN_BEFORE"
        assert rows[0]["hologram_tier"]

    def test_headers(self, graph: GraphSandbox) -> None:
        graph.fail_next(Fault.high_usage(), Fault.malformed_usage(), Fault.version_upgrade("v31.0"))
        assert json.loads(client(graph).headers["x-app-usage"])["call_count"] == 95
        malformed = client(graph).headers["x-app-usage"]
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(malformed)
        assert client(graph).headers["facebook-api-version"] == "v31.0"

    def test_shapes(self, graph: GraphSandbox) -> None:
        graph.fail_next(
            Fault.no_data(),
            Fault.data_not_a_list(),
            Fault.row_not_an_object(),
            Fault.paging_not_an_object(),
            Fault.nan(),
        )
        assert set(client(graph).json) == {"paging"}
        assert isinstance(client(graph).json["data"], dict)
        assert client(graph).json["data"][-1] == "not an object"
        assert client(graph).json["paging"] == "next"
        assert b'"creation_time":NaN' in client(graph).raw
