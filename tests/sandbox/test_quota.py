"""The quota of calls per hour, and the clock that it is measured with."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from sandbox_http import Reply, client, get, send

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport import clock


def usage(reply: Reply) -> tuple[int, int]:
    """The percentage and the minutes in the usage headers."""
    (entries,) = json.loads(reply.headers["x-business-use-case-usage"]).values()
    (entry,) = entries
    assert entry["call_count"] == json.loads(reply.headers["x-app-usage"])["call_count"]
    return entry["call_count"], entry["estimated_time_to_regain_access"]


def statuses(sandbox: GraphSandbox, calls: int) -> list[int]:
    return [get(sandbox, "me").status for _ in range(calls)]


def test_calls_beyond_the_quota_are_refused() -> None:
    with GraphSandbox(calls_per_hour=3) as sandbox, no_waits():
        assert statuses(sandbox, 3) == [200, 200, 200]
        refused = get(sandbox, "me")
        assert (refused.status, refused.error) == (400, (80008, None))
        assert refused.json["error"]["type"] == "OAuthException"
        assert refused.json["error"]["fbtrace_id"]
        assert refused.headers["WWW-Authenticate"]
        assert refused.headers["facebook-api-version"] == "v26.0"
        assert [request.status for request in sandbox.requests] == [200, 200, 200, 400]


def test_headers_tell_the_true_percentage() -> None:
    with GraphSandbox(calls_per_hour=8) as sandbox, no_waits():
        replies = [usage(get(sandbox, "me")) for _ in range(10)]
    assert [percent for percent, _ in replies] == [12, 25, 37, 50, 62, 75, 87, 100, 112, 125]
    assert [minutes for _, minutes in replies] == [0] * 7 + [60] * 3


def test_quota_is_regained_when_the_calls_are_an_hour_old() -> None:
    with GraphSandbox(calls_per_hour=2) as sandbox, no_waits():
        get(sandbox, "me")
        clock.wait(20 * 60)
        assert usage(get(sandbox, "me")) == (100, 40)
        clock.wait(40 * 60)
        assert usage(get(sandbox, "me")) == (100, 20)
        assert usage(get(sandbox, "me")) == (150, 60)


def test_minutes_are_rounded_up_and_are_enough() -> None:
    with GraphSandbox(calls_per_hour=1) as sandbox, no_waits():
        get(sandbox, "me")
        clock.wait(59 * 60 + 10)
        _, minutes = usage(get(sandbox, "me"))
        assert minutes == 60
        clock.wait(minutes * 60)
        assert statuses(sandbox, 1) == [200]


def test_refused_calls_make_the_wait_longer() -> None:
    with GraphSandbox(calls_per_hour=2) as sandbox, no_waits():
        assert statuses(sandbox, 2) == [200, 200]
        # Without these calls, the quota would be regained after 60 minutes.
        for _ in range(3):
            clock.wait(25 * 60)
            assert statuses(sandbox, 1) == [400]
        clock.wait(34 * 60)
        assert statuses(sandbox, 1) == [400]
        clock.wait(61 * 60)
        assert statuses(sandbox, 1) == [200]


def test_calls_that_fail_count() -> None:
    with GraphSandbox(calls_per_hour=3) as sandbox:
        assert send(sandbox, "/v26.0/me").error[0] == 2500
        assert get(sandbox, "me", Authorization="Bearer wrong").error[0] == 190
        assert get(sandbox, "0").error[0] == 100
        assert client(sandbox).error[0] == 80008


def test_a_refused_call_spends_no_fault() -> None:
    with GraphSandbox(calls_per_hour=1) as sandbox, no_waits():
        get(sandbox, "me")
        sandbox.fail_next(Fault.unavailable())
        assert get(sandbox, "me").error[0] == 80008
        clock.wait(3600)
        assert get(sandbox, "me").error[0] == 2


def test_reset_gives_the_quota_back() -> None:
    with GraphSandbox(calls_per_hour=1) as sandbox:
        assert statuses(sandbox, 2) == [200, 400]
        sandbox.reset()
        assert statuses(sandbox, 1) == [200]


def test_shortened_hour() -> None:
    with GraphSandbox(calls_per_hour=1, hour=timedelta(seconds=30)) as sandbox, no_waits():
        assert usage(get(sandbox, "me")) == (100, 1)
        clock.wait(15)
        # The refused call counts too, so that half of the hour is over for the first call but not for this one.
        assert usage(get(sandbox, "me")) == (200, 1)
        clock.wait(30)
        assert statuses(sandbox, 1) == [200]


def test_minutes_of_a_shortened_hour_are_real_ones() -> None:
    with GraphSandbox(calls_per_hour=1, hour=timedelta(minutes=5)) as sandbox, no_waits():
        get(sandbox, "me")
        refused = get(sandbox, "me")
        assert usage(refused) == (200, 5)
        assert refused.headers["Retry-After"] is None


def test_no_quota_by_default() -> None:
    with GraphSandbox() as sandbox:
        assert set(statuses(sandbox, 210)) == {200}
        assert usage(get(sandbox, "me")) == (5, 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"calls_per_hour": 0}, "calls_per_hour must be a whole number of at least 1, or None, not 0"),
        ({"calls_per_hour": 1.5}, "calls_per_hour must be a whole number"),
        ({"calls_per_hour": True}, "calls_per_hour must be a whole number"),
        ({"calls_per_hour": 5, "hour": timedelta(0)}, "hour must be a timedelta longer than zero"),
        ({"calls_per_hour": 5, "hour": 30}, "hour must be a timedelta longer than zero, not 30"),
        ({"hour": 30}, "hour must be a timedelta longer than zero, not 30"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphSandbox(**bad)


def test_waits_are_recorded_and_move_the_clock_of_the_sandbox() -> None:
    with GraphSandbox(calls_per_hour=1) as sandbox, no_waits() as skipped:
        assert statuses(sandbox, 1) == [200]
        clock.wait(3600)
        assert statuses(sandbox, 1) == [200]
        asyncio.run(clock.async_wait(3600.5))
        assert statuses(sandbox, 1) == [200]
    assert skipped.seconds == [3600, 3600.5]
    assert skipped.total == 7200.5


def test_the_clock_goes_back_after_the_block() -> None:
    with GraphSandbox(calls_per_hour=2) as sandbox:
        assert statuses(sandbox, 1) == [200]
        with no_waits():
            clock.wait(7200)
            assert statuses(sandbox, 3) == [200, 200, 400]
        # The calls within the block were made two hours from now. They do not throttle anyone today.
        assert statuses(sandbox, 1) == [200]


def test_a_timed_proof_gets_old_by_skipped_waits() -> None:
    with GraphSandbox(app_secret="s3cret") as sandbox, no_waits():
        made_at = int(clock.now())
        digest = hmac.new(b"s3cret", f"{sandbox.token}|{made_at}".encode(), hashlib.sha256).hexdigest()
        params = {"appsecret_proof": digest, "appsecret_time": made_at}
        assert get(sandbox, "me", params).status == 200
        clock.wait(301)
        assert get(sandbox, "me", params).error[0] == 100
