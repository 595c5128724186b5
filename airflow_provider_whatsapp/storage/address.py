"""Addresses in object storage: checks them, takes them apart, and opens the store that they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

_PROVIDERS = {
    "s3": "apache-airflow-providers-amazon[s3fs]",
    "s3a": "apache-airflow-providers-amazon[s3fs]",
    "gs": "apache-airflow-providers-google",
    "gcs": "apache-airflow-providers-google",
    "abfs": "apache-airflow-providers-microsoft-azure",
    "abfss": "apache-airflow-providers-microsoft-azure",
    "adl": "apache-airflow-providers-microsoft-azure",
    "sftp": "apache-airflow-providers-sftp[sshfs]",
}
_AZURE_SCHEMES = ("abfs", "abfss", "adl")


def check_address(argument: str, path: object) -> str:
    """The address, without blanks around it.

    :param argument: name of the argument that it was given in, for the error
    :param path: any ``ObjectStoragePath`` URL, or an absolute path on this machine
    :raises ValueError: if it is no address of an object, or has a password in it
    """
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"{argument}: {path!r} is not a path; a right one looks like 's3://bucket/wabas.ndjson'")
    path = path.strip()
    scheme, host = urlsplit(path).scheme, urlsplit(path).netloc
    if ("://" not in path and not path.startswith("/")) or (scheme in ("file", "local") and host):
        raise ValueError(
            f"{argument}: {path!r} is neither a URL nor an absolute path; right ones look like "
            "'s3://bucket/wabas.ndjson' and 'file:///data/wabas.ndjson'"
        )
    if ":" in host.rpartition("@")[0]:
        # Do not show the path: it holds the password.
        raise ValueError(
            f"{argument}: the URL has a password in it; put the password into a connection and name the connection "
            "in output_conn_id"
        )
    return path


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an address that a user gave.

    :param uri: the store's own address
    :param conn_id: id of the connection in the address, or None
    :param url: the address as ``ObjectStoragePath`` takes it
    :param account: storage account in the address, which only some addresses of Azure have
    """

    uri: str
    conn_id: str | None
    url: str
    account: str | None = None


def split_address(path: str) -> Address:
    """The parts of an address.

    :param path: address as :func:`check_address` gives it
    """
    scheme, separator, rest = path.partition("://")
    if not separator:
        return Address(path, None, path)
    scheme, authority = scheme.lower(), urlsplit(path).netloc
    conn_id, _, host = authority.rpartition("@")
    bucket, account, key = host, None, rest[len(authority) :]
    if scheme in _AZURE_SCHEMES and conn_id and "." in host:
        # In abfss://container@account.dfs.core.windows.net/key, Airflow would take the container for a connection. The
        # host tells the two forms apart, because the name of a container has no dot.
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


def open_store(argument: str, address: Address, conn_id: str | None) -> ObjectStoragePath:
    """The path of the object within its store.

    :param argument: name of the argument that the address was given in, for the error
    :param address: where the object is
    :param conn_id: Airflow connection of the store, or None for the store's own default
    :raises ValueError: if no installed provider knows the store, or the connection leads to another account
    """
    # Imported here, because it loads fsspec and the providers, which parsing a DAG file must not wait for.
    from airflow.sdk import ObjectStoragePath

    scheme = urlsplit(address.url).scheme
    try:
        opened = ObjectStoragePath(address.url, **({"conn_id": conn_id} if conn_id else {}))
        account = getattr(opened.fs, "account_name", None)
    except (ImportError, ValueError, KeyError) as error:
        hint = f", {_PROVIDERS[scheme]}" if scheme in _PROVIDERS else ""
        raise ValueError(
            f"{argument}: no storage is installed for {scheme}:// ({error}); install the provider that brings it{hint}"
        ) from error
    if address.account and account and account.lower() != address.account.lower():
        # The connection decides where the object goes, so it would appear in another account than the address names.
        raise ValueError(
            f"{argument}: {address.uri!r} is in the account {address.account!r}, but the connection {conn_id!r} "
            f"leads to {account!r}; name the connection of that account in output_conn_id"
        )
    return opened
