"""One edge of many accounts as one listing, from a server that has exactly the rows that a test wants."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_server import TOKEN, answer, config, listening

from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
)
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.hooks._waba_edge import AccountEdgeReader, EdgeProgress, ReadAccount, WabaEdgeQuery
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.transport.sync import GraphClient

Row = dict[str, Any]
USAGE = b'X-App-Usage: {"call_count":7}'
GONE = (400, {"error": {"code": 100, "error_subcode": 33, "message": "gone"}})
REFUSED = (403, {"error": {"code": 200, "message": "refused"}})


class Accounts:
    """A server with these rows of each account, or with the status and payload of a refusal."""

    def __init__(self, accounts: dict[str, Any], before: Callable[[str], object] = lambda waba_id: None) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.accounts = accounts
        self._before = before

    def serve(self, connection: socket.socket) -> None:
        received = b""
        while piece := connection.recv(65536):
            received += piece
            if b"\r\n\r\n" not in received:
                continue
            found = re.match(rb"GET /v26.0/(\d+)/(\w+)\?(\S+) ", received)
            assert found
            received = b""
            waba_id, edge, query = (part.decode() for part in found.groups())
            params = dict(parse_qsl(query))
            self.asked.append((waba_id, edge, params))
            self._before(waba_id)
            status, payload = self._answer(waba_id, params)
            connection.sendall(answer(json.dumps(payload).encode(), USAGE).replace(b"200 OK", b"%d Said" % status))

    def _answer(self, waba_id: str, params: dict[str, str]) -> tuple[int, Any]:
        rows = self.accounts[waba_id]
        if isinstance(rows, tuple):
            return rows
        begin, limit = int(params.get("after", "0")), int(params["limit"])
        after = str(begin + limit)
        paging = {"cursors": {"after": after}, "next": f"https://elsewhere/?after={after}"}
        page = {"data": rows[begin : begin + limit]}
        return 200, {**page, **({"paging": paging} if begin + limit < len(rows) else {})}


def numbered(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def rows_of(sizes: list[int]) -> dict[str, list[Row]]:
    return {str(number): [{"id": f"{number}-{row}"} for row in range(size)] for number, size in enumerate(sizes, 1)}


@contextmanager
def connected_to(accounts: Accounts) -> Iterator[GraphClient]:
    with listening(accounts.serve) as port, GraphClient(config(port), patience=Patience(budget=1e6)) as client:
        yield client


class Listed:
    """The rows of these accounts, and how the listing ended."""

    def __init__(self, accounts: Accounts | dict[str, Any], waba_ids: Any = None, **arguments: Any) -> None:
        self.server = accounts if isinstance(accounts, Accounts) else Accounts(accounts)
        self.rows: list[Row] = []
        self.error: GraphError | None = None
        self.kept: dict[str, tuple[ReadAccount, list[Row]]] = {}
        self.answers: list[tuple[int, int]] = []
        kept = arguments.pop("kept", ())
        ids = list(self.server.accounts) if waba_ids is None else waba_ids
        query = WabaEdgeQuery.build(ids, arguments.pop("edge", "phone_numbers"), **arguments)
        with connected_to(self.server) as client, no_waits():
            reader = AccountEdgeReader(client, query, kept=kept, keep=self._keep, on_answer=self._note)
            self.progress = reader.progress
            try:
                self.rows.extend(reader)
            except GraphError as error:
                self.error = error

    def _keep(self, account: ReadAccount, rows: Iterator[Row]) -> None:
        self.kept[account.waba_id] = account, list(rows)

    def _note(self, progress: EdgeProgress) -> None:
        self.answers.append((progress.accounts_read, progress.rows_read))

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]


class TestRows:
    @pytest.mark.parametrize("bound", [1, 2, 50])
    def test_in_the_order_of_the_accounts(self, bound: int) -> None:
        accounts = rows_of([3, 0, 1, 250, 2])
        listed = Listed({"9": accounts["4"], "2": accounts["1"], "5": [], "10": accounts["5"]}, max_concurrency=bound)
        expected = [("9", row) for row in accounts["4"]] + [("2", row) for row in accounts["1"]]
        expected += [("10", row) for row in accounts["5"]]
        assert listed.rows == [{"waba_id": waba_id, **row} for waba_id, row in expected]
        assert (listed.progress.count, listed.progress.accounts, listed.progress.pages) == (255, 4, 6)
        assert (listed.progress.truncated, listed.progress.skipped, listed.progress.skipped_count) == (False, [], 0)
        assert (listed.progress.accounts_read, listed.progress.rows_read) == (4, 255)
        assert listed.answers[-1] == (4, 255)
        assert listed.progress.usage is not None
        assert listed.progress.usage.percent == 7

    def test_an_early_account_is_the_last_to_answer(self) -> None:
        others = threading.Event()

        def before(waba_id: str) -> None:
            # Not the first account, because the others are read when it has been.
            if waba_id == "2":
                assert others.wait(60)
            if waba_id == "30":
                others.set()

        listed = Listed(Accounts(rows_of([2] * 30), before), max_concurrency=3)
        assert listed.ids == [f"{number}-{row}" for number in range(1, 31) for row in range(2)]

    def test_rows_come_as_soon_as_it_is_their_turn(self) -> None:
        taken = threading.Event()

        def before(waba_id: str) -> None:
            if waba_id == "3":
                assert taken.wait(60)

        accounts = Accounts(rows_of([1, 1, 1]), before)
        with connected_to(accounts) as client:
            rows = iter(AccountEdgeReader(client, WabaEdgeQuery.build("1,2,3", "flows")))
            assert [next(rows)["id"], next(rows)["id"]] == ["1-0", "2-0"]
            taken.set()
            assert [row["id"] for row in rows] == ["3-0"]

    def test_the_account_comes_first_and_before_a_field_of_that_name(self) -> None:
        row = {"id": "5", "waba_id": "other", "name": None, "nested": {"waba_id": "x"}}
        (listed,) = Listed({"1": [row]}).rows
        assert list(listed) == ["waba_id", "id", "name", "nested"]
        assert listed == {**row, "waba_id": "1"}

    def test_rows_without_an_id(self) -> None:
        row = {"whatsapp_business_api_data": {"id": "7"}}
        listed = Listed({"1": [row, row], "2": [row]}, edge="subscribed_apps")
        assert listed.rows == [{"waba_id": waba_id, **row} for waba_id in ("1", "1", "2")]
        assert "fields" not in listed.server.asked[0][2]
        assert isinstance(Listed({"1": [row]}, edge="phone_numbers").error, GraphProtocolError)

    def test_the_same_id_in_two_accounts_is_two_rows(self) -> None:
        listed = Listed({"1": [{"id": "7"}, {"id": "7"}], "2": [{"id": "7"}]})
        assert listed.rows == [{"waba_id": "1", "id": "7"}, {"waba_id": "2", "id": "7"}]

    def test_an_account_that_comes_twice_is_read_once(self) -> None:
        listed = Listed(rows_of([1, 2]), waba_ids=["2", "1", 2, {"id": "1"}, ["2"]])
        assert listed.ids == ["2-0", "2-1", "1-0"]
        assert sorted(waba_id for waba_id, _, _ in listed.server.asked) == ["1", "2"]

    def test_no_accounts(self) -> None:
        listed = Listed({}, waba_ids=[])
        assert (listed.rows, listed.error, listed.server.asked) == ([], None, [])
        assert (listed.progress.count, listed.progress.accounts, listed.progress.truncated) == (0, 0, False)

    def test_accounts_without_rows(self) -> None:
        listed = Listed(rows_of([0, 0, 0]))
        assert (listed.rows, listed.progress.accounts, listed.progress.pages) == ([], 3, 3)

    def test_what_each_account_is_asked(self) -> None:
        listed = Listed(
            {"1": [], "2": []},
            edge="message_templates",
            params={"category": "UTILITY"},
            fields="name",
            sort="name",
            page_size="7",
        )
        expected = {"category": "UTILITY", "fields": "id,name", "sort": "name", "limit": "7"}
        assert sorted((waba_id, edge) for waba_id, edge, _ in listed.server.asked) == [
            ("1", "message_templates"),
            ("2", "message_templates"),
        ]
        for _, _, params in listed.server.asked:
            assert {name: params[name] for name in params if not name.startswith("appsecret_")} == expected

    def test_a_wrong_account_far_behind_ends_it(self) -> None:
        def ids() -> Iterator[str]:
            yield from numbered(20)
            yield "x"

        with connected_to(Accounts(rows_of([1] * 20))) as client:
            reader = AccountEdgeReader(client, WabaEdgeQuery.build(ids(), "flows", max_concurrency=1))
            with pytest.raises(ValueError, match=r"^waba_ids\[20\]: 'x' is not the id of an account"):
                list(reader)
        assert reader.progress.count == 20


class TestMaxItems:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.integers(0, 4), min_size=1, max_size=6),
        st.integers(1, 12),
        st.sampled_from([1, 2, 50]),
        st.integers(1, 4),
    )
    @example([1, 0], 1, 50, 1)
    @example([2, 3], 2, 1, 1)
    def test_at_every_boundary(self, sizes: list[int], most: int, bound: int, page_size: int) -> None:
        accounts = rows_of(sizes)
        listed = Listed(accounts, max_items=most, max_concurrency=bound, page_size=page_size)
        rows = [{"waba_id": waba_id, **row} for waba_id, of_account in accounts.items() for row in of_account]
        assert listed.error is None
        assert listed.rows == rows[:most]
        whole, left, is_cut = 0, most, False
        for size in sizes:
            if size > left:
                is_cut = True
                break
            whole, left = whole + 1, left - size
            if left == 0:
                is_cut = whole < len(sizes)
                break
        assert listed.progress.truncated is is_cut
        assert listed.progress.accounts == whole
        assert listed.progress.count == len(listed.rows)
        assert all(int(params["limit"]) <= min(page_size, most) for _, _, params in listed.server.asked)

    def test_no_more_is_asked_when_there_are_enough(self) -> None:
        listed = Listed(rows_of([2] * 50), max_items=2, max_concurrency=1)
        assert [waba_id for waba_id, _, _ in listed.server.asked] == ["1"]
        assert listed.progress.truncated

    def test_accounts_that_are_refused_are_accounts_too(self) -> None:
        listed = Listed({"1": [{"id": "a"}], "2": GONE}, max_items=1, max_concurrency=1, on_account_error="skip")
        assert (listed.ids, listed.progress.truncated, listed.progress.skipped_count) == (["a"], True, 0)
        listed = Listed({"1": GONE, "2": [{"id": "a"}]}, max_items=1, max_concurrency=1, on_account_error="skip")
        assert (listed.ids, listed.progress.truncated, listed.progress.skipped_count) == (["a"], False, 1)

    @pytest.mark.parametrize("bound", [1, 2])
    def test_a_listing_that_was_cut_has_rows_although_an_account_was_left_out(self, bound: int) -> None:
        several = [{"id": "a"}, {"id": "b"}]
        for accounts in ({"1": GONE, "2": several}, {"2": several, "1": GONE}):
            listed = Listed(accounts, max_items=1, max_concurrency=bound, on_account_error="skip")
            assert (listed.error, listed.ids) == (None, ["a"])
            assert (listed.progress.truncated, listed.progress.accounts) == (True, 0)


class TestAccountsThatCannotBeRead:
    def test_the_listing_fails(self) -> None:
        listed = Listed({"1": [{"id": "a"}], "2": GONE, "3": []}, max_concurrency=1)
        assert isinstance(listed.error, GraphRequestError)
        assert str(listed.error).startswith("Account 2: The API said: gone. The id is unknown")
        assert listed.ids == ["a"]

    @pytest.mark.parametrize("bound", [1, 10])
    def test_they_are_left_out(self, bound: int, caplog: pytest.LogCaptureFixture) -> None:
        accounts = {"1": GONE, "2": [{"id": "a"}], "3": REFUSED, "4": [{"id": "b"}]}
        with caplog.at_level(logging.INFO):
            listed = Listed(accounts, max_concurrency=bound, on_account_error="skip")
        assert (listed.ids, listed.error) == (["a", "b"], None)
        assert (listed.progress.accounts, listed.progress.skipped_count, listed.progress.accounts_read) == (2, 2, 4)
        assert [one["waba_id"] for one in listed.progress.skipped] == ["1", "3"]
        for one, advice in zip(listed.progress.skipped, ("The id is unknown", "The app lacks Advanced"), strict=True):
            assert set(one) == {"waba_id", "reason"}
            assert one["reason"].startswith("The API said: ")
            assert advice in one["reason"]
            assert len(one["reason"]) <= 500
            assert f"Account {one['waba_id']} is left out: {one['reason']}" in caplog.messages
        assert "Listed 2 rows of 2 accounts on 2 pages, 2 accounts left out" in caplog.messages

    def test_rows_before_the_refusal_are_left_out_too(self) -> None:
        class Turning(Accounts):
            def _answer(self, waba_id: str, params: dict[str, str]) -> tuple[int, Any]:
                return REFUSED if waba_id == "1" and "after" in params else super()._answer(waba_id, params)

        listed = Listed(Turning(rows_of([5, 1])), page_size=2, on_account_error="skip")
        assert listed.ids == ["2-0"]
        assert [one["waba_id"] for one in listed.progress.skipped] == ["1"]
        assert list(listed.kept) == ["2"]

    def test_all_of_them(self) -> None:
        listed = Listed({"1": GONE, "2": REFUSED}, max_concurrency=1, on_account_error="skip")
        assert isinstance(listed.error, GraphRequestError)
        assert str(listed.error).startswith("Account 1: The API said: gone. The id is unknown")
        assert listed.error.waba_id == "1"
        assert listed.progress.skipped_count == 2
        # An account without rows was read.
        listed = Listed({"1": GONE, "2": []}, on_account_error="skip")
        assert (listed.error, listed.rows, listed.progress.accounts) == (None, [], 1)

    def test_the_first_hundred_are_named_and_all_are_counted_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        accounts = {**dict.fromkeys(numbered(120), GONE), "121": []}
        listed = Listed(accounts, on_account_error="skip")
        assert [one["waba_id"] for one in listed.progress.skipped] == numbered(100)
        assert listed.progress.skipped_count == 120
        assert len([message for message in caplog.messages if "is left out" in message]) == 120

    @pytest.mark.parametrize(
        ("refusal", "kind"),
        [
            ((403, {"error": {"code": 10, "message": "m"}}), GraphPermissionError),
            ((403, "proxy"), GraphPermissionError),
            ((400, {"error": {"code": 80008, "message": "m"}}), GraphRateLimitError),
            ((200, {}), GraphProtocolError),
        ],
    )
    def test_what_hides_rows_ends_the_listing(self, refusal: Any, kind: type[GraphError]) -> None:
        listed = Listed({"1": [], "2": refusal, "3": []}, on_account_error="skip")
        assert type(listed.error) is kind
        assert listed.error.waba_id == "2"
        assert listed.progress.skipped_count == 0


class TestKeptAccounts:
    KEPT: tuple[Any, ...] = (
        (ReadAccount("2", pages=3, count=2), [{"id": "2-0"}, {"id": "2-1"}]),
        (ReadAccount("3", pages=1, count=0), []),
        (ReadAccount("8", pages=1, count=1), [{"id": "gone"}]),
    )

    @pytest.mark.parametrize("bound", [1, 10])
    def test_they_are_not_read_again(self, bound: int) -> None:
        listed = Listed(rows_of([1, 2, 0, 1]), kept=self.KEPT, max_concurrency=bound)
        assert listed.ids == ["1-0", "2-0", "2-1", "4-0"]
        assert [row["waba_id"] for row in listed.rows] == ["1", "2", "2", "4"]
        assert sorted(waba_id for waba_id, _, _ in listed.server.asked) == ["1", "4"]
        assert (listed.progress.pages, listed.progress.accounts, listed.progress.accounts_read) == (6, 4, 4)
        # Only what was read now is kept now.
        assert sorted(listed.kept) == ["1", "4"]

    def test_each_account_that_was_read_is_kept_with_its_rows(self) -> None:
        accounts = rows_of([5, 0, 2])
        listed = Listed({**accounts, "4": GONE}, page_size=2, on_account_error="skip")
        assert listed.kept == {
            "1": (ReadAccount("1", pages=3, count=5), accounts["1"]),
            "2": (ReadAccount("2", pages=1, count=0), []),
            "3": (ReadAccount("3", pages=1, count=2), accounts["3"]),
        }

    def test_one_that_max_items_has_cut(self) -> None:
        listed = Listed(rows_of([5]), page_size=2, max_items=3)
        assert listed.kept["1"][0] == ReadAccount("1", pages=2, count=3, is_cut=True)
        again = Listed(rows_of([5]), kept=[listed.kept["1"]], max_items=3)
        assert (again.ids, again.progress.truncated, again.server.asked) == (["1-0", "1-1", "1-2"], True, [])


class TestHook:
    @pytest.fixture
    def hook(self, connected: GraphSandbox) -> WhatsAppHook:
        return WhatsAppHook()

    def expected(self, hook: WhatsAppHook, ids: list[str], edge: str, **query: Any) -> list[Row]:
        return [{"waba_id": id_, **row} for id_ in ids for row in hook.iter_edge(f"{id_}/{edge}", **query)]

    @pytest.mark.parametrize("bound", [1, 10, 50])
    @pytest.mark.parametrize("edge", ["phone_numbers", "message_templates", "subscribed_apps"])
    def test_the_same_rows_however_many_are_read_at_once(
        self, connected: GraphSandbox, hook: WhatsAppHook, bound: int, edge: str
    ) -> None:
        ids = [account["id"] for account in connected.accounts[:60]]
        expected = self.expected(hook, ids, edge)
        connected.reset()
        for number, fault in enumerate(
            [Fault.reset(), Fault.half_json(), Fault.throttle(minutes=1), Fault.slow_reply(0.05)]
        ):
            connected.fail_next(fault.on(ids[number * 7]))
        with no_waits():
            assert list(hook.iter_waba_edge(ids, edge, max_concurrency=bound)) == expected
        assert len(expected) >= 60

    def test_the_accounts_of_a_listing(self, connected: GraphSandbox, hook: WhatsAppHook) -> None:
        rows = hook.iter_waba_edge(hook.iter_wabas(fields="id", page_size=40), "phone_numbers", fields="id")
        assert next(rows)["waba_id"] == connected.accounts[0]["id"]
        # Not all accounts are listed before the first row comes.
        assert len([one for one in connected.requests if one.path.endswith("accounts")]) == 1
        seen = list(dict.fromkeys(row["waba_id"] for row in rows))
        assert seen == [account["id"] for account in connected.accounts if account["id"] in seen]
        assert len(seen) > 100
        assert len([one for one in connected.requests if one.path.endswith("accounts")]) == 7

    def test_the_parameters_go_along(self, connected: GraphSandbox, hook: WhatsAppHook) -> None:
        account = connected.accounts[0]["id"]
        rows = list(hook.iter_waba_edge(account, "assigned_users", params={"business": connected.business_id}))
        assert {row["waba_id"] for row in rows} == {account}
        assert connected.requests[0].params["business"] == connected.business_id

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            ({"waba_ids": None}, "waba_ids"),
            ({"waba_ids": "x"}, "waba_ids"),
            ({"waba_ids": ["1", "x"]}, r"waba_ids\[1\]"),
            ({"edge": "a/b"}, "edge"),
            ({"edge": "assigned_users"}, "params"),
            ({"params": {"access_token": "x"}}, "params"),
            ({"params": {"sort": "x"}}, "params"),
            ({"max_concurrency": 0}, "max_concurrency"),
            ({"max_concurrency": 51}, "max_concurrency"),
            ({"on_account_error": "ignore"}, "on_account_error"),
            ({"fields": ","}, "fields"),
            ({"max_items": 0}, "max_items"),
            ({"page_size": 0}, "page_size"),
            ({"created_after": "2026-01-01"}, "created_after"),
            ({"ownership_types": "SELF"}, "ownership_types"),
        ],
    )
    def test_bad_input_is_refused_before_anything_is_sent(
        self, connected: GraphSandbox, hook: WhatsAppHook, arguments: dict[str, Any], name: str
    ) -> None:
        with pytest.raises(ValueError, match=f"^{name}: "):
            hook.iter_waba_edge(**{"waba_ids": ["1"], "edge": "phone_numbers", **arguments})
        assert connected.connections == 0

    @pytest.mark.parametrize("blank", [None, "", " ", "None"])
    def test_a_template_without_a_value_counts_as_not_given(self, blank: Any) -> None:
        query = WabaEdgeQuery.build(
            "1", "flows", max_concurrency=blank, on_account_error=blank, params=blank, fields=blank, max_items=blank
        )
        assert (query.max_concurrency, query.skips_accounts) == (10, False)
        assert query.example == WabaEdgeQuery.build("1", "flows").example
        assert query.of_account("7").path == "7/flows"

    def test_a_listing_that_is_left_early_leaves_no_thread(self, connected: GraphSandbox, hook: WhatsAppHook) -> None:
        ids = [account["id"] for account in connected.accounts[:40]]
        connected.fail_next(*(Fault.slow_reply(20).on(id_) for id_ in ids[1:]))
        rows = hook.iter_waba_edge(ids, "phone_numbers", fields="id")
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        for thread in threading.enumerate():
            if "Attempt" in thread.name:
                thread.join(60)
                assert not thread.is_alive()

    def test_an_edge_with_parameters(self, connected: GraphSandbox, hook: WhatsAppHook) -> None:
        account = connected.accounts[0]["id"]
        params = {"business": connected.business_id}
        rows = list(hook.iter_edge(f"{account}/assigned_users", params=params))
        assert rows == [
            {name: value for name, value in row.items() if name != "waba_id"}
            for row in hook.iter_waba_edge([account], "assigned_users", params=params)
        ]
        with pytest.raises(ValueError, match="^params: assigned_users needs business; "):
            hook.iter_edge(f"{account}/assigned_users")


def test_no_secret_in_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    refusal = (403, {"error": {"code": 200, "message": f"for {TOKEN}"}})
    with caplog.at_level(logging.DEBUG):
        listed = Listed({"1": refusal, "2": []}, on_account_error="skip")
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(listed.progress.skipped)
