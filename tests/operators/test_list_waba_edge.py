"""The operator for one edge of many accounts. What holds for every operator is in test_arguments.py, test_output.py and
test_resuming.py, and DAGs with it are in test_edge_dags.py."""

from __future__ import annotations

import json
import logging
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from listings import rows_in
from numbered_accounts import LONG_ACCOUNT, asked_for, ids_of, names_in, numbers_of

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.graph import GraphError, GraphPermissionError, GraphRequestError, GraphServerError
from airflow_provider_whatsapp.graph.edges import find_edge
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

ALWAYS = 1_000_000
DAY = {"start": 1793491200, "end": 1793577600, "granularity": "DAILY"}


def run(waba_ids: Any, edge: str = "phone_numbers", **arguments: Any) -> Any:
    return WhatsAppListWabaEdgeOperator(task_id="numbers", waba_ids=waba_ids, edge=edge, **arguments).execute({})


class TestRows:
    @pytest.mark.parametrize("max_concurrency", [1, 3, "10", 50, None])
    def test_the_order_is_that_of_the_accounts(self, numbered: GraphSandbox, max_concurrency: Any) -> None:
        numbered.accounts.reverse()
        assert run(ids_of(numbered), max_concurrency=max_concurrency) == numbers_of(numbered)
        assert len(numbered.requests) == 21

    @pytest.mark.parametrize(("max_concurrency", "connections"), [(1, 1), (3, 3), ("", 10)])
    def test_several_are_read_side_by_side(
        self, numbered: GraphSandbox, max_concurrency: int | str, connections: int
    ) -> None:
        run(ids_of(numbered), max_concurrency=max_concurrency)
        assert numbered.connections == connections

    def test_columns_of_a_csv(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "numbers.csv"
        run(ids_of(numbered), fields="quality_rating,id", output_path=str(path))
        assert path.read_text().splitlines()[0] == "waba_id,quality_rating,id"

    def test_edge_params(self, numbered: GraphSandbox) -> None:
        times = {"start": datetime(2026, 11, 1, tzinfo=timezone.utc), "end": date(2026, 11, 2)}
        rows = run(ids_of(numbered)[:2], "pricing_analytics", edge_params={**DAY, **times})
        assert rows
        assert {row["waba_id"] for row in rows} == set(ids_of(numbered)[:2])
        sent = [request.params for request in numbered.requests]
        assert {(params["start"], params["granularity"]) for params in sent} == {("1793491200", "DAILY")}
        assert all("fields" not in params for params in sent)
        assert run(ids_of(numbered)[:2], "pricing_analytics", edge_params=json.dumps(DAY)) == rows

    def test_query_arguments_reach_the_api(self, numbered: GraphSandbox) -> None:
        filtering = [{"field": "status", "operator": "EQUAL", "value": "CONNECTED"}]
        # The sandbox, like Meta, has no such filter.
        with pytest.raises(AirflowFailException, match="cannot be filtered"):
            run(ids_of(numbered), filtering=filtering, sort="creation_time_descending", page_size=7, fields="id")
        params = numbered.requests[0].params
        assert json.loads(params["filtering"]) == filtering
        assert (params["sort"], params["limit"], params["fields"]) == ("creation_time_descending", "7", "id")

    def test_page_size_is_that_of_each_account(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        manifest = run(ids_of(numbered), page_size=50, output_path=str(tmp_path / "a.ndjson"))
        assert manifest["pages"] == 22


class TestAccounts:
    @pytest.mark.parametrize("name", ["accounts.ndjson", "accounts.json.gz", "accounts.csv"])
    def test_the_manifest_and_the_object_of_the_list_operator(
        self, numbered: GraphSandbox, tmp_path: Path, name: str
    ) -> None:
        accounts = WhatsAppListWabasOperator(task_id="a", fields="id,name", output_path=str(tmp_path / name))
        manifest: Any = accounts.execute({})
        wanted = numbers_of(numbered)
        for waba_ids in (manifest, json.dumps(manifest), str(manifest), [manifest], manifest["uri"]):
            assert run(waba_ids) == wanted

    def test_a_manifest_is_read_over_its_own_connection(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        from airflow.sdk.io import attach
        from fsspec.implementations.memory import MemoryFileSystem

        class Lake(MemoryFileSystem):
            store: dict[str, Any] = {}  # noqa: RUF012  # fsspec's own has the same form
            pseudo_dirs: list[str] = [""]  # noqa: RUF012

        lake = Lake()
        attach("memory", conn_id="edge_lake", fs=lake)
        lake.pipe_file("/a.ndjson", "".join(json.dumps({"id": id}) + "\n" for id in ids_of(numbered)).encode())
        manifest = {
            "uri": "memory://a.ndjson",
            "conn_id": "edge_lake",
            "format": "ndjson",
            "count": 20,
            "relationship": "client",
        }
        wanted = numbers_of(numbered)
        assert run(manifest) == wanted
        assert run("memory://edge_lake@a.ndjson") == wanted
        # An address without a connection in it is read over that of the output.
        run("memory://a.ndjson", output_conn_id="edge_lake", output_path="memory://out.ndjson")
        assert [json.loads(line) for line in lake.cat_file("/out.ndjson").splitlines()] == wanted
        # That of the output is not the one of a manifest.
        with pytest.raises(AirflowFailException, match="^waba_ids: no storage is installed for memory"):
            run({**manifest, "conn_id": None}, output_conn_id="edge_lake", output_path="memory://out.ndjson")

    @pytest.mark.parametrize("waba_ids", [[], "[]", (), iter(())])
    def test_no_accounts(self, numbered: GraphSandbox, tmp_path: Path, waba_ids: Any) -> None:
        manifest = run(waba_ids, output_path=str(tmp_path / "a.ndjson"))
        assert {name: manifest[name] for name in ("count", "pages", "accounts", "skipped", "skipped_count")} == {
            "count": 0,
            "pages": 0,
            "accounts": 0,
            "skipped": [],
            "skipped_count": 0,
        }
        assert (tmp_path / "a.ndjson").read_bytes() == b""
        assert numbered.requests == []

    def test_an_object_without_accounts(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        (tmp_path / "none.ndjson").write_text("")
        assert run(str(tmp_path / "none.ndjson")) == []

    def test_a_wrong_id_in_the_middle_of_an_object_fails_at_once(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "accounts.ndjson"
        ids = ids_of(numbered)
        path.write_text("".join(f'{{"id": "{id}"}}\n' for id in [*ids[:12], "12x", *ids[12:]]))
        target = tmp_path / "numbers.ndjson"
        target.write_text("before")
        with pytest.raises(AirflowFailException, match=r"^waba_ids: row 13 of .*accounts.ndjson: '12x' is not the id"):
            run(path.as_uri(), output_path=str(target))
        assert target.read_text() == "before"
        assert names_in(target) == {"accounts.ndjson", "numbers.ndjson"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "there is no object"),
            ('{"name": "x"}\n', "row 1 of .* the row has no `id`"),
            ('{"waba_id": "1", "id": "2"}\n', "row 1 of .* this is a row of an account's edge"),
            ("not JSON\n", "cannot be read as ndjson after row 0"),
        ],
    )
    def test_an_object_of_something_else_fails_at_once(
        self, numbered: GraphSandbox, tmp_path: Path, content: str | None, message: str, log: Any
    ) -> None:
        path = tmp_path / "accounts.ndjson"
        if content is not None:
            path.write_text(content)
        with pytest.raises(AirflowFailException, match=f"^waba_ids: .*{message}"):
            run(str(path))
        (line,) = [record.getMessage() for record in log.records if record.levelno >= logging.ERROR]
        assert line.startswith("waba_ids: ")
        assert numbered.requests == []

    def test_a_manifest_of_an_object_that_was_written_again(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        manifest: Any = WhatsAppListWabasOperator(task_id="a", output_path=str(tmp_path / "a.ndjson")).execute({})
        with pytest.raises(AirflowFailException, match="has 20 rows, but its manifest says 19"):
            run({**manifest, "count": 19})


class TestManifest:
    def test_keys_and_values(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "new" / "numbers.ndjson"
        gone, forbidden = numbered.accounts[3]["id"], numbered.accounts[8]["id"]
        numbered.fail_next(Fault.wrong_business().on(gone), Fault.no_account_permission().on(forbidden))
        manifest = run(ids_of(numbered), output_path=path.as_uri(), on_account_error="skip")
        reasons = [one.pop("reason") for one in manifest["skipped"]]
        wanted = numbers_of(numbered, gone, forbidden)
        assert rows_in(path) == wanted
        assert manifest == {
            "uri": path.as_uri(),
            "conn_id": None,
            "format": "ndjson",
            "count": len(wanted),
            "bytes": path.stat().st_size,
            "sha256": manifest["sha256"],
            "pages": 19,
            "accounts": 18,
            "skipped": [{"waba_id": gone}, {"waba_id": forbidden}],
            "skipped_count": 2,
            "edge": "phone_numbers",
            "fields": find_edge("phone_numbers").fields.split(","),
            "truncated": False,
        }
        assert list(manifest)[6:] == [
            "pages", "accounts", "skipped", "skipped_count", "edge", "fields", "truncated"
        ]  # fmt: skip
        assert reasons[0].startswith(f"The API said: Unsupported get request. Object with ID '{gone}' does not exist, ")
        assert " The id is unknown, or the token's system user may not see it: check the id, " in reasons[0]
        assert all(0 < len(reason) <= 500 and not reason.startswith("Account") for reason in reasons)
        assert json.loads(json.dumps(manifest)) == manifest

    def test_the_edge_is_named_as_the_api_names_it(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        assert run([], " phone_numbers ", output_path=str(tmp_path / "a.json"))["edge"] == "phone_numbers"

    def test_an_edge_without_fields(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        manifest = run(ids_of(numbered)[:1], "subscribed_apps", output_path=str(tmp_path / "a.json"))
        assert (manifest["fields"], manifest["edge"]) == ([], "subscribed_apps")

    @pytest.mark.parametrize(("max_items", "truncated"), [(70, True), ("161", False)])
    def test_max_items_counts_the_rows_of_all_accounts(
        self, numbered: GraphSandbox, tmp_path: Path, max_items: int | str, truncated: bool
    ) -> None:
        wanted = numbers_of(numbered)
        assert len(wanted) == 160
        path = tmp_path / "a.ndjson"
        manifest = run(ids_of(numbered), output_path=str(path), max_items=max_items, max_concurrency=4)
        assert rows_in(path) == wanted[: int(max_items)]
        assert (manifest["count"], manifest["truncated"]) == (min(int(max_items), 160), truncated)

    def test_max_items_that_cut_accounts_which_were_read_ahead(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        first, second = ids_of(numbered)[:2]
        numbered.fail_next(Fault.server_error().on(first))
        manifest = run([first, second], output_path=str(tmp_path / "a.json"), max_items=2, max_concurrency=2)
        assert asked_for(numbered) == [first, second, first]
        assert (manifest["count"], manifest["truncated"], manifest["accounts"]) == (2, True, 1)

    def test_max_items_that_cut_an_account(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        account = numbered.accounts[LONG_ACCOUNT]["id"]
        manifest = run([account], output_path=str(tmp_path / "a.json"), max_items=100)
        assert (manifest["count"], manifest["truncated"], manifest["accounts"]) == (100, True, 0)
        assert len(numbered.requests) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"waba_ids": None}, "waba_ids: .*names no accounts"),
            ({"waba_ids": ""}, "waba_ids: .*names no accounts"),
            ({"waba_ids": "None"}, "waba_ids: .*names no accounts"),
            ({"waba_ids": [*map(str, range(10, 3000)), "x"]}, r"waba_ids\[2990\]: 'x' is not the id of an account"),
            ({"waba_ids": ["1", {"name": "x"}]}, r"waba_ids\[1\]: the row has no `id`"),
            ({"waba_ids": ["1", {"waba_id": "1", "id": "2"}]}, r"waba_ids\[1\]: this is a row of an account.s edge"),
            ({"waba_ids": "1,two"}, "waba_ids: 'two' is not the id"),
            ({"waba_ids": "[1, 2"}, "waba_ids: .* is neither JSON nor a list"),
            ({"waba_ids": 1.5}, "waba_ids: 1.5 is not the id"),
            ({"waba_ids": True}, "waba_ids: True is not the id"),
            ({"waba_ids": "/tmp/a.xml"}, "waba_ids: the suffix of"),
            ({"waba_ids": {"uri": "/tmp/a.json", "edge": "phone_numbers"}}, "waba_ids: this is the manifest of"),
            ({"edge": "phone_numbers/1"}, "edge: .* is not the name of an edge"),
            ({"edge": "../me"}, "edge: .* is not the name of an edge"),
            ({"edge": ""}, "edge: .* is not the name of an edge"),
            ({"edge": "None!"}, "edge: .* is not the name of an edge"),
            ({"edge": 5}, "edge: 5 is not the name of an edge"),
            (
                {"edge": "pricing_analytics"},
                "edge_params: pricing_analytics needs start, end, granularity; for example",
            ),
            ({"edge": "assigned_users", "edge_params": {}}, "edge_params: assigned_users needs business; for example"),
            (
                {"edge": "template_analytics", "edge_params": DAY},
                "edge_params: template_analytics needs template_ids; for example {",
            ),
            ({"edge_params": "x"}, "edge_params: 'x' is not"),
            ({"edge_params": [1]}, "edge_params: "),
            ({"edge_params": {"limit": 5}}, "edge_params: .*limit"),
            ({"edge_params": {"access_token": "x"}}, "edge_params: .*access_token"),
            ({"edge_params": {"filtering": []}}, "edge_params: .*filtering"),
            ({"max_concurrency": 0}, "max_concurrency: 0 is not a whole number of at least 1"),
            ({"max_concurrency": 51}, "max_concurrency: 51 is more than 50"),
            ({"max_concurrency": "51"}, "max_concurrency: 51 is more than 50"),
            ({"max_concurrency": "x"}, "max_concurrency: 'x' is not a whole number"),
            ({"on_account_error": "other"}, "on_account_error: 'other' is not one of 'fail', 'skip'"),
            ({"edge": "subscribed_apps", "output_path": "/tmp/a.csv"}, "fields: a CSV needs the names of its columns"),
            ({"edge": "made_up", "output_path": "/tmp/a.csv.gz"}, "fields: a CSV needs the names of its columns"),
        ],
    )
    def test_it_fails_at_once_before_anything_is_sent(
        self, numbered: GraphSandbox, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(AirflowFailException, match=f"^{message}") as caught:
            run(**{"waba_ids": ids_of(numbered), **arguments})
        assert isinstance(caught.value.__cause__, ValueError)
        assert numbered.connections == 0

    @pytest.mark.parametrize("name", ["ownership_types", "created_after", "created_before"])
    def test_airflow_refuses_what_only_a_list_of_accounts_takes(self, name: str) -> None:
        with pytest.raises(TypeError, match=name):
            run(["1"], **{name: "SELF"})

    def test_a_csv_of_rows_without_default_fields(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        run(ids_of(numbered)[:1], "subscribed_apps", fields="whatsapp_business_api_data", output_path=str(path))
        assert path.read_text().splitlines()[0] == "waba_id,whatsapp_business_api_data"


class TestSkipping:
    def test_by_default_the_task_fails_and_names_the_account(self, numbered: GraphSandbox, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        gone = numbered.accounts[7]["id"]
        numbered.fail_next(Fault.wrong_business().on(gone))
        with pytest.raises(AirflowFailException, match=f"^Account {gone}: The API said: Unsupported get ") as caught:
            run(ids_of(numbered), output_path=str(path))
        assert isinstance(caught.value.__cause__, GraphRequestError)
        assert path.read_text() == "before"
        assert names_in(path) == {"a.ndjson"}

    @pytest.mark.parametrize(
        "fault", [Fault.wrong_business(), Fault.no_account_permission(), Fault.insights_not_enabled(), Fault.blocked()]
    )
    def test_an_account_that_cannot_be_read_is_left_out(
        self, numbered: GraphSandbox, fault: Fault, log: pytest.LogCaptureFixture
    ) -> None:
        left_out = numbered.accounts[LONG_ACCOUNT]["id"]
        # It is refused at its second page, when some of its rows have come already.
        numbered.fail_next(fault.after(1).on(left_out))
        assert run(ids_of(numbered), on_account_error="skip") == numbers_of(numbered, left_out)
        warnings = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
        (warning,) = [line for line in warnings if "left out" in line]
        assert warning.startswith(f"Account {left_out} is left out: The API said: ")

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.no_permission(),
            Fault.no_capability(),
            Fault.expired_token(),
            Fault.server_error(),
            Fault.closed(),
            Fault.no_data(),
            Fault.nonexisting_field(),
        ],
    )
    def test_no_other_error_is_skipped(self, numbered: GraphSandbox, fault: Fault) -> None:
        failing = numbered.accounts[6]["id"]
        numbered.fail_next(fault.on(failing).times(ALWAYS))
        with pytest.raises((AirflowFailException, GraphError), match=f"^Account {failing}: "):
            run(ids_of(numbered), on_account_error="skip")

    def test_the_manifest_names_a_hundred_and_the_log_all(
        self, serve: Any, tmp_path: Path, log: pytest.LogCaptureFixture
    ) -> None:
        with serve(accounts=120) as sandbox:
            gone = ids_of(sandbox)[5:110]
            sandbox.fail_next(*[Fault.wrong_business().on(waba_id) for waba_id in gone])
            path = tmp_path / "a.ndjson"
            manifest = run(ids_of(sandbox), output_path=str(path), on_account_error="skip")
            assert rows_in(path) == numbers_of(sandbox, *gone)
        assert [one["waba_id"] for one in manifest["skipped"]] == gone[:100]
        assert (manifest["skipped_count"], manifest["accounts"]) == (105, 15)
        assert log.text.count("is left out: ") == 105
        assert "Listed 24 rows of 15 accounts on 15 pages, 105 accounts left out" in log.text

    @pytest.mark.parametrize("max_concurrency", [1, 20])
    def test_if_all_are_left_out_the_task_fails_with_the_first_reason(
        self, numbered: GraphSandbox, tmp_path: Path, max_concurrency: int
    ) -> None:
        first, *others = ids_of(numbered)
        numbered.fail_next(
            Fault.no_account_permission().on(first), *[Fault.wrong_business().on(waba_id) for waba_id in others]
        )
        path = tmp_path / "a.ndjson"
        path.write_text("before")
        with pytest.raises(AirflowFailException, match=f"^Account {first}: .*code 200, ") as caught:
            run(ids_of(numbered), on_account_error="skip", output_path=str(path), max_concurrency=max_concurrency)
        assert isinstance(caught.value.__cause__, GraphPermissionError)
        assert len(numbered.requests) == 20
        assert path.read_text() == "before"

    def test_the_first_reason_is_that_of_the_first_account_in_order(self, numbered: GraphSandbox) -> None:
        first, *others = ids_of(numbered)
        # It is answered last, because it waits for a fault that passes.
        numbered.fail_next(
            Fault.server_error().on(first),
            Fault.no_account_permission().on(first),
            *[Fault.wrong_business().on(waba_id) for waba_id in others],
        )
        with pytest.raises(AirflowFailException, match=f"^Account {first}: "):
            run(ids_of(numbered), on_account_error="skip")

    def test_an_account_without_rows_is_not_left_out(self, numbered: GraphSandbox) -> None:
        left_out, empty = ids_of(numbered)[:2]
        numbered.fail_next(Fault.wrong_business().on(left_out))
        assert run([left_out, empty], on_account_error="skip") == []


class TestLog:
    def lines(self, log: pytest.LogCaptureFixture) -> list[str]:
        lines = [record.getMessage() for record in log.records if record.levelno == logging.INFO]
        return [line for line in lines if "Task Runner" not in line]

    def test_what_is_listed_and_what_came_of_it(
        self, numbered: GraphSandbox, tmp_path: Path, log: pytest.LogCaptureFixture
    ) -> None:
        manifest = run(ids_of(numbered), output_path=str(tmp_path / "a.ndjson"), fields="id")
        assert self.lines(log) == [
            "Listing the phone_numbers of 20 accounts, fields id",
            "Listed 160 rows of 20 accounts on 21 pages",
            f"Wrote 160 rows, {manifest['bytes']} bytes, to {manifest['uri']}",
        ]

    def test_an_edge_with_parameters(self, numbered: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        run((id for id in ids_of(numbered)[:1]), "pricing_analytics", edge_params=DAY, max_items=1)
        first, last = self.lines(log)
        assert first == (
            "Listing the pricing_analytics of many accounts, fields chosen by the API, start 1793491200, "
            "end 1793577600, granularity DAILY"
        )
        assert last.startswith("Listed 1 rows of ")

    def test_a_cut_list(self, numbered: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        run(ids_of(numbered), max_items=4, max_concurrency=1)
        assert self.lines(log)[-1] == "Listed 4 rows of 3 accounts on 3 pages, cut by max_items"

    def test_progress_is_logged_every_half_minute(self, numbered: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        # The rows that come last, and when they come.
        late = dict(zip(ids_of(numbered)[:4], (10, 20, 40, 80), strict=True))
        numbered.fail_next(
            *[Fault.throttle(minutes=None, retry_after=seconds).on(waba_id) for waba_id, seconds in late.items()]
        )
        run(ids_of(numbered), max_concurrency=1)
        lines = [line.partition(", API usage")[0] for line in self.lines(log) if line[0].isdigit()]
        assert lines == ["18 of 20 accounts, 157 rows", "19 of 20 accounts, 160 rows"]

    def test_the_last_usage_that_is_known(self, numbered: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        first, *others = ids_of(numbered)
        numbered.fail_next(
            Fault.high_usage(61).on(first),
            Fault.too_many_requests(retry_after=40).on(others[-1]),
            *[Fault.malformed_usage().on(waba_id).times(2) for waba_id in others],
        )
        run(ids_of(numbered), max_concurrency=1)
        assert self.lines(log)[-2] == "19 of 20 accounts, 160 rows, API usage 61 %"

    def test_thousands_are_separated(self, numbered: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        numbered.accounts[0]["phone_numbers"] = [{"id": str(10**12 + number)} for number in range(1200)]
        run([*ids_of(numbered)[:1], *map(str, range(1, 1200))], fields="id", on_account_error="skip")
        lines = self.lines(log)
        assert lines[0].startswith("Listing the phone_numbers of 1,200 accounts")
        assert lines[-1] == "Listed 1,200 rows of 1 accounts on 12 pages, 1,199 accounts left out"

    def test_an_error_has_one_line(self, numbered: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        failing = numbered.accounts[6]["id"]
        numbered.fail_next(Fault.server_error().on(failing).times(ALWAYS))
        with pytest.raises(GraphServerError):
            run(ids_of(numbered))
        (line,) = [record.getMessage() for record in log.records if record.levelno >= logging.ERROR]
        assert line.startswith(f"Account {failing}: The response is HTTP 503 ")
        assert asked_for(numbered).count(failing) == 6
