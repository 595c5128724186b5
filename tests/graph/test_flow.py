from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph import (
    GraphError,
    GraphProtocolError,
    GraphRateLimitError,
    GraphServerError,
    GraphTokenError,
    GraphTransportError,
)
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.flow import GraphFlow, ReadConnection, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response, too_large_error
from airflow_provider_whatsapp.graph.pages import ListingMovedError, Position
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import NodeQuery, build_edge_query, build_node_query

TOKEN = "EAAtokentokentokentokentoken"
NOW = 1_700_000_030.5
EDGE = "1/client_whatsapp_business_accounts"
Answer = Response | GraphError


def flow(
    patience: Patience | None = None, answered_versions: set[str] | None = None, app_secret: str | None = None
) -> GraphFlow:
    return GraphFlow(
        config=GraphConfig(
            credentials=Credentials(TOKEN, app_secret), base_url="https://graph.example", version="v26.0"
        ),
        patience=patience or Patience(),
        random=lambda: 1.0,
        now=lambda: NOW,
        answered_versions=set() if answered_versions is None else answered_versions,
        on_call=lambda usage, error: None,
    )


class Played:
    """Runs a flow with the given answers and records what it did."""

    def __init__(
        self, steps: Any, answer: Callable[[Request], Answer], settings: Iterable[GraphConfig | None] = ()
    ) -> None:
        #: Settings of the connection when it is read again; by default, they have not changed.
        left = iter(settings)
        self.requests: list[Request] = []
        self.waits: list[float] = []
        self.read: list[Any] = []
        self.error: GraphError | None = None
        outcome: Answer | GraphConfig | None = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = None
                if isinstance(step, Request):
                    self.requests.append(step)
                    outcome = answer(step)
                elif isinstance(step, Wait):
                    self.waits.append(step.seconds)
                elif isinstance(step, ReadConnection):
                    outcome = next(left, None)
                else:
                    self.read.append(step)
        except StopIteration:
            pass
        except GraphError as error:
            self.error = error

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for page in self.read for row in page.rows]


def ok(payload: Any, status: Any = 200, **headers: str) -> Response:
    return Response(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(payload).encode()
    )


def failed(code: int, status: int = 400, *, message: str = "m", **headers: str) -> Response:
    return ok({"error": {"message": message, "code": code}}, status, **headers)


def play(answers: Iterable[Answer], *, patience: Patience | None = None, fields: str = "id", **query: Any) -> Played:
    left: Iterator[Answer] = iter(answers)
    return Played(flow(patience).pages(build_edge_query(EDGE, fields=fields, **query)), lambda request: next(left))


def page(ids: Iterable[int], after: str | None = None) -> dict[str, Any]:
    paging = {"paging": {"cursors": {"after": after}, "next": "https://elsewhere/"}} if after else {}
    return {"data": [{"id": str(i)} for i in ids], **paging}


TWO_PAGES = [ok(page([1, 2], "A")), ok(page([3]))]
TOO_MUCH = failed(1, 500, message="Please reduce the amount of data you're asking for, then retry your request")


def test_pages_until_there_is_no_next() -> None:
    played = play(TWO_PAGES)
    assert [page.number for page in played.read] == [1, 2]
    assert [row["id"] for row in played.rows] == ["1", "2", "3"]
    assert [request.params.get("after") for request in played.requests] == [None, "A"]
    assert played.waits == []
    assert played.error is None


def test_the_filters_go_along_on_every_page() -> None:
    played = play(TWO_PAGES, ownership_types="SELF", sort="creation_time_ascending", page_size=2)
    first, second = (dict(request.params) for request in played.requests)
    assert second.pop("after") == "A"
    assert first == second
    assert set(first) == {"filtering", "sort", "limit", "fields"}


def test_an_empty_page_with_next_is_read_on() -> None:
    played = play([ok(page([], "A")), ok(page([], "B")), ok(page([1]))])
    assert [row["id"] for row in played.rows] == ["1"]


def test_max_items_ends_the_listing_with_no_further_request() -> None:
    played = play(TWO_PAGES, max_items=2)
    assert len(played.requests) == 1
    assert played.read[-1].truncated


def test_usage_is_reported_with_the_page() -> None:
    played = play([ok(page([1]), x_app_usage='{"call_count":28}')])
    assert played.read[0].usage.percent == 28


