"""Access tokens, proofs and ``debug_token``."""

from __future__ import annotations

import hashlib
import hmac
import re
import time

import pytest
from sandbox_http import CLIENT, client, get, send

from airflow_provider_whatsapp.sandbox import GraphSandbox


def proof(message: str, secret: str = "s3cret") -> str:
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


class TestTokens:
    @pytest.mark.parametrize("scheme", ["Bearer", "OAuth", "bearer"])
    def test_header(self, sandbox: GraphSandbox, scheme: str) -> None:
        assert get(sandbox, "me", Authorization=f"{scheme} {sandbox.token}").status == 200

    def test_wrong_token(self, sandbox: GraphSandbox) -> None:
        for reply in (
            get(sandbox, "me", Authorization="Bearer EAAx"),
            send(sandbox, "/v26.0/me?access_token=EAA\u00e9".replace("\u00e9", "%C3%A9")),
        ):
            assert (reply.status, reply.error) == (401, (190, None))
            assert reply.json["error"]["type"] == "OAuthException"
            assert reply.headers["WWW-Authenticate"].startswith('OAuth "Facebook Platform" "invalid_token" "')

    def test_no_token(self, sandbox: GraphSandbox) -> None:
        assert send(sandbox, f"/v26.0/{sandbox.business_id}/{CLIENT}").error[0] == 104
        assert send(sandbox, f"/v26.0/{sandbox.business_id}", Authorization="Basic eDp5").error[0] == 104
        assert send(sandbox, "/v26.0/me").error[0] == 2500

    def test_looks(self) -> None:
        assert re.fullmatch("EAA[A-Za-z0-9]{60,}", GraphSandbox().token)
        assert GraphSandbox(seed=4).token == GraphSandbox(seed=4).token != GraphSandbox().token
        assert GraphSandbox(token="mine").token == "mine"

    def test_proof(self) -> None:
        with GraphSandbox(app_secret="s3cret") as sandbox:
            token, now = sandbox.token, int(time.time())
            missing = get(sandbox, "me")
            assert missing.error[0] == 100
            assert missing.json["error"]["message"] == ("API calls from the server require an appsecret_proof argument")
            assert get(sandbox, "me", {"appsecret_proof": proof(token)}).status == 200
            timed = {"appsecret_proof": proof(f"{token}|{now - 200}"), "appsecret_time": now - 200}
            assert get(sandbox, "me", timed).status == 200
            for wrong in (
                {"appsecret_proof": proof(token, "other")},
                {"appsecret_proof": "\u00e9"},
                {"appsecret_proof": proof(f"{token}|{now - 400}"), "appsecret_time": now - 400},
                {"appsecret_proof": proof(f"{token}|soon"), "appsecret_time": "soon"},
                {"appsecret_proof": proof(token), "appsecret_time": now},
            ):
                reply = get(sandbox, "me", wrong)
                assert (reply.status, reply.error[0]) == (400, 100)
                assert reply.json["error"]["message"] == ("Invalid appsecret_proof provided in the API argument")
            page = client(sandbox, limit=2, **timed)
            assert "appsecret" not in page.json["paging"]["next"]

    def test_debug_token(self, sandbox: GraphSandbox) -> None:
        data = get(sandbox, "debug_token", {"input_token": sandbox.token}).json["data"]
        assert data["is_valid"] is True
        assert data["type"] == "SYSTEM_USER"
        assert data["expires_at"] == data["data_access_expires_at"] == 0
        assert "whatsapp_business_management" in data["scopes"]
        assert all(set(scope) == {"scope"} for scope in data["granular_scopes"])
        sandbox.token_info["expires_at"] = 5
        assert get(sandbox, "debug_token", {"input_token": sandbox.token}).json["data"]["expires_at"] == 5
        unknown = get(sandbox, "debug_token", {"input_token": "EAAx"}).json["data"]
        assert unknown["is_valid"] is False
        assert unknown["error"]["code"] == 190
        assert get(sandbox, "debug_token").error[0] == 100

    def test_debug_token_by_the_app(self) -> None:
        with GraphSandbox(app_secret="s3cret") as sandbox:
            app = get(sandbox, "app", {"appsecret_proof": proof(sandbox.token)}).json["id"]
            token = f"{app}|s3cret"
            params = {"input_token": sandbox.token, "appsecret_proof": proof(token)}
            reply = get(sandbox, "debug_token", params, Authorization=f"Bearer {token}")
            assert reply.json["data"]["app_id"] == app
            assert get(sandbox, "me", params, Authorization=f"Bearer {token}").error[0] == 190
