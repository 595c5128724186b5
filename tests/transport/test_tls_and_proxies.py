"""TLS and proxies through both clients, with a certificate authority and a proxy that the tests start."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme

from airflow_provider_whatsapp.graph import GraphTransportError
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.query import NodeQuery
from airflow_provider_whatsapp.sandbox import no_waits
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
from airflow_provider_whatsapp.transport.sync import GraphClient

TOKEN = "EAAJtoken0123456789abcdefghij"


class Node(http.server.BaseHTTPRequestHandler):
    """Answers every request with the same node."""

    protocol_version = "HTTP/1.1"
    tokens: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.tokens.append(self.headers["Authorization"])
        body = json.dumps({"id": "1"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


class Tunnel(http.server.BaseHTTPRequestHandler):
    """A proxy for TLS connections that records what it was sent."""

    seen: ClassVar[list[str]] = []

    def do_CONNECT(self) -> None:
        self.seen.append(f"{self.path} {self.headers['Proxy-Authorization']} {self.headers['Authorization']}")
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: target, target: self.connection}
            while True:
                for end in select.select(list(ends), [], [], 5)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def secure_port(authority: trustme.CA) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    Node.tokens.clear()
    Tunnel.seen.clear()
    with serving(Node, context) as port:
        yield port


def read_sync(config: GraphConfig) -> dict[str, Any]:
    with no_waits(), GraphClient(config) as client:
        return client.node(NodeQuery("1"))


def read_async(config: GraphConfig) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with AsyncGraphClient(config) as client:
            return await client.node(NodeQuery("1"))

    with no_waits():
        return asyncio.run(run())


Read = Callable[[GraphConfig], dict[str, Any]]


@pytest.fixture(params=[read_sync, read_async], ids=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Read:
    chosen: Read = request.param
    return chosen


def config(port: int, **more: Any) -> GraphConfig:
    return GraphConfig(
        credentials=Credentials(TOKEN), base_url=f"https://127.0.0.1:{port}", version="v26.0", timeout=60, **more
    )


def test_a_ca_of_ones_own(read: Read, secure_port: int, ca_bundle: str) -> None:
    assert read(config(secure_port, ca_bundle=ca_bundle)) == {"id": "1"}
    assert Node.tokens == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_ca_from_the_environment(
    read: Read, secure_port: int, ca_bundle: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, ca_bundle)
    assert read(config(secure_port)) == {"id": "1"}


def test_the_ca_of_the_connection_beats_that_of_the_environment(
    read: Read, secure_port: int, ca_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    assert read(config(secure_port, ca_bundle=ca_bundle)) == {"id": "1"}


@pytest.mark.parametrize("name", ["ca_bundle", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"the file cannot be read \(No such file or directory\)"),
        ("no PEM", "the file holds no CA certificate in PEM format"),
        ("", "the file holds no CA certificate in PEM format"),
    ],
)
def test_cas_that_cannot_be_read_are_named_before_any_connection(
    read: Read, name: str, content: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("ca.pem").write_text(content)
    if name != "ca_bundle":
        monkeypatch.setenv(name, "ca.pem")
    with pytest.raises(ValueError, match=f"^{name}: {reason}; set it to the path of a PEM file") as caught:
        read(config(9, ca_bundle="ca.pem" if name == "ca_bundle" else None))
    assert caught.value.__cause__ is None


def test_a_folder_of_cas(read: Read, secure_port: int, authority: trustme.CA, tmp_path: Path) -> None:
    folder = tmp_path / "cas"
    folder.mkdir()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    # In a folder of CAs, OpenSSL looks for a file that is named after the hash of the CA's subject.
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(folder / "ca.pem")],  # noqa: S607  # a tool every CA's user has
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    os.symlink(folder / "ca.pem", folder / f"{hashed}.0")
    assert read(config(secure_port, ca_bundle=str(folder))) == {"id": "1"}


def test_a_certificate_nobody_vouches_for(read: Read, secure_port: int) -> None:
    with pytest.raises(GraphTransportError, match="not signed by a trusted CA") as caught:
        read(config(secure_port))
    assert not caught.value.retryable
    assert caught.value.attempts == 1
    assert Node.tokens == []


def test_a_certificate_for_another_host(read: Read, authority: trustme.CA, ca_bundle: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("graph.facebook.com").configure_cert(context)
    Node.tokens.clear()
    with serving(Node, context) as port, pytest.raises(GraphTransportError, match="certificate"):
        read(config(port, ca_bundle=ca_bundle))
    assert Node.tokens == []


@pytest.mark.parametrize("by_environment", [False, True])
def test_a_proxy_sees_neither_token_nor_path(
    read: Read, secure_port: int, ca_bundle: str, by_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Tunnel) as port:
        proxy = f"http://user:5ecret@127.0.0.1:{port}"
        if by_environment:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert read(config(secure_port, ca_bundle=ca_bundle, proxy=None if by_environment else proxy)) == {"id": "1"}
    assert Tunnel.seen == [f"127.0.0.1:{secure_port} Basic dXNlcjo1ZWNyZXQ= None"]


def test_the_proxy_of_the_connection_beats_that_of_the_environment(
    read: Read, secure_port: int, ca_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Tunnel) as port:
        assert read(config(secure_port, ca_bundle=ca_bundle, proxy=f"http://127.0.0.1:{port}")) == {"id": "1"}
    assert len(Tunnel.seen) == 1


def test_a_proxy_that_is_not_there(read: Read, secure_port: int, ca_bundle: str) -> None:
    proxy = "http://user:5ecret@127.0.0.1:9"
    with pytest.raises(GraphTransportError, match=f"127.0.0.1:{secure_port} through the proxy 127.0.0.1:9: ") as caught:
        read(config(secure_port, ca_bundle=ca_bundle, proxy=proxy))
    assert "5ecret" not in str(caught.value)
    assert proxy not in repr(config(secure_port, proxy=proxy))
    assert Node.tokens == []


@pytest.mark.parametrize(
    ("status", "advice", "attempts"),
    [(407, "it needs a user and", 1), (403, "ask who runs it", 6), (502, "ask who", 6)],
)
def test_a_proxy_that_refuses_is_named_with_its_status(
    read: Read, secure_port: int, status: int, advice: str, attempts: int
) -> None:
    class Refusing(Tunnel):
        def do_CONNECT(self) -> None:
            self.seen.append(self.path)
            self.send_error(status)

    with serving(Refusing) as port, pytest.raises(GraphTransportError) as caught:
        read(config(secure_port, proxy=f"http://user:5ecret@127.0.0.1:{port}"))
    assert str(caught.value).startswith(
        f"no connection to 127.0.0.1:{secure_port} through the proxy 127.0.0.1:{port}, which answered HTTP {status}; {advice}"
    )
    assert caught.value.attempts == len(Tunnel.seen) == attempts
    assert caught.value.retryable is (status != 407)
    assert Node.tokens == []