PASSING = [
    GraphTransportError("reset"),
    ok(page([1]), 206, content_range="bytes 0-99/5000"),
    ok(page([1]), 200, content_range="bytes 0-99/5000"),
    ok(page([1]), 203),
    failed(1, 500),
    failed(2, 500),
    failed(2, 200),
    ok({"error": {"code": 99999, "is_transient": True}}, 400),
    ok(None, 500),
    Response(503, {}, b"<html>"),
    Response(200, {}, b"<html>Service Unavailable"),
    Response(200, {}, b""),
    Response(200, {}, b'{"data":[{"id":'),
    Response(200, {"content-encoding": "gzip"}, b"cut"),
    Response(500, {"content-encoding": "br"}, b"cut"),
    ok({"error": "odd", "data": []}),
    failed(80008, x_business_use_case_usage='{"1":[{"call_count":100,"estimated_time_to_regain_access":1}]}'),
    failed(4, 403, retry_after="2"),
]


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_waited_out(fault: Answer) -> None:
    played = play([fault, TWO_PAGES[0], fault, TWO_PAGES[1]])
    assert played.error is None
    assert [row["id"] for row in played.rows] == ["1", "2", "3"]
    assert len(played.waits) == 2
    assert played.requests[0] == played.requests[1]
    assert played.requests[2] == played.requests[3]


@given(st.lists(st.lists(st.sampled_from(PASSING[:16]), max_size=3), min_size=1, max_size=6), st.data())
def test_no_schedule_of_passing_faults_changes_the_rows(faults: list[list[Answer]], data: st.DataObject) -> None:
    ids = iter(range(1000))
    answers: list[Answer] = []
    wanted: list[str] = []
    for number, before in enumerate(faults):
        of_page = [next(ids) for _ in range(data.draw(st.integers(0, 4)))]
        wanted += map(str, of_page)
        answers += [*before, ok(page(of_page, f"A{number}" if number < len(faults) - 1 else None))]
    played = play(answers)
    assert played.error is None
    assert [row["id"] for row in played.rows] == wanted
    assert len(played.requests) == len(answers)


def test_waits_grow_and_end_with_the_last_error() -> None:
    played = play([GraphTransportError("reset")] * 6)
    assert played.waits == [1, 2, 4, 8, 16]
    assert isinstance(played.error, GraphTransportError)
    assert str(played.error) == "reset (after 6 attempts)"
    assert played.error.__cause__ is None
    assert played.error.__context__ is None


def test_attempts_count_for_each_request_and_waits_for_the_whole_listing() -> None:
    answers: list[Answer] = []
    for number in range(30):
        answers += [GraphTransportError("reset")] * 5 + [ok(page([number], f"A{number}"))]
    played = play(answers, patience=Patience(budget=100))
    assert sum(played.waits) <= 100
    assert len(played.rows) == 3
    assert isinstance(played.error, GraphTransportError)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failed(190), GraphTokenError),
        (failed(80008), GraphRateLimitError),
        (failed(80008, retry_after="61"), GraphRateLimitError),
        (Response(429, {}, b""), GraphRateLimitError),
        (Response(302, {"location": "https://evil/"}, b""), GraphProtocolError),
        (ok([]), GraphProtocolError),
        (ok(5), GraphProtocolError),
        (ok({"paging": {}}), GraphProtocolError),
        (GraphProtocolError("larger"), GraphProtocolError),
        (Response(200, {"content-encoding": "br"}, b"x"), GraphProtocolError),
    ],
)
def test_what_waiting_cannot_mend_ends_the_listing_at_once(answer: Answer, kind: type[GraphError]) -> None:
    played = play([TWO_PAGES[0], answer])
    assert type(played.error) is kind
    assert played.waits == []
    assert len(played.requests) == 2


def test_a_throttle_says_how_long_it_lasts() -> None:
    played = play(
        [failed(80008, x_business_use_case_usage='{"1":[{"call_count":100,"estimated_time_to_regain_access":5}]}')]
    )
    assert isinstance(played.error, GraphRateLimitError)
    assert played.error.retry_after is not None
    assert played.error.retry_after.total_seconds() == 300


def test_too_much_data_halves_the_page_and_continues() -> None:
    played = play([ok(page([1], "A")), TOO_MUCH, TOO_MUCH, ok(page([2], "B")), ok(page([3]))])
    assert [request.params["limit"] for request in played.requests] == ["100", "100", "50", "25", "25"]
    assert [request.params.get("after") for request in played.requests] == [None, "A", "A", "A", "B"]
    assert [row["id"] for row in played.rows] == ["1", "2", "3"]
    assert played.waits == []


