"""What the log of a task says before it fails, and which errors fail it at once."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from listings import Listing

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph import GraphError, GraphTokenError, GraphTransportError
from airflow_provider_whatsapp.graph.answer_errors import find_error
from airflow_provider_whatsapp.graph.error_codes import CODES
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
    _, line = failing(GraphTransportError("down. " * 50, retry_after=timedelta(minutes=5)))
    assert line.endswith(" … - retry after 0:05:00, if the task has `retries`")
    assert len(line) <= 160


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
@pytest.mark.parametrize("message", ["(#100) Something about it", "A long story. " * 40, "x" * 500])
def test_the_line_of_every_code_fits_and_says_what_to_do(failing: Failing, code: int | None, message: str) -> None:
    find = partial(find_error, retry_after=timedelta(minutes=75), redact=str, version_problem="")
    error = find(400, {"error": {"message": message, "code": code, "fbtrace_id": "A" * 27}})
    assert error is not None
    _, line = failing(error)
    assert len(line) <= 160
    # What to do comes first, so none of it is cut away, except from the longest advice.
    advice = str(error).partition(" The API said: ")[0]
    assert line.startswith(advice[: min(len(advice), 80)])
    assert (" - retry after 1:15:00, if" in line) is error.retryable


@pytest.mark.parametrize(
    ("fault", "start"),
    [
        (Fault.expired_token(), "The token has expired: create a new one and put it in the connection's password."),
        (Fault.throttle(minutes=5), "Too many calls: wait before calling again, as calls during a throttle"),
        (Fault.nonexisting_field(), "The API refused the request: check the id, the fields, the filters and the sort."),
        (Fault.closed(), "no complete response from 127.0.0.1"),
    ],
)
def test_the_log_of_an_operator_has_one_error_line(
    operator: Listing, caplog: pytest.LogCaptureFixture, fault: Fault, start: str
) -> None:
    operator.sandbox.fail_next(fault.times(99))
    with pytest.raises((AirflowFailException, GraphError)):
        operator.run()
    (line,) = error_lines(caplog)
    # The one that reads many accounts names the account first.
    assert start in line
    assert len(line) <= 160
