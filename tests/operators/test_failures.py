"""What the log of a task says before it fails, and which errors fail it at once."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from listings import Listing

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph import GraphError, GraphTokenError, GraphTransportError
from airflow_provider_whatsapp.graph.answer_errors import find_error
from airflow_provider_whatsapp.graph.error_codes import ADVICE_OF_CLASS, CODES, find_code
from airflow_provider_whatsapp.graph.errors import LONGEST_LINE
from airflow_provider_whatsapp.sandbox import Fault
from airflow_provider_whatsapp.tasks.failures import failing_fast

Failing = Callable[[Exception], tuple[Exception, str]]


def error_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def failing(caplog: pytest.LogCaptureFixture) -> Failing:
    """Fails with an error; gives the exception that Airflow sees and the line in the log."""

    def fail(error: Exception) -> tuple[Exception, str]:
        caplog.clear()
        with pytest.raises(Exception) as caught, failing_fast((GraphError, ValueError)):  # noqa: PT011
            raise error
        (line,) = error_lines(caplog)
        return caught.value, line

    return fail


def test_an_error_that_a_retry_cannot_mend(failing: Failing) -> None:
    error = GraphTokenError("The token has expired: create a new one.")
    failed, line = failing(error)
    assert isinstance(failed, AirflowFailException)
    assert failed.__cause__ is error
    assert str(failed) == line == "The token has expired: create a new one."


def test_its_traceback_is_shown_once(failing: Failing) -> None:
    failed, _ = failing(GraphTokenError("expired"))
    shown = "".join(traceback.format_exception(failed))
    assert shown.count("Traceback (most recent call last)") == 1
    assert "GraphTokenError: expired" in shown


def test_a_retryable_error_is_left_to_airflow(failing: Failing) -> None:
    error = GraphTransportError("no complete response from graph.facebook.com")
    failed, line = failing(error)
    assert failed is error
    assert line == "no complete response from graph.facebook.com - retry, if the task has `retries`"


def test_the_wait_that_the_api_named(failing: Failing) -> None:
    _, line = failing(GraphTransportError("down", retry_after=timedelta(minutes=5)))
    assert line == "down - retry after 0:05:00, if the task has `retries`"


def test_a_line_is_bounded(failing: Failing) -> None:
    _, line = failing(ValueError("Where it was said. " + "x" * 100_000 + " What to do."))
    assert line.startswith("Where it was said. xxx")
    assert line.endswith("xxx What to do.")
    assert len(line) == LONGEST_LINE


def test_a_wrong_argument(failing: Failing) -> None:
    failed, line = failing(ValueError("edge: 'x' is neither 'client'\nnor 'owned'"))
    assert isinstance(failed, AirflowFailException)
    assert line == "edge: 'x' is neither 'client' nor 'owned'"


def test_other_errors_are_not_touched(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="mine"), failing_fast():
        raise ValueError("mine")
    assert error_lines(caplog) == []


@pytest.mark.parametrize("is_deferrable", [False, True])
def test_a_missing_connection(listing: Listing, is_deferrable: bool, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AirflowFailException):
        listing.run(whatsapp_conn_id="nowhere", deferrable=is_deferrable)
    (line,) = error_lines(caplog)
    assert line.startswith("whatsapp_conn_id: there is no connection 'nowhere'; create it ")


@pytest.mark.parametrize("code", [*(code for row in CODES for code in row.codes), None])
@pytest.mark.parametrize("message", ["(#100) Something about it", "x" * 500])
def test_the_line_of_every_code_says_the_fact_and_then_what_to_do(
    failing: Failing, code: int | None, message: str
) -> None:
    row = find_code(code)
    for subcode in row.subcodes if row else [None]:
        envelope: dict[str, Any] = {"message": message, "code": code, "error_subcode": subcode, "fbtrace_id": "A" * 100}
        envelope["error_data"] = {"details": "y" * 500}
        error = find_error(400, {"error": envelope}, retry_after=timedelta(minutes=75), redact=str)
        assert error is not None
        error.waba_id, error.attempts = "1" * 40, 6
        _, line = failing(error)
        advice = row.details(subcode).advice if row else ""
        assert f": {message} ({'y' * 500}). {advice or ADVICE_OF_CLASS[type(error)]}" in line
        assert "…" not in line
        assert (" - retry after 1:15:00, if" in line) is error.retryable


@pytest.mark.parametrize(
    ("fault", "fact", "what_to_do"),
    [
        (Fault.expired_token(), "Session has expired", "create a new one and put it in the connection's password."),
        (Fault.throttle(minutes=5), "(#80008) There have been too many calls", " - retry after 0:05:00, if the task"),
        (Fault.nonexisting_field(), "nonexisting field (hologram)", "check the id, the fields, the filters"),
        (
            Fault.wrong_business(),
            "does not exist, cannot be loaded",
            "an app or a phone number.",
        ),
        (Fault.too_many_requests(), "The response is HTTP 429", "wait before calling again"),
        (Fault.closed(), "no complete response from 127.0.0.1", "check the network"),
    ],
)
def test_the_log_of_an_operator_has_one_error_line(
    operator: Listing, caplog: pytest.LogCaptureFixture, fault: Fault, fact: str, what_to_do: str
) -> None:
    operator.sandbox.fail_next(fault.times(99))
    with pytest.raises((AirflowFailException, GraphError)):
        operator.run()
    (line,) = error_lines(caplog)
    assert 0 <= line.find(fact) < line.find(what_to_do), line