def test_too_much_data_for_a_single_row_is_an_error() -> None:
    played = play([TOO_MUCH] * 9)
    assert [request.params["limit"] for request in played.requests] == ["100", "50", "25", "12", "6", "3", "1"]
    assert isinstance(played.error, GraphServerError)
    assert not played.error.retryable


@pytest.mark.parametrize(
    "answer",
    [too_large_error(), ok([1] * 500_001), failed(-3), failed(-3, 200), failed(2, message="REDUCE the amount of DATA")],
)
def test_any_answer_with_too_much_data_halves_the_page(answer: Answer) -> None:
    played = play([answer] * 9)
    assert [request.params["limit"] for request in played.requests] == ["100", "50", "25", "12", "6", "3", "1"]
    assert played.waits == []
    assert played.error is not None
    assert not played.error.retryable


@given(
    st.integers(0, 120),
    st.integers(1, 130),
    st.lists(st.none() | st.sampled_from([failed(1, 500), GraphTransportError("reset"), TOO_MUCH]), max_size=40),
    st.sampled_from([failed(1, 500), TOO_MUCH]),
)
def test_any_size_that_the_api_can_give_ends_in_the_whole_list(
    count: int, most: int, faults: list[Answer | None], refusal: Answer
) -> None:
    """The API refuses pages that are too large, and some requests for another reason."""
    refused = [101]
    sent_at: dict[int, int] = {}

    def answer(request: Request) -> Answer:
        size, start = int(request.params["limit"]), int(request.params.get("after", 0))
        sent_at[start] = sent_at.get(start, 0) + 1
        fault = faults.pop() if faults else None
        if fault is TOO_MUCH or (fault is None and size > most and refusal is TOO_MUCH):
            refused.append(size)
            return TOO_MUCH
        if fault is not None or size > most:
            return fault or refusal
        end = min(start + size, count)
        return ok(page(range(start, end), str(end) if end < count else None))

    def judge(request: Request) -> Answer:
        assert int(request.params["limit"]) < min(refused)
        return answer(request)

    played = Played(flow(Patience(budget=1e9)).pages(build_edge_query(EDGE)), judge)
    assert max(sent_at.values()) <= 6 * len(refused)
    if played.error is None:
        assert [row["id"] for row in played.rows] == [str(i) for i in range(count)]
    else:
        assert isinstance(played.error, GraphServerError | GraphTransportError)


def test_the_pages_of_an_api_that_does_not_say_which_size_is_too_large() -> None:
    def answer(request: Request) -> Answer:
        size, start = int(request.params["limit"]), int(request.params.get("after", 0))
        return (
            failed(1, 500)
            if size > 25
            else ok(page(range(start, start + size), str(start + size) if start < 2475 else None))
        )

    played = Played(flow().pages(build_edge_query(EDGE)), answer)
    assert len(played.rows) == 2500
    assert len(played.requests) == 110


def test_the_token_is_taken_out_of_rows() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in TOKEN)
    body = f'{{"data":[{{"id":"1","name":"x{TOKEN}y","{TOKEN}":"{escaped}"}}]}}'
    for encoded in (body.encode(), body.encode("utf-16")):
        assert play([Response(200, {}, encoded)]).rows == [{"id": "1", "name": "x***y", "***": "***"}]


def test_tokens_of_others_are_taken_out_of_errors() -> None:
    played = play([failed(190, message="Malformed access token EAAothers0123456789abcdefgh")])
    assert "EAAothers" not in str(played.error)


def test_another_version_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    versions: set[str] = set()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            answers = iter(
                [ok(page([1], "A"), facebook_api_version="v21.0"), ok(page([2]), facebook_api_version="v21.0")]
            )
            Played(flow(answered_versions=versions).pages(build_edge_query(EDGE)), lambda request, it=answers: next(it))  # type: ignore[misc]
    assert [record.getMessage() for record in caplog.records] == [
        "Graph API v26.0 was requested but v21.0 answered: the version in the connection's api_version has most likely "
        "expired or is not out yet, see https://developers.facebook.com/docs/graph-api/changelog"
    ]


