"""Checks and splits addresses in object storage, and opens the store that they lead to."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_whatsapp._compat import AirflowException
from airflow_provider_whatsapp.storage.azure import AzureStore
from airflow_provider_whatsapp.storage.errors import Place, StoreFailure, connection_argument, shown_address
from airflow_provider_whatsapp.storage.gcs import GcsStore
from airflow_provider_whatsapp.storage.local import LocalStore
from airflow_provider_whatsapp.storage.s3 import S3Store
from airflow_provider_whatsapp.storage.sftp import SftpStore
from airflow_provider_whatsapp.storage.store import MovingStore, Store

_AMAZON = "apache-airflow-providers-amazon[s3fs]"
_GOOGLE = "apache-airflow-providers-google"
_MICROSOFT = "apache-airflow-providers-microsoft-azure"
_SFTP = "apache-airflow-providers-sftp[sshfs]"
_PROVIDERS = {
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "abfs": _MICROSOFT,
    "abfss": _MICROSOFT,
    "adl": _MICROSOFT,
    "sftp": _SFTP,
    "ssh": _SFTP,
}
# Other schemes for the same stores, which Airflow does not accept.
_OTHER_NAMES = {"s3n": "s3", "az": "abfs", "azure": "abfs", "wasb": "abfs", "wasbs": "abfs", "sshfs": "sftp"}
_KNOWN_STORES = (
    f"Airflow supports addresses that begin with {', '.join(f'{name}://' for name in _PROVIDERS)} or file://"
)
# Control characters, halves of a surrogate pair, and Unicode's line and paragraph separators.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_AZURE_SCHEMES = ("abfs", "abfss", "adl")
_STORES_BY_LIBRARY: dict[str, type[Store]] = {
    "adlfs": AzureStore,
    "gcsfs": GcsStore,
    "s3fs": S3Store,
    "sshfs": SftpStore,
}
# Protocols of stores in which an upload becomes visible only when it is complete.
_PROTOCOLS_WITH_WHOLE_UPLOADS = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"}


def check_address(argument: str, path: object) -> str:
    """Return the checked address, stripped of white space.

    :param argument: name of the argument that the address was given in, for errors
    :param path: any ``ObjectStoragePath`` URL, or an absolute path on this machine
    :raises ValueError: if it is not the address of an object, or contains a password
    """
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"{argument}: {shown_address(path)} is not a path; for example 's3://bucket/wabas.ndjson'")
    path = path.strip()
    # urlsplit drops some of these, so that the object would have another name than the manifest says.
    if any(unicodedata.category(character) in _UNPRINTABLE or character == "\ufeff" for character in path):
        raise ValueError(
            f"{argument}: {shown_address(path)} has a line break or another control character in it; remove it"
        )
    scheme, host = urlsplit(path).scheme, urlsplit(path).netloc
    if ("://" not in path and not path.startswith("/")) or (scheme in ("file", "local") and host):
        raise ValueError(
            f"{argument}: {shown_address(path)} is neither a URL nor an absolute path; for example "
            "'s3://bucket/wabas.ndjson' and 'file:///data/wabas.ndjson'"
        )
    if path.partition("://")[2].rpartition("@")[2].startswith("arn:"):
        raise ValueError(
            f"{argument}: {shown_address(path)} names an access point by its ARN; write its alias instead, e.g. "
            "'s3://my-access-point-example-s3alias/wabas.ndjson'"
        )
    if ":" in host.rpartition("@")[0] or re.search(r":(?![0-9]*$)", host):
        # Do not show the path: it contains the password. A slash in a password ends the host part of the URL.
        raise ValueError(
            f"{argument}: the URL has a password in it; put the password into a connection and name the connection, "
            f"in {connection_argument(argument)} or in the URL"
        )
    if scheme and ("::" in path or path.endswith("/")):
        raise ValueError(
            f"{argument}: {shown_address(path)} is not the address of an object, which has no '::' and does not end "
            "in a slash; for example 's3://bucket/wabas.ndjson'"
        )
    return path


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an address that a user gave.

    :param uri: the store's own address
    :param conn_id: id of the connection in the address, or None
    :param url: the address in the form that ``ObjectStoragePath`` accepts
    :param account: storage account in the address; only some Azure addresses have one
    """

    uri: str
    conn_id: str | None
    url: str
    account: str | None = None


