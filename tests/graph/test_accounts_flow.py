"""Which account is read next. A made-up API answers after made-up times, and the clock moves only with the waits."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphPermissionError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphRequestError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
    accounts_flow,
)
from airflow_provider_whatsapp.graph.accounts_flow import (
    AccountEnd,
    AccountPage,
    AccountsFlow,
    Answer,
    Receive,
    Send,
)
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.flow import GraphFlow, ReadConnection, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT, Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery, build_waba_edge_query

START = 1_700_000_000.0
OF_ACCOUNT = build_waba_edge_query("phone_numbers", fields="id")
Reply = Response | GraphError


def ok(payload: Any, status: int = 200, **headers: Any) -> Response:
    texts = {
        name.replace("_", "-"): value if isinstance(value, str) else json.dumps(value)
        for name, value in headers.items()
    }
    return Response(status, texts, json.dumps(payload).encode())


def failed(code: int, subcode: int | None = None, status: int = 400, **headers: Any) -> Response:
    return ok({"error": {"message": "m", "code": code, "error_subcode": subcode}}, status, **headers)


def page(*ids: object, after: str | None = None, **headers: Any) -> Response:
    paging = {"paging": {"cursors": {"after": after}, "next": "https://elsewhere/"}} if after else {}
    return ok({"data": [{"id": str(id_)} for id_ in ids], **paging}, **headers)


def own_usage(waba_id: str, percent: int, minutes: int = 0) -> dict[str, Any]:
    entry = {"call_count": percent, "estimated_time_to_regain_access": minutes}
    return {"x_business_use_case_usage": {waba_id: [entry]}}


def app_usage(percent: int, minutes: int = 0) -> dict[str, Any]:
    return {"x_app_usage": {"call_count": percent, "estimated_time_to_regain_access": minutes}}


def throttled(waba_id: str, minutes: int = 1, code: int = 80008) -> Response:
    return failed(code, **own_usage(waba_id, 100, minutes))


class Played:
    """Plays the client of one listing, and records what it did with the time of each step, from 0.

    :param replies: the answers for each account, in their order. An account that is not in it has one page with its id
    :param latency: gives the seconds that the answer for an account takes
    :param tick: seconds by which each look at the clock moves it on
    :param steps: number of steps to play; all by default
    :param knows_usage: whether the listing begins as if an answer had told that the limit is hardly used
    """

    def __init__(
        self,
        accounts: Iterable[tuple[str, EdgeQuery | None]] | Iterable[str],
        replies: Mapping[str, Sequence[Reply]] | None = None,
        *,
        concurrency: int = 1,
        skips: bool = False,
        patience: Patience | None = None,
        latency: Callable[[str], float] = lambda waba_id: 1.0,
        chance: float = 0.0,
        tick: float = 0.0,
        steps: int | None = None,
        knows_usage: bool = True,
    ) -> None:
        self.sent: list[tuple[float, str]] = []
        self.requests: list[Request] = []
        self.waits: list[tuple[float, float]] = []
        self.read: list[tuple[str, list[str]]] = []
        self.ends: list[tuple[float, str]] = []
        self.left_out: dict[str, GraphError] = {}
        self.most_on_their_way = 0
        self.error: BaseException | None = None
        self._now = START
        self._tick = tick
        self._latency = latency
        self._left = {waba_id: iter(answers) for waba_id, answers in (replies or {}).items()}
        #: Moment of arrival, key, account and answer.
        self._coming: list[tuple[float, int, str, Reply]] = []
        flow = AccountsFlow(
            new_flow=lambda patience, waba_id: GraphFlow(
                config=GraphConfig(
                    credentials=Credentials("EAAtokentokentokentokentoken"),
                    base_url="https://x.example",
                    version="v26.0",
                ),
                patience=patience,
                random=lambda: chance,
                now=self._clock,
                answered_versions=set(),
                on_call=lambda usage, error: None,
                waba_id=waba_id,
            ),
            patience=patience or Patience(),
            now=self._clock,
            max_concurrency=concurrency,
            skips_accounts=skips,
            # Otherwise the first request of every listing would go ahead of the others.
            percent=0.0 if knows_usage else None,
        )
        given = ((one, OF_ACCOUNT(one)) if isinstance(one, str) else one for one in accounts)
        self.steps = flow.read(given)
        answer: Answer = None
        try:
            while steps is None or steps > 0:
                answer = self._act(self.steps.send(answer))
                steps = None if steps is None else steps - 1
        except StopIteration:
            assert not self._coming
        except (GraphError, ValueError) as error:
            self.error = error

    def _clock(self) -> float:
        self._now += self._tick
        return self._now

    @property
    def time(self) -> float:
        return self._now - START

    def _act(self, step: Send | Receive | Wait | ReadConnection | AccountPage | AccountEnd) -> Answer:
        if isinstance(step, ReadConnection):
            return None
        if isinstance(step, Send):
            waba_id = step.request.path.partition("/")[0]
            self.sent.append((self.time, waba_id))
            self.requests.append(step.request)
            answers = self._left.setdefault(waba_id, iter([page(waba_id)]))
            heapq.heappush(self._coming, (self._now + self._latency(waba_id), step.key, waba_id, next(answers)))
            assert len({key for _, key, _, _ in self._coming}) == len(self._coming)
            self.most_on_their_way = max(self.most_on_their_way, len(self._coming))
        elif isinstance(step, Receive):
            assert self._coming, "waits for an answer although there is no request"
            assert step.seconds is None or step.seconds >= 0
            arrival, key, _, reply = self._coming[0]
            if step.seconds is not None and arrival > self._now + step.seconds:
                self._now += step.seconds
                return None
            heapq.heappop(self._coming)
            self._now = max(self._now, arrival)
            return key, reply
        elif isinstance(step, Wait):
            assert not self._coming, "waits although answers are on their way"
            self.waits.append((self.time, step.seconds))
            self._now += step.seconds
        elif isinstance(step, AccountPage):
            self.read.append((step.waba_id, [row["id"] for row in step.page.rows]))
        else:
            self.ends.append((self.time, step.waba_id))
            if step.error is not None:
                self.left_out[step.waba_id] = step.error
        return None

    @property
    def ended(self) -> list[str]:
        return [waba_id for _, waba_id in self.ends]

    @property
    def rows(self) -> dict[str, list[str]]:
        rows: dict[str, list[str]] = {}
        for waba_id, ids in self.read:
            rows.setdefault(waba_id, []).extend(ids)
        return rows

    def moments(self, waba_id: str) -> list[float]:
        return [moment for moment, one in self.sent if one == waba_id]


def numbered(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


class TestOrder:
    def test_one_at_a_time(self) -> None:
        played = Played(numbered(3), {"2": [page("a", after="A"), page("b")]})
        assert played.sent == [(0, "1"), (1, "2"), (2, "2"), (3, "3")]
        assert played.read == [("1", ["1"]), ("2", ["a"]), ("2", ["b"]), ("3", ["3"])]
        assert played.ends == [(1, "1"), (3, "2"), (4, "3")]
        assert [request.params.get("after") for request in played.requests] == [None, None, "A", None]

    def test_requests_are_sent_side_by_side_up_to_the_bound(self) -> None:
        played = Played(numbered(7), concurrency=3)
        assert [moment for moment, _ in played.sent] == [0, 0, 0, 1, 1, 1, 2]
        assert played.most_on_their_way == 3
        assert sorted(played.ended) == numbered(7)

    def test_a_free_place_goes_to_the_next_account_at_once(self) -> None:
        slow = {"1": 10.0, "4": 3.0}
        played = Played(numbered(5), concurrency=2, latency=lambda waba_id: slow.get(waba_id, 1.0))
        assert played.sent == [(0, "1"), (0, "2"), (1, "3"), (2, "4"), (5, "5")]
        assert played.ended == ["2", "3", "4", "5", "1"]

    def test_accounts_are_taken_one_by_one(self) -> None:
        taken: list[str] = []

        def accounts() -> Iterator[str]:
            for waba_id in numbered(100):
                taken.append(waba_id)
                yield waba_id

        played = Played(accounts(), concurrency=3, steps=4)
        assert taken == ["1", "2", "3"]
        played.steps.close()

    def test_an_account_with_further_pages_keeps_its_place(self) -> None:
        pages = {"1": [page("a", after="A"), page("b", after="B"), page("c")]}
        assert [one for _, one in Played(numbered(3), pages, concurrency=1).sent] == ["1", "1", "1", "2", "3"]

    def test_no_account(self) -> None:
        played = Played([], concurrency=5)
        assert (played.sent, played.ends, played.error) == ([], [], None)

    def test_an_account_without_a_query_is_only_ended(self) -> None:
        accounts = [("1", None), ("2", OF_ACCOUNT("2")), ("3", None), ("4", None), ("5", OF_ACCOUNT("5"))]
        played = Played(accounts, concurrency=2)
        assert [one for _, one in played.sent] == ["2", "5"]
        assert played.ended == ["1", "3", "4", "2", "5"]
        assert played.left_out == {}

    def test_accounts_that_raise(self) -> None:
        def accounts() -> Iterator[str]:
            yield "1"
            raise ValueError("waba_ids: wrong")

        played = Played(accounts(), concurrency=3)
        assert str(played.error) == "waba_ids: wrong"
        assert played.ended == []

    @settings(max_examples=60)
    @given(st.data(), st.integers(1, 12), st.integers(1, 12))
    def test_each_row_comes_once_however_the_answers_come(self, data: st.DataObject, count: int, bound: int) -> None:
        faults = st.sampled_from(
            ["none", "transport", "server", "throttle", "app", "usage", "own_usage", "foreign_usage"]
        )
        replies: dict[str, list[Reply]] = {}
        expected: dict[str, list[str]] = {}
        for waba_id in numbered(count):
            replies[waba_id], expected[waba_id] = [], []
            pages = data.draw(st.integers(1, 3))
            for number in range(pages):
                headers: dict[str, Any] = {}
                match data.draw(faults):
                    case "transport":
                        replies[waba_id].append(GraphTransportError("reset"))
                    case "server":
                        replies[waba_id].append(failed(2, status=500))
                    case "throttle":
                        replies[waba_id].append(throttled(waba_id))
                    case "app":
                        replies[waba_id].append(failed(4, retry_after="20"))
                    case "usage":
                        headers = app_usage(96)
                    case "own_usage":
                        headers = own_usage(waba_id, 99, 1)
                    case "foreign_usage":
                        headers = own_usage("999", 99, 1)
                rows = [f"{waba_id}-{number}-{row}" for row in range(data.draw(st.integers(0, 2)))]
                expected[waba_id] += rows
                replies[waba_id].append(page(*rows, after=f"A{number}" if number < pages - 1 else None, **headers))
        wanted = sum(map(len, replies.values()))
        latencies = {waba_id: data.draw(st.sampled_from([0.0, 0.5, 1.0, 90.0])) for waba_id in replies}
        played = Played(
            numbered(count),
            replies,
            concurrency=bound,
            latency=latencies.__getitem__,
            patience=Patience(budget=10_000),
            chance=data.draw(st.sampled_from([0.0, 0.5, 1.0])),
            tick=data.draw(st.sampled_from([0.0, 0.001])),
        )
        assert played.error is None
        assert played.rows == expected
        assert sorted(played.ended) == sorted(expected)
        assert len(played.sent) == wanted
        assert played.most_on_their_way <= bound
        # No request is sent twice at once, and none is left out.
        asked = Counter((request.path, request.params.get("after")) for request in played.requests)
        assert max(asked.values()) <= 2


class TestLimitOfOneAccount:
    @pytest.mark.parametrize("code", [80007, 80008])
    def test_it_waits_alone(self, code: int) -> None:
        played = Played(numbered(4), {"2": [throttled("2", 1, code), page("b")]}, concurrency=1)
        assert played.sent == [(0, "1"), (1, "2"), (2, "3"), (3, "4"), (62, "2")]
        assert played.waits == [(4, 58)]
        assert played.rows["2"] == ["b"]

    def test_it_is_sent_again_as_soon_as_it_may_be_although_others_are_left(self) -> None:
        played = Played(numbered(100), {"1": [throttled("1"), page("a")]}, concurrency=1)
        assert played.moments("1") == [0, 61]
        assert played.waits == []
        assert len(played.ended) == 100

    def test_an_answer_on_its_way_does_not_delay_it(self) -> None:
        played = Played(
            numbered(2),
            {"1": [throttled("1"), page("a")]},
            concurrency=2,
            latency=lambda waba_id: 200.0 if waba_id == "2" else 1.0,
        )
        assert played.moments("1") == [0, 61]
        assert played.ends == [(62, "1"), (200, "2")]
        assert played.waits == []

    def test_the_earliest_wait_ends_first(self) -> None:
        replies = {one: [throttled(one, minutes), page(one)] for one, minutes in (("1", 3), ("2", 1), ("3", 2))}
        played = Played(numbered(3), replies, concurrency=3, patience=Patience(longest_named_wait=300))
        assert played.ended == ["2", "3", "1"]
        assert played.waits == [(1, 60), (62, 59), (122, 59)]

    def test_while_others_are_read_it_may_wait_as_long_as_it_must(self) -> None:
        # Longer than the budget of a whole listing.
        played = Played(numbered(1000), {"1": [throttled("1", 15), page("a")]}, concurrency=1)
        assert played.moments("1") == [0, 901]
        assert played.error is None

    def test_without_a_named_time_it_waits_for_five_minutes(self) -> None:
        played = Played(numbered(400), {"1": [failed(80008), page("a")]}, concurrency=1)
        assert played.moments("1") == [0, 1 + UNNAMED_WAIT]

    def test_it_gives_up_after_six_attempts(self) -> None:
        played = Played(numbered(1000), {"1": [throttled("1")] * 9}, concurrency=1)
        assert isinstance(played.error, GraphRateLimitError)
        assert (played.error.attempts, played.error.waba_id) == (6, "1")
        assert len(played.moments("1")) == 6

    def test_its_pages_are_waited_for_too(self) -> None:
        played = Played(["1"], {"1": [page("a", after="A"), throttled("1"), page("b")]})
        assert played.rows == {"1": ["a", "b"]}
        assert [request.params.get("after") for request in played.requests] == [None, "A", "A"]
        assert played.waits == [(2, 60)]

    def test_the_random_part_of_the_wait_is_waited_too(self) -> None:
        assert Played(["1"], {"1": [throttled("1"), page("a")]}, chance=1.0).waits == [(1, 61)]


class TestLimitOfAll:
    @pytest.mark.parametrize(
        "refusal",
        [
            *(failed(code, retry_after="60") for code in (4, 17, 32, 341, 613, 130429, 131064, 80004)),
            Response(429, {"retry-after": "60"}, b"x"),
        ],
    )
    def test_all_wait(self, refusal: Response) -> None:
        played = Played(numbered(4), {"2": [refusal, page("b")]}, concurrency=1)
        assert played.sent == [(0, "1"), (1, "2"), (62, "3"), (63, "2"), (64, "4")]
        assert played.waits == [(2, 60)]

    def test_answers_that_are_on_their_way_are_taken_meanwhile(self) -> None:
        played = Played(
            numbered(5),
            {"1": [failed(4, retry_after="60"), page("a")]},
            concurrency=3,
            latency=lambda waba_id: {"2": 5.0, "3": 10.0}.get(waba_id, 1.0),
        )
        assert played.ends[:2] == [(5, "2"), (10, "3")]
        assert [moment for moment, _ in played.sent] == [0, 0, 0, 61, 62, 62]
        assert played.waits == [(10, 51)]

    def test_a_pause_that_ends_while_an_answer_is_on_its_way(self) -> None:
        played = Played(
            numbered(3),
            {"1": [failed(4, retry_after="60"), page("a")]},
            concurrency=2,
            latency=lambda waba_id: 100.0 if waba_id == "2" else 1.0,
        )
        assert played.sent == [(0, "1"), (0, "2"), (61, "3"), (62, "1")]
        assert played.waits == []

    def test_a_shorter_wait_does_not_end_a_longer_one(self) -> None:
        replies = {"1": [failed(4, retry_after="50"), page("a")], "2": [failed(4, retry_after="5"), page("b")]}
        played = Played(numbered(3), replies, concurrency=2)
        assert [moment for moment, _ in played.sent] == [0, 0, 51, 52, 52]

    def test_five_accounts_in_a_row_make_all_wait(self) -> None:
        replies = {one: [throttled(one), page(one)] for one in numbered(5)}
        played = Played(numbered(9), replies, concurrency=1)
        assert [one for moment, one in played.sent if moment < 60] == numbered(5)
        assert played.waits == [(5, 60)]
        assert len(played.ended) == 9
        assert played.error is None

    def test_four_do_not(self) -> None:
        replies = {one: [throttled(one), page(one)] for one in numbered(4)}
        played = Played(numbered(9), replies, concurrency=1)
        assert [one for moment, one in played.sent if moment < 60] == numbered(9)

    def test_five_with_a_page_between_do_not(self) -> None:
        replies = {one: [throttled(one), page(one)] for one in ("1", "2", "3", "4", "6", "7", "8", "9")}
        played = Played(numbered(11), replies, concurrency=1)
        assert [one for moment, one in played.sent if moment < 60] == numbered(11)

    def test_five_refusals_of_one_account_do_not(self) -> None:
        replies = {one: [throttled(one)] * 4 + [page(one)] for one in ("1", "2")}
        played = Played(numbered(2), replies, concurrency=2, patience=Patience(budget=10_000))
        assert played.error is None
        assert played.moments("1") == played.moments("2") == [0, 61, 122, 183, 244]


class TestRequestsSideBySide:
    def sent_at(self, *usages: dict[str, Any], **arguments: Any) -> list[float]:
        replies: dict[str, list[Reply]] = {
            one: [page(one, **usage)] for one, usage in zip(numbered(len(usages)), usages, strict=True)
        }
        return [moment for moment, _ in Played(numbered(20), replies, knows_usage=False, **arguments).sent]

    def test_the_first_request_goes_ahead_of_the_others(self) -> None:
        assert self.sent_at({}, concurrency=10) == [0, *[1] * 10, *[2] * 9]
        assert self.sent_at(app_usage(75), concurrency=10)[:11] == [0, *[1] * 10]

    def test_it_does_so_after_a_pause(self) -> None:
        replies: dict[str, list[Reply]] = {"1": [failed(4, retry_after="60"), page("a")]}
        played = Played(numbered(9), replies, concurrency=5)
        assert [moment for moment, _ in played.sent] == [*[0] * 5, 61, *[62] * 4]

    def test_fewer_are_sent_as_the_limit_is_used_up(self) -> None:
        # Half of the twenty percent below the 95 at which the listing pauses are left.
        assert self.sent_at(app_usage(85), app_usage(85), concurrency=10)[:7] == [0, *[1] * 5, 2]
        assert self.sent_at(*[app_usage(94)] * 20, concurrency=10) == list(range(20))
        assert self.sent_at(*[app_usage(85)] * 20, concurrency=1) == list(range(20))

    def test_the_limit_of_one_account_does_not_count(self) -> None:
        assert self.sent_at(own_usage("1", 94), concurrency=10)[:11] == [0, *[1] * 10]

    def test_accounts_that_are_left_out_are_requested_concurrently(self) -> None:
        replies: dict[str, list[Reply]] = {one: [failed(100, 33)] for one in numbered(21)}
        played = Played(numbered(21), replies, concurrency=10, skips=True, knows_usage=False)
        assert [moment for moment, _ in played.sent] == [0, *[1] * 10, *[2] * 10]


class TestUsage:
    def test_its_own_holds_back_one_account_only(self) -> None:
        replies = {"1": [page("a", after="A", **own_usage("1", 95, 1)), page("b")]}
        played = Played(numbered(4), replies, concurrency=1)
        assert played.sent == [(0, "1"), (1, "2"), (2, "3"), (3, "4"), (61, "1")]
        assert played.waits == [(4, 57)]

    def test_below_the_limit_nothing_waits(self) -> None:
        replies = {"1": [page("a", after="A", **own_usage("1", 94, 1), **app_usage(94, 1)), page("b")]}
        assert [moment for moment, _ in Played(numbered(2), replies).sent] == [0, 1, 2]

    @pytest.mark.parametrize("usage", [app_usage(95, 1), own_usage("1906385232743451", 95, 1)])
    def test_that_of_more_than_one_node_holds_back_all(self, usage: dict[str, Any]) -> None:
        played = Played(numbered(3), {"1": [page("a", **usage)]}, concurrency=1)
        assert played.sent == [(0, "1"), (61, "2"), (62, "3")]

    def test_the_end_of_a_pause_is_not_missed_while_an_answer_is_on_its_way(self) -> None:
        played = Played(
            numbered(3),
            {"1": [page("a", **app_usage(96, 1))]},
            concurrency=2,
            latency=lambda waba_id: 100.0 if waba_id == "2" else 1.0,
        )
        assert played.sent == [(0, "1"), (0, "2"), (61, "3")]

    @pytest.mark.parametrize(
        ("own", "of_all", "sent"),
        [(1, 2, [(0, "1"), (121, "2"), (122, "1"), (123, "3")]), (2, 1, [(0, "1"), (61, "2"), (62, "3"), (121, "1")])],
    )
    def test_its_own_and_that_of_all(self, own: int, of_all: int, sent: list[tuple[float, str]]) -> None:
        usage = {**own_usage("1", 100, own), **app_usage(96, of_all)}
        assert Played(numbered(3), {"1": [page("a", after="A", **usage), page("b")]}).sent == sent

    def test_the_pauses_of_all_end_with_the_budget(self) -> None:
        replies = {one: [page(one, **app_usage(96, 1))] for one in numbered(4)}
        played = Played(numbered(4), replies, concurrency=1, patience=Patience(budget=100))
        assert [moment for moment, _ in played.sent] == [0, 61, 102, 103]

    def test_two_pauses_of_all(self) -> None:
        replies = {one: [page(one, **app_usage(96, 1))] for one in numbered(8)}
        played = Played(numbered(8), replies, concurrency=2, patience=Patience(budget=100))
        # The second answer arrives during the pause and does not count again, so that 40 seconds are left.
        assert [moment for moment, _ in played.sent] == [0, 0, 61, 102, 103, 104, 105, 106]

    def test_the_pauses_of_one_account_are_not_counted(self) -> None:
        pages = [
            page("a", after="A", **own_usage("1", 99, 1)),
            page("b", after="B", **own_usage("1", 99, 1)),
            page("c"),
        ]
        assert Played(["1"], {"1": pages}).waits == [(1, 60), (62, 60)]

    def test_of_an_account_that_has_ended_it_holds_back_nothing(self) -> None:
        assert Played(numbered(2), {"1": [page("a", **own_usage("1", 100, 9))]}).waits == []

    def test_a_long_pause_of_all_can_be_an_error(self) -> None:
        played = Played(
            numbered(3), {"1": [page("a", **app_usage(96, 5))]}, patience=Patience(raises_when_used_up=True)
        )
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after == timedelta(minutes=5)
        assert played.rows == {"1": ["a"]}
        assert played.waits == []

    def test_a_pause_beyond_the_budget_can_be_an_error(self) -> None:
        replies = {one: [page(one, **app_usage(96, 1))] for one in numbered(4)}
        played = Played(numbered(4), replies, patience=Patience(budget=100, raises_when_used_up=True))
        assert played.waits == [(1, 60)]
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after == timedelta(minutes=1)
        assert played.ended == ["1", "2"]
        pages = [page("a", after="A", **own_usage("1", 96, 1)), page("b", after="B", **own_usage("1", 96, 1))]
        played = Played(["1"], {"1": pages}, patience=Patience(budget=100, raises_when_used_up=True))
        assert played.waits == [(1, 60)]
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.waba_id == "1"

    def test_a_long_pause_of_one_account_is_an_error_when_nothing_else_is_left(self) -> None:
        pages = [page("a", after="A", **own_usage("1", 96, 5)), page("b")]
        played = Played(numbered(11), {"1": pages}, patience=Patience(raises_when_used_up=True))
        assert isinstance(played.error, GraphRateLimitError)
        assert str(played.error).startswith("Account 1: 96 % ")
        # It began ten seconds ago, while the others were read.
        assert played.error.retry_after == timedelta(minutes=5, seconds=-10)
        assert sorted(played.ended) == sorted(numbered(11)[1:])


class TestWaitsInPlace:
    def test_a_named_wait_of_at_most_a_minute(self) -> None:
        played = Played(["1"], {"1": [throttled("1", 1), page("a")]})
        assert (played.waits, played.error) == ([(1, 60)], None)

    def test_a_longer_one_is_an_error(self) -> None:
        played = Played(numbered(3), {"2": [throttled("2", 5), page("b")]})
        assert isinstance(played.error, GraphRateLimitError)
        assert (played.error.waba_id, played.error.code) == ("2", 80008)
        assert str(played.error).startswith("Account 2: The API said: m. Too many calls")
        # The third account was read first.
        assert played.ended == ["1", "3"]
        assert played.error.retry_after == timedelta(minutes=5, seconds=-1)
        assert played.waits == []

    def test_what_is_left_of_a_wait_counts(self) -> None:
        played = Played(numbered(300), {"1": [throttled("1", 5), page("a")]})
        assert played.error is None
        assert played.waits == [(300, 1)]

    def test_the_random_part_does_not_count(self) -> None:
        assert Played(["1"], {"1": [throttled("1", 1), page("a")]}, chance=1.0).error is None
        played = Played(["1"], {"1": [throttled("1", 5)]}, chance=1.0)
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after == timedelta(minutes=5)

    def test_without_a_named_time_the_wait_is_five_minutes(self) -> None:
        played = Played(["1"], {"1": [failed(80008), page("a")]})
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after == timedelta(seconds=UNNAMED_WAIT)
        patience = Patience(longest_named_wait=UNNAMED_WAIT)
        assert Played(["1"], {"1": [failed(80008), page("a")]}, patience=patience).waits == [(1, UNNAMED_WAIT)]

    def test_a_limit_of_all_that_lasts_too_long(self) -> None:
        played = Played(numbered(3), {"2": [failed(4, retry_after="90"), page("b")]}, concurrency=2)
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.code == 4
        assert played.error.retry_after == timedelta(seconds=89)
        # The third request was on its way already.
        assert played.ended == ["1", "3"]
        assert played.waits == []

    def test_all_waits_together_have_a_budget(self) -> None:
        replies = {one: [throttled(one), page(one)] for one in numbered(9)}
        played = Played(numbered(9), replies, concurrency=1, patience=Patience(budget=60))
        assert played.waits == [(5, 60)]
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after is not None
        played = Played(["1"], {"1": [throttled("1"), page("a")]}, patience=Patience(budget=59))
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after == timedelta(seconds=60)

    def test_the_budget_counts_for_faults_too(self) -> None:
        replies: dict[str, list[Reply]] = {"1": [GraphTransportError("reset"), GraphTransportError("reset"), page("a")]}
        assert Played(["1"], replies, chance=1.0, patience=Patience(budget=3)).waits == [(1, 1), (3, 2)]
        played = Played(["1"], replies, chance=1.0, patience=Patience(budget=2))
        assert isinstance(played.error, GraphTransportError)
        assert (played.error.waba_id, played.error.retry_after) == ("1", None)
        assert played.waits == [(1, 1)]

    def test_waits_of_all_kinds_count_together(self) -> None:
        replies: dict[str, list[Reply]] = {
            "1": [GraphTransportError("reset"), page("a", **app_usage(96, 1))],
            "2": [failed(4, retry_after="20"), page("b", after="B", **own_usage("2", 96, 1)), page("c")],
        }
        played = Played(numbered(2), replies, chance=1.0, patience=Patience(budget=100))
        assert played.error is None
        # A second of the first account's wait passes while the second account is read.
        assert sum(seconds for _, seconds in played.waits) == 100

    def test_accounts_that_wait_side_by_side_count_once(self) -> None:
        replies = {one: [throttled(one), page(one)] for one in numbered(4)}
        played = Played(numbered(4), replies, concurrency=4, patience=Patience(budget=60))
        assert (played.waits, played.error) == ([(1, 60)], None)

    def test_a_fault_that_names_a_long_wait_is_no_rate_limit(self) -> None:
        reply = failed(2, status=503, retry_after="120")
        played = Played(["1"], {"1": [reply, page("a")]})
        assert (played.waits, played.error) == ([(1, 120)], None)

    def test_a_fault_of_one_account_does_not_hold_back_others(self) -> None:
        played = Played(numbered(3), {"1": [GraphTransportError("reset"), page("a")]}, chance=1.0)
        assert played.sent == [(0, "1"), (1, "2"), (2, "1"), (3, "3")]
        assert played.waits == []

    def test_a_long_wait_of_one_account_does_not_end_a_pause_of_all_early(self) -> None:
        replies = {"1": [throttled("1", 5)], "2": [page("b", **app_usage(96, 1))]}
        played = Played(numbered(4), replies, concurrency=1)
        assert played.waits == [(2, 60)]
        assert played.ended == ["2", "3", "4"]
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after == timedelta(minutes=5, seconds=-63)

    def test_a_clock_that_moves_between_two_looks(self) -> None:
        for tick in [quarter / 4 for quarter in range(1, 300)]:
            replies = {"1": [page("1", **app_usage(96, 1))], "2": [failed(4, retry_after="30"), page("2")]}
            for bound in (1, 2):
                played = Played(numbered(3), replies, concurrency=bound, tick=tick)
                assert sorted(played.ended) == numbered(3)


SKIPPABLE = [
    *(failed(code, status=403) for code in (200, 201, 299, 368, 131005, 131031)),
    failed(100, 33),
    failed(803),
    *(failed(code) for code in (200005, 200006, 200007, 200008)),
]
UNSKIPPABLE: list[tuple[Reply, type[GraphError]]] = [
    *((failed(code, status=403), GraphPermissionError) for code in (3, 10)),
    (Response(403, {}, b"<html>proxy"), GraphPermissionError),
    (ok({"error": {"message": "m"}}, 403), GraphPermissionError),
    (failed(190), GraphTokenError),
    (failed(100), GraphRequestError),
    (failed(100, 34), GraphRequestError),
    (failed(2500), GraphTokenError),
    (Response(404, {}, b""), GraphRequestError),
    (failed(4), GraphRateLimitError),
    (throttled("2", 5), GraphRateLimitError),
    (failed(2, status=500), GraphServerError),
    (GraphTransportError("reset"), GraphTransportError),
    (ok({}), GraphProtocolError),
    (Response(302, {}, b""), GraphProtocolError),
]


class TestAccountsThatCannotBeRead:
    @pytest.mark.parametrize("reply", SKIPPABLE)
    def test_left_out(self, reply: Response) -> None:
        played = Played(numbered(3), {"2": [reply]}, skips=True)
        assert played.error is None
        assert list(played.left_out) == ["2"]
        assert played.left_out["2"].waba_id == "2"
        assert played.rows == {"1": ["1"], "3": ["3"]}
        assert played.ended == ["1", "2", "3"]

    @pytest.mark.parametrize("reply", SKIPPABLE)
    def test_unless_the_listing_must_fail(self, reply: Response) -> None:
        played = Played(numbered(3), {"2": [reply]})
        assert isinstance(played.error, GraphError)
        assert str(played.error).startswith("Account 2: ")
        assert played.ended == ["1"]

    @pytest.mark.parametrize(("reply", "kind"), UNSKIPPABLE)
    @pytest.mark.parametrize("skips", [False, True])
    def test_never_left_out(self, reply: Reply, kind: type[GraphError], skips: bool) -> None:
        played = Played(numbered(3), {"2": [reply] * 6}, skips=skips, patience=Patience(budget=0))
        assert type(played.error) is kind
        assert played.error.waba_id == "2"
        assert played.left_out == {}
        assert "2" not in played.ended

    def test_one_that_is_refused_in_the_middle(self) -> None:
        played = Played(numbered(2), {"1": [page("a", after="A"), failed(100, 33)]}, skips=True)
        assert list(played.left_out) == ["1"]
        assert played.ended == ["1", "2"]

    def test_its_place_is_free_again(self) -> None:
        replies: dict[str, list[Reply]] = {one: [failed(803)] for one in numbered(20)}
        played = Played(numbered(20), replies, concurrency=2, skips=True)
        assert len(played.left_out) == 20
        assert played.time == 10


class TestLead:
    def test_only_so_many_accounts_are_read_ahead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts_flow, "MAX_LEAD", 5)
        played = Played(numbered(12), {"1": [throttled("1"), page("a")]}, concurrency=2)
        assert [one for moment, one in played.sent if moment < 60] == numbered(5)
        assert played.waits == [(3, 58)]
        assert len(played.ended) == 12

    def test_those_that_are_kept_count_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts_flow, "MAX_LEAD", 5)
        accounts = [(one, None if one in ("2", "3", "4") else OF_ACCOUNT(one)) for one in numbered(8)]
        played = Played(accounts, {"1": [throttled("1"), page("a")]}, concurrency=2)
        assert [one for moment, one in played.sent if moment < 60] == ["1", "5"]
        assert len(played.ended) == 8

    def test_the_oldest_that_is_left_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts_flow, "MAX_LEAD", 5)
        replies = {"1": [throttled("1"), page("a")], "3": [throttled("3", 2), page("c")]}
        played = Played(numbered(12), replies, concurrency=2, patience=Patience(longest_named_wait=200))
        assert [one for moment, one in played.sent if moment < 119] == [*numbered(5), "1", "6", "7"]
        assert len(played.ended) == 12

    def test_only_so_many_accounts_wait_at_the_same_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Each holds a page in memory.
        monkeypatch.setattr(accounts_flow, "MAX_WAITING", 3)
        replies: dict[str, list[Reply]] = {
            one: [page("a", after="A"), throttled(one), page("b")] for one in numbered(3)
        }
        played = Played(numbered(12), replies, concurrency=1)
        assert {one for moment, one in played.sent if moment < 60} == {*numbered(3)}
        assert len(played.ended) == 12

    def test_ten_thousand(self) -> None:
        played = Played(
            numbered(accounts_flow.MAX_LEAD + 5),
            {"1": [throttled("1"), page("a")]},
            concurrency=50,
            latency=lambda waba_id: 0.001,
        )
        assert accounts_flow.MAX_LEAD == 10_000
        assert len({one for moment, one in played.sent if moment < 60}) == accounts_flow.MAX_LEAD
        assert len(played.ended) == accounts_flow.MAX_LEAD + 5


class TestBudgetOfPauses:
    """Pauses that are made before a limit is reached are cut short when the listing has waited for long enough."""

    PATIENCE = Patience(longest_named_wait=60, budget=100)

    def test_pauses_of_one_account(self) -> None:
        pages = [page(number, after=f"c{number}", **own_usage("1", 96, 1)) for number in range(10)]
        played = Played(["1"], {"1": [*pages, page("last")]}, patience=self.PATIENCE)
        assert played.error is None
        assert played.rows == {"1": [*map(str, range(10)), "last"]}
        assert sum(seconds for _, seconds in played.waits) == 100

    def test_pauses_of_several_accounts(self) -> None:
        ids = numbered(5)
        replies: dict[str, list[Reply]] = {
            id_: [*(page(f"{id_}{n}", after=f"c{n}", **own_usage(id_, 96, 1)) for n in range(9)), page(f"{id_}9")]
            for id_ in ids
        }
        played = Played(ids, replies, concurrency=5, patience=self.PATIENCE)
        assert played.error is None
        assert {id_: len(rows) for id_, rows in played.rows.items()} == dict.fromkeys(ids, 10)
        assert sum(seconds for _, seconds in played.waits) == 100

    def test_pauses_of_the_app(self) -> None:
        ids = numbered(10)
        replies: dict[str, list[Reply]] = {id_: [page(id_, **app_usage(96, 1))] for id_ in ids}
        played = Played(ids, replies, patience=replace(self.PATIENCE, longest_named_wait=1000, budget=100))
        assert played.error is None
        assert played.ended == ids
        assert sum(seconds for _, seconds in played.waits) == 100
