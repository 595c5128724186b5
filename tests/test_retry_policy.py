"""GraphRetryPolicy by direct calls, and in DAGs that run through ``dag.test()``."""

from __future__ import annotations

import random
import runpy
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import airflow
import pytest
from dag_runs import run_dag
from packaging.version import Version

from airflow_provider_whatsapp import graph
from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
)
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits

HAS_POLICIES = Version(airflow.__version__) >= Version("3.3")
needs_policies = pytest.mark.skipif(not HAS_POLICIES, reason="Airflow has no retry policies")
MINUTE = timedelta(minutes=1)


def decide(exception: BaseException, *, try_number: int = 1, luck: float | None = None) -> tuple[str, Any, Any]:
    """The action, the delay and the reason of a decision.

    :param luck: where random numbers are to lie in their range, from 0 to 1
    """
    from airflow_provider_whatsapp.retry import GraphRetryPolicy

    with pytest.MonkeyPatch.context() as patched:
        if luck is not None:
            patched.setattr(random, "random", lambda: luck)
            patched.setattr(random, "uniform", lambda low, high: low + luck * (high - low))
        decision = GraphRetryPolicy().evaluate(exception, try_number, 3)
    return decision.action.value, decision.retry_delay, decision.reason


@pytest.mark.skipif(HAS_POLICIES, reason="Airflow has retry policies")
def test_before_airflow_3_3_the_import_says_what_to_set_instead() -> None:
    command = [sys.executable, "-c", "import airflow_provider_whatsapp.retry"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    last = printed.strip().splitlines()[-1]
    assert last.startswith("ImportError: airflow_provider_whatsapp.retry needs Airflow 3.3 or later")
    assert "retry_delay=timedelta(minutes=5)" in last
    assert "retry_exponential_backoff=True" in last
    assert "deferrable=True" in last


@needs_policies
class TestDecision:
    @pytest.mark.parametrize("luck", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("named", [timedelta(seconds=1), timedelta(minutes=17), timedelta(days=2)])
    def test_a_named_time_is_waited_for(self, named: timedelta, luck: float) -> None:
        action, delay, reason = decide(GraphRateLimitError("slow down", retry_after=named), try_number=9, luck=luck)
        assert (action, delay) == ("retry", named + luck * MINUTE)
        assert f"asked to wait {named}" in reason
        assert decide(GraphServerError("busy", retry_after=named), luck=luck)[:2] == (action, delay)

    @pytest.mark.parametrize("luck", [0.0, 1.0])
    def test_a_rate_limit_without_a_time(self, luck: float) -> None:
        error = GraphRateLimitError("slow down")
        for try_number in (1, 5):
            assert decide(error, try_number=try_number, luck=luck)[:2] == ("retry", (5 + luck) * MINUTE)

    @pytest.mark.parametrize(
        "error", [GraphServerError("x"), GraphTransportError("x"), GraphProtocolError("x", retryable=True)]
    )
    def test_faults_back_off(self, error: GraphError) -> None:
        waits = [decide(error, try_number=number, luck=1.0)[1] / MINUTE for number in (1, 2, 3, 5, 6, 7, 5000)]
        assert waits == [1, 2, 4, 16, 30, 30, 30]
        assert decide(error, try_number=3, luck=0.0)[:2] == ("retry", 2 * MINUTE)

    def test_tasks_that_fail_together_do_not_retry_together(self) -> None:
        for error in (GraphServerError("x"), GraphRateLimitError("x"), GraphRateLimitError("x", retry_after=MINUTE)):
            assert len({decide(error)[1] for _ in range(20)}) > 1

    @pytest.mark.parametrize("name", sorted(graph.__all__))
    def test_what_a_retry_cannot_fix_fails(self, name: str) -> None:
        kind: type[GraphError] = getattr(graph, name)
        action, delay, reason = decide(kind("no", retryable=False))
        assert (action, delay) == ("fail", None)
        assert reason.startswith(name)
        assert decide(kind("no", retryable=True))[0] == "retry"

    def test_no_message_is_repeated(self) -> None:
        # The error itself is in the log. The reason is stored in Airflow's database, and cut there.
        for error in (
            GraphTokenError("said"),
            GraphRateLimitError("said", retry_after=MINUTE),
            GraphServerError("said"),
        ):
            assert "said" not in decide(error)[2]

    def test_other_errors_are_left_to_the_task(self) -> None:
        for error in (ValueError("no"), TimeoutError(), KeyboardInterrupt()):
            assert decide(error) == ("default", None, None)


def chained(*errors: BaseException) -> BaseException:
    """The first of the errors; each further one becomes the cause of the one before it."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


@needs_policies
class TestCauses:
    def test_the_cause_counts(self) -> None:
        named = timedelta(minutes=20)
        error = chained(RuntimeError(), ValueError(), GraphRateLimitError("x", retry_after=named))
        assert decide(error, luck=0.0)[:2] == ("retry", named)
        assert decide(chained(RuntimeError(), GraphPermissionError("x")))[0] == "fail"

    def test_the_first_one_counts(self) -> None:
        assert decide(chained(GraphTokenError("x"), GraphServerError("x")))[0] == "fail"
        assert decide(chained(RuntimeError(), GraphServerError("x"), GraphTokenError("x")))[0] == "retry"

    def test_an_error_that_was_handled_does_not_count(self) -> None:
        error = ValueError("another problem")
        error.__context__ = GraphTokenError("x")
        assert decide(error)[0] == "default"

    def test_loops_end(self) -> None:
        first, second = RuntimeError(), ValueError()
        first.__cause__, second.__cause__ = second, first
        assert decide(first)[0] == "default"
        assert decide(chained(KeyError(), first))[0] == "default"


@needs_policies
class TestStored:
    def test_value(self) -> None:
        import json

        from airflow_provider_whatsapp.retry import GraphRetryPolicy

        policy = GraphRetryPolicy()
        again = GraphRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
        assert again == policy
        assert hash(again) == hash(policy)
        assert repr(policy) == "GraphRetryPolicy()"
        # Airflow takes a false policy for none.
        assert policy

    @pytest.mark.parametrize("dag_id", ["policy_on_operator", "policy_on_partial", "policy_on_task"])
    def test_a_dag_with_a_policy_survives_serialization(self, dag_id: str) -> None:
        import json

        from airflow.serialization.serialized_objects import DagSerialization

        from airflow_provider_whatsapp.retry import GraphRetryPolicy

        dag = runpy.run_path(str(Path(__file__).parent / "dags" / "ways_to_retry.py"))[dag_id]
        assert dag.get_task("accounts").retry_policy == GraphRetryPolicy()
        stored = json.dumps(DagSerialization.to_dict(dag))
        again = DagSerialization.from_dict(json.loads(stored))
        assert again.get_task("accounts").has_retry_policy is True
        assert json.dumps(DagSerialization.to_dict(dag)) == stored


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The delays in seconds that Airflow stores for retries. The retries themselves start at once.

    ``dag.test()`` would wait for them in real time.
    """
    from airflow.models.taskinstance import TaskInstance

    stored: list[float | None] = []

    def next_retry_datetime(ti: Any) -> Any:
        if not stored or ti.try_number > len(stored):
            stored.append(ti.retry_delay_override)
        return ti.end_date

    monkeypatch.setattr(TaskInstance, "next_retry_datetime", next_retry_datetime)
    return stored


@needs_policies
@pytest.mark.usefixtures("airflow_db")
class TestInAirflow:
    @pytest.mark.parametrize("dag_id", ["policy_on_operator", "policy_on_task"])
    def test_a_throttle(self, connected: GraphSandbox, decisions: list[float | None], dag_id: str) -> None:
        connected.fail_next(Fault.throttle(minutes=20).after(1))
        finished = run_dag(dag_id)
        assert finished.state == "success"
        assert len(finished.xcom("accounts")) == 250
        (delay,) = decisions
        assert delay is not None
        assert 20 * 60 <= delay <= 21 * 60
        assert [request.status for request in connected.requests] == [200, 400, 200, 200, 200]

    def test_a_throttle_of_a_mapped_task(self, connected: GraphSandbox, decisions: list[float | None]) -> None:
        connected.fail_next(Fault.throttle(minutes=20))
        finished = run_dag("policy_on_partial")
        assert finished.states == {("accounts", 0): "success", ("accounts", 1): "success"}
        (delay,) = decisions
        assert delay is not None
        assert 20 * 60 <= delay <= 21 * 60

    def test_a_retry_that_cannot_help(self, connected: GraphSandbox, decisions: list[float | None]) -> None:
        connected.fail_next(Fault.revoked_token().times(100))
        # The hook does not raise AirflowFailException as the operator does, so it is the policy that fails the task.
        assert run_dag("policy_on_task").state == "failed"
        assert len(connected.requests) == 1
        assert decisions == []

    def test_retries_end(self, connected: GraphSandbox, decisions: list[float | None]) -> None:
        connected.fail_next(Fault.server_error().times(100))
        with no_waits():
            assert run_dag("policy_on_operator").state == "failed"
        (delay,) = decisions
        assert delay is not None
        assert 30 <= delay <= 60
        assert len(connected.requests) == 12