def split_address(path: str) -> Address:
    """Return the parts of an address.

    :param path: address as returned by :func:`check_address`
    """
    scheme, separator, rest = path.partition("://")
    if not separator:
        return Address(path, None, path)
    scheme, authority = scheme.lower(), urlsplit(path).netloc
    conn_id, _, host = authority.rpartition("@")
    bucket, account, key = host, None, rest[len(authority) :]
    if scheme in _AZURE_SCHEMES and conn_id and "." in host:
        # In abfss://container@account.dfs.core.windows.net/key, Airflow would take the container for a connection. The
        # host distinguishes the two forms, because a container's name has no dot.
        # https://learn.microsoft.com/azure/storage/blobs/data-lake-storage-introduction-abfs-uri
        conn_id, _, bucket = conn_id.rpartition("@")
        account, host = host.partition(".")[0], f"{bucket}@{host}"
    # Airflow gives adl:// the same store as abfs://, but ObjectStoragePath loses the container of an adl:// address.
    opened_as = "abfs" if scheme == "adl" else scheme
    return Address(
        uri=f"{scheme}://{host}{key}",
        conn_id=conn_id or None,
        url=f"{opened_as}://{bucket}{key}",
        account=account,
    )


class OpenedStore(NamedTuple):
    """The location of an object.

    :param store: its store
    :param key: its path within the store
    :param place: its address, for messages
    """

    store: Store
    key: str
    place: Place


def open_store(argument: str, path: str, conn_id: str | None, default_conn_id: str | None = None) -> OpenedStore:
    """Return the store of an object, and its location in the store.

    :param argument: name of the argument that the address was given in, for errors
    :param path: address as returned by :func:`check_address`
    :param conn_id: Airflow connection of the store; by default the one in the address
    :param default_conn_id: connection to use if neither of the two names one; by default the store's own default
    :raises ValueError: if no installed provider supports the store, if there is no such connection, or if the
        connection leads to another account or is incomplete
    :raises StoreRefusedError: if the store does not accept the credentials
    :raises StoreError: if the store cannot be reached
    """
    address = split_address(path)
    conn_id = conn_id or address.conn_id or default_conn_id
    if conn_id is not None:
        conn_id = _check_conn_id(argument, conn_id)
    store, key = _open(argument, address, conn_id)
    _check_key(argument, store, key, address)
    uri, key = store.locate(address.uri, key)
    account = getattr(store.fs, "account_name", None)
    if address.account and account and account.lower() != address.account.lower():
        # The connection decides where the object goes, so it would appear in a different account.
        raise ValueError(
            f"{argument}: {uri!r} is in the account {address.account!r}, but the connection {conn_id!r} "
            f"leads to {account!r}; name the connection of that account in {connection_argument(argument)}"
        )
    return OpenedStore(store, key, Place(argument, uri, conn_id))


