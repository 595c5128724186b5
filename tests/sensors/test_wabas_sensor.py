"""The sensor against the sandbox. What holds for every operator too is in tests/operators/test_arguments.py and
test_output.py, and tests that need a running Airflow are in test_dags.py."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from virtual_time import run_virtually

from airflow_provider_whatsapp._compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow_provider_whatsapp.graph import GraphTokenError
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.storage.errors import StoreError
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

try:
    from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferred
except ImportError:  # Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException, TaskDeferred  # type: ignore[no-redef]


@pytest.fixture(autouse=True)
def _no_real_waits() -> Iterator[None]:
    with no_waits():
        yield


def sensor(**arguments: Any) -> WhatsAppWabasSensor:
    return WhatsAppWabasSensor(task_id="wait", **{"fields": "id,name,country,ownership_type", **arguments})


def deferred(operator: WhatsAppWabasSensor, event: dict[str, Any] | None = None) -> WhatsAppWabasTrigger:
    with pytest.raises(TaskDeferred) as caught:
        operator.execute({}) if event is None else resume(operator, event)
    assert caught.value.method_name == "execute_complete"
    trigger = caught.value.trigger
    assert isinstance(trigger, WhatsAppWabasTrigger)
    # Airflow's own time limit comes after the trigger's, which would not get to fire its event otherwise.
    time_left = trigger.clock["deadline"] - trigger.clock["looked"]
    assert caught.value.timeout >= timedelta(seconds=time_left + 60)
    return trigger


def resume(operator: WhatsAppWabasSensor, event: Any) -> Any:
    """Continue after a trigger fired, by the method that Airflow calls."""
    return operator.resume_execution("execute_complete", {"event": event}, {})


def met(timeout: float = 100) -> dict[str, Any]:
    return {"status": "met", "started": time.time(), "deadline": time.time() + timeout}


class TestPoke:
    def test_it_gives_the_rows_that_match(self, connected: GraphSandbox) -> None:
        result = sensor(where={"ownership_type": "CLIENT_OWNED"}).poke({})
        assert result.is_done
        wanted = [account["id"] for account in connected.accounts if account["ownership_type"] == "CLIENT_OWNED"]
        assert [row["id"] for row in result.xcom_value] == wanted
        assert 100 < len(wanted) < 250  # on more than one page

    def test_it_stops_reading_when_all_ids_were_found(self, connected: GraphSandbox) -> None:
        ids = [connected.accounts[number]["id"] for number in (5, 120)]
        result = sensor(waba_ids=ids).poke({})
        assert [row["id"] for row in result.xcom_value] == ids
        assert len(connected.requests) == 2

    def test_as_many_accounts_as_max_items_can_meet_it(self, connected: GraphSandbox) -> None:
        assert len(sensor(max_items=2, min_count=2).poke({}).xcom_value or []) == 2

    def test_a_condition_that_the_rows_show_to_be_wrong_fails_at_once(self, connected: GraphSandbox) -> None:
        operator = sensor(fields="id,phone_numbers{id}", where={"phone_numbers.id": "1"})
        with pytest.raises(AirflowFailException, match="^where: 'phone_numbers.id' leads through an edge") as caught:
            operator.poke({})
        assert isinstance(caught.value.__cause__, ValueError)

    @pytest.mark.parametrize(
        ("fault", "longest"), [(Fault.server_error(), 30), (Fault.throttle(minutes=None, retry_after=10), 0)]
    )
    def test_a_look_waits_only_briefly(
        self, connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch, fault: Fault, longest: float
    ) -> None:
        # It holds a worker slot, and the next look comes anyway.
        monkeypatch.setattr(random, "random", lambda: 1.0)  # so that each wait is as long as it can be
        connected.fail_next(fault.times(999))
        with no_waits() as skipped:
            assert not sensor().poke({})
        assert skipped.total <= longest

    @pytest.mark.parametrize(("most", "waits"), [(None, [30.0]), (99.5, [])])
    def test_a_look_waits_for_the_usage_within_its_budget(
        self, connected: GraphSandbox, most: float | None, waits: list[float]
    ) -> None:
        connected.fail_next(Fault.high_usage(99).times(3))
        with no_waits() as skipped:
            assert sensor(min_count=250, max_usage=most).poke({})
        assert skipped.seconds == waits

    def test_a_template_without_a_value_counts_as_not_given_in_the_trigger_too(self, connected: GraphSandbox) -> None:
        connected.accounts.clear()
        trigger = deferred(sensor(min_count="None", whatsapp_conn_id=" ", relationship="", deferrable=True))
        assert (trigger.whatsapp_conn_id, trigger.condition["min_count"]) == ("whatsapp_default", 1)

    def test_it_looks_at_all_pages(self, connected: GraphSandbox) -> None:
        assert not sensor(waba_ids=["4242"]).poke({})
        assert len(connected.requests) == 3
        assert sensor(min_count="250").poke({})
        assert not sensor(min_count=251).poke({})

    def test_the_object_and_its_manifest(self, connected: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        waba = connected.accounts[3]["id"]
        result = sensor(waba_ids=waba, output_path=str(path)).poke({})
        assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [waba]
        assert (result.xcom_value["count"], result.xcom_value["uri"]) == (1, path.as_uri())

    def test_no_object_before_it_is_met(self, connected: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        assert not sensor(min_count=251, output_path=str(path)).poke({})
        assert path.read_text() == "before"
        assert [p.name for p in tmp_path.iterdir()] == ["a.ndjson"]

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            ({"waba_ids": ["x"]}, "waba_ids"),
            ({"min_count": 0}, "min_count"),
            ({"where": {"status": "ACTIVE"}}, "where"),
            ({"where": {}}, "where"),
            ({"waba_ids": "None"}, "waba_ids"),
            ({"where": " "}, "where"),
            ({"where": "None"}, "where"),
            ({"max_items": 1, "min_count": 2}, "max_items"),
            ({"max_items": 1, "waba_ids": ["1", "2"]}, "max_items"),
            ({"fields": "id,owner_business_info{id}", "where": {"owner_business_info.name": "A"}}, "where"),
        ],
    )
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_bad_input_fails_before_anything_is_sent(
        self, connected: GraphSandbox, arguments: dict[str, Any], name: str, deferrable: bool
    ) -> None:
        with pytest.raises(AirflowFailException, match=f"^{name}: "):
            sensor(deferrable=deferrable, **arguments).execute({})
        assert connected.connections == 0


class Clock:
    """Replaces the clock of this process, which moves on only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        self.slept: list[float] = []
        for name, replacement in (("time", self.time), ("monotonic", self.time), ("sleep", self.sleep)):
            monkeypatch.setattr(time, name, replacement)

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class TestPokeMode:
    def test_a_fault_that_passes_does_not_end_the_wait(
        self, connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock(monkeypatch)
        connected.fail_next(Fault.closed().times(6))
        assert len(sensor(poke_interval=60).execute({})) == 250
        assert clock.slept == [60]

    def test_it_times_out(self, connected: GraphSandbox, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(AirflowSensorTimeout, match="250 accounts match: 999 are needed"):
            sensor(min_count=999, timeout=0, poke_interval=0).execute({})
        caplog.clear()
        with pytest.raises(AirflowSkipException, match="250 accounts match: 999 are needed"):
            sensor(min_count=999, timeout=0, poke_interval=0, soft_fail=True).execute({})
        (line,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
        assert line == "The wait has timed out: 250 accounts match: 999 are needed"


class Rescheduled:
    """Stands for the task instance of a sensor that began to wait some seconds ago."""

    is_mapped = False

    def __init__(self, seconds_ago: float) -> None:
        self.started = datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)

    def get_first_reschedule_date(self, context: object) -> datetime:
        return self.started


THROTTLES = [(Fault.throttle(minutes=5), 300), (Fault.too_many_requests(), 300), (Fault.throttle(minutes=90), 5400)]


@pytest.mark.parametrize(("throttle", "seconds"), THROTTLES)
class TestThrottled:
    """No call is made while the API throttles, and a throttle does not fail the task before its timeout."""

    def test_in_mode_poke(
        self, connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch, throttle: Fault, seconds: float
    ) -> None:
        clock = Clock(monkeypatch)
        connected.fail_next(throttle)
        assert len(sensor(poke_interval=10).execute({})) == 250
        assert seconds <= sum(clock.slept) <= seconds + 10
        assert len(connected.requests) == 1 + 3

    def test_at_the_last_look_in_mode_poke(
        self, connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch, throttle: Fault, seconds: float
    ) -> None:
        clock = Clock(monkeypatch)
        connected.fail_next(throttle.after(3))
        with pytest.raises(AirflowSensorTimeout):
            sensor(poke_interval=60, timeout=100, min_count=251).execute({})
        assert 100 <= sum(clock.slept) <= 160
        assert len(connected.requests) == 3 + 1

    @pytest.mark.parametrize("timeout", [100, 100_000])
    def test_in_mode_reschedule(self, connected: GraphSandbox, throttle: Fault, seconds: float, timeout: float) -> None:
        connected.fail_next(throttle)
        with pytest.raises(AirflowRescheduleException) as caught:
            sensor(mode="reschedule", poke_interval=10, timeout=timeout).execute({"ti": Rescheduled(90)})
        time_left = (caught.value.reschedule_date - datetime.now(timezone.utc)).total_seconds()
        assert seconds - 60 < time_left <= seconds
        # The next process does not know of the throttle, which has lifted by now, and looks once more.
        again = sensor(mode="reschedule", poke_interval=10, timeout=timeout)
        assert len(again.execute({"ti": Rescheduled(90 + seconds)})) == 250

    def test_in_the_triggerer(self, connected: GraphSandbox, throttle: Fault, seconds: float) -> None:
        connected.fail_next(throttle)
        trigger = deferred(sensor(deferrable=True, poke_interval=10, timeout=100_000))
        assert len(connected.requests) == 1

        async def fire() -> Any:
            return [event.payload async for event in trigger.run()]

        (event,), waited = run_virtually(fire())
        assert event["status"] == "met"
        assert seconds - 60 < waited < seconds + 60
        assert len(connected.requests) == 1 + 1

    def test_at_the_last_look_of_the_triggerer(self, connected: GraphSandbox, throttle: Fault, seconds: float) -> None:
        connected.fail_next(throttle.after(3))
        trigger = deferred(sensor(deferrable=True, poke_interval=60, timeout=100, min_count=251))

        async def fire() -> Any:
            return [event.payload async for event in trigger.run()]

        (event,), waited = run_virtually(fire())
        assert event["status"] == "timeout"
        assert 90 < waited < 110
        with pytest.raises(AirflowSensorTimeout):
            resume(sensor(deferrable=True, timeout=100), event)
        assert len(connected.requests) == 3 + 1


def test_a_worker_that_resumes_respects_a_throttle_of_the_triggerer(connected: GraphSandbox) -> None:
    # Another listing over the same connection met it.
    until = time.time() + 600
    trigger = deferred(sensor(deferrable=True), {**met(timeout=3600), "not_before": until})
    assert trigger.clock["not_before"] == until
    assert connected.requests == []


@pytest.mark.parametrize("arguments", [{}, {"mode": "reschedule"}, {"deferrable": True}])
@pytest.mark.parametrize("resumed", [True, False])
def test_what_is_skipped_softly_is_reported_as_an_error(
    connected: GraphSandbox, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], resumed: bool
) -> None:
    operator = sensor(soft_fail=True, **arguments)
    expired = "The token has expired: create a new one and put it in the connection's password."
    connected.fail_next(Fault.expired_token())
    event = {**met(), "status": "error", "error": "GraphTokenError", "message": expired}
    with pytest.raises(AirflowSkipException):
        resume(operator, event) if resumed else operator.execute({"ti": Rescheduled(0)})
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert expired in line


def test_a_fault_that_passes_is_no_error_in_the_log(
    connected: GraphSandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WhatsAppWabasSensor, "log", logging.getLogger("look"))
    connected.fail_next(Fault.throttle(minutes=5))
    assert not sensor().poke({})
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.levelname, record.getMessage()[-40:]) == ("WARNING", "looking again in 0:05:00 at the earliest")