def test_a_version_that_has_ended_is_named_as_the_cause_of_an_error() -> None:
    answers = [failed(100, message="(#100) Tried accessing nonexisting field (x)", facebook_api_version="v27.0")]
    error = play(answers).error
    assert " Graph API v26.0 was requested, but v27.0 answered: set api_version" in str(error)
    assert "nonexisting field" in str(error)
    assert "v27.0" not in str(play([failed(190, facebook_api_version="v27.0")]).error)


@pytest.mark.parametrize("code", [100, 104])
@pytest.mark.parametrize(
    ("date", "is_named"), [("Tue, 14 Nov 2023 22:03:50 GMT", True), ("Tue, 14 Nov 2023 22:13:50 GMT", False)]
)
def test_a_wrong_clock_is_named_as_the_cause_of_a_refused_proof(code: int, date: str, is_named: bool) -> None:
    refused = failed(code, message="Invalid appsecret_proof provided in the API argument", date=date)
    played = Played(flow(app_secret="5ecre7" * 5).pages(build_edge_query(EDGE)), lambda request: refused)
    assert (" The clock of this machine is 10 minutes ahead of the API's" in str(played.error)) is is_named
    played = Played(flow(app_secret="5ecre7" * 5).pages(build_edge_query(EDGE)), lambda request: failed(190, date=date))
    assert "clock" not in str(played.error)


@pytest.mark.parametrize(
    "headers", [{}, *({"facebook_api_version": value} for value in ("v26.0", "", TOKEN, "v1.0 " + TOKEN))]
)
def test_the_right_version_is_not_warned_about(headers: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    play([ok(page([1]), **headers)])
    assert not caplog.records


def usage(percent: int, minutes: int = 0) -> dict[str, str]:
    entry = {"call_count": percent, "estimated_time_to_regain_access": minutes}
    return {"x_app_usage": json.dumps(entry)}


class TestPacing:
    def test_a_listing_waits_before_its_next_page(self) -> None:
        played = play([ok(page([1], "A"), **usage(95, 1)), ok(page([2], "B"), **usage(94)), ok(page([3]))])
        assert played.waits == [60]
        assert len(played.rows) == 3

    def test_it_waits_for_what_is_left_of_the_budget_and_reads_on(self) -> None:
        answers = [ok(page([1], "A"), **usage(95, 1)), ok(page([2], "B"), **usage(99)), ok(page([3], "C"), **usage(99))]
        played = play([*answers, ok(page([4]))], patience=Patience(budget=100))
        assert played.waits == [60, 40]
        assert len(played.rows) == 4

    def test_it_does_not_wait_behind_the_last_page(self) -> None:
        assert play([ok(page([1]), **usage(100, 1))]).waits == []

    def test_the_page_comes_before_the_error(self) -> None:
        played = play([ok(page([1], "A"), **usage(95, 5))], patience=Patience(raises_when_used_up=True))
        assert len(played.rows) == 1
        assert isinstance(played.error, GraphRateLimitError)

    def test_the_error_comes_when_too_little_of_the_budget_is_left(self) -> None:
        answers = [ok(page([1], "A"), **usage(95, 1)), ok(page([2], "B"), **usage(95, 1))]
        played = play(answers, patience=Patience(budget=100, raises_when_used_up=True))
        assert played.waits == [60]
        assert isinstance(played.error, GraphRateLimitError)
        assert played.error.retry_after == timedelta(minutes=1)

    def test_all_waits_count_together(self) -> None:
        refused, full = failed(80008, retry_after="20"), ok(page([1], "A"), **usage(95, 1))
        played = play([failed(2, 500), refused, full, ok(page([2]))], patience=Patience(budget=50))
        assert played.waits == [1, 22, 27]
        played = play([full, failed(2, 500), ok(page([2]))], patience=Patience(budget=60))
        assert played.waits == [60]
        assert isinstance(played.error, GraphServerError)


class TestPositions:
    @staticmethod
    def resume(*answers: Answer, patience: Patience | None = None) -> Played:
        position: Position = play([ok(page([1], "A")), ok(page([2], "B")), failed(190)]).read[1].position
        steps = flow(patience).pages(build_edge_query(EDGE, fields="id"), position=position)
        left = iter(answers)
        return Played(steps, lambda request: next(left))

    def test_the_page_of_the_position_is_requested_again(self) -> None:
        played = self.resume(ok(page([2], "B")), ok(page([3])))
        assert [request.params.get("after") for request in played.requests] == ["A", "B"]
        assert [page.number for page in played.read] == [2, 3]
        assert played.rows == [{"id": "3"}]

    def test_a_passing_fault_is_waited_out(self) -> None:
        played = self.resume(failed(2, 500), ok(page([2], "B")), ok(page([3])))
        assert played.waits == [1]
        assert played.error is None

    @pytest.mark.parametrize(
        "answer",
        [
            ok(page([3], "B")),
            ok({}),
            failed(100),
            failed(2, 500),
            failed(1, 500, message="Please reduce the amount of data you're asking for"),
            Response(200, {}, b"<html>"),
        ],
    )
    def test_a_page_that_is_not_the_same_ends_it(self, answer: Answer) -> None:
        with pytest.raises(ListingMovedError):
            self.resume(answer, patience=Patience(attempts=1))

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (failed(4), GraphRateLimitError),
            (failed(190), GraphTokenError),
            (GraphTransportError("x"), GraphTransportError),
        ],
    )
    def test_what_says_nothing_about_the_page_is_an_error(self, answer: Answer, kind: type[GraphError]) -> None:
        assert isinstance(self.resume(answer, patience=Patience(attempts=1)).error, kind)


