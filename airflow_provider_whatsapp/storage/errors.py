"""Turns the exceptions of store libraries into errors that name the object and say what to do.

The exceptions of store libraries name neither the argument nor the connection. Their messages can contain secrets: the
address of an unfinished upload to Google Cloud Storage, for example, is enough to write there. So only the HTTP status,
the store's error code and the name of the exception are taken from them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph.arguments import could_be_secret, shown

_MOVED, _UNAUTHORIZED, _FORBIDDEN = 301, 401, 403
# The stores return some of these with status 400 or 403.
_BAD_CREDENTIALS = frozenset(
    {
        "AuthenticationFailed",
        "AuthorizationHeaderMalformed",
        "ClientAuthenticationError",
        "DefaultCredentialsError",
        "HostKeyNotVerifiable",
        "InvalidAccessKeyId",
        "InvalidAuthenticationInfo",
        "KeyImportError",
        "NoAuthenticationInformation",
        "NoCredentialsError",
        "PartialCredentialsError",
        "PermissionDenied",
        "ProfileNotFound",
        "SignatureDoesNotMatch",
    }
)
# Error codes of S3 for a bucket in another region.
_ELSEWHERE = frozenset({"IllegalLocationConstraintException", "PermanentRedirect"})
_MISSING = frozenset({"ContainerNotFound", "InvalidBucketName", "MissingBucketError", "NoSuchBucket"})
_FORBIDDEN_NAMES = frozenset({"PermissionError", "SFTPPermissionDenied", "SFTPWriteProtect"})
# Errors of temporary credentials of a role, which last some hours. The task's next try gets new ones.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_LONGEST_CHAIN = 8
# What a store's library uses without a connection, by the scheme of the address.
_AWS = "the environment, the profile or the role of AWS"
_GOOGLE = "Google's Application Default Credentials"
_AZURE = "the environment variables AZURE_STORAGE_*"
_SSH = "the SSH keys of its user"
_OWN_CREDENTIALS = {
    **dict.fromkeys(("s3", "s3a"), _AWS),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("abfs", "abfss", "adl"), _AZURE),
    **dict.fromkeys(("sftp", "ssh"), _SSH),
}


def shown_address(address: object) -> str:
    """Return an address, or what was given for one, as an error shows it: whole, unless it could hold a secret.

    :param address: what a user gave
    """
    return shown(address) if could_be_secret(repr(address)) else repr(address)


def connection_argument(argument: str) -> str:
    """Return the name of the argument that names the connection: read_rows has other names than the operators.

    :param argument: name of the argument that the address was given in
    """
    return "conn_id" if argument == "source" else "output_conn_id"


class StoreError(OSError):
    """The store failed, and a retry may help."""


class StoreRefusedError(AirflowFailException, ValueError):
    """The store refused the operation, and a retry cannot help. Airflow fails the task without retries."""


class ObjectExistsError(StoreError):
    """An object that must not be replaced has appeared at the address."""


class MissingBucketError(Exception):
    """There is no bucket or container with this name."""


class UnsuitableStoreError(Exception):
    """An object cannot be written there. The message says why, and contains no secret."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is, for error messages.

    :param argument: name of the argument that the address was given in
    :param uri: the store's own address of the object
    :param conn_id: Airflow connection of the store, or None for the store's own default
    """

    argument: str
    uri: str
    conn_id: str | None

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turn the exceptions of store libraries into exceptions of this module.

        :param doing: what is being done with the object, e.g. ``"written"``
        :raises StoreRefusedError: if a retry cannot help
        :raises StoreError: if a retry may help
        """
        try:
            yield
        except (StoreError, StoreRefusedError):
            raise
        except Exception as error:
            # Do not chain the error: the log would show its message, which can contain a secret.
            raise self.explain(error, doing) from None

    def explain(self, error: BaseException, doing: str) -> StoreError | StoreRefusedError:
        """Return an error that says what happened to this object and what to do.

        :param error: exception of a store library
        :param doing: what was done with the object
        """
        # Local files have no connection.
        over = "" if self.uri.startswith("file://") and not self.conn_id else f" {self.way}"
        message = f"{self.argument}: {self.uri} cannot be {doing}{over}"
        if isinstance(error, UnsuitableStoreError):
            return StoreRefusedError(f"{message}: {error}")
        failure = StoreFailure.of(error)
        advice = {
            "missing": "there is no such bucket or container; create it, or correct the address",
            "credentials": "the store does not accept the credentials; correct them in the connection"
            if self.conn_id
            else f"the store does not accept them; name a connection in {connection_argument(self.argument)}",
            "elsewhere": "the bucket is in another region; correct the region or the endpoint in the connection",
            "forbidden": "the credentials lack this permission; grant it, or use another connection",
        }.get(failure.kind, "this may be temporary; Airflow retries if the task has `retries`")
        message = f"{message} ({failure}); {advice}"
        return StoreRefusedError(message) if failure.kind else StoreError(message)

    @property
    def way(self) -> str:
        """How the store is reached, as messages say it: over which connection, or with which credentials."""
        if self.conn_id:
            return f"over the connection {shown(self.conn_id)}"
        own = _OWN_CREDENTIALS.get(self.uri.partition("://")[0])
        return f"without a connection, with the worker's own credentials{f' ({own})' if own else ''}"


