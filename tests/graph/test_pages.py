from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph import GraphProtocolError
from airflow_provider_whatsapp.graph.fields import parse_fields
from airflow_provider_whatsapp.graph.pages import ListingMovedError, PageReader, Position, RawPage, parse_page
from airflow_provider_whatsapp.graph.query import EdgeQuery

NEXT = "https://graph.facebook.com/v26.0/1/edge?limit=25&after=FROM_NEXT"


def page(**paging: Any) -> dict[str, Any]:
    return {"data": [], "paging": paging}


def page_reader(
    *,
    fields: str = "id",
    page_size: int = 100,
    max_items: int | None = None,
    position: Position | None = None,
    ids: set[str] | None = None,
) -> PageReader:
    query = EdgeQuery("1/edge", parse_fields(fields), {}, page_size, max_items)
    return PageReader(query, position=position, ids=ids)


def rows(*ids: int) -> list[dict[str, Any]]:
    return [{"id": str(i)} for i in ids]


class TestParsePage:
    @pytest.mark.parametrize(
        "payload",
        [
            {"data": []},
            page(),
            page(cursors={"after": "a"}),
            page(next=None),
            {"data": [], "paging": None},
            {"data": [], "paging": []},
        ],
    )
    def test_only_the_absence_of_next_ends_a_listing(self, payload: dict[str, Any]) -> None:
        assert parse_page(payload) == RawPage([], None)

    def test_the_cursor_leads_on(self) -> None:
        payload = {
            "data": [{"id": "1"}],
            "paging": {"next": "https://elsewhere/?after=WRONG", "cursors": {"after": "RIGHT"}},
        }
        assert parse_page(payload) == RawPage([{"id": "1"}], "RIGHT")

    @pytest.mark.parametrize("after", [0, 5, -1, 9007199254740993])
    def test_a_cursor_may_be_a_number(self, after: int) -> None:
        assert parse_page(page(next=NEXT, cursors={"after": after})).after == str(after)

    @pytest.mark.parametrize(
        "cursors", [{}, {"cursors": None}, {"cursors": []}, {"cursors": {"after": ""}}, {"cursors": {"after": None}}]
    )
    def test_without_a_cursor_it_is_taken_out_of_next(self, cursors: dict[str, Any]) -> None:
        assert parse_page(page(next=NEXT, **cursors)).after == "FROM_NEXT"

    @pytest.mark.parametrize(
        "paging",
        [
            {"next": "https://graph.facebook.com/v26.0/1/edge"}, {"next": "https://[bad/?after=x"}, {"next": "?after="}, {"next": ""},
            *({"next": NEXT, "cursors": {"after": after}} for after in (5.5, True, ["5"])),
        ],
    )  # fmt: skip
    def test_more_without_a_way_to_it_is_an_error(self, paging: dict[str, Any]) -> None:
        with pytest.raises(GraphProtocolError, match="no cursor"):
            parse_page(page(**paging))

    @pytest.mark.parametrize(
        ("payload", "message"),
        [
            ([], "no `data`"),
            (None, "no `data`"),
            ({"paging": {}}, "no `data`"),
            ({"data": None}, "list of objects"),
            ({"data": {}}, "list of objects"),
            ({"data": [1]}, "list of objects"),
            ({"data": [{}, []]}, "list of objects"),
            ({"data": [], "paging": "x"}, "`paging`"),
            ({"data": [], "paging": 0}, "`paging`"),
            ({"data": [], "paging": [1]}, "`paging`"),
            ({"data": [], "paging": {"next": 5}}, "`paging.next`"),
            ({"data": [], "paging": {"next": False}}, "`paging.next`"),
        ],
    )
    def test_anything_else_is_an_error(self, payload: Any, message: str) -> None:
        with pytest.raises(GraphProtocolError, match=message) as caught:
            parse_page(payload)
        assert not caught.value.retryable

    def test_a_next_address_that_no_listing_needs_is_not_parsed(self) -> None:
        assert parse_page(page(next="https://x/?after=" + "a" * 8000)).after == "a" * 8000
        with pytest.raises(GraphProtocolError, match="`paging.next`"):
            parse_page(page(next="https://x/?after=" + "%41" * 30_000))