def _open(argument: str, address: Address, conn_id: str | None) -> tuple[Store, str]:
    # lazy: fsspec
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import attach
    from fsspec.implementations.local import LocalFileSystem

    scheme = urlsplit(address.url).scheme or "file"
    # A file system that was already attached or opened under this name needs no connection.
    is_attached = "fs" in vars(attach(scheme, conn_id=conn_id))
    if scheme in ("file", "local") and conn_id is None and not is_attached:
        # The same file system as below, but Airflow would load the libraries of all providers' stores to find it, which
        # can take half a second.
        return LocalStore(LocalFileSystem()), LocalFileSystem._strip_protocol(address.url)
    if not is_attached:
        _check_provider(argument, scheme)
        if conn_id:
            _check_connection(argument, address, conn_id)
    place = Place(argument, address.uri, conn_id)
    try:
        opened = ObjectStoragePath(address.url, **({"conn_id": conn_id} if conn_id else {}))
        return choose_store(opened.fs), str(opened.path)
    except ImportError as error:
        raise ValueError(_missing_provider(argument, scheme, f" ({type(error).__name__})")) from error
    except Exception as error:
        failure = StoreFailure.of(error)
        if failure.kind or not isinstance(error, (ValueError, TypeError, KeyError, AirflowException)):
            raise place.explain(error, "reached") from None
        # Leave out the message of the error: it comes from a library and may show part of the connection.
        what = "it is incomplete or has a wrong value"
        if not conn_id:
            what = f"they are missing or incomplete; name a connection in {connection_argument(argument)}"
        raise ValueError(f"{argument}: {address.uri} cannot be reached {place.way} ({failure}): {what}") from None


def choose_store(fs: Any) -> Store:
    """Return the store of a file system; nothing else depends on the kind of store.

    :param fs: fsspec file system
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    if "file" in protocols:
        return LocalStore(fs)
    for base in type(fs).__mro__:
        library = base.__module__.partition(".")[0]
        if library in _STORES_BY_LIBRARY:
            return _STORES_BY_LIBRARY[library](fs)
    return Store(fs) if protocols & _PROTOCOLS_WITH_WHOLE_UPLOADS else MovingStore(fs)


def _check_conn_id(argument: str, conn_id: object) -> str:
    if not isinstance(conn_id, str) or any(unicodedata.category(character) in _UNPRINTABLE for character in conn_id):
        name = connection_argument(argument)
        what = shown_address(conn_id)
        raise ValueError(f"{name}: {what} is not the id of an Airflow connection; for example 'aws_default'")
    return conn_id


def _check_key(argument: str, store: Store, key: str, address: Address) -> None:
    """Check that the library of a store finds the key in an address, and nothing else, such as a version.

    :raises ValueError: if the object would have another key than its address says
    """
    if not hasattr(store.fs, "split_path"):
        return
    bucket, path, *version = store.fs.split_path(key)
    # The clients of some stores resolve `.` and `..` as web browsers do.
    is_relative = any(segment in (".", "..") for segment in path.split("/"))
    if any(version) or is_relative or f"{bucket}/{path}" != address.url.partition("://")[2]:
        raise ValueError(
            f"{argument}: {shown_address(address.uri)} is not the plain address of an object; leave out a version and "
            "the segments '.' and '..'"
        )


def _check_provider(argument: str, scheme: str) -> None:
    from airflow.sdk.io import has_fs

    # Airflow may know the scheme, but its paths do not accept it.
    if scheme in _OTHER_NAMES or not has_fs(scheme):
        raise ValueError(_missing_provider(argument, scheme, ""))


def _missing_provider(argument: str, scheme: str, reason: str) -> str:
    if scheme in _OTHER_NAMES:
        return f"{argument}: Airflow has no storage for {scheme}://; write the address as {_OTHER_NAMES[scheme]}://"
    if scheme not in _PROVIDERS:
        return f"{argument}: no storage is installed for {scheme}://{reason}; {_KNOWN_STORES}"
    return f"{argument}: no storage is installed for {scheme}://{reason}; install {_PROVIDERS[scheme]}"


def _check_connection(argument: str, address: Address, conn_id: str) -> None:
    """Check that the connection exists.

    If it does not, Airflow uses the machine's own credentials for S3, which may lead to another owner's bucket.

    :raises ValueError: if it does not exist
    """
    from airflow.sdk import BaseHook

    try:
        BaseHook.get_connection(conn_id)
    except AirflowException:
        raise ValueError(
            f"{argument}: there is no Airflow connection {shown_address(conn_id)} to reach {address.uri} with; "
            f"create it, or correct its id in the address or in {connection_argument(argument)}"
        ) from None
