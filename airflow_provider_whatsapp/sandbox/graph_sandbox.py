"""The public sandbox: a server for the simulated API, with faults and a quota."""

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
from .webhook_delivery import MOST_CHANGES, WebhookDelivery, check_receiver, make_delivery
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

    ``accounts``, ``owned_accounts``, ``businesses``, ``token_info`` and ``latency`` can be changed at any time; the
    next request sees the change.

    With ``calls_per_hour``, more calls than that within a rolling hour are refused as by Meta: with code 80008, and
    with the minutes until a call is allowed, rounded up, in the usage headers. Refused calls also count. The hour can
    be shortened for tests; the waits that :func:`no_waits` skips advance it.

    With ``calls_per_hour_and_account``, each account has its own quota, as at Meta. Calls whose path names the account
    count, and their responses report the quota in ``x-business-use-case-usage`` under the id of the account. Both
    quotas can be used together.

    :param accounts: number of WhatsApp Business Accounts that clients share with each business
    :param owned_accounts: number of accounts that each business owns
    :param businesses: number of businesses that the token can see
    :param seed: a different seed gives different businesses and accounts, and a different token
    :param token: access token to accept; None to generate one
    :param app_secret: if given, every request must have an ``appsecret_proof`` made with it
    :param latency: seconds that each response takes
    :param host: address to listen on
    :param port: port to listen on; 0 for a free one
    :param api_version: version for calls that name none, e.g. ``v26.0``; also the newest version if later than v26.0
    :param calls_per_hour: number of calls allowed within an hour; None for no quota
    :param calls_per_hour_and_account: number of calls for each account allowed within an hour; None for no quota
    :param hour: real duration of the quotas' hour
    :param new_app: whether the app is newer than v27.0; Meta refuses the aliases of such an app, ``name.as(other)``
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
        new_app: bool = False,
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
            token=token, app_secret=app_secret, api_version=api_version, new_app=new_app,
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
        """Start the server, and return the sandbox.

        :raises RuntimeError: if it is already started
        :raises OSError: if the port is taken
        """
        if self._server is not None:
            raise RuntimeError("the sandbox is already started")
        self._server = HttpServer(self._address, self._respond, self._accepted)
        self._url = "http://{}:{}".format(*self._server.server_address[:2])
        return self

    def stop(self) -> None:
        """Close every connection, idle or not, and free the port; may be called more than once."""
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
        """The base URL, e.g. ``http://127.0.0.1:8099``.

        :raises RuntimeError: if the sandbox is not started
        """
        if self._url is None:
            raise RuntimeError("the sandbox is not started")
        return self._url

    @property
    def token(self) -> str:
        """The only access token that the sandbox accepts. Assign another one to test a rotation."""
        return self._api.token

    @token.setter
    def token(self, token: str) -> None:
        self._api.token = token

    @property
    def app_secret(self) -> str | None:
        """The app secret that proofs must be made with, or None for no proof; can be assigned, like :attr:`token`."""
        return self._api.app_secret

    @app_secret.setter
    def app_secret(self, secret: str | None) -> None:
        self._api.app_secret = secret

    @property
    def connection(self) -> str:
        """The Airflow connection to this sandbox, as JSON for ``AIRFLOW_CONN_WHATSAPP_DEFAULT``."""
        extra = {"business_id": self.business_id, "api_version": self._api.api_version}
        if self.app_secret is not None:
            extra["app_secret"] = self.app_secret
        return json.dumps({"conn_type": "whatsapp", "host": self.url, "password": self.token, "extra": extra})

    @property
    def businesses(self) -> list[Node]:
        """The businesses that the token can see; ``business_id`` is the id of the first one."""
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
        """Return the accounts that clients share with a business, to read or to change."""
        return self._api.lists.setdefault((business_id, CLIENT_EDGE), [])

    def owned_accounts_of(self, business_id: str) -> list[Node]:
        """Return the accounts that a business owns, to read or to change."""
        return self._api.lists.setdefault((business_id, OWNED_EDGE), [])

    @property
    def token_info(self) -> dict[str, Any]:
        """Values that replace values of ``debug_token``, e.g. ``{"expires_at": 1790000000}``."""
        return self._api.token_info

    @token_info.setter
    def token_info(self, info: dict[str, Any]) -> None:
        self._api.token_info = info

    @property
    def connections(self) -> int:
        """The number of TCP connections accepted so far."""
        return self._accepted if self._server is None else self._server.accepted

    def fail_next(self, *faults: Fault) -> None:
        """Queue faults. One fault at a time acts on a node; the next one waits until it is done.

        A request that the quota refuses does not count for any fault.
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
        """Share new accounts with the first business, and report them to a webhook receiver as Meta would.

        The accounts are added to :attr:`accounts` first. Then one ``account_update`` with a ``PARTNER_ADDED`` event for
        each account is sent, signed with the app secret. The call returns when the receiver has responded. To send the
        same delivery again, call :meth:`WebhookDelivery.repeat`.

        :param url: address of the receiver on this machine, e.g. ``http://127.0.0.1:8000/whatsapp``
        :param count: number of accounts, up to 1,000
        :param forged: whether to forge the delivery: the signature is wrong, and the accounts are not shared
        :raises ValueError: if the sandbox has no ``app_secret``, the address is not on this machine, or ``count`` is
            not from 1 to 1,000
        :raises OSError: if there is no response
        """
        if not 1 <= count <= MOST_CHANGES:
            raise ValueError(f"count must be from 1 to {MOST_CHANGES}, not {count}")
        check_receiver(url, self.app_secret)
        with self._lock:
            accounts = self._api.make_client_accounts(count)
            if not forged:
                self.accounts.extend(accounts)
        return self._deliver(url, "account_update/PARTNER_ADDED", accounts, forged)

    def deliver(self, url: str, topic: str, *, waba_id: str | None = None, forged: bool = False) -> WebhookDelivery:
        """Send Meta's example of a webhook delivery to a receiver. The accounts of the sandbox stay as they are.

        :param url: address of the receiver on this machine, e.g. ``http://127.0.0.1:8000/whatsapp``
        :param topic: what is reported, e.g. ``phone_number_quality_update`` or ``account_update/PARTNER_REMOVED``
        :param waba_id: id of the account; by default the first of :attr:`accounts`
        :param forged: whether the signature is wrong
        :raises ValueError: if the sandbox has no ``app_secret`` or no such account, the topic is not one of Meta's, or
            the address is not on this machine
        :raises OSError: if there is no response
        """
        check_receiver(url, self.app_secret)
        accounts = [account for account in self.accounts if waba_id in (None, account["id"])][:1]
        if not accounts:
            raise ValueError(f"waba_id: there is no account {waba_id} among the accounts")
        return self._deliver(url, topic, accounts, forged)

    def _deliver(self, url: str, topic: str, accounts: list[Node], forged: bool) -> WebhookDelivery:
        secret = f"not {self.app_secret}" if forged else str(self.app_secret)
        delivery = make_delivery(url, topic, accounts, business_id=self.business_id, secret=secret)
        delivery.repeat()
        return delivery

    # Answering

    def _respond(self, request: IncomingRequest) -> tuple[Answer, Callable[[ResponseWriter], None]]:
        """Return the response to a request, and the function that writes it."""
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
        """Return the id of the account whose quota counts this request, or None."""
        if not self._quotas.counts_accounts:
            return None
        try:
            _, path = self._api.version_of(request.segments)
        except ApiError:
            return None
        account = self._api.account_of(path)
        return None if account is None else str(account["id"])

    def _answer(self, exchange: Exchange, fault: Fault | None, use: CallUse) -> None:
        """Set the response and the page of an exchange."""
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
