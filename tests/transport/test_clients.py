"""Both clients over real HTTP. Every case runs through each of them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
    flow,
)
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.decoding import parse_json
from airflow_provider_whatsapp.graph.edges import RELATIONSHIPS
from airflow_provider_whatsapp.graph.pages import ListingMovedError, Page
from airflow_provider_whatsapp.graph.query import EdgeQuery, NodeQuery, build_edge_query, build_node_query
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.aio import AsyncGraphClient
from airflow_provider_whatsapp.transport.sync import GraphClient

CLIENT_WABAS = RELATIONSHIPS["client"]
SECRET = "5ecre7" * 5


class SyncDriver:
    """Reads with GraphClient, and records the waits."""

    def __init__(self, config: GraphConfig) -> None:
        self.waits: list[float] = []
        self._config = config

    def pages(self, query: EdgeQuery) -> list[Page]:
        with no_waits() as skipped, GraphClient(self._config) as client:
            self.waits = skipped.seconds
            return list(client.pages(query))

    def node(self, query: NodeQuery) -> dict[str, Any]:
        with GraphClient(self._config) as client:
            return client.node(query)


class AsyncDriver:
    """Reads with AsyncGraphClient, and records the waits."""

    def __init__(self, config: GraphConfig) -> None:
        self.waits: list[float] = []
        self._config = config

    def pages(self, query: EdgeQuery) -> list[Page]:
        async def run() -> list[Page]:
            async with AsyncGraphClient(self._config) as client:
                return [page async for page in client.pages(query)]

        with no_waits() as skipped:
            self.waits = skipped.seconds
            return asyncio.run(run())

    def node(self, query: NodeQuery) -> dict[str, Any]:
        async def run() -> dict[str, Any]:
            async with AsyncGraphClient(self._config) as client:
                return await client.node(query)

        return asyncio.run(run())


Driver = SyncDriver | AsyncDriver


@pytest.fixture(params=[SyncDriver, AsyncDriver], ids=["sync", "async"])
def driver_class(request: pytest.FixtureRequest) -> Callable[[GraphConfig], Driver]:
    driver: Callable[[GraphConfig], Driver] = request.param
    return driver


@pytest.fixture
def driver(driver_class: Callable[[GraphConfig], Driver], sandbox: GraphSandbox) -> Driver:
    return driver_class(config_of(sandbox))


def config_of(sandbox: GraphSandbox, **changes: Any) -> GraphConfig:
    config = GraphConfig(
        credentials=Credentials(sandbox.token, sandbox.app_secret), base_url=sandbox.url, version="v26.0", timeout=60
    )
    return replace(config, **changes)


def clients_of(sandbox: GraphSandbox, **query: Any) -> EdgeQuery:
    return build_edge_query(f"{sandbox.business_id}/{CLIENT_WABAS}", **{"fields": "id,name", **query})


def ids(pages: list[Page]) -> list[str]:
    return [row["id"] for page in pages for row in page.rows]


def test_the_whole_list_on_one_connection_with_one_request_a_page(sandbox: GraphSandbox, driver: Driver) -> None:
    pages = driver.pages(clients_of(sandbox))
    assert ids(pages) == [account["id"] for account in sandbox.accounts]
    assert [len(page.rows) for page in pages] == [100, 100, 50]
    assert len(sandbox.requests) == 3
    assert sandbox.connections == 1


def test_what_a_request_looks_like(sandbox: GraphSandbox, driver: Driver) -> None:
    driver.pages(clients_of(sandbox, max_items=1, ownership_types="CLIENT_OWNED", sort="creation_time_descending"))
    (request,) = sandbox.requests
    assert request.path == f"/v26.0/{sandbox.business_id}/{CLIENT_WABAS}"
    assert request.params == {
        "fields": "id,name",
        "limit": "1",
        "filtering": '[{"field":"ownership_type","operator":"IN","value":["CLIENT_OWNED"]}]',
        "sort": "creation_time_descending",
    }
    assert request.headers["authorization"] == "Bearer ***"
    assert request.headers["accept-encoding"] == "gzip"
    assert request.headers["user-agent"].startswith("airflow-provider-whatsapp/")
    assert "cookie" not in request.headers


def test_the_proof_goes_along_on_every_page(driver_class: Callable[[GraphConfig], Driver]) -> None:
    with GraphSandbox(accounts=250, app_secret=SECRET) as sandbox:
        assert len(ids(driver_class(config_of(sandbox)).pages(clients_of(sandbox)))) == 250
        assert [request.params["appsecret_proof"] for request in sandbox.requests] == ["***"] * 3
        with pytest.raises(GraphTokenError, match="app_secret must be set"):
            driver_class(config_of(sandbox, credentials=Credentials(sandbox.token))).pages(clients_of(sandbox))
        with pytest.raises(GraphError, match="appsecret_proof"):
            driver_class(config_of(sandbox, credentials=Credentials(sandbox.token, "wrong"))).pages(clients_of(sandbox))


def test_nested_edges_come_back_whole(sandbox: GraphSandbox, driver: Driver) -> None:
    fields = "id,phone_numbers.limit(2){id},message_templates.limit(1).as(templates){id,name}"
    for page in driver.pages(clients_of(sandbox, fields=fields, max_items=12)):
        for row in page.rows:
            for key, edge in (("phone_numbers", "phone_numbers"), ("templates", "message_templates")):
                whole = ids(driver.pages(build_edge_query(f"{row['id']}/{edge}", fields="id")))
                assert [nested["id"] for nested in row[key]["data"]] == whole
                assert "paging" not in row[key]


def test_a_node_and_the_token(sandbox: GraphSandbox, driver: Driver) -> None:
    account = sandbox.accounts[0]
    assert driver.node(build_node_query(account["id"], fields="id,name")) == {
        "id": account["id"],
        "name": account["name"],
    }
    assert driver.node(NodeQuery("debug_token", inspects_own_token=True))["data"]["is_valid"] is True
    assert sandbox.requests[-1].params["input_token"] == "***"


# What each fault of the sandbox must lead to. HEALED: the whole list after one wait. HARMLESS: the whole list without a
# wait. CHANGING: every account that was there all the time. FATAL: this error.
HEALED = {
    "server_error", "unknown_error", "unavailable", "transient_error", "error_on_200", "html_on_200", "empty_body", "half_json",
    "nan", "truncated_body", "cut_chunked", "cut_gzip", "reset", "reset_mid_reply", "closed", "error_not_an_object",
    "error_without_code", "error_data_text", "high_usage",
}  # fmt: skip
HARMLESS = {
    "odd_content_type", "slow_reply", "huge_body", "gzip_bomb", "slow_drip", "empty_page", "next_elsewhere", "next_without_cursors", "next_with_token",
    "duplicated_row", "numeric_ids", "unknown_values", "malformed_usage", "version_upgrade", "reduce_data",
}  # fmt: skip
CHANGING = {"account_added", "account_removed"}
FATAL: dict[str, type[GraphError]] = {
    "throttle": GraphRateLimitError,
    "too_many_requests": GraphRateLimitError,
    "deep_json": GraphProtocolError,
    "unknown_encoding": GraphProtocolError,
    "redirect": GraphProtocolError,
    "repeated_cursor": GraphProtocolError,
    "cursor_cycle": GraphProtocolError,
    "no_data": GraphProtocolError,
    "data_not_a_list": GraphProtocolError,
    "row_not_an_object": GraphProtocolError,
    "paging_not_an_object": GraphProtocolError,
    "expired_token": GraphTokenError,
    "revoked_token": GraphTokenError,
    "echoed_token": GraphTokenError,
    "bad_proof": GraphTokenError,
    "no_advanced_access": GraphPermissionError,
    "no_permission": GraphPermissionError,
    "no_capability": GraphPermissionError,
    "blocked": GraphPermissionError,
    "wrong_business": GraphRequestError,
    "nonexisting_field": GraphRequestError,
    "no_account_permission": GraphPermissionError,
    "insights_not_enabled": GraphRequestError,
}
# A little larger than the limit: the default sizes take seconds of CPU, which on a busy machine become a timeout.
FAULTS = {**Fault.catalogue(), "huge_body": Fault.huge_body(mib=20), "gzip_bomb": Fault.gzip_bomb(mib=20)}


def test_every_fault_of_the_sandbox_is_judged_here() -> None:
    assert HEALED | HARMLESS | CHANGING | set(FATAL) == set(FAULTS)


@pytest.fixture
def caught_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        for name in ("urllib3", "httpx", "httpcore", "asyncio"):
            caplog.set_level(logging.DEBUG, logger=name)
        yield caplog


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_ends_in_the_whole_list_or_an_error(
    name: str, driver_class: Callable[[GraphConfig], Driver], caught_log: pytest.LogCaptureFixture
) -> None:
    with GraphSandbox(accounts=250, app_secret=SECRET) as sandbox:
        config = config_of(sandbox)
        driver = driver_class(config)
        before = [account["id"] for account in sandbox.accounts]
        sandbox.fail_next(FAULTS[name].after(1))
        shown = ""
        if name in FATAL:
            with pytest.raises(FATAL[name]) as caught:
                driver.pages(clients_of(sandbox))
            shown = f"{caught.value!s} {caught.value!r} {vars(caught.value)} {caught.value.__cause__!r} {caught.value.__context__!r}"
            assert driver.waits == []
        else:
            pages = driver.pages(clients_of(sandbox))
            after = [account["id"] for account in sandbox.accounts]
            if name in CHANGING:
                stayed = [id_ for id_ in before if id_ in after]
                assert [id_ for id_ in ids(pages) if id_ in stayed] == stayed
                assert len(set(ids(pages))) == len(ids(pages))
            else:
                assert ids(pages) == before
            assert len(driver.waits) == (name in HEALED)
        shown += caught_log.text + repr(config) + repr(driver.__dict__)
        assert not [secret for secret in config.credentials.secrets if secret in shown]


def test_an_edge_that_is_spelled_wrong(sandbox: GraphSandbox, driver: Driver) -> None:
    with pytest.raises(GraphError, match=r" phonenumbers is not a known edge: did you mean phone_numbers\?"):
        driver.pages(build_edge_query(f"{sandbox.accounts[0]['id']}/phonenumbers"))
    with pytest.raises(GraphRequestError, match="phone_numbers are listed by the id of a WABA"):
        driver.pages(build_edge_query("4242/phone_numbers"))


def test_a_throttle_says_how_long(sandbox: GraphSandbox, driver: Driver) -> None:
    sandbox.fail_next(Fault.throttle(minutes=5))
    with pytest.raises(GraphRateLimitError, match="asks to wait 0:05:00") as caught:
        driver.pages(clients_of(sandbox))
    assert caught.value.code == 80008
    assert caught.value.retryable
    assert len(sandbox.requests) == 1


def test_a_short_throttle_is_waited_out(sandbox: GraphSandbox, driver: Driver) -> None:
    sandbox.fail_next(Fault.throttle(minutes=1).after(1), Fault.too_many_requests(retry_after=3).after(1))
    assert len(ids(driver.pages(clients_of(sandbox)))) == 250
    assert len(driver.waits) == 2
    assert 60 <= driver.waits[0] <= 61
    assert 3 <= driver.waits[1] <= 5


# How a page that is too large is refused, and whether that says so.
TOO_LARGE: list[tuple[dict[str, Any], bool]] = [
    *(({"code": code}, True) for code in (1, 2, 100, 80004, None)),
    ({"code": 100, "status": 400, "subcode": 1487534}, True),
    *(({"code": -3, "status": status, "message": "Too much data"}, True) for status in (200, 400, 500)),
    *(({"code": code, "subcode": 1504018, "message": "Your request timed out."}, True) for code in (1, 2)),
    *(({"code": code, "message": "Bitte reduzieren Sie die Datenmenge."}, False) for code in (1, 2, 99, 960, -1, -2)),
    ({"code": 99, "status": 400, "message": "An unknown error occurred"}, False),
    ({"code": 1, "subcode": 99, "message": "An unknown error occurred"}, False),
    *(({"status": status, "message": ""}, False) for status in (500, 502, 503, 504)),
]


@pytest.mark.parametrize(("refusal", "says_so"), TOO_LARGE, ids=str)
def test_a_page_that_is_too_large_is_read_in_parts(
    sandbox: GraphSandbox, driver: Driver, refusal: dict[str, Any], says_so: bool
) -> None:
    sandbox.fail_next(Fault.reduce_data(above=30, **refusal))
    assert ids(driver.pages(clients_of(sandbox))) == [account["id"] for account in sandbox.accounts]
    sizes = [int(request.params["limit"]) for request in sandbox.requests]
    assert sizes == ([100, 50, *[25] * 10] if says_so else [100, 100, 100, 25, 50, *[25] * 4, 50, *[25] * 5])
    assert len(driver.waits) == (0 if says_so else 5)


@pytest.mark.parametrize(
    ("code", "sizes"),
    [(-3, [1000, 500, 250, 125, 62, 31, 15, 7, 3, 1]), (99, [1000, 1000, 1000, 250, 250, 62])],
)
def test_a_fault_that_smaller_pages_do_not_fix_ends_soon(
    sandbox: GraphSandbox, driver: Driver, code: int, sizes: list[int]
) -> None:
    sandbox.fail_next(Fault.reduce_data(above=0, code=code, message="Error"))
    with pytest.raises(GraphServerError):
        driver.pages(clients_of(sandbox, page_size=1000))
    assert [int(request.params["limit"]) for request in sandbox.requests] == sizes


def test_after_an_outage_the_pages_grow_again(sandbox: GraphSandbox, driver: Driver) -> None:
    sandbox.fail_next(Fault.server_error().after(1).times(5))
    assert len(ids(driver.pages(clients_of(sandbox)))) == 250
    sizes = [int(request.params["limit"]) for request in sandbox.requests]
    assert sizes == [100, 100, 100, 100, 25, 25, 6, 12, 24, 48, 96]


def test_several_faults_on_one_page(sandbox: GraphSandbox, driver: Driver) -> None:
    sandbox.fail_next(Fault.reset().after(1), Fault.server_error(), Fault.half_json(), Fault.error_on_200())
    assert len(ids(driver.pages(clients_of(sandbox)))) == 250
    assert len(driver.waits) == 4


def test_six_attempts_and_no_more(sandbox: GraphSandbox, driver: Driver) -> None:
    sandbox.fail_next(Fault.closed().times(100))
    with pytest.raises(GraphTransportError, match=r"\(after 6 attempts\)"):
        driver.pages(clients_of(sandbox))
    assert len(sandbox.requests) == 6
    assert len(driver.waits) == 5


def test_a_reply_that_does_not_come_times_out(
    sandbox: GraphSandbox, driver_class: Callable[[GraphConfig], Driver]
) -> None:
    sandbox.fail_next(Fault.slow_reply(seconds=600))
    driver = driver_class(config_of(sandbox, timeout=2.0))
    assert len(ids(driver.pages(clients_of(sandbox)))) == 250
    # On a busy machine, other replies can come too late as well.
    assert driver.waits


def test_a_reply_that_drips_times_out(sandbox: GraphSandbox, driver_class: Callable[[GraphConfig], Driver]) -> None:
    # Each single byte arrives within the timeout, but the whole answer does not.
    sandbox.fail_next(Fault.slow_drip(pause=0.05, drops=None))
    driver = driver_class(config_of(sandbox, timeout=2.0))
    assert len(ids(driver.pages(clients_of(sandbox)))) == 250
    assert driver.waits


def test_an_id_below_zero_is_an_id(sandbox: GraphSandbox, driver: Driver) -> None:
    sandbox.accounts[0]["id"] = "-1"
    assert ids(driver.pages(clients_of(sandbox)))[0] == "-1"


def test_nobody_there(driver_class: Callable[[GraphConfig], Driver]) -> None:
    with GraphSandbox(accounts=1) as sandbox:
        config = config_of(sandbox)
    with pytest.raises(
        GraphTransportError, match=r"no complete response from 127\.0\.0\.1:\d+: .*refused.*after 6"
    ) as caught:
        driver_class(config).pages(clients_of(sandbox))
    assert caught.value.retryable


def test_the_token_goes_to_no_other_host(sandbox: GraphSandbox, driver: Driver) -> None:
    with GraphSandbox(accounts=1) as elsewhere:
        sandbox.fail_next(Fault.next_elsewhere(to=elsewhere.url), Fault.redirect(to=elsewhere.url).after(1))
        with pytest.raises(GraphProtocolError, match="redirect"):
            driver.pages(clients_of(sandbox))
        assert elsewhere.connections == 0


def test_no_proxy_and_no_netrc_come_between_on_loopback(
    sandbox: GraphSandbox, driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(netrc))
    assert len(ids(driver.pages(clients_of(sandbox)))) == 250


def test_a_listing_that_is_left_early_asks_for_no_more(sandbox: GraphSandbox) -> None:
    with GraphClient(config_of(sandbox)) as client:
        pages = client.pages(clients_of(sandbox))
        next(pages)
        pages.close()
        assert len(sandbox.requests) == 1
        assert len(list(client.pages(clients_of(sandbox)))) == 3
    assert sandbox.connections == 1


def test_an_async_listing_can_be_cancelled(sandbox: GraphSandbox) -> None:
    async def run() -> None:
        async with AsyncGraphClient(config_of(sandbox)) as client:
            pages = client.pages(clients_of(sandbox))
            await pages.__anext__()
            sandbox.fail_next(Fault.slow_reply(seconds=30))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(pages.__anext__(), 0.1)

    asyncio.run(run())


def test_both_clients_send_the_same_requests(sandbox: GraphSandbox) -> None:
    sent = []
    for driver_class in (SyncDriver, AsyncDriver):
        sandbox.reset()
        sandbox.fail_next(Fault.reset().after(1), Fault.reduce_data(above=60).times(1))
        driver_class(config_of(sandbox)).pages(clients_of(sandbox, fields="id,phone_numbers.limit(3){id}"))
        sent.append([(request.method, request.path, request.params) for request in sandbox.requests])
    assert sent[0] == sent[1]


def test_a_server_that_upgrades_the_version_is_reported_once(
    sandbox: GraphSandbox, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.fail_next(Fault.version_upgrade(version="v27.0").times(3))
    driver.pages(clients_of(sandbox))
    assert [record.getMessage()[:49] for record in caplog.records] == [
        "Graph API v26.0 was requested but v27.0 answered:"
    ]


def test_a_large_answer_does_not_hold_the_event_loop(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed_in: list[int] = []

    def parse(body: bytes, **kwargs: Any) -> Any:
        parsed_in.append(threading.get_ident())
        return parse_json(body, **kwargs)

    monkeypatch.setattr(flow, "parse_json", parse)
    for number, account in enumerate(sandbox.accounts[:100]):
        account["name"] = hashlib.sha256(b"%d" % number).hexdigest()

    async def run() -> list[Page]:
        async with AsyncGraphClient(config_of(sandbox)) as client:
            return [page async for page in client.pages(clients_of(sandbox, max_items=105))]

    large, small = asyncio.run(run())
    assert (len(large.rows), len(small.rows)) == (100, 5)
    assert parsed_in[0] != threading.get_ident()
    assert parsed_in[1] == threading.get_ident()


def test_small_requests_are_sent_without_delay(sandbox: GraphSandbox) -> None:
    with GraphClient(config_of(sandbox)) as client:
        list(client.pages(clients_of(sandbox, max_items=1)))
        adapter: Any = client._sender._idle[0].get_adapter(sandbox.url)
        pools = adapter.poolmanager.pools
        connection = pools[next(iter(pools.keys()))].pool.get()
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()


def test_a_listing_slows_down_when_the_limit_is_nearly_used_up(driver: Driver, sandbox: GraphSandbox) -> None:
    sandbox.fail_next(Fault.high_usage(95).times(3))
    pages = driver.pages(clients_of(sandbox))
    assert [page.usage.percent for page in pages if page.usage] == [95, 95, 95]
    assert driver.waits == [300, 300]


def test_the_client_for_tasks_counts_its_waits(sandbox: GraphSandbox) -> None:
    with no_waits() as skipped, GraphClient(config_of(sandbox)) as client:
        assert client.waited == 0
        sandbox.fail_next(Fault.server_error(), Fault.throttle(minutes=1), Fault.high_usage(95))
        list(client.pages(clients_of(sandbox)))
        assert len(skipped.seconds) == 3
        assert client.waited == skipped.total
        sandbox.fail_next(Fault.throttle(minutes=1))
        accounts = [(sandbox.accounts[0]["id"], build_edge_query(f"{sandbox.accounts[0]['id']}/phone_numbers"))]
        list(client.account_pages(accounts, max_concurrency=1, skips_accounts=False))
        assert len(skipped.seconds) == 4
        assert client.waited == pytest.approx(skipped.total)


def test_a_listing_resumes_from_a_position(sandbox: GraphSandbox) -> None:
    query = clients_of(sandbox)
    with GraphClient(config_of(sandbox)) as client:
        whole = list(client.pages(query))
        ids: set[str] = set()
        for page in whole[:2]:
            ids.update(row["id"] for row in page.rows)
        sandbox.fail_next(Fault.duplicated_row().after(1))
        reached, *others = client.pages(query, position=whole[1].position, ids=ids)
        assert (reached.rows, reached.position) == ([], whole[1].position)
        assert [page.rows for page in others] == [page.rows for page in whole[2:]]
        del sandbox.accounts[150]
        with pytest.raises(ListingMovedError):
            next(client.pages(query, position=whole[1].position))


def test_a_listing_has_one_thread_which_ends_with_it(sandbox: GraphSandbox) -> None:
    with GraphClient(config_of(sandbox)) as client:
        before = set(threading.enumerate())
        during = [set(threading.enumerate()) - before for _ in client.pages(clients_of(sandbox))]
        threads = {thread for threads in during for thread in threads if "Attempt" in thread.name}
        assert len(during) == 3
        assert len(threads) == 1
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(("version", "knows_limit"), [("v23.0", False), ("v24.0", True)])
def test_default_fields_fit_the_version(
    driver_class: Callable[[GraphConfig], Driver], sandbox: GraphSandbox, version: str, knows_limit: bool
) -> None:
    account = sandbox.accounts[0]
    account["phone_numbers"] = [{"id": "1", "whatsapp_business_manager_messaging_limit": "TIER_250"}]
    driver = driver_class(config_of(sandbox, version=version))
    (row,) = driver.pages(build_edge_query(f"{account['id']}/phone_numbers"))[0].rows
    assert ("whatsapp_business_manager_messaging_limit" in row) is knows_limit
    with pytest.raises(GraphRequestError) if not knows_limit else nullcontext():
        driver.pages(
            build_edge_query(f"{account['id']}/phone_numbers", fields="whatsapp_business_manager_messaging_limit")
        )
