"""The quotas of calls per hour, and the clock that they are measured with."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from sandbox_http import Reply, client, get, ids, send

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport import clock


def usage(reply: Reply) -> dict[str, tuple[int, int]]:
    """The percentage and the minutes in the usage header, by id of the business or account."""
    found = json.loads(reply.headers["x-business-use-case-usage"] or "{}")
    assert {entry["type"] for (entry,) in found.values()} <= {"whatsapp_business_management"}
    return {id_: (entry["call_count"], entry["estimated_time_to_regain_access"]) for id_, (entry,) in found.items()}


def app_usage(reply: Reply) -> tuple[int, int]:
    """The percentage and the minutes of the only quota in the header, which is that of the app."""
    ((percent, minutes),) = usage(reply).values()
    assert json.loads(reply.headers["x-app-usage"])["call_count"] == percent
    return percent, minutes


def statuses(sandbox: GraphSandbox, calls: int) -> list[int]:
    return [get(sandbox, "me").status for _ in range(calls)]


class TestQuotaOfTheApp:
    def test_calls_beyond_it_are_refused(self) -> None:
        with GraphSandbox(calls_per_hour=8) as sandbox, no_waits():
            replies = [get(sandbox, "me") for _ in range(10)]
            assert [request.status for request in sandbox.requests] == [200] * 8 + [400] * 2
        assert [app_usage(reply)[0] for reply in replies] == [12, 25, 37, 50, 62, 75, 87, 100, 112, 125]
        assert [app_usage(reply)[1] for reply in replies] == [0] * 7 + [60] * 3
        refused = replies[-1]
        assert (refused.status, refused.error) == (400, (80008, None))
        assert refused.json["error"]["type"] == "OAuthException"
        assert refused.json["error"]["fbtrace_id"]
        assert refused.headers["WWW-Authenticate"]
        assert refused.headers["facebook-api-version"] == "v26.0"
        assert refused.headers["Retry-After"] is None

    def test_regained_when_the_calls_are_an_hour_old(self) -> None:
        with GraphSandbox(calls_per_hour=2) as sandbox, no_waits():
            get(sandbox, "me")
            clock.wait(20 * 60)
            assert app_usage(get(sandbox, "me")) == (100, 40)
            clock.wait(40 * 60)
            assert app_usage(get(sandbox, "me")) == (100, 20)
            assert app_usage(get(sandbox, "me")) == (150, 60)

    def test_minutes_are_rounded_up_and_are_enough(self) -> None:
        with GraphSandbox(calls_per_hour=1) as sandbox, no_waits():
            get(sandbox, "me")
            clock.wait(58 * 60)
            _, minutes = app_usage(get(sandbox, "me"))
            assert minutes == 60
            clock.wait(minutes * 60)
            assert statuses(sandbox, 1) == [200]

    def test_refused_calls_make_the_wait_longer(self) -> None:
        with GraphSandbox(calls_per_hour=2) as sandbox, no_waits():
            assert statuses(sandbox, 2) == [200, 200]
            # Without these calls, the quota would be regained after 60 minutes.
            for _ in range(3):
                clock.wait(25 * 60)
                assert statuses(sandbox, 1) == [400]
            clock.wait(30 * 60)
            assert statuses(sandbox, 1) == [400]
            clock.wait(61 * 60)
            assert statuses(sandbox, 1) == [200]

    def test_calls_that_fail_count(self) -> None:
        with GraphSandbox(calls_per_hour=3) as sandbox:
            assert send(sandbox, "/v26.0/me").error[0] == 2500
            assert get(sandbox, "me", Authorization="Bearer wrong").error[0] == 190
            assert get(sandbox, "0").error[0] == 100
            assert client(sandbox).error[0] == 80008

    def test_shortened_hour(self) -> None:
        with GraphSandbox(calls_per_hour=1, hour=timedelta(minutes=5)) as sandbox, no_waits():
            assert app_usage(get(sandbox, "me")) == (100, 5)
            clock.wait(150)
            # The refused call counts too, so that half of the hour is over for the first call but not for this one.
            assert app_usage(get(sandbox, "me")) == (200, 5)
            clock.wait(300)
            assert statuses(sandbox, 1) == [200]

    def test_reset_gives_it_back(self) -> None:
        with GraphSandbox(calls_per_hour=1) as sandbox:
            assert statuses(sandbox, 2) == [200, 400]
            sandbox.reset()
            assert statuses(sandbox, 1) == [200]

    def test_none_by_default(self) -> None:
        with GraphSandbox() as sandbox:
            assert set(statuses(sandbox, 210)) == {200}
            assert app_usage(get(sandbox, "me")) == (5, 0)


class TestQuotaOfEachAccount:
    def test_calls_for_one_account_do_not_use_that_of_another(self) -> None:
        with GraphSandbox(calls_per_hour_and_account=2) as sandbox, no_waits():
            first, second = (account["id"] for account in sandbox.accounts[:2])
            asked = [first, f"{first}/phone_numbers", f"{first}/flows", second, f"{second}/assigned_users", first]
            replies = [get(sandbox, path) for path in asked]
            assert [reply.status for reply in replies] == [200, 200, 400, 200, 400, 400]
            assert [replies[at].error[0] for at in (2, 4, 5)] == [80008, 100, 80008]
            assert [usage(reply) for reply in replies[:5]] == [
                {first: (50, 0)}, {first: (100, 60)}, {first: (150, 60)}, {second: (50, 0)}, {second: (100, 60)},
            ]  # fmt: skip
            # Four calls for the first account, so that two of them must be an hour old, and the header of an app.
            assert usage(replies[5]) == {first: (200, 60), sandbox.business_id: (1, 0)}
            assert replies[2].headers["x-app-usage"] is None

    def test_other_calls_have_no_entry(self) -> None:
        with GraphSandbox(calls_per_hour_and_account=1) as sandbox:
            for path in ("me", sandbox.business_id, "me/businesses", "77", f"/v99.0/{sandbox.accounts[0]['id']}"):
                assert usage(get(sandbox, path)) == {}
            assert [client(sandbox).status for _ in range(3)] == [200] * 3
            number = next(
                id_ for account in sandbox.accounts for id_ in ids(get(sandbox, f"{account['id']}/phone_numbers"))
            )
            assert set(usage(get(sandbox, number))) == {sandbox.business_id}

    def test_beside_the_quota_of_the_app(self) -> None:
        with GraphSandbox(calls_per_hour=10, calls_per_hour_and_account=4) as sandbox, no_waits():
            account = sandbox.accounts[0]["id"]
            client(sandbox)
            reply = get(sandbox, account)
            assert usage(reply) == {sandbox.business_id: (20, 0), account: (25, 0)}
            assert json.loads(reply.headers["x-app-usage"])["call_count"] == 20
            # When the app has no calls left, neither has the account, and its call counts for both.
            for _ in range(8):
                client(sandbox)
            refused = get(sandbox, account)
            assert refused.error[0] == 80008
            assert usage(refused) == {sandbox.business_id: (110, 60), account: (50, 0)}

    def test_regained_after_an_hour_unless_refused_calls_go_on(self) -> None:
        with GraphSandbox(calls_per_hour_and_account=1, hour=timedelta(minutes=5)) as sandbox, no_waits():
            account = sandbox.owned_accounts[0]["id"]
            assert get(sandbox, account).status == 200
            for _ in range(2):
                clock.wait(200)
                assert usage(get(sandbox, account))[account] == (200, 5)
            clock.wait(301)
            assert get(sandbox, account).status == 200


@pytest.mark.parametrize("quota", [{"calls_per_hour": 1}, {"calls_per_hour_and_account": 1}])
def test_a_refused_call_spends_no_fault(quota: dict[str, Any]) -> None:
    with GraphSandbox(**quota) as sandbox, no_waits():
        account = sandbox.accounts[0]["id"]
        get(sandbox, account)
        sandbox.fail_next(Fault.unavailable().on(account))
        assert get(sandbox, account).error[0] == 80008
        clock.wait(3601)
        assert get(sandbox, account).error[0] == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"calls_per_hour": 0}, "calls_per_hour must be a whole number of at least 1, or None, not 0"),
        ({"calls_per_hour": 1.5}, "calls_per_hour must be a whole number"),
        ({"calls_per_hour": True}, "calls_per_hour must be a whole number"),
        ({"calls_per_hour_and_account": 0}, "calls_per_hour_and_account must be a whole number of at least 1"),
        ({"calls_per_hour": 5, "hour": timedelta(0)}, "hour must be a timedelta longer than zero"),
        ({"hour": 30}, "hour must be a timedelta longer than zero, not 30"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphSandbox(**bad)


class TestClock:
    def test_waits_are_recorded_and_move_it_on(self) -> None:
        with GraphSandbox(calls_per_hour=1) as sandbox, no_waits() as skipped:
            assert statuses(sandbox, 1) == [200]
            clock.wait(3600)
            assert statuses(sandbox, 1) == [200]
            asyncio.run(clock.async_wait(3600.5))
            assert statuses(sandbox, 1) == [200]
        assert skipped.seconds == [3600, 3600.5]
        assert skipped.total == 7200.5

    def test_it_goes_back_after_the_block(self) -> None:
        with GraphSandbox(calls_per_hour=2) as sandbox:
            assert statuses(sandbox, 1) == [200]
            with no_waits():
                clock.wait(7200)
                assert statuses(sandbox, 3) == [200, 200, 400]
            # The calls within the block were made two hours from now. They do not throttle anyone today.
            assert statuses(sandbox, 1) == [200]

    def test_a_timed_proof_gets_old(self) -> None:
        with GraphSandbox(app_secret="s3cret") as sandbox, no_waits():
            made_at = int(clock.now())
            digest = hmac.new(b"s3cret", f"{sandbox.token}|{made_at}".encode(), hashlib.sha256).hexdigest()
            params = {"appsecret_proof": digest, "appsecret_time": made_at}
            assert get(sandbox, "me", params).status == 200
            clock.wait(301)
            assert get(sandbox, "me", params).error[0] == 100