@dataclass(frozen=True, slots=True)
class StoreFailure:
    """The facts about an exception, except its message.

    :param kind: ``"missing"``, ``"elsewhere"``, ``"credentials"`` or ``"forbidden"`` if a retry cannot help, otherwise
        empty
    :param status: HTTP status, or None
    :param code: the store's error code, or the name of the exception
    """

    kind: str
    status: int | None
    code: str

    def __str__(self) -> str:
        return f"{self.status} {self.code}" if self.status else self.code

    @classmethod
    def of(cls, error: BaseException) -> StoreFailure:
        """Return what is known about the exception and its causes.

        :param error: exception of a store library
        """
        names: set[str] = set()
        status, code = None, ""
        for cause in _chain(error):
            names.add(type(cause).__name__)
            found_status, found_code = _status_of(cause), _code_of(cause)
            status, code = status or found_status, code or found_code
        names.add(code)
        if names & _EXPIRED:
            kind = ""
        elif names & _MISSING:
            kind = "missing"
        elif names & _ELSEWHERE or status == _MOVED:
            kind = "elsewhere"
        elif names & _BAD_CREDENTIALS or status == _UNAUTHORIZED or _is_final_refresh_error(error):
            kind = "credentials"
        elif names & _FORBIDDEN_NAMES or status == _FORBIDDEN:
            kind = "forbidden"
        else:
            kind = ""
        return cls(kind, status, code or _describe_name(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _status_of(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif type(error) is OSError and str(error).startswith("Forbidden: "):  # gcsfs
        status = _FORBIDDEN
    else:  # azure, aiohttp, gcsfs
        status = next(
            (getattr(error, name) for name in ("status_code", "status", "code") if hasattr(error, name)), None
        )
    try:
        number = int(status)
    except (TypeError, ValueError):
        return None
    return number if 100 <= number < 600 else None


def _code_of(error: BaseException) -> str:
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "error_code", None)
    code = getattr(code, "value", code)
    # The code comes from the server. Anything but a plain word is not shown.
    return code if isinstance(code, str) and re.fullmatch(r"[A-Z][A-Za-z]{1,60}", code) else ""


def _describe_name(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {os.strerror(error.errno)}" if isinstance(error, OSError) and error.errno else name


def _is_final_refresh_error(error: BaseException) -> bool:
    # google-auth could not renew the token; it marks the error as retryable if it may be temporary.
    return any(
        type(cause).__name__ == "RefreshError" and not getattr(cause, "retryable", False) for cause in _chain(error)
    )