class TestListing:
    def test_a_cursor_that_no_address_could_carry_is_an_error(self) -> None:
        for length, fine in ((8192, True), (8193, False)):
            payload = page(next="n", cursors={"after": "x" * length})
            if fine:
                assert parse_page(payload).after == "x" * length
            else:
                with pytest.raises(GraphProtocolError, match="longer than 8192"):
                    parse_page(payload)

    def test_from_page_to_page(self) -> None:
        reader = page_reader(page_size=2)
        assert reader.next_request().params == {"limit": "2", "fields": "id"}
        assert reader.take(RawPage(rows(1, 2), "A")).rows == rows(1, 2)
        assert reader.more
        assert reader.next_request().params == {"limit": "2", "fields": "id", "after": "A"}
        last = reader.take(RawPage(rows(3), None))
        assert (last.rows, last.number, last.truncated, reader.more) == (rows(3), 2, False, False)

    def test_an_id_seen_twice_is_given_once(self) -> None:
        reader = page_reader()
        assert reader.take(RawPage(rows(1, 1, 2), "A")).rows == rows(1, 2)
        assert reader.take(RawPage(rows(2, 3), None)).rows == rows(3)

    @pytest.mark.parametrize("bad", [{}, {"id": None}, {"id": ""}, {"id": 1.5}, {"id": ["1"]}])
    def test_an_account_without_its_id_is_an_error(self, bad: dict[str, Any]) -> None:
        with pytest.raises(GraphProtocolError, match="usable `id`"):
            page_reader().take(RawPage([bad], None))

    def test_rows_of_edges_without_ids_pass(self) -> None:
        reader = page_reader(fields="whatsapp_business_api_data")
        same = {"whatsapp_business_api_data": {"id": "1"}}
        assert reader.take(RawPage([same, same], None)).rows == [same, same]
        with pytest.raises(GraphProtocolError, match="usable `id`"):
            page_reader(fields="x").take(RawPage([{"id": 5.5}], None))

    @pytest.mark.parametrize("cursors", ["AA", "ABA", "ABCB"])
    def test_a_cursor_seen_before_is_an_error(self, cursors: str) -> None:
        reader = page_reader()
        for number, cursor in enumerate(cursors[:-1]):
            reader.take(RawPage(rows(number), cursor))
        with pytest.raises(GraphProtocolError, match="loops"):
            reader.take(RawPage(rows(99), cursors[-1]))

    @given(st.lists(st.integers(0, 50), min_size=1, unique=True), st.data())
    def test_any_cycle_of_cursors_is_an_error(self, cursors: list[int], data: st.DataObject) -> None:
        reader = page_reader()
        for cursor in cursors:
            reader.take(RawPage([], str(cursor)))
        with pytest.raises(GraphProtocolError, match="loops"):
            reader.take(RawPage([], str(data.draw(st.sampled_from(cursors)))))

    @pytest.mark.parametrize(("page", "most"), [(rows(), 1000), (rows(1), 20), (rows(1, 1), 20)], ids=str)
    def test_pages_without_a_new_row_are_read_on_but_not_forever(self, page: list[dict[str, Any]], most: int) -> None:
        reader = page_reader()
        reader.take(RawPage(rows(1), "A"))
        for number in range(most):
            reader.take(RawPage(page, f"B{number}"))
        reader.take(RawPage(rows(2), "C"))
        for number in range(most):
            reader.take(RawPage(page, f"D{number}"))
        # A page of the other kind does not begin the count again.
        reader.take(RawPage([] if page else rows(2), "E"))
        assert reader.more
        with pytest.raises(GraphProtocolError, match=f"does not end: {most + 2} consecutive pages held nothing new"):
            reader.take(RawPage(page, "F"))

    @pytest.mark.parametrize(
        ("max_items", "after", "kept", "truncated"),
        [
            (2, None, 2, True),
            (3, None, 3, False),
            (3, "A", 3, True),
            (4, None, 3, False),
            (4, "A", 3, False),
            (1, "A", 1, True),
        ],
    )
    def test_max_items(self, max_items: int, after: str | None, kept: int, truncated: bool) -> None:
        reader = page_reader(max_items=max_items)
        page = reader.take(RawPage(rows(1, 2, 3), after))
        assert (len(page.rows), page.truncated) == (kept, truncated)
        assert reader.more is (after is not None and max_items > 3)

    def test_no_more_is_requested_than_is_wanted(self) -> None:
        reader = page_reader(max_items=150)
        assert reader.next_request().params["limit"] == "100"
        reader.take(RawPage(rows(*range(100)), "A"))
        assert reader.next_request().params["limit"] == "50"

    def test_a_page_shrinks_by_half_down_to_one(self) -> None:
        reader = page_reader(page_size=100)
        sizes = []
        while reader.shrink():
            sizes.append(reader.next_request().params["limit"])
        assert sizes == ["50", "25", "12", "6", "3", "1"]

    @pytest.mark.parametrize(("start", "sizes"), [(8, ["4", "2", "1"]), (2, ["1"]), (1, [])])
    def test_a_small_page_shrinks_too(self, start: int, sizes: list[str]) -> None:
        reader = page_reader(page_size=start)
        seen = []
        while reader.shrink():
            seen.append(reader.next_request().params["limit"])
        assert seen == sizes

    def sizes_after(self, reader: PageReader, pages: int) -> list[int]:
        """The sizes of the next pages, all of which can be read."""
        sizes = []
        for _ in range(pages):
            sizes.append(int(reader.next_request().params["limit"]))
            number = reader.next_request().params.get("after", "0")
            reader.take(RawPage(rows(int(number)), str(int(number) + 1)))
        return sizes

    def test_a_page_stays_below_the_size_that_was_refused(self) -> None:
        reader = page_reader(page_size=30)
        reader.shrink()
        assert self.sizes_after(reader, 3) == [15, 15, 15]
        reader.shrink()
        for _ in range(3):
            reader.note_fault()
        assert self.sizes_after(reader, 6) == [1, 2, 4, 7, 7, 7]

    def test_a_page_that_max_items_made_small_shrinks_from_there(self) -> None:
        reader = page_reader(max_items=8)
        assert reader.shrink()
        assert reader.next_request().params["limit"] == "4"

    def test_after_faults_a_page_is_smaller_for_a_while(self) -> None:
        reader = page_reader()
        assert self.sizes_after(reader, 1) == [100]
        sizes = []
        for _ in range(6):
            reader.note_fault()
            sizes.append(reader.next_request().params["limit"])
        assert sizes == ["100", "100", "25", "25", "6", "6"]
        assert self.sizes_after(reader, 7) == [6, 12, 24, 48, 96, 100, 100]

    def test_a_larger_page_that_fails_is_tried_again_less_often(self) -> None:
        reader = page_reader(page_size=8)
        for _ in range(3):
            reader.note_fault()
        assert self.sizes_after(reader, 1) == [2]
        for expected in ([2] * 4, [2] * 16, [2] * 16):
            assert reader.next_request().params["limit"] == "4"
            reader.note_fault()
            assert self.sizes_after(reader, len(expected)) == expected
        assert self.sizes_after(reader, 2) == [4, 8]

    def test_a_page_of_one_row_is_never_made_smaller(self) -> None:
        reader = page_reader(page_size=2)
        for _ in range(6):
            reader.note_fault()
        assert reader.next_request().params["limit"] == "1"


