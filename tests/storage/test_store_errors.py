"""What a message says of a store's exception, whether a retry may help, and that no secret is in it."""

from __future__ import annotations

import errno
import traceback

import pytest

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.storage.errors import Place, StoreError, StoreRefusedError

PLACE = Place("output_path", "s3://lake/a.ndjson", "aws_lake")


def of_boto(code: str, status: int) -> Exception:
    error = Exception("5ecret")
    error.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
    return error


def of_azure(code: object, status: int) -> Exception:
    error = Exception("5ecret")
    error.error_code, error.status_code = code, status  # type: ignore[attr-defined]
    return error


def of_gcs(status: int) -> Exception:
    error = Exception("5ecret")
    error.code = status  # type: ignore[attr-defined]
    return error


def named(name: str, **attributes: object) -> Exception:
    error: Exception = type(name, (Exception,), attributes)("5ecret")
    return error


def caused_by(error: BaseException) -> Exception:
    outer = OSError(errno.EIO, "5ecret")
    outer.__cause__ = error
    return outer


def while_handling(error: Exception, other: Exception) -> Exception:
    error.__context__ = other
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (of_boto("AccessDenied", 403), ("(403 AccessDenied)", "the credentials lack this permission")),
        (of_boto("PermanentRedirect", 301), ("(301 PermanentRedirect)", "correct the region or the endpoint")),
        # The answer to a HEAD has no code.
        (of_boto("301", 301), ("(301 ", "correct the region or the endpoint")),
        (caused_by(of_boto("AccessDenied", 403)), ("(403 AccessDenied)", "the credentials lack this permission")),
        (of_boto("InvalidAccessKeyId", 403), ("the store does not accept the credentials",)),
        (of_boto("NoSuchBucket", 404), ("(404 NoSuchBucket)", "there is no such bucket or container")),
        (of_azure("ContainerNotFound", 404), ("(404 ContainerNotFound)", "there is no such bucket or container")),
        (of_azure("AuthenticationFailed", 403), ("the store does not accept the credentials",)),
        (of_azure("AuthorizationPermissionMismatch", 403), ("the credentials lack this permission",)),
        (while_handling(of_gcs(401), KeyError()), ("(401 Exception)", "the store does not accept the credentials")),
        (while_handling(of_gcs(403), of_gcs(500)), ("(403 Exception)", "the credentials lack this permission")),
        (of_gcs(401), ("(401 Exception)", "the store does not accept the credentials")),
        (
            OSError("Forbidden: https://storage/upload_id=5ecret\nno"),
            ("(403 OSError)", "the credentials lack this permission"),
        ),
        (named("DefaultCredentialsError"), ("the store does not accept the credentials",)),
        (named("RefreshError", retryable=False), ("the store does not accept the credentials",)),
        (PermissionError("5ecret"), ("(PermissionError)", "the credentials lack this permission")),
    ],
)
def test_what_a_retry_cannot_mend(error: Exception, words: tuple[str, ...]) -> None:
    with pytest.raises(StoreRefusedError) as caught, PLACE.errors("written"):
        raise error
    assert isinstance(caught.value, AirflowFailException)
    start = "output_path: s3://lake/a.ndjson cannot be written over the connection 'aws_lake' ("
    assert str(caught.value).startswith(start)
    for word in words:
        assert word in str(caught.value)
    assert "5ecret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (of_boto("InternalError", 500), "500 InternalError"),
        (of_boto("SlowDown", 503), "503 SlowDown"),
        (of_boto("ExpiredToken", 400), "400 ExpiredToken"),
        (of_boto("5ecret of a server", 500), "500 Exception"),
        (of_gcs(503), "503 Exception"),
        (named("RefreshError", retryable=True), "RefreshError"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "5ecret"), "ConnectionRefusedError: Connection refused"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_may_pass(error: Exception, reason: str) -> None:
    with pytest.raises(StoreError) as caught, PLACE.errors("looked for"):
        raise error
    assert str(caught.value) == (
        f"output_path: s3://lake/a.ndjson cannot be looked for over the connection 'aws_lake' ({reason}); "
        "this may be temporary; Airflow retries if the task has `retries`"
    )
    assert "5ecret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("argument", "uri", "own", "conn_id"),
    [
        ("output_path", "s3://lake/a.csv", " (the environment, the profile or the role of AWS)", "output_conn_id"),
        ("waba_ids", "gs://lake/a.csv", " (Google's Application Default Credentials)", "output_conn_id"),
        ("source", "abfss://lake/a.csv", " (the environment variables AZURE_STORAGE_*)", "conn_id"),
        ("source", "memory://lake/a.csv", "", "conn_id"),
    ],
)
def test_without_a_connection_it_names_the_credentials(argument: str, uri: str, own: str, conn_id: str) -> None:
    with pytest.raises(StoreRefusedError) as caught, Place(argument, uri, None).errors("read"):
        raise of_boto("InvalidAccessKeyId", 403)
    assert str(caught.value) == (
        f"{argument}: {uri} cannot be read without a connection, with the worker's own credentials{own} "
        f"(403 InvalidAccessKeyId); the store does not accept them; name a connection in {conn_id}"
    )


def test_our_own_errors_pass_unchanged() -> None:
    ours = StoreError("ours")
    with pytest.raises(StoreError) as caught, PLACE.errors("written"):
        raise ours
    assert caught.value is ours
