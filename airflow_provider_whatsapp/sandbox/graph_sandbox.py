"""The sandbox as its users see it: a server in front of the simulated API, with faults and a quota in between."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .server.fault_effects import Exchange
from .server.fault_queue import FaultQueue
from .server.faults import Fault
from .server.http_exchange import Answer, IncomingRequest
from .server.http_server import HttpServer
from .server.quota import REAL_HOUR, CallUse, Quotas, throttle_error
from .server.received_requests import ReceivedRequest, record_request
from .server.response_writer import ResponseWriter
from .webhook_delivery import MOST_CHANGES, WebhookDelivery, check_address, deliver
from .world.accounts import CLIENT_EDGE, OWNED_EDGE, Node
from .world.api_error import ApiError
from .world.selected_rows import RowSlice
from .world.simulated_api import ReadContext, SimulatedApi


class GraphSandbox:
    """A local Graph API on a free port of this machine.

    .. code-block:: python

        with GraphSandbox(accounts=2500) as sandbox:
            os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = sandbox.connection
            sandbox.fail_next(Fault.throttle(minutes=1), Fault.reset().after(3).times(2))

    ``accounts``, ``owned_accounts``, ``businesses``, ``token_info`` and ``latency`` can be changed at any time. The
    next request sees the change.

    With ``calls_per_hour``, more calls than that within a rolling hour are refused as Meta refuses them: with code
    80008, and with the minutes until a call is let through, rounded up, in the usage headers. Refused calls count too.
    The hour can be shortened for tests; the waits that :func:`no_waits` skips move it on.

    With ``calls_per_hour_and_account``, each account has such a quota of its own, as at Meta. Calls whose path names
    the account count, and their answers report it in ``x-business-use-case-usage`` under the id of the account. Both
    quotas can be used together.

    :param accounts: number of WhatsApp Business Accounts that clients share with each business
    :param owned_accounts: number of accounts that each business owns
    :param businesses: number of businesses that the token can see
    :param seed: another seed makes other businesses and accounts, and another token
    :param token: access token to accept; None for a made-up one
    :param app_secret: when given, every request must have an ``appsecret_proof`` made with it
    :param latency: seconds that each answer takes
    :param host: address to listen on
    :param port: port to listen on; 0 for a free one
    :param api_version: version of calls without one, as in ``v26.0``; also the newest version if later than v26.0
    :param calls_per_hour: number of calls that are let through within an hour; None for no quota
    :param calls_per_hour_and_account: number of calls for each account that are let through within an hour; None for
        no quota
    :param hour: real time that the hour of the quotas takes
    :raises ValueError: if an argument is invalid
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
        calls_per_hour: int | None = None,
        calls_per_hour_and_account: int | None = None,
        hour: timedelta = REAL_HOUR,
    ) -> None:
        if businesses < 1:
            raise ValueError("businesses must be at least 1")
        if not re.fullmatch(r"v\d{1,2}\.0", api_version):
            raise ValueError(f"api_version must look like v26.0, not {api_version!r}")
        self.latency = latency
        self.requests: list[ReceivedRequest] = []
        self._quotas = Quotas(calls_per_hour, calls_per_hour_and_account, hour)
        self._api = SimulatedApi(
            accounts=accounts, owned_accounts=owned_accounts, businesses=businesses, seed=seed,
            token=token, app_secret=app_secret, api_version=api_version,
        )  # fmt: skip
        self.business_id: str = self._api.businesses[0]["id"]
        self._address = (host, port)
        self._url: str | None = None
        self._server: HttpServer | None = None
        self._accepted = 0
        self._lock = threading.RLock()
        self._faults = FaultQueue()
        self._calls = 0

    # Running

    def start(self) -> GraphSandbox:
        """Start to serve, and return the sandbox.

        :raises RuntimeError: if it is already started
        :raises OSError: if the port is taken
        """
        if self._server is not None:
            raise RuntimeError("the sandbox is already started")
        self._server = HttpServer(self._address, self._respond, self._accepted)
        self._url = "http://{}:{}".format(*self._server.server_address[:2])
        return self

    def stop(self) -> None:
        """Close every connection, idle or not, and free the port. It is safe to call this more than once."""
        if self._server is not None:
            self._server.stop()
            self._accepted = self._server.accepted
            self._server = None

    def __enter__(self) -> GraphSandbox:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # What users read and change

    @property
    def url(self) -> str:
        """The base URL, as in ``http://127.0.0.1:8099``.

        :raises RuntimeError: if the sandbox was not started yet
        """
        if self._url is None:
            raise RuntimeError("the sandbox is not started")
        return self._url

    @property
    def token(self) -> str:
        """The access token that is accepted."""
        return self._api.token

    @property
    def app_secret(self) -> str | None:
        """The app secret that proofs must be made with, or None when no proof is required."""
        return self._api.app_secret

    @property
    def connection(self) -> str:
        """The Airflow connection to this sandbox, as JSON for ``AIRFLOW_CONN_WHATSAPP_DEFAULT``."""
        extra = {"business_id": self.business_id, "api_version": self._api.api_version}
        if self.app_secret is not None:
            extra["app_secret"] = self.app_secret
        return json.dumps({"conn_type": "whatsapp", "host": self.url, "password": self.token, "extra": extra})

    @property
    def businesses(self) -> list[Node]:
        """The businesses that the token can see. The first one is that of ``business_id``."""
        return self._api.businesses

    @property
    def accounts(self) -> list[Node]:
        """The accounts that clients share with the first business."""
        return self.client_accounts_of(self.business_id)

    @accounts.setter
    def accounts(self, accounts: list[Node]) -> None:
        self._api.lists[self.business_id, CLIENT_EDGE] = accounts

    @property
    def owned_accounts(self) -> list[Node]:
        """The accounts that the first business owns."""
        return self.owned_accounts_of(self.business_id)

    @owned_accounts.setter
    def owned_accounts(self, accounts: list[Node]) -> None:
        self._api.lists[self.business_id, OWNED_EDGE] = accounts

    def client_accounts_of(self, business_id: str) -> list[Node]:
        """The accounts that clients share with a business, to read or to change."""
        return self._api.lists.setdefault((business_id, CLIENT_EDGE), [])

    def owned_accounts_of(self, business_id: str) -> list[Node]:
        """The accounts that a business owns, to read or to change."""
        return self._api.lists.setdefault((business_id, OWNED_EDGE), [])

    @property
    def token_info(self) -> dict[str, Any]:
        """What ``debug_token`` answers differently than usual, as in ``{"expires_at": 1790000000}``."""
        return self._api.token_info

    @token_info.setter
    def token_info(self, info: dict[str, Any]) -> None:
        self._api.token_info = info

    @property
    def connections(self) -> int:
        """Number of TCP connections that were accepted so far."""
        return self._accepted if self._server is None else self._server.accepted

    def fail_next(self, *faults: Fault) -> None:
        """Queue faults. One fault acts at a time on a node; the next one waits until it is done.

        A request that the quota refuses is not one that a fault acts on or lets pass.
        """
        with self._lock:
            self._faults.add(*faults)

    def reset(self) -> None:
        """Forget the queued faults, the received requests and the used quota. The accounts stay as they are."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()
            self._calls = 0
            self._quotas.forget_calls()

    def share_account(self, url: str, *, count: int = 1, forged: bool = False) -> WebhookDelivery:
        """Share new accounts with the first business, and report it to a receiver of webhooks as Meta would.

        The accounts are in :attr:`accounts` before the one ``account_update`` with an event ``PARTNER_ADDED`` for each
        is sent, signed with the app secret. The call returns when the receiver has answered. To send the same delivery
        again, call :meth:`WebhookDelivery.repeat`.

        :param url: address of the receiver on this machine, as in ``http://127.0.0.1:8000/whatsapp``
        :param count: number of accounts, up to 1,000
        :param forged: whether somebody else sends it: the signature is wrong, and the accounts are not shared
        :raises ValueError: if the sandbox has no ``app_secret``, the address is not on this machine, or ``count`` is
            not from 1 to 1,000
        :raises OSError: if there is no answer
        """
        if self.app_secret is None:
            raise ValueError("share_account signs with the app secret: give the sandbox an app_secret")
        if not 1 <= count <= MOST_CHANGES:
            raise ValueError(f"count must be from 1 to {MOST_CHANGES}, not {count}")
        check_address(url)
        with self._lock:
            accounts = self._api.make_client_accounts(count)
            if not forged:
                self.accounts.extend(accounts)
        secret = f"not {self.app_secret}" if forged else self.app_secret
        return deliver(url, accounts, business_id=self.business_id, secret=secret)

    # Answering

    def _respond(self, request: IncomingRequest) -> tuple[Answer, Callable[[ResponseWriter], None]]:
        """The answer to a request, and the function that writes it."""
        if self._server is not None:
            self._server.wait(self.latency)
        with self._lock:
            self._calls += 1
            use = self._quotas.count_call(self._calls, self._account_id(request))
            fault, memory = (None, {}) if use.refused else self._faults.take(request)
            exchange = Exchange(self._api, request, request.segments, memory)
            self._answer(exchange, fault, use)
            status = None if fault is not None and fault.breaks_connection else exchange.answer.status
            secrets = {self.token, self.app_secret or self.token}
            self.requests.append(record_request(request, status, secrets))

        def write(writer: ResponseWriter) -> None:
            if fault is not None and fault.moment == "sending":
                fault.effect(writer, **fault.options)
            else:
                writer.send(*writer.body())

        return exchange.answer, write

    def _account_id(self, request: IncomingRequest) -> str | None:
        """The id of the account whose quota counts this request, or None."""
        if not self._quotas.counts_accounts:
            return None
        try:
            _, path = self._api.version_of(request.segments)
        except ApiError:
            return None
        account = self._api.account_of(path)
        return None if account is None else str(account["id"])

    def _answer(self, exchange: Exchange, fault: Fault | None, use: CallUse) -> None:
        """Fill in the answer and the page of an exchange."""
        request, version = exchange.request, self._api.api_version

        def act(moment: str) -> None:
            if fault is not None and fault.moment == moment:
                fault.effect(exchange, **fault.options)

        try:
            if use.refused:
                raise throttle_error(80008)
            version, exchange.path = self._api.version_of(request.segments)
            act("before")
            url_token = None if request.header_token else request.params.get("access_token")
            context = ReadContext(version, self.url, url_token)
            found = self._api.read(request.method, exchange.path, request.params, request.token, context)
            exchange.page = found if isinstance(found, RowSlice) else None
            exchange.answer.payload = found.payload() if isinstance(found, RowSlice) else found
        except ApiError as refusal:
            exchange.page = None
            exchange.answer = Answer.of_error(refusal.status, refusal.error)
        act("answer")
        if exchange.page is not None:
            act("page")
        answer = exchange.answer
        answer.headers = {**self._headers(version, use), **answer.headers}
        error = answer.payload.get("error") if isinstance(answer.payload, dict) else None
        if isinstance(error, dict) and "type" in error:
            error["fbtrace_id"] = self._trace_id("fb")

    def _headers(self, version: str, use: CallUse) -> dict[str, str]:
        return {
            "facebook-api-version": version,
            "x-fb-trace-id": self._trace_id("trace"),
            "x-fb-request-id": self._trace_id("request"),
            **use.headers(self.businesses),
        }

    def _trace_id(self, kind: str) -> str:
        return "A" + hashlib.sha256(f"{kind}/{self._api.seed}/{self._calls}".encode()).hexdigest()[:22]