class TestNestedEdges:
    def test_the_rest_is_fetched_and_joined_in(self) -> None:
        def answer(request: Request) -> Answer:
            if request.path == EDGE:
                phones = {**page([1, 2], "P2"), "summary": {"total_count": 5}}
                return ok({"data": [{"id": "7", "phone_numbers": phones}, {"id": "8", "phone_numbers": page([9])}]})
            assert request.path == "7/phone_numbers"
            assert request.params["fields"] == "id,display_phone_number"
            assert request.params["limit"] == "100"
            assert request.params["sort"] == "x"
            return ok(page([3, 4], "P4") if request.params["after"] == "P2" else page([4, 5]))

        fields = "id,phone_numbers.limit(2).sort(x){id,display_phone_number}"
        played = Played(flow().pages(build_edge_query(EDGE, fields=fields)), answer)
        assert played.error is None
        seven, eight = played.rows
        assert seven["phone_numbers"] == {"data": [{"id": str(i)} for i in range(1, 6)], "summary": {"total_count": 5}}
        assert eight["phone_numbers"] == {"data": [{"id": "9"}]}
        assert [request.params.get("after") for request in played.requests] == [None, "P2", "P4"]

    def test_at_any_depth_and_under_an_alias(self) -> None:
        def answer(request: Request) -> Answer:
            match request.path.split("/"):
                case [_, "client_whatsapp_business_accounts"]:
                    inner = {
                        "data": [{"id": "2", "templates": page([21], "T")}],
                        "paging": {"cursors": {"after": "P"}, "next": "n"},
                    }
                    return ok(
                        {
                            "data": [
                                {
                                    "id": "1",
                                    "owner": {"id": "5", "wabas": inner},
                                    "list": [{"id": "6", "e": page([61], "E")}, 7],
                                    "odd": {"data": [7]},
                                }
                            ]
                        }
                    )
                case ["5", "client_wabas"]:
                    return ok({"data": [{"id": "3", "templates": page([31], "T")}]})
                case [parent, "message_templates" | "e"]:
                    assert "as" not in request.params
                    return ok(page([int(parent) * 10 + 2]))
            raise AssertionError(request)

        fields = "id,owner{id,client_wabas.as(wabas){id,message_templates.as(templates){id}}},list{id,e}"
        played = Played(flow().pages(build_edge_query(EDGE, fields=fields)), answer)
        assert played.error is None
        assert played.rows == [
            {
                "id": "1",
                "owner": {
                    "id": "5",
                    "wabas": {
                        "data": [
                            {"id": "2", "templates": {"data": [{"id": "21"}, {"id": "22"}]}},
                            {"id": "3", "templates": {"data": [{"id": "31"}, {"id": "32"}]}},
                        ]
                    },
                },
                "list": [{"id": "6", "e": {"data": [{"id": "61"}, {"id": "62"}]}}, 7],
                "odd": {"data": [7]},
            }
        ]
        last = [request for request in played.requests if request.path == "6/e"]
        assert "fields" not in last[0].params

    @pytest.mark.parametrize("key", ["../../me/accounts", "x?fields=secret#", "phones"])
    def test_an_edge_that_was_not_requested_leads_nowhere(self, key: str) -> None:
        played = play([ok({"data": [{"id": "1", key: page([1], "A")}]})], fields="id")
        assert str(played.error) == "the response holds a partial page of an edge that was not requested"
        whole = play([ok({"data": [{"id": "1", key: page([1])}]})], fields="id")
        assert whole.rows == [{"id": "1", key: {"data": [{"id": "1"}]}}]

    @pytest.mark.parametrize("node", [{}, {"id": "../me"}, {"id": None}])
    def test_a_rest_that_cannot_be_fetched_is_an_error(self, node: dict[str, Any]) -> None:
        nested = {"id": "1", "owner": {**node, "phones": page([1], "A")}, "plain": [1, "x"]}
        played = play([ok({"data": [nested]})], fields="id,owner{phones},plain")
        assert isinstance(played.error, GraphProtocolError)
        assert "`phones` is only a partial page" in str(played.error)

    def test_a_whole_edge_needs_no_id_of_its_node(self) -> None:
        played = play([ok({"data": [{"id": "1", "owner": {"phones": page([1])}}]})], fields="id,owner{phones}")
        assert played.rows == [{"id": "1", "owner": {"phones": {"data": [{"id": "1"}]}}}]

    @pytest.mark.parametrize("data", [{}, None, [1], "x"])
    def test_a_cut_edge_that_cannot_be_read_is_an_error(self, data: Any) -> None:
        nested = {"data": data, "paging": {"next": "n", "cursors": {"after": "A"}}}
        played = play([ok({"data": [{"id": "1", "phones": nested}]})], fields="id,phones")
        assert isinstance(played.error, GraphProtocolError)

    def test_a_nested_edge_that_loops_is_an_error(self) -> None:
        played = play([ok({"data": [{"id": "1", "p": page([1], "A")}]}), ok(page([2], "A"))], fields="id,p")
        assert isinstance(played.error, GraphProtocolError)
        assert "loops" in str(played.error)

    def test_only_rows_that_are_wanted_are_completed(self) -> None:
        rows = [{"id": "1"}, {"id": "2", "p": page([1], "A")}]
        assert len(play([ok({"data": rows})], fields="id,p{id}", max_items=1).requests) == 1