def test_an_error_of_the_trigger_is_not_retried_whatever_its_class(connected: GraphSandbox) -> None:
    event = {**met(), "status": "error", "error": "GraphServerError", "message": "too much data"}
    with pytest.raises(AirflowFailException, match="too much data"):
        resume(sensor(deferrable=True), event)


class TestDeferrable:
    def test_it_does_not_defer_what_is_there_already(self, connected: GraphSandbox) -> None:
        assert len(sensor(deferrable=True).execute({})) == 250

    def test_it_looks_once_and_defers(self, connected: GraphSandbox) -> None:
        operator = sensor(
            deferrable=True,
            min_count=251,
            where={"ownership_type": ["SELF"]},
            ownership_types="SELF",
            timeout=600,
            poke_interval=30,
            exponential_backoff=True,
            max_wait=90,
            page_size=50,
        )
        trigger = deferred(operator)
        _, arguments = trigger.serialize()
        assert json.loads(json.dumps(arguments)) == arguments
        query, clock = arguments["query"], arguments["clock"]
        assert query["path"] == f"{connected.business_id}/client_whatsapp_business_accounts"
        assert query["fields"] == "id,ownership_type"
        assert "ownership_type" in query["params"]["filtering"]
        assert arguments["condition"] == {"waba_ids": None, "min_count": 251, "where": {"ownership_type": ["SELF"]}}
        assert arguments["pace"] == {"poke_interval": 30, "exponential_backoff": True, "max_wait": 90}
        assert query["page_size"] == 50
        assert clock["deadline"] - clock["started"] == 600
        assert connected.token not in json.dumps(arguments)

    def test_a_throttle_goes_along(self, connected: GraphSandbox) -> None:
        connected.fail_next(Fault.throttle(minutes=5))
        assert 290 < deferred(sensor(deferrable=True)).clock["not_before"] - time.time() <= 300

    def test_the_rows_are_read_afresh(self, connected: GraphSandbox) -> None:
        rows = resume(sensor(deferrable=True), met())
        assert [row["id"] for row in rows] == [account["id"] for account in connected.accounts]

    def test_it_waits_again_when_the_accounts_are_gone(self, connected: GraphSandbox) -> None:
        event = met()
        trigger = deferred(sensor(deferrable=True, min_count=251), event)
        assert (trigger.clock["started"], trigger.clock["deadline"]) == (event["started"], event["deadline"])

    def test_the_trigger_learns_when_the_worker_looked(self, connected: GraphSandbox) -> None:
        now = time.time()
        event = {"status": "met", "started": now - 5000, "deadline": now + 5000}
        trigger = deferred(sensor(deferrable=True, min_count=251), event)
        assert now <= trigger.clock["looked"] <= time.time()

    def test_but_not_beyond_its_deadline(self, connected: GraphSandbox) -> None:
        with pytest.raises(AirflowSensorTimeout):
            resume(sensor(deferrable=True, min_count=251), met(timeout=-1))

    def test_the_timeout(self, connected: GraphSandbox) -> None:
        event = {**met(), "status": "timeout"}
        throttled = {**event, "not_before": time.time() + 60}
        with pytest.raises(AirflowSensorTimeout, match="the API has asked for no calls"):
            resume(sensor(deferrable=True, min_count=251), throttled)
        with pytest.raises(AirflowSensorTimeout, match="250 accounts match: 251 are needed"):
            resume(sensor(deferrable=True, min_count=251), event)
        with pytest.raises(AirflowSkipException):
            resume(sensor(deferrable=True, min_count=251, soft_fail=True), event)
        assert len(resume(sensor(deferrable=True), event)) == 250  # the worker looks once more

    def test_an_error(self, connected: GraphSandbox) -> None:
        event = {**met(), "status": "error", "error": "GraphTokenError", "message": "expired"}
        with pytest.raises(AirflowFailException, match="expired") as caught:
            resume(sensor(deferrable=True), event)
        assert isinstance(caught.value.__cause__, GraphTokenError)
        for odd in ("ValueError", "UnicodeDecodeError", "KeyboardInterrupt", "eval", None):
            with pytest.raises(AirflowFailException, match="expired"):
                resume(sensor(deferrable=True), {**event, "error": odd})

    @pytest.mark.parametrize("event", [None, {}, {"status": "other"}, "met"])
    def test_an_event_that_is_none_of_ours(self, connected: GraphSandbox, event: Any) -> None:
        with pytest.raises(AirflowFailException, match="without a known status"):
            resume(sensor(deferrable=True), event)

    @pytest.mark.parametrize("name", ["started", "deadline", "not_before"])
    @pytest.mark.parametrize("value", [None, "soon", True, [], {}, float("nan"), float("inf"), -1, 1e300])
    @pytest.mark.parametrize("status", ["met", "timeout"])
    def test_an_event_whose_moments_are_wrong(
        self, connected: GraphSandbox, status: str, name: str, value: Any
    ) -> None:
        for event in ({**met(), "status": status, name: value}, {"status": status}):
            with pytest.raises(AirflowFailException, match=r"does not say how long to wait: .*clear the task"):
                resume(sensor(deferrable=True, min_count=251), event)
        assert connected.requests == []

    def test_an_event_with_a_secret_instead_of_a_status(self, connected: GraphSandbox) -> None:
        with pytest.raises(AirflowFailException, match="could be a secret") as caught:
            resume(sensor(deferrable=True), {"status": connected.token})
        assert connected.token not in str(caught.value)

    @pytest.mark.parametrize("message", [None, "", 5, ["a"]])
    def test_an_error_without_a_message(self, connected: GraphSandbox, message: Any) -> None:
        errors: tuple[Any, ...] = (["GraphError"], {}, "GraphTokenError")
        for error in errors:
            with pytest.raises(AirflowFailException, match="an error event without a message"):
                resume(sensor(deferrable=True), {"status": "error", "error": error, "message": message})

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_failing_softly(self, connected: GraphSandbox, option: str) -> None:
        connected.fail_next(Fault.no_advanced_access().times(9))
        for deferrable in (True, False):
            with pytest.raises(AirflowSkipException):
                sensor(deferrable=deferrable, **{option: True}).execute({})

    def test_other_failures_end_as_in_every_mode(
        self, connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def full(*args: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", full)
        path = str(tmp_path / "a.json")
        with pytest.raises(StoreError):
            sensor(deferrable=True, output_path=path).execute({})
        with pytest.raises(AirflowSkipException):
            sensor(deferrable=True, output_path=path, never_fail=True).execute({})
        deferred(sensor(deferrable=True, output_path=path, silent_fail=True))


@pytest.mark.parametrize(
    ("query", "pages"),
    [
        ({"page_size": 7, "max_items": 16}, 3),
        ({"relationship": "owned", "page_size": 20}, 2),
        ({"relationship": "owned", "max_items": 3, "sort": "creation_time_descending"}, 1),
        (
            {
                "ownership_types": ["SELF", "CLIENT_OWNED"],
                "created_after": "2015-01-01",
                "filtering": [{"field": "ownership_type", "operator": "EQUAL", "value": "CLIENT_OWNED"}],
                "sort": "creation_time_ascending",
                "page_size": 30,
                "max_items": 65,
            },
            3,
        ),
    ],
)
def test_the_trigger_asks_the_api_for_what_the_sensor_was_given(
    connected: GraphSandbox, query: dict[str, Any], pages: int
) -> None:
    operator = sensor(deferrable=True, where={"name": "no such name"}, poke_interval=60, timeout=90, **query)
    _, arguments = deferred(operator).serialize()
    asked_by_sensor = [(request.path, request.params) for request in connected.requests]
    assert len(asked_by_sensor) == pages

    connected.reset()
    trigger = WhatsAppWabasTrigger(**json.loads(json.dumps(arguments)))

    async def fire() -> Any:
        return [event.payload async for event in trigger.run()]

    ((event,), _) = run_virtually(fire())
    assert event["status"] == "timeout"
    asked_by_trigger = [(request.path, request.params) for request in connected.requests]
    # The trigger needs only those fields that the condition is about.
    assert asked_by_trigger == [(path, {**params, "fields": "id,name"}) for path, params in asked_by_sensor]


def test_a_look_does_not_hold_its_slot_for_long(connected: GraphSandbox) -> None:
    connected.fail_next(Fault.throttle(minutes=1))
    assert not sensor().poke({})
    assert len(connected.requests) == 1


def test_a_task_that_is_out_of_time_is_skipped_softly(connected: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_time(self: object, context: object) -> None:
        raise AirflowTaskTimeout

    monkeypatch.setattr(WhatsAppWabasSensor, "poke", out_of_time)
    with pytest.raises(AirflowSkipException):
        sensor(deferrable=True, soft_fail=True).execute({})
    with pytest.raises(AirflowTaskTimeout):
        sensor(deferrable=True).execute({})


def test_a_deferrable_sensor_is_not_rescheduled(connected: GraphSandbox) -> None:
    # In this mode, Airflow would be asked for earlier reschedules, of which a deferred task has none.
    waiting = sensor(deferrable=True, mode="reschedule", min_count=10_000)
    with pytest.raises(TaskDeferred):
        waiting.execute({})
    assert (waiting.mode, waiting.reschedule) == ("reschedule", False)
