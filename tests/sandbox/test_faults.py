"""The queue of faults, and the errors and odd answers that they give."""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import textwrap
from dataclasses import FrozenInstanceError

import pytest
from sandbox_http import CLIENT, client, get, on_the_wire

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox


class TestFaults:
    def test_queue(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.server_error(502).after(1).times(2), Fault.unavailable())
        statuses = [client(sandbox).status for _ in range(5)]
        assert statuses == [200, 502, 502, 500, 200]
        assert [request.status for request in sandbox.requests] == statuses
        sandbox.fail_next(Fault.unavailable())
        sandbox.reset()
        assert client(sandbox).status == 200

    def test_page_faults_wait_for_a_page(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.no_data())
        assert get(sandbox, "me").status == 200
        assert "data" not in client(sandbox).json

    def test_catalogue(self) -> None:
        catalogue = Fault.catalogue()
        assert len(catalogue) >= 55
        assert {fault.nature for fault in catalogue.values()} == {"harmless", "passing", "fatal"}
        for name, fault in catalogue.items():
            assert fault.kind == name
            assert fault.requests_before == 0
            assert (fault.requests_hit > 1_000_000) is (fault.nature == "fatal" or name == "reduce_data")

    def test_each_has_a_description(self) -> None:
        """A fault without options is an attribute, whose docstring is the string after it."""
        (fault,) = ast.parse(textwrap.dedent(inspect.getsource(Fault))).body
        assert isinstance(fault, ast.ClassDef)
        described = set()
        for node, after in zip(fault.body, [*fault.body[1:], None], strict=True):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                described.add(node.name)
            if isinstance(node, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                described |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        assert described >= set(Fault.catalogue())

    def test_fluent_faults_are_values(self) -> None:
        fault = Fault.server_error(status=502)
        later = fault.after(1).times(2)
        assert (fault.requests_before, fault.requests_hit) == (0, 1)
        assert later == Fault.server_error(status=502).times(2).after(1) != fault
        assert later.after(0).times(1) == fault != Fault.server_error(status=500)
        with pytest.raises(FrozenInstanceError):
            fault.kind = "other"  # type: ignore[misc]
        with pytest.raises(TypeError, match="Fault.server_error"):
            Fault()
        with pytest.raises(ValueError, match="at least 0"):
            fault.after(-1)
        with pytest.raises(ValueError, match="at least 1"):
            fault.times(0)

    def test_on_one_node(self) -> None:
        with GraphSandbox(accounts=60, businesses=3) as sandbox:
            first, second, third = (business["id"] for business in sandbox.businesses)
            sandbox.fail_next(
                Fault.no_permission().on(second).times(2),
                Fault.server_error().on(third),
                Fault.unavailable().after(1),
                Fault.expired_token().on(second),
            )
            asked = [first, third, first, second, third, second, second, second, first]
            statuses = [get(sandbox, f"{business_id}/{CLIENT}").status for business_id in asked]
            assert statuses == [200, 503, 500, 403, 200, 403, 401, 200, 200]

    def test_faults_of_two_nodes_do_not_share_their_memory(self) -> None:
        with GraphSandbox(accounts=60, businesses=2) as sandbox:
            first, second = (business["id"] for business in sandbox.businesses)
            sandbox.fail_next(Fault.cursor_cycle().on(first), Fault.empty_page().on(second))

            def cursor_after(**params: str) -> str:
                return str(client(sandbox, **params).json["paging"]["cursors"]["after"])

            start = cursor_after()
            other = cursor_after(after=start)
            assert other != start
            get(sandbox, f"{second}/{CLIENT}")
            assert cursor_after(after=other) == start

    @pytest.mark.parametrize("name", sorted(Fault.catalogue()))
    def test_each_lets_the_server_live(self, sandbox: GraphSandbox, name: str) -> None:
        sandbox.fail_next(Fault.catalogue()[name])
        on_the_wire(sandbox, most=100)
        sandbox.reset()
        assert client(sandbox).status == 200

    @pytest.mark.parametrize(
        ("fault", "status", "code", "subcode"),
        [
            (Fault.throttle(), 400, 80008, None), (Fault.throttle(4), 403, 4, None), (Fault.throttle(17), 400, 17, None),
            (Fault.throttle(32), 400, 32, None), (Fault.throttle(613), 400, 613, None),
            (Fault.unknown_error(), 500, 1, None), (Fault.unavailable(), 500, 2, None),
            (Fault.error_on_200(), 200, 2, None), (Fault.error_data_text(), 500, 131000, None),
            (Fault.expired_token(), 401, 190, 463), (Fault.revoked_token(), 401, 190, 467),
            (Fault.echoed_token(), 401, 190, None), (Fault.bad_proof(), 400, 104, None),
            (Fault.no_advanced_access(), 403, 200, None), (Fault.no_permission(), 403, 10, None),
            (Fault.no_capability(), 400, 3, None), (Fault.blocked(), 400, 368, None),
            (Fault.wrong_business(), 400, 100, 33), (Fault.nonexisting_field(), 400, 100, None),
            (Fault.no_account_permission(), 403, 200, None), (Fault.insights_not_enabled(), 400, 200007, None),
        ],
    )  # fmt: skip
    def test_envelopes(self, sandbox: GraphSandbox, fault: Fault, status: int, code: int, subcode: int | None) -> None:
        sandbox.fail_next(fault)
        reply = client(sandbox)
        assert (reply.status, reply.error) == (status, (code, subcode))
        assert reply.json["error"]["fbtrace_id"]
        assert reply.headers["WWW-Authenticate"]
        assert client(sandbox).status == 200

    def test_throttle_says_when_it_ends(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.throttle(minutes=7, retry_after=9), Fault.throttle(minutes=None))
        reply = client(sandbox)
        (usage,) = json.loads(reply.headers["x-business-use-case-usage"])[sandbox.business_id]
        assert usage["estimated_time_to_regain_access"] == 7
        assert reply.headers["Retry-After"] == "9"
        silent = client(sandbox).headers
        assert silent["x-business-use-case-usage"] is None
        assert silent["Retry-After"] is None

    def test_faults_of_one_account(self, sandbox: GraphSandbox) -> None:
        gone, forbidden, throttled, fine = (account["id"] for account in sandbox.accounts[:4])
        sandbox.fail_next(
            Fault.wrong_business().on(gone).times(2),
            Fault.no_account_permission().on(forbidden),
            Fault.throttle(minutes=3).on(throttled),
            Fault.no_data().on(fine),
        )
        asked = [f"{gone}/flows", f"{fine}/subscribed_apps", f"{forbidden}/phone_numbers", gone, throttled, fine]
        replies = [get(sandbox, path) for path in asked]
        assert [reply.status for reply in replies] == [400, 200, 403, 400, 400, 200]
        assert f"Object with ID '{gone}' does not exist" in replies[0].json["error"]["message"]
        assert "data" not in replies[1].json
        assert client(sandbox).status == 200
        # The limit of an account is reported under its id, and says nothing about the app.
        (usage,) = json.loads(replies[4].headers["x-business-use-case-usage"])[throttled]
        assert usage["estimated_time_to_regain_access"] == 3
        assert replies[4].headers["x-app-usage"] is None
        sandbox.fail_next(Fault.throttle(code=4, minutes=3).on(throttled))
        assert list(json.loads(get(sandbox, throttled).headers["x-business-use-case-usage"])) == [sandbox.business_id]

    def test_details_of_errors(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.echoed_token(), Fault.transient_error(), Fault.error_data_text())
        assert client(sandbox).json["error"]["message"] == f"Malformed access token {sandbox.token}"
        assert client(sandbox).json["error"]["is_transient"] is True
        assert json.loads(client(sandbox).json["error"]["error_data"])["messaging_product"] == "whatsapp"

    def test_reduce_data(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.reduce_data(above=10))
        for _ in range(3):
            reply = client(sandbox, limit=11)
            assert reply.status == 500
            assert set(reply.json["error"]) == {"code", "message"}
        assert client(sandbox).status == 500
        assert client(sandbox, limit=10).status == 200
        assert get(sandbox, "me").status == 200

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
    def test_no_graph_answers(self, sandbox: GraphSandbox, fault: Fault, status: int, content: bytes) -> None:
        sandbox.fail_next(fault)
        reply = client(sandbox)
        assert reply.status == status
        assert content in reply.raw
        assert bool(reply.raw) is bool(content)
        assert reply.headers["Retry-After"] == ("3" if status == 429 else None)

    def test_half_json(self, sandbox: GraphSandbox) -> None:
        whole = client(sandbox).raw
        sandbox.fail_next(Fault.half_json())
        assert client(sandbox).raw == whole[: len(whole) // 2]

    def test_unreadable_encodings(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.cut_gzip(), Fault.unknown_encoding(), Fault.odd_content_type())
        cut = client(sandbox)
        assert cut.headers["Content-Encoding"] == "gzip"
        with pytest.raises(EOFError):
            gzip.decompress(cut.raw)
        unknown = client(sandbox)
        assert unknown.headers["Content-Encoding"] not in {None, "gzip", "deflate", "br", "zstd"}
        assert b"data" not in unknown.raw
        odd = client(sandbox)
        assert odd.headers["Content-Type"].startswith("text/javascript")
        assert len(odd.json["data"]) == 25

    def test_huge_body(self, sandbox: GraphSandbox) -> None:
        expected = client(sandbox).json
        sandbox.fail_next(Fault.huge_body(3))
        reply = client(sandbox)
        assert len(reply.raw) > 3 * 1024 * 1024
        assert {**reply.json, "padding": ""} == {**expected, "padding": ""}

    def test_gzip_bomb(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.gzip_bomb(20))
        reply = client(sandbox)
        assert len(reply.raw) < 100_000
        assert len(gzip.decompress(reply.raw)) > 20 * 1024 * 1024
        assert len(reply.json["data"]) == 25

    def test_redirect(self, sandbox: GraphSandbox) -> None:
        sandbox.fail_next(Fault.redirect("http://127.0.0.1:9"))
        reply = client(sandbox)
        assert reply.status == 302
        assert reply.headers["Location"].startswith(f"http://127.0.0.1:9/v26.0/{sandbox.business_id}/{CLIENT}")
