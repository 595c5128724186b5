"""A Graph API that costs nearly nothing: it sends pages of accounts that were made beforehand.

The sandbox would take more CPU than what is measured. The id of the business says what is listed: the number of its
accounts, or one of :data:`FAULTS`.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

FIELDS = (
    "id,name,currency,timezone_id,message_template_namespace,account_review_status,business_verification_status,"
    "ownership_type,country,creation_time,status,owner_business_info"
)
PAGE = 100
TOKEN = "EAA" + "token" * 30
#: How many accounts a business with a fault has.
ACCOUNTS_BEHIND_FAULTS = 1000
#: What goes wrong on the fifth page of some businesses, by their ids.
FAULTS = {
    1: "an empty page with `next`",
    2: "an error with HTTP 200",
    3: "a `next` to another host",
    4: "a cursor that leads back",
}
_EMPTY, _ERROR, _FOREIGN, _LOOP = FAULTS
_FAULTY_PAGE = 4
_REQUEST = re.compile(rb"GET /v26\.0/(\d+)/client_whatsapp_business_accounts\?(\S*) ")
_AFTER = re.compile(rb"(?:^|&)after=([\d.]+)")

Answers = dict[tuple[int, str], bytes]


class Server:
    """Answers requests until the process ends, and counts them.

    :param sizes: numbers of accounts that are listed
    """

    def __init__(self, sizes: list[int]) -> None:
        self._requests = self._connections = self._foreign_tokens = 0
        #: Seconds that each answer takes.
        self._latency = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._foreigner = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answers = make_answers(sizes, self.address, f"http://127.0.0.1:{self._foreigner.getsockname()[1]}")

    def run(self, control: Connection) -> None:
        """Send the address, and then obey: a number is a latency, None asks for the counts and sets them to 0.

        :param control: the other end of it is with who measures
        """
        for listener in (self._listener, self._foreigner):
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        control.send(self.address)
        while True:
            try:
                order = control.recv()
            except EOFError:  # who measures has ended
                return
            if order is None:
                control.send((self._requests, self._connections, self._foreign_tokens))
                self._requests = self._connections = self._foreign_tokens = 0
            else:
                self._latency = order

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection, listener), daemon=True).start()

    def _converse(self, connection: socket.socket, listener: socket.socket) -> None:
        self._connections += 1
        received = b""
        # A program that was killed resets its connection.
        with connection, suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
                if b"\r\n\r\n" in received and (request := _REQUEST.match(received)):
                    self._requests += 1
                    if listener is self._foreigner and TOKEN.encode() in received:
                        self._foreign_tokens += 1
                    after = _AFTER.search(request[2])
                    time.sleep(self._latency)
                    connection.sendall(self._answers[int(request[1]), after[1].decode() if after else "0"])
                    received = b""


def make_answers(sizes: list[int], host: str, foreign_host: str) -> Answers:
    """All HTTP answers, by the id of the business and the cursor.

    :param sizes: numbers of accounts that are listed
    :param host: address of the server
    :param foreign_host: address of another server
    """
    from airflow_provider_whatsapp.sandbox.world.accounts import make_accounts

    accounts = make_accounts(
        0, {"id": "1", "name": "business"}, max(*sizes, ACCOUNTS_BEHIND_FAULTS), set(), owned=False
    )
    # Some accounts of the sandbox have no name, which pywa cannot read.
    named = ({"name": "Nameless", **account} for account in accounts)
    rows = [{name: account[name] for name in FIELDS.split(",") if name in account} for account in named]
    answers: Answers = {}
    for size in sizes:
        for first in range(0, max(size, 1), PAGE):
            answers[size, str(first)] = page(rows[first : min(first + PAGE, size)], size, first, size, host)
    for fault in FAULTS:
        for first in range(0, ACCOUNTS_BEHIND_FAULTS, PAGE):
            of_page, size = rows[first : first + PAGE], ACCOUNTS_BEHIND_FAULTS
            answers[fault, str(first)] = page(of_page, fault, first, size, host)
            if first != _FAULTY_PAGE * PAGE:
                continue
            if fault == _EMPTY:
                # The page comes after the empty one.
                answers[fault, f"{first}.5"] = answers[fault, str(first)]
                answers[fault, str(first)] = page([], fault, first, size, host, after=f"{first}.5")
            elif fault == _ERROR:
                error = {"message": "Error validating access token", "type": "OAuthException", "code": 190}
                answers[fault, str(first)] = http({"error": error})
            elif fault == _FOREIGN:
                answers[fault, str(first)] = page(of_page, fault, first, size, foreign_host)
            elif fault == _LOOP:
                answers[fault, str(first)] = page(of_page, fault, first, size, host, after=str(PAGE))
    return answers


def page(
    rows: list[dict[str, Any]], business: int, first: int, size: int, host: str, *, after: str | None = None
) -> bytes:
    """The HTTP answer with a page of accounts.

    :param rows: accounts of the page
    :param business: id of the business
    :param first: number of the first account in the list
    :param size: number of accounts in the whole list
    :param host: where the next page is
    :param after: cursor of the next page, instead of the one that leads to it
    """
    last = min(first + PAGE, size)
    cursor = str(last) if after is None else after
    paging: dict[str, Any] = {"cursors": {"before": str(first), "after": cursor}}
    if last < size:
        query = f"fields={FIELDS.replace(',', '%2C')}&limit={PAGE}&after={cursor}"
        paging["next"] = f"{host}/v26.0/{business}/client_whatsapp_business_accounts?{query}"
    return http({"data": rows, "paging": paging})


def http(payload: dict[str, Any]) -> bytes:
    """An HTTP answer, compressed as the API's are."""
    # The API writes JSON without blanks, and characters beyond ASCII and slashes as escapes.
    text = json.dumps(payload, separators=(",", ":")).replace("/", "\\/")
    body = gzip.compress(text.encode(), 5, mtime=0)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def serve(sizes: list[int], control: Connection) -> None:
    """Run a server in this process.

    :param sizes: numbers of accounts that are listed
    :param control: the other end of it is with who measures
    """
    Server(sizes).run(control)