class TestNode:
    def test_a_node(self) -> None:
        query = build_node_query("1", fields="id,phone_numbers{id}")
        answers: Iterator[Answer] = iter(
            [ok({"id": 1, "phone_numbers": page([1], "A")}), GraphTransportError("reset"), ok(page([2]))]
        )
        played = Played(flow().node(query), lambda request: next(answers))
        assert played.read == [{"id": "1", "phone_numbers": {"data": [{"id": "1"}, {"id": "2"}]}}]
        assert played.waits == [1]

    def test_a_node_is_a_plain_dict(self) -> None:
        played = Played(flow().node(NodeQuery("1")), lambda request: ok({"id": "1"}))
        assert [type(node) for node in played.read] == [dict]

    def test_too_much_data_is_an_error(self) -> None:
        played = Played(flow().node(NodeQuery("1")), lambda request: TOO_MUCH)
        assert isinstance(played.error, GraphServerError)
        assert len(played.requests) == 1

    @pytest.mark.parametrize("edge", [page([1], "A"), page([1]), {"data": []}])
    def test_an_edge_is_not_taken_for_a_node(self, edge: dict[str, Any]) -> None:
        played = Played(flow().node(NodeQuery("1/edge")), lambda request: ok(edge))
        assert "read it with iter_edge" in str(played.error)


NEW = GraphConfig(credentials=Credentials("EAAnewnewnewnewnew"), base_url="https://moved.example", version="v26.0")


@pytest.mark.parametrize("refused", [failed(190), GraphTransportError("reset", retryable=True)])
def test_a_connection_that_has_changed_is_used_from_then_on(refused: Answer) -> None:
    answers = iter([refused, refused, ok({"data": [{"id": "1"}]})])
    played = Played(flow().pages(build_edge_query(EDGE)), lambda request: next(answers), [NEW, NEW])
    assert [row["id"] for row in played.rows] == ["1"]
    assert played.waits == []


def test_a_refused_token_that_has_not_changed_is_the_error() -> None:
    played = Played(flow().pages(build_edge_query(EDGE)), lambda request: failed(190))
    assert isinstance(played.error, GraphTokenError)
    assert len(played.requests) == 1
