"""A connection that changes while a listing runs: what the failed request and those after it are sent with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from airflow_provider_whatsapp.graph import GraphError, GraphTokenError, GraphTransportError
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.sandbox import GraphSandbox, no_waits

ROTATED = "EAA" + "rotated" * 12


def list_wabas(hook: WhatsAppHook) -> Iterator[Any]:
    return hook.iter_wabas(page_size=10)


def list_edge(hook: WhatsAppHook) -> Iterator[Any]:
    return hook.iter_waba_edge([row["id"] for row in hook.iter_wabas()], "subscribed_apps", max_concurrency=3)


def list_wabas_on_a_loop(hook: WhatsAppHook) -> Iterator[Any]:
    rows = hook.aiter_wabas(page_size=10)
    with closing(asyncio.new_event_loop()) as loop:
        while True:
            try:
                yield loop.run_until_complete(rows.__anext__())
            except StopAsyncIteration:
                return


def reads_of(hook: WhatsAppHook, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the connections that the hook reads from now on."""
    reads: list[str] = []
    read = hook.get_connection

    def get_connection(conn_id: str) -> Any:
        reads.append(conn_id)
        return read(conn_id)

    monkeypatch.setattr(hook, "get_connection", get_connection)
    return reads


Listing = Callable[[WhatsAppHook], Iterator[Any]]
every_client = pytest.mark.parametrize("listing", [list_wabas, list_edge, list_wabas_on_a_loop])


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    with GraphSandbox(accounts=60, app_secret="s3cr3t" * 5) as sandbox, no_waits():
        yield sandbox


@pytest.fixture
def connect(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the connection that of the sandbox as it is now."""

    def connect() -> None:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)

    connect()
    return connect


def rotate_token(sandbox: GraphSandbox) -> None:
    sandbox.token = ROTATED


def rotate_secret(sandbox: GraphSandbox) -> None:
    sandbox.app_secret = "an0ther" * 5


@every_client
@pytest.mark.parametrize("rotate", [rotate_token, rotate_secret])
def test_rotated_credentials_do_not_end_a_listing(
    sandbox: GraphSandbox, connect: Callable[[], None], listing: Listing, rotate: Callable[[GraphSandbox], None]
) -> None:
    expected = list(listing(WhatsAppHook()))
    rows = listing(WhatsAppHook())
    first = next(rows)
    rotate(sandbox)
    connect()
    assert [first, *rows] == expected


def test_accounts_that_fail_together_read_the_connection_once(
    sandbox: GraphSandbox, connect: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = WhatsAppHook()
    ids = [account["id"] for account in sandbox.accounts]
    rows = hook.iter_waba_edge(ids, "subscribed_apps", max_concurrency=20)
    next(rows)
    rotate_token(sandbox)
    connect()
    reads = reads_of(hook, monkeypatch)
    assert list(rows)
    assert len(reads) == 1


@every_client
def test_a_refused_token_that_is_still_in_the_connection_ends_it(
    sandbox: GraphSandbox, connect: Callable[[], None], listing: Listing
) -> None:
    rows = listing(WhatsAppHook())
    next(rows)
    sandbox.token = ROTATED
    with pytest.raises(GraphTokenError):
        list(rows)


def test_two_dead_tokens_in_turns_end_it(
    sandbox: GraphSandbox, connect: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, old = sandbox.connection, sandbox.token
    tokens = iter(ROTATED.upper() if number % 2 else ROTATED.lower() for number in range(50))
    hook = WhatsAppHook()
    rows = list_wabas(hook)
    next(rows)
    read = hook.get_connection

    def get_connection(conn_id: str) -> Any:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", good.replace(old, next(tokens)))
        return read(conn_id)

    monkeypatch.setattr(hook, "get_connection", get_connection)
    sandbox.token = ROTATED
    with pytest.raises(GraphTokenError):
        list(rows)
    assert len(list(tokens)) > 45


@every_client
def test_a_connection_that_is_gone_ends_it(
    sandbox: GraphSandbox, connect: Callable[[], None], listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = listing(WhatsAppHook())
    next(rows)
    sandbox.token = ROTATED
    monkeypatch.delenv("AIRFLOW_CONN_WHATSAPP_DEFAULT")
    with pytest.raises(Exception, match="whatsapp_default") as caught:
        list(rows)
    assert not isinstance(caught.value, GraphError)


@every_client
def test_a_host_that_moves_does_not_end_a_listing(
    sandbox: GraphSandbox, connect: Callable[[], None], listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(listing(WhatsAppHook()))
    rows = listing(WhatsAppHook())
    first = next(rows)
    with GraphSandbox(accounts=60, app_secret=sandbox.app_secret) as moved:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", moved.connection)
        sandbox.stop()
        assert [first, *rows] == expected
        assert moved.requests


def test_a_dead_host_is_looked_up_twice_a_minute_at_most(
    sandbox: GraphSandbox, connect: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = WhatsAppHook()
    rows = list_wabas(hook)
    next(rows)
    sandbox.stop()
    reads = reads_of(hook, monkeypatch)
    with pytest.raises(GraphTransportError):
        list(rows)
    assert 1 <= len(reads) <= 3
