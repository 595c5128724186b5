"""The sandbox as a server: sockets below, the Graph above, and a queue of faults in between."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.client import responses
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

from . import acts
from .accounts import Node
from .acts import Body, Scene
from .faults import Fault
from .graph import Graph, Reading
from .listing import Page
from .messages import CLIENT_EDGE, OWNED_EDGE, Answer, ApiError, Request

_SECRET_PARAMS = frozenset({"access_token", "appsecret_proof", "input_token"})
_TOKEN = re.compile(r"EAA[A-Za-z0-9]{20,}")
_QUIET_REQUESTS = 5
_BUSIEST = 75
_NO_FAULT = Fault("none", nature="harmless")


@dataclass(frozen=True)
class ReceivedRequest:
    """A request the sandbox got, its secrets replaced by ``***``.

    :param connection: Number of the TCP connection it came on, from 0.
    :param status: The HTTP status it was answered with; None where the connection was broken instead.
    """

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    connection: int
    status: int | None


@dataclass
class _Queued:
    """A fault in the queue, and how much of it is left."""

    fault: Fault
    to_pass: int
    to_act: int
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Reply:
    """An answer that is ready to be sent."""

    answer: Answer
    fault: Fault
    request: Request


class GraphSandbox:
    """A Graph API of your own, on a free port of this machine.

    .. code-block:: python

        with GraphSandbox(accounts=2500) as graph:
            os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = graph.connection
            graph.fail_next(Fault.throttle(minutes=1), Fault.reset(times=2, after=3))

    ``accounts``, ``owned_accounts``, ``businesses`` and ``token_info`` may be changed at any time; the next
    request sees the change.

    :param accounts: How many WhatsApp Business Accounts are shared with each business.
    :param owned_accounts: How many each business owns.
    :param businesses: How many businesses the token can see.
    :param seed: Another seed makes other businesses and accounts, and another token.
    :param token: The access token to accept, instead of a made one.
    :param app_secret: When given, every request needs a right ``appsecret_proof``.
    :param latency: Seconds each answer takes.
    :param port: 0 takes a free one.
    :param api_version: What unversioned calls run on, and the newest version there is if later than v26.0.
    """

    def __init__(
        self,
        *,
        accounts: int = 25,
        owned_accounts: int = 3,
        businesses: int = 1,
        seed: int = 0,
        token: str | None = None,
        app_secret: str | None = None,
        latency: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        api_version: str = "v26.0",
    ) -> None:
        if businesses < 1:
            raise ValueError("businesses must be at least 1")
        if not re.fullmatch(r"v\d{1,2}\.0", api_version):
            raise ValueError(f"api_version must look like v26.0, not {api_version!r}")
        self.latency = latency
        self.requests: list[ReceivedRequest] = []
        self._graph = Graph(
            accounts=accounts, owned_accounts=owned_accounts, businesses=businesses, seed=seed,
            token=token, app_secret=app_secret, api_version=api_version,
        )  # fmt: skip
        self.business_id: str = self._graph.businesses[0]["id"]
        self._address = (host, port)
        self._url: str | None = None
        self._accepted = 0
        self._server: _Server | None = None
        self._serving: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        self._queue: deque[_Queued] = deque()
        self._traffic = 0

    # Running

    def start(self) -> GraphSandbox:
        """Begin to serve.

        :raises RuntimeError: It serves already.
        :raises OSError: The port is taken.
        """
        if self._server is not None:
            raise RuntimeError("the sandbox is already started")
        self._stopping.clear()
        self._server = _Server(self._address, self)
        self._url = "http://{}:{}".format(*self._server.server_address[:2])
        self._serving = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="graph-sandbox", daemon=True
        )
        self._serving.start()
        return self

    def stop(self) -> None:
        """Close every connection, idle or not, and give the port back."""
        if self._server is None or self._serving is None:
            return
        self._stopping.set()
        self._server.shutdown()
        self._serving.join()
        self._server.hang_up()
        self._server = self._serving = None

    def __enter__(self) -> GraphSandbox:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    # What a user sees

    @property
    def url(self) -> str:
        """The base URL, as in ``http://127.0.0.1:8099``.

        :raises RuntimeError: The sandbox was not started yet.
        """
        if self._url is None:
            raise RuntimeError("the sandbox is not started")
        return self._url

    @property
    def token(self) -> str:
        """The access token that is accepted."""
        return self._graph.token

    @property
    def app_secret(self) -> str | None:
        """The app secret, if proofs are asked for."""
        return self._graph.app_secret

    @property
    def connection(self) -> str:
        """The Airflow connection to this sandbox, as JSON for ``AIRFLOW_CONN_WHATSAPP_DEFAULT``."""
        extra = {"business_id": self.business_id, "api_version": self._graph.api_version}
        if self.app_secret is not None:
            extra["app_secret"] = self.app_secret
        return json.dumps({"conn_type": "whatsapp", "host": self.url, "password": self.token, "extra": extra})

    @property
    def businesses(self) -> list[Node]:
        """The businesses the token can see; the first is ``business_id``."""
        return self._graph.businesses

    @property
    def accounts(self) -> list[Node]:
        """The accounts shared with the first business."""
        return self.client_accounts_of(self.business_id)

    @accounts.setter
    def accounts(self, accounts: list[Node]) -> None:
        self._graph.lists[self.business_id, CLIENT_EDGE] = accounts

    @property
    def owned_accounts(self) -> list[Node]:
        """The accounts the first business owns."""
        return self.owned_accounts_of(self.business_id)

    @owned_accounts.setter
    def owned_accounts(self, accounts: list[Node]) -> None:
        self._graph.lists[self.business_id, OWNED_EDGE] = accounts

    def client_accounts_of(self, business_id: str) -> list[Node]:
        """Give the accounts shared with a business, to read or to change."""
        return self._graph.lists.setdefault((business_id, CLIENT_EDGE), [])

    def owned_accounts_of(self, business_id: str) -> list[Node]:
        """Give the accounts a business owns, to read or to change."""
        return self._graph.lists.setdefault((business_id, OWNED_EDGE), [])

    @property
    def token_info(self) -> dict[str, Any]:
        """What ``debug_token`` says otherwise than usual, as in ``{"expires_at": 1790000000}``."""
        return self._graph.token_info

    @token_info.setter
    def token_info(self, info: dict[str, Any]) -> None:
        self._graph.token_info = info

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        return self._accepted

    def fail_next(self, *faults: Fault) -> None:
        """Queue faults; one acts at a time, and the next waits until it is done."""
        with self._lock:
            self._queue.extend(_Queued(fault, fault.after, fault.times) for fault in faults)

    def reset(self) -> None:
        """Forget queued faults, received requests and the traffic so far; the accounts stay as they are."""
        with self._lock:
            self._queue.clear()
            self.requests.clear()
            self._traffic = 0

    # The way of a request

    def _reply_to(self, request: Request) -> _Reply:
        self._wait(self.latency)
        with self._lock:
            self._traffic += 1
            fault, memory = self._take_fault(request)
            scene = Scene(self._graph, request, request.segments, fault.options, memory, Answer(200))
            self._answer(scene, fault.kind)
            status = None if fault.breaks_connection else scene.answer.status
            self.requests.append(self._received(request, status))
            return _Reply(scene.answer, fault, request)

    def _take_fault(self, request: Request) -> tuple[Fault, dict[str, Any]]:
        if self._queue:
            queued = self._queue[0]
            if queued.to_pass > 0:
                queued.to_pass -= 1
            elif queued.fault.fits(request):
                queued.to_act -= 1
                if queued.to_act <= 0:
                    self._queue.popleft()
                return queued.fault, queued.memory
        return _NO_FAULT, {}

    def _answer(self, scene: Scene, fault: str) -> None:
        version = self._graph.api_version
        try:
            version, scene.segments = self._graph.version(scene.request)
            if fault in acts.PREPARE:
                acts.PREPARE[fault](scene)
            url_token = None if scene.request.header_token else scene.request.params.get("access_token")
            found = self._graph.read(scene.request, scene.segments, Reading(version, self.url, url_token))
            scene.page = found if isinstance(found, Page) else None
            scene.answer.payload = found.payload() if isinstance(found, Page) else found
        except ApiError as refusal:
            scene.page = None
            scene.answer = Answer.of_error(refusal.status, {**refusal.error, "fbtrace_id": self._trace("fb")})
        scene.answer.headers.update(self._headers(version))
        if fault in acts.BEND_ANY:
            before = scene.answer
            acts.BEND_ANY[fault](scene)
            if scene.answer is not before:
                self._complete(scene.answer, version)
        elif fault in acts.BEND_PAGE and scene.page is not None:
            acts.BEND_PAGE[fault](scene)

    def _complete(self, answer: Answer, version: str) -> None:
        """Give an answer made by a fault what every answer has."""
        answer.headers = {**self._headers(version), **answer.headers}
        error = answer.payload.get("error") if isinstance(answer.payload, dict) else None
        if error and "type" in error:
            error["fbtrace_id"] = self._trace("fb")

    def _headers(self, version: str) -> dict[str, str]:
        headers = {
            "facebook-api-version": version,
            "x-fb-trace-id": self._trace("trace"),
            "x-fb-request-id": self._trace("request"),
        }
        if self._traffic > _QUIET_REQUESTS:
            percent = min(1 + self._traffic // 50, _BUSIEST)
            headers.update(acts.usage_headers(self.businesses, percent))
        return headers

    def _trace(self, kind: str) -> str:
        return "A" + hashlib.sha256(f"{kind}/{self._graph.seed}/{self._traffic}".encode()).hexdigest()[:22]

    def _received(self, request: Request, status: int | None) -> ReceivedRequest:
        secrets = {self.token, self.app_secret or self.token}
        if request.token and len(request.token) >= 16:
            secrets.add(request.token)

        def mask(text: str) -> str:
            for secret in secrets:
                text = text.replace(secret, "***")
            return _TOKEN.sub("***", text)

        headers = {name: mask(value) for name, value in request.headers.items()}
        if "authorization" in headers:
            headers["authorization"] = headers["authorization"].partition(" ")[0] + " ***"
        params = {name: "***" if name in _SECRET_PARAMS else mask(value) for name, value in request.params.items()}
        return ReceivedRequest(request.method, mask(request.path), params, headers, request.connection, status)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._stopping.wait(seconds)


class _Connection(BaseHTTPRequestHandler):
    """One TCP connection and the requests that come on it, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        request = Request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self.server.number_of(self.request),
        )
        self._skip_body(request)
        reply = self.server.sandbox._reply_to(request)
        head, body = self._encode(reply)
        acts.DELIVER.get(reply.fault.kind, acts.deliver)(self, head, body, reply.fault.options)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _skip_body(self, request: Request) -> None:
        """Read what a POST brought, so that the next request begins where it should."""
        length = request.headers.get("content-length", "0")
        if "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > acts.MIB:
            self.close_connection = True
        else:
            self.rfile.read(int(length))

    def _encode(self, reply: _Reply) -> tuple[bytes, Body]:
        answer = reply.answer
        text = answer.text
        if text is None:
            # The Graph API escapes slashes, as PHP does.
            text = json.dumps(answer.payload, separators=(",", ":")).replace("/", "\\/")
        content = text.encode()
        if reply.fault.kind in acts.RECODE:
            body = acts.RECODE[reply.fault.kind](content, reply.fault.options)
        elif len(content) > 1024 and _takes_gzip(reply.request.headers.get("accept-encoding", "")):
            body = Body.of(gzip.compress(content, 5, mtime=0), "gzip")
        else:
            body = Body.of(content)
        headers = {
            "Content-Type": answer.content_type,
            "Date": self.date_time_string(),
            **answer.headers,
            **({"Content-Encoding": body.encoding} if body.encoding else {}),
            **({"Connection": "close"} if self.close_connection else {}),
            "Content-Length": str(body.length),
        }
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"), body

    def send(self, *pieces: bytes) -> None:
        """Send bytes, together."""
        self.connection.sendall(b"".join(pieces))

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the sandbox stops."""
        self.server.sandbox._wait(seconds)

    def close(self, *, reset: bool = False) -> None:
        """End the connection, orderly or with a reset."""
        self.close_connection = True
        if reset:
            # Lingering for no time at all throws unsent bytes away and sends RST in place of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet; what came in is in ``requests``."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread for each connection, all of which can be ended at once."""

    allow_reuse_address = True
    request_queue_size = 2048

    def __init__(self, address: tuple[str, int], sandbox: GraphSandbox) -> None:
        self.sandbox = sandbox
        self._open: dict[socket.socket, tuple[int, threading.Thread]] = {}
        self._guard = threading.Lock()
        super().__init__(address, _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"graph-sandbox-{self.sandbox._accepted}",
            daemon=True,
        )
        with self._guard:
            self._open[request] = (self.sandbox._accepted, thread)
            self.sandbox._accepted += 1
        thread.start()

    def number_of(self, request: Any) -> int:
        return self._open[request][0]

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._guard:
            self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away is its own affair; anything else is a mistake of ours and should be seen.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """Close the port and every connection, and wait for their threads."""
        self.server_close()
        with self._guard:
            open_now = list(self._open.items())
        for connection, _ in open_now:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        deadline = time.monotonic() + 5
        for _, (_, thread) in open_now:
            thread.join(max(0.0, deadline - time.monotonic()))


def _takes_gzip(accepted: str) -> bool:
    for offer in accepted.lower().split(","):
        coding, _, quality = offer.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