class TestPosition:
    def test_it_says_where_the_page_is(self) -> None:
        one = page_reader(page_size=2)
        first = one.take(RawPage(rows(1, 2), "A")).position
        second = one.take(RawPage(rows(2, 3), "B")).position
        assert (first.page, first.after, first.limit, first.count) == (1, None, 2, 2)
        assert (second.page, second.after, second.limit, second.count) == (2, "A", 2, 3)
        assert first.digest != second.digest

    def test_the_limit_is_the_requested_one(self) -> None:
        one = page_reader(page_size=8, max_items=6)
        one.shrink()
        assert one.take(RawPage(rows(1, 2, 3), "A")).position.limit == 3

    def test_another_listing_resumes_from_it(self) -> None:
        before = page_reader(page_size=3)
        before.take(RawPage(rows(1, 2), "A"))
        position = before.take(RawPage(rows(2, 3), "B")).position
        ids: set[str] = set()
        one = page_reader(page_size=3, position=position, ids=ids)
        assert one.next_request().params == {"fields": "id", "limit": "3", "after": "A"}
        page = one.return_to_position(RawPage(rows(2, 3), "C"))
        assert (page.rows, page.position, page.number, page.truncated) == ([], position, 2, False)
        ids.update("123")
        assert one.more
        assert one.next_request().params["after"] == "C"
        last = one.take(RawPage(rows(3, 4), None))
        assert (last.rows, last.number, last.position.count) == (rows(4), 3, 4)
        assert not one.more

    def test_a_cursor_that_comes_again_behind_it_is_an_error(self) -> None:
        position = page_reader().take(RawPage(rows(1), "A")).position
        one = page_reader(position=position)
        one.return_to_position(RawPage(rows(1), "A"))
        with pytest.raises(GraphProtocolError, match="loops"):
            one.take(RawPage(rows(2), "A"))

    def test_it_is_requested_with_the_earlier_limit(self) -> None:
        before = page_reader(page_size=8)
        before.shrink()
        one = page_reader(page_size=8, position=before.take(RawPage(rows(1, 2, 3, 4), "A")).position)
        assert one.next_request().params["limit"] == "4"
        one.return_to_position(RawPage(rows(1, 2, 3, 4), "A"))
        one.take(RawPage(rows(5), "B"))
        assert one.next_request().params["limit"] == "8"

    @pytest.mark.parametrize("moved", [rows(), rows(1), rows(2, 1), rows(1, 2, 3), rows(1, 3)])
    def test_other_nodes_are_an_error(self, moved: list[dict[str, Any]]) -> None:
        position = page_reader().take(RawPage(rows(1, 2), "A")).position
        with pytest.raises(ListingMovedError, match="^page 1 does not hold the same accounts as before$"):
            page_reader(position=position).return_to_position(RawPage(moved, "A"))

    def test_only_the_ids_of_nodes_count(self) -> None:
        position = page_reader(fields="id,n").take(RawPage([{"id": "1", "n": 1}], "A")).position
        page_reader(fields="id,n", position=position).return_to_position(RawPage([{"id": "1", "n": 2}], "A"))

    def test_nodes_without_an_id_are_distinguished_by_their_values(self) -> None:
        position = page_reader(fields="n").take(RawPage([{"n": 1, "m": 2}], "A")).position
        page_reader(fields="n", position=position).return_to_position(RawPage([{"m": 2, "n": 1}], "A"))
        with pytest.raises(ListingMovedError):
            page_reader(fields="n", position=position).return_to_position(RawPage([{"n": 1, "m": 3}], "A"))

    @pytest.mark.parametrize(
        ("max_items", "held", "after", "more", "truncated"),
        [
            (2, 2, "A", False, True),
            (2, 2, None, False, False),
            (2, 3, None, False, True),
            (3, 2, "A", True, False),
            (None, 2, "A", True, False),
        ],
    )
    def test_max_items(self, max_items: int | None, held: int, after: str | None, more: bool, truncated: bool) -> None:
        raw = RawPage(rows(*range(held)), after)
        before = page_reader(max_items=max_items).take(raw)
        one = page_reader(max_items=max_items, position=before.position)
        again = one.return_to_position(raw)
        assert (one.more, again.truncated) == (more, truncated)
        assert before.truncated == truncated


@given(st.lists(st.lists(st.sampled_from(["7", "007", "+7", "7 ", "x", "²"]) | st.text(min_size=1), max_size=20)))
def test_an_id_is_given_once_in_its_exact_spelling(ids_of_pages: list[list[str]]) -> None:
    reader = page_reader(fields="name")
    given_ids = []
    for number, ids in enumerate(ids_of_pages):
        page = reader.take(RawPage([{"id": id_} for id_ in ids], str(number)))
        given_ids += [row["id"] for row in page.rows]
    assert given_ids == list(dict.fromkeys(id_ for ids in ids_of_pages for id_ in ids))
