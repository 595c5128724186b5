"""Requests for several accounts at once, over real HTTP. Servers decide the order of the answers, not the clock."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import SECRET, TOKEN, answer, config, listening

from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphTokenError,
    GraphTransportError,
)
from airflow_provider_whatsapp.graph.accounts_flow import AccountEnd, AccountPage
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery, build_edge_query, build_waba_edge_query
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.sync import GraphClient

NUMBERS = build_waba_edge_query("phone_numbers", fields="id", page_size=3)
PATIENT = Patience(budget=1e6)
# Far longer than anything here takes on a busy machine.
BOUND = 30.0
# The server answers it at once.
FIRST = "0"


def numbered(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def queries(ids: list[str]) -> list[tuple[str, EdgeQuery | None]]:
    return [(waba_id, NUMBERS(waba_id)) for waba_id in ids]


def steps_of(
    client: GraphClient, ids: list[str], *, max_concurrency: int, skips_accounts: bool = False, first: bool = True
) -> Generator[AccountPage | AccountEnd, None, None]:
    """The steps of reading the accounts.

    :param first: whether to read one more account before, because one request goes ahead of the others
    """
    accounts = queries([FIRST, *ids] if first else ids)
    with closing(
        client.account_pages(accounts, max_concurrency=max_concurrency, skips_accounts=skips_accounts)
    ) as steps:
        yield from (step for step in steps if step.waba_id != FIRST)


class Read:
    """What reading the accounts with these ids gave."""

    def __init__(
        self,
        client: GraphClient,
        ids: list[str],
        *,
        max_concurrency: int = 10,
        skips: bool = False,
        first: bool = True,
    ) -> None:
        self.rows: dict[str, list[str]] = {}
        self.ended: list[str] = []
        self.errors: dict[str, GraphError] = {}
        for step in steps_of(client, ids, max_concurrency=max_concurrency, skips_accounts=skips, first=first):
            if isinstance(step, AccountPage):
                self.rows.setdefault(step.waba_id, []).extend(row["id"] for row in step.page.rows)
            else:
                self.ended.append(step.waba_id)
                if step.error is not None:
                    self.errors[step.waba_id] = step.error


def attempts() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "Attempt" in thread.name]


def wait_until(is_so: Callable[[], object]) -> None:
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < BOUND
        time.sleep(0.005)


@contextmanager
def no_thread_is_left() -> Iterator[None]:
    wait_until(lambda: not attempts())
    yield
    wait_until(lambda: not attempts())


class Server:
    """Answers each request for an account with one row, or as ``act`` says.

    :param act: is called with the id of the account and how often it was asked for; gives the bytes to send. None does
        not answer, and waits until the client has closed the connection
    """

    def __init__(self, act: Callable[[str, int], bytes | None] = lambda waba_id, attempt: rows(waba_id)) -> None:
        self.asked: list[str] = []
        self.connections = 0
        #: The connection that each request came on.
        self.came_on: list[int] = []
        self._act = act
        self._lock = threading.Lock()

    def serve(self, connection: socket.socket) -> None:
        with self._lock:
            number = self.connections
            self.connections += 1
        received = b""
        # The server does not end a request that the client has forgotten to end.
        connection.settimeout(2 * BOUND)
        while True:
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65536)
                if not piece:
                    return
                received += piece
            found = re.match(rb"GET /v26.0/(\d+)/phone_numbers\?", received)
            assert found
            waba_id, received = found[1].decode(), b""
            if waba_id == FIRST:
                connection.sendall(rows(FIRST))
                continue
            with self._lock:
                self.asked.append(waba_id)
                self.came_on.append(number)
                attempt = self.asked.count(waba_id)
            said = self._act(waba_id, attempt)
            if said is None:
                with suppress(OSError):
                    connection.recv(1)
                return
            connection.sendall(said)


def rows(*ids: str) -> bytes:
    return answer(b'{"data":[%b]}' % b",".join(b'{"id":"%b"}' % id_.encode() for id_ in ids))


@contextmanager
def running(server: Server, **changes: Any) -> Iterator[GraphConfig]:
    with listening(server.serve) as port:
        yield replace(config(port, timeout=BOUND), **changes)


def whole(ids: list[str]) -> dict[str, list[str]]:
    return {waba_id: [waba_id] for waba_id in ids}


@pytest.fixture(scope="module")
def served() -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=60, app_secret=SECRET) as sandbox:
        yield sandbox


class TestSandbox:
    @staticmethod
    def config(sandbox: GraphSandbox, **changes: Any) -> GraphConfig:
        credentials = Credentials(sandbox.token, sandbox.app_secret)
        return replace(
            GraphConfig(credentials=credentials, base_url=sandbox.url, version="v26.0", timeout=BOUND), **changes
        )

    def read(self, sandbox: GraphSandbox, ids: list[str], **options: Any) -> Read:
        with no_waits(), GraphClient(self.config(sandbox), patience=PATIENT) as client:
            return Read(client, ids, first=False, **options)

    def expected(self, sandbox: GraphSandbox, ids: list[str]) -> dict[str, list[str]]:
        with GraphClient(self.config(sandbox)) as client:
            return {
                waba_id: [
                    row["id"]
                    for page in client.pages(build_edge_query(f"{waba_id}/phone_numbers", fields="id"))
                    for row in page.rows
                ]
                for waba_id in ids
            }

    @pytest.mark.parametrize("bound", [1, 10, 50])
    def test_every_row_on_as_many_connections_as_allowed(self, bound: int) -> None:
        with GraphSandbox(accounts=60, app_secret=SECRET) as sandbox, no_thread_is_left():
            ids = [account["id"] for account in sandbox.accounts]
            read = self.read(sandbox, ids, max_concurrency=bound)
            assert 1 <= sandbox.connections <= bound
            assert {request.headers["authorization"] for request in sandbox.requests} == {"Bearer ***"}
            assert {request.params["appsecret_proof"] for request in sandbox.requests} == {"***"}
            asked = [(request.path, request.params.get("after")) for request in sandbox.requests]
            assert len(asked) == len(set(asked)) >= 60
            assert read.rows == self.expected(sandbox, ids)
            assert sorted(read.ended) == sorted(ids)

    # Each of them leads to the same rows in the end.
    FAULTS = (
        Fault.server_error(), Fault.unavailable(), Fault.error_on_200(), Fault.html_on_200(), Fault.half_json(), Fault.reset(),
        Fault.reset_mid_reply(), Fault.closed(), Fault.cut_gzip(), Fault.throttle(minutes=1), Fault.throttle(minutes=120),
        Fault.throttle(code=4, minutes=1), Fault.too_many_requests(retry_after=7), Fault.high_usage(97), Fault.slow_reply(0.01),
        Fault.slow_reply(0.03), Fault.next_without_cursors(), Fault.numeric_ids(), Fault.unknown_values(),
    )  # fmt: skip

    @settings(max_examples=25)
    @given(
        st.dictionaries(st.integers(0, 11), st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3), max_size=8),
        st.sampled_from([1, 10, 50]),
        st.sampled_from([0.0, 0.002]),
    )
    def test_no_schedule_of_faults_of_single_accounts_changes_the_rows(
        self, served: GraphSandbox, faults: dict[int, list[Fault]], bound: int, latency: float
    ) -> None:
        ids = [account["id"] for account in served.accounts[:12]]
        served.reset()
        served.latency = 0.0
        expected = self.expected(served, ids)
        served.latency = latency
        for number, of_account in faults.items():
            served.fail_next(*(fault.on(ids[number]) for fault in of_account))
        patience = Patience(budget=1e6, longest_named_wait=1e6)
        before = served.connections
        with no_waits(), GraphClient(self.config(served), patience=patience) as client:
            read = Read(client, ids, first=False, max_concurrency=bound)
        assert read.rows == expected
        assert sorted(read.ended) == sorted(ids)
        # Besides, each fault can break one connection.
        assert served.connections - before <= bound + sum(map(len, faults.values()))

    @pytest.mark.parametrize(
        ("code", "sizes"), [(-3, ["3", "1", "1"]), (99, ["3", "3", "3", "1", "2", "1"])], ids=["says so", "does not"]
    )
    def test_a_page_of_an_account_that_is_too_large_is_read_in_parts(
        self, served: GraphSandbox, code: int, sizes: list[str]
    ) -> None:
        served.reset()
        waba_id = served.accounts[5]["id"]
        expected = self.expected(served, [waba_id])
        served.fail_next(Fault.reduce_data(above=1, code=code, message="Error"))
        seen = len(served.requests)
        assert self.read(served, [waba_id]).rows == expected
        assert [request.params["limit"] for request in served.requests[seen:]][: len(sizes)] == sizes

    FATAL: ClassVar[dict[str, type[GraphError]]] = {
        "revoked_token": GraphTokenError,
        "no_capability": GraphPermissionError,
        "nonexisting_field": GraphRequestError,
        "throttle": GraphRateLimitError,
        "too_many_requests": GraphRateLimitError,
        "redirect": GraphProtocolError,
        "no_data": GraphProtocolError,
        "deep_json": GraphProtocolError,
        "unknown_encoding": GraphProtocolError,
    }

    @pytest.mark.parametrize("name", FATAL)
    @pytest.mark.parametrize("skips", [False, True])
    def test_an_error_names_its_account(self, served: GraphSandbox, name: str, skips: bool) -> None:
        ids = [account["id"] for account in served.accounts[:12]]
        served.reset()
        served.fail_next(Fault.catalogue()[name].times(1).on(ids[5]))
        with no_thread_is_left(), pytest.raises(self.FATAL[name]) as caught:
            self.read(served, ids, skips=skips)
        assert caught.value.waba_id == ids[5]
        assert str(caught.value).startswith(f"Account {ids[5]}: ")

    @pytest.mark.parametrize(
        "name", ["no_advanced_access", "wrong_business", "blocked", "no_account_permission", "insights_not_enabled"]
    )
    def test_an_account_that_is_refused_is_left_out(self, served: GraphSandbox, name: str) -> None:
        ids = [account["id"] for account in served.accounts[:12]]
        served.reset()
        expected = self.expected(served, ids)
        served.fail_next(Fault.catalogue()[name].times(1).on(ids[5]))
        read = self.read(served, ids, skips=True)
        assert list(read.errors) == [ids[5]]
        assert read.rows == {waba_id: rows for waba_id, rows in expected.items() if waba_id != ids[5]}

    def test_a_quota_of_each_account(self) -> None:
        with GraphSandbox(accounts=4, calls_per_hour_and_account=2) as sandbox:
            ids = [account["id"] for account in sandbox.accounts]
            one_row = build_waba_edge_query("message_templates", fields="id", page_size=1)
            patience = Patience(budget=1e7, longest_named_wait=1e6)
            read: dict[str, list[str]] = {}
            with no_waits() as skipped, GraphClient(self.config(sandbox), patience=patience) as client:
                for step in client.account_pages(
                    [(waba_id, one_row(waba_id)) for waba_id in ids], max_concurrency=4, skips_accounts=False
                ):
                    if isinstance(step, AccountPage):
                        read.setdefault(step.waba_id, []).extend(row["id"] for row in step.page.rows)
            assert skipped.total > 3500
            sandbox.reset()
            with no_waits(), GraphClient(self.config(sandbox), patience=patience) as client:
                for waba_id in ids:
                    pages = client.pages(build_edge_query(f"{waba_id}/message_templates", fields="id"))
                    assert read[waba_id] == [row["id"] for page in pages for row in page.rows]
            assert max(map(len, read.values())) > 2

    def test_a_clock_that_is_set_back_does_not_make_a_wait_longer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        is_set_back = False
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 86_400 * is_set_back)
        with GraphSandbox(accounts=2) as sandbox:
            ids = [account["id"] for account in sandbox.accounts]
            sandbox.fail_next(Fault.throttle(minutes=1).on(ids[0]))
            with no_waits() as skipped, GraphClient(self.config(sandbox), patience=PATIENT) as client:
                steps = client.account_pages(queries(ids), max_concurrency=1, skips_accounts=False)
                first = next(steps)
                is_set_back = True
                assert {step.waba_id for step in (first, *steps)} == set(ids)
            assert skipped.total < 120


class TestOrder:
    def test_as_many_at_once_as_allowed(self) -> None:
        everyone = threading.Barrier(10)

        def act(waba_id: str, attempt: int) -> bytes:
            # Nobody is answered before ten have asked.
            everyone.wait(BOUND)
            return rows(waba_id)

        server = Server(act)
        with running(server) as found, GraphClient(found) as client, no_thread_is_left():
            assert Read(client, numbered(30), max_concurrency=10).rows == whole(numbered(30))
        assert server.connections == 10

    def test_one_at_a_time_is_on_one_connection_and_in_order(self) -> None:
        server = Server()
        with running(server) as found, GraphClient(found) as client:
            assert Read(client, numbered(30), max_concurrency=1).ended == numbered(30)
        assert server.asked == numbered(30)
        assert server.connections == 1

    def test_a_slow_account_does_not_hold_back_the_others(self) -> None:
        others = threading.Event()

        def act(waba_id: str, attempt: int) -> bytes:
            if waba_id == "1":
                assert others.wait(BOUND)
            if waba_id == "40":
                others.set()
            return rows(waba_id)

        server = Server(act)
        with running(server) as found, GraphClient(found) as client:
            read = Read(client, numbered(40), max_concurrency=2)
        assert read.rows == whole(numbered(40))
        assert set(read.ended[-2:]) == {"1", "40"}
        assert server.connections == 2

    def test_answers_are_given_to_the_account_that_asked(self) -> None:
        turn = {"3": threading.Event(), "2": threading.Event(), "1": threading.Event()}
        turn["3"].set()

        def act(waba_id: str, attempt: int) -> bytes:
            assert turn[waba_id].wait(BOUND)
            return rows(waba_id)

        with running(Server(act)) as found, GraphClient(found) as client:
            ended: list[str] = []
            for step in steps_of(client, numbered(3), max_concurrency=3):
                if isinstance(step, AccountEnd):
                    ended.append(step.waba_id)
                    if step.waba_id != "1":
                        turn[str(int(step.waba_id) - 1)].set()
                else:
                    assert [row["id"] for row in step.page.rows] == [step.waba_id]
        assert ended == ["3", "2", "1"]

    def test_connections_are_kept_for_the_next_listing(self) -> None:
        server = Server()
        with running(server) as found, GraphClient(found) as client:
            for _ in range(3):
                assert Read(client, numbered(5), max_concurrency=1).rows == whole(numbered(5))
        assert server.connections == 1


class TestEnd:
    """However the listing ends, no request keeps running."""

    @staticmethod
    def hanging(*answered: str, asked: int, then: Callable[[], None] = lambda: None) -> Server:
        """A server that answers these accounts only, the first of them once so many requests have come."""
        everyone = threading.Barrier(asked, then)

        def act(waba_id: str, attempt: int) -> bytes | None:
            if attempt == 1:
                everyone.wait(BOUND)
            return rows(waba_id) if waba_id in answered else None

        return Server(act)

    def test_after_an_early_close(self) -> None:
        server = self.hanging("2", asked=4)
        with running(server) as found, GraphClient(found) as client, no_thread_is_left():
            steps = steps_of(client, numbered(9), max_concurrency=4)
            step = next(steps)
            assert isinstance(step, AccountPage)
            assert step.waba_id == "2"
            steps.close()
            assert server.asked.count("2") == 1
            assert set(server.asked) == set(numbered(4))

    def test_after_an_error_of_the_consumer(self) -> None:
        server = self.hanging("2", asked=4)
        with running(server) as found, GraphClient(found) as client, no_thread_is_left():
            steps = steps_of(client, numbered(9), max_concurrency=4)
            next(steps)
            with pytest.raises(KeyError):
                steps.throw(KeyError("x"))

    def test_after_an_error_of_the_api(self) -> None:
        everyone = threading.Barrier(4)

        def act(waba_id: str, attempt: int) -> bytes | None:
            everyone.wait(BOUND)
            return answer(b'{"error":{"code":190,"message":"m"}}') if waba_id == "3" else None

        with (
            running(Server(act)) as found,
            GraphClient(found) as client,
            no_thread_is_left(),
            pytest.raises(GraphTokenError, match="^Account 3: "),
        ):
            Read(client, numbered(9), max_concurrency=4)

    def test_after_accounts_that_raise(self) -> None:
        def accounts() -> Iterator[tuple[str, EdgeQuery | None]]:
            yield from queries([FIRST, *numbered(3)])
            wait_until(lambda: len(set(server.asked)) == 3)
            raise ValueError("waba_ids: wrong")

        server = Server(lambda waba_id, attempt: None)
        with (
            running(server) as found,
            GraphClient(found) as client,
            no_thread_is_left(),
            pytest.raises(ValueError, match="waba_ids: wrong"),
        ):
            list(client.account_pages(accounts(), max_concurrency=9, skips_accounts=False))

    def test_after_a_timeout(self) -> None:
        server = Server(lambda waba_id, attempt: None)
        with (
            running(server, timeout=0.3) as found,
            no_thread_is_left(),
            GraphClient(found, patience=Patience(attempts=1)) as client,
            pytest.raises(GraphTransportError, match=r"^Account [1-4]: .* within 0.3 s"),
        ):
            Read(client, numbered(9), max_concurrency=4)
        assert set(server.asked) <= set(numbered(4))

    @pytest.fixture
    def _interrupts(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.usefixtures("_interrupts")
    def test_after_an_interrupt(self) -> None:
        server = self.hanging(asked=4, then=lambda: os.kill(os.getpid(), signal.SIGINT))
        with (
            running(server) as found,
            GraphClient(found) as client,
            no_thread_is_left(),
            pytest.raises(KeyboardInterrupt) as caught,
        ):
            Read(client, numbered(9), max_concurrency=4)
        assert shown_in(locals_of(caught.value), found) == []

    @pytest.mark.parametrize("end", ["close", "error"])
    def test_the_client_can_be_used_again_and_no_connection_of_a_given_up_request_is(self, end: str) -> None:
        server = self.hanging("2", *numbered(20)[9:], asked=4)
        with running(server) as found, GraphClient(found) as client, no_thread_is_left():
            steps = steps_of(client, numbered(9), max_concurrency=4)
            next(steps)
            if end == "close":
                steps.close()
            else:
                with pytest.raises(KeyError):
                    steps.throw(KeyError("x"))
            assert len(client._sender._idle) <= 1
            given_up = {server.came_on[number] for number, one in enumerate(server.asked) if one != "2"}
            # The barrier lets the others through in groups of four.
            ids = numbered(20)[9:17]
            assert Read(client, ids, max_concurrency=4).rows == whole(ids)
            assert not given_up & {server.came_on[number] for number, one in enumerate(server.asked) if one in ids}


class TestTimeouts:
    def test_a_late_answer_is_not_taken_for_that_of_the_next_attempt(self) -> None:
        def act(waba_id: str, attempt: int) -> bytes | None:
            if attempt == 1:
                return None
            # The thread of the first attempt has reported its end before the second attempt is answered.
            wait_until(lambda: len(attempts()) == 1)
            return rows(waba_id)

        server = Server(act)
        with (
            running(server, timeout=1.5) as found,
            no_waits(),
            no_thread_is_left(),
            GraphClient(found, patience=Patience(first_delay=1e-6)) as client,
        ):
            assert Read(client, ["1"]).rows == {"1": ["1"]}
        # What was given up is not used again. On a busy machine, the second answer can come too late as well.
        assert server.came_on == list(range(len(server.asked)))
        assert len(server.asked) > 1

    def test_a_wait_that_is_over_is_not_held_up_by_an_answer_that_is_late(self) -> None:
        again = threading.Event()

        def act(waba_id: str, attempt: int) -> bytes:
            if waba_id == "2":
                assert again.wait(BOUND)
            elif attempt == 1:
                return b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n"
            else:
                again.set()
            return rows(waba_id)

        with running(Server(act)) as found, GraphClient(found, patience=Patience(first_delay=0.01)) as client:
            assert Read(client, ["1", "2"], max_concurrency=2).rows == whole(["1", "2"])

    def test_many_time_out_at_once(self) -> None:
        ids = numbered(8)

        def act(waba_id: str, attempt: int) -> bytes | None:
            return rows(waba_id) if attempt >= 3 else None

        server = Server(act)
        with (
            running(server, timeout=1.5) as found,
            no_waits(),
            no_thread_is_left(),
            GraphClient(found, patience=Patience(attempts=9, first_delay=1e-6, budget=1e6)) as client,
        ):
            assert Read(client, ids, max_concurrency=8).rows == whole(ids)
        # On a busy machine, an answer can come too late as well.
        assert min(Counter(server.asked).values()) >= 3

    def test_others_go_on_while_one_times_out(self) -> None:
        server = Server(lambda waba_id, attempt: None if (waba_id, attempt) == ("1", 1) else rows(waba_id))
        with running(server, timeout=5.0) as found, no_waits(), GraphClient(found) as client, no_thread_is_left():
            read = Read(client, numbered(50), max_concurrency=2)
        assert read.rows == whole(numbered(50))
        first, second, *_ = (number for number, one in enumerate(server.asked) if one == "1")
        assert first < 2
        assert second > 10


def shown_in(text: str, found: GraphConfig) -> list[str]:
    secrets = [TOKEN, SECRET, *Credentials(TOKEN, SECRET).secrets_at(time.time())]
    return [secret for secret in secrets if secret in text]


def locals_of(error: BaseException | None) -> str:
    """The tracebacks of an exception and of those before it, with all local variables."""
    shown = []
    while error is not None:
        shown += [*traceback.TracebackException.from_exception(error, capture_locals=True).format(), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "".join(shown)


_T, _S = TOKEN.encode(), SECRET.encode()
# By name, because the values would be among the local variables of the test.
SAID = {
    "nothing": None,
    "closed": b"",
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    "error": answer(b'{"error":{"code":190,"message":"%b %b"}}' % (_T, _S)),
    "row": answer(b'{"data":[{"name":"%b"}]}' % _T),
    "text": answer(_T),
    "reason": b"HTTP/1.1 500 %b\r\nX: %b\r\nContent-Length: 0\r\n\r\n" % (_T, _S),
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://evil/?access_token=%b\r\nContent-Length: 0\r\n\r\n" % _T,
    "noise": b"%b %b" % (_T, _S),
}


@pytest.mark.parametrize("name", SAID)
def test_no_exception_shows_a_secret(name: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        if SAID[name] is None:
            connection.recv(1)
        else:
            connection.sendall(SAID[name] or b"")

    with listening(serve) as port, GraphClient(config(port, 0.5), patience=Patience(attempts=1)) as client:
        with pytest.raises(GraphError) as caught:
            Read(client, numbered(5), max_concurrency=3)
        assert shown_in(f"{caught.value} {caught.value!r} {locals_of(caught.value)}", config(port)) == []


def test_accounts_that_wait_hold_neither_their_last_page_nor_the_answer_that_made_them_wait() -> None:
    size = 1_000_000
    page = b'{"data":[{"id":"%b0","name":"%b"}],"paging":{"cursors":{"after":"a"},"next":"https://x/?after=a"}}'
    refusal = b'{"error":{"code":80008,"message":"wait","padding":"%b"}}' % (b"x" * size)

    def act(waba_id: str, attempt: int) -> bytes:
        return answer(page % (waba_id.encode(), b"x" * size) if attempt == 1 else refusal)

    held = 0
    with listening(Server(act).serve) as port, GraphClient(config(port), patience=PATIENT) as client:
        tracemalloc.start()
        try:
            with suppress(GraphRateLimitError):
                for _ in client.account_pages(queries(numbered(30)), max_concurrency=2, skips_accounts=False):
                    held = max(held, tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    # The answers of 30 accounts have 60 MB, and at most a few are on their way at the same time.
    assert held < 20 * size
