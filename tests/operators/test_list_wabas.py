"""The list of accounts. What holds for every operator is in test_arguments.py, test_output.py and test_resuming.py, and
tests that need a running Airflow are in test_dags.py."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from listings import rows_in

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox


def run(**arguments: Any) -> Any:
    return WhatsAppListWabasOperator(task_id="accounts", **arguments).execute({})


def test_a_field_that_an_account_does_not_have_is_left_out(connected: GraphSandbox) -> None:
    rows = run(fields="id,name,country")
    wanted = ("id", "name", "country")
    assert rows == [{key: account[key] for key in wanted if key in account} for account in connected.accounts]
    assert any(len(row) < 3 for row in rows)


def test_owned_accounts(connected: GraphSandbox, target: Path) -> None:
    manifest = run(relationship="owned", fields="id", page_size=20, output_path=str(target))
    assert rows_in(target) == [{"id": account["id"]} for account in connected.owned_accounts]
    assert (manifest["relationship"], manifest["count"], manifest["pages"]) == ("owned", 30, 2)


def test_nested_fields(connected: GraphSandbox, target: Path) -> None:
    manifest = run(fields=["id", "phone_numbers.limit(2){id}"], output_path=str(target))
    assert rows_in(target) == WhatsAppHook().list_wabas(fields="id,phone_numbers{id}")
    assert (manifest["pages"], manifest["fields"]) == (3, ["id", "phone_numbers.limit(2){id}"])


def test_csv_has_the_requested_columns(connected: GraphSandbox, tmp_path: Path) -> None:
    path = tmp_path / "wabas.csv"
    run(fields="name,id,country,phone_numbers.limit(1).as(phones){id}", output_path=str(path), max_items=3)
    assert path.read_text().splitlines()[0] == "name,id,country,phones"


class TestLog:
    def lines(self, log: pytest.LogCaptureFixture, **arguments: Any) -> list[str]:
        run(**arguments)
        lines = [record.getMessage() for record in log.records if record.levelno == logging.INFO]
        return [line for line in lines if "Task Runner" not in line]

    def test_what_is_listed_and_what_came_of_it(self, connected: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        query = {"fields": "id,name", "sort": "creation_time_ascending", "page_size": 10, "max_items": 100}
        assert self.lines(log, **query) == [
            f"Listing the client accounts of business {connected.business_id}, fields id,name, sort creation_time_ascending",
            "Listed 100 accounts on 10 pages, cut by max_items, API usage 1 %",
        ]

    def test_an_empty_listing_has_a_closing_line_too(
        self, connected: GraphSandbox, log: pytest.LogCaptureFixture
    ) -> None:
        connected.accounts.clear()
        assert self.lines(log)[-1].startswith("Listed 0 accounts on 1 pages")

    def test_progress_is_logged_every_half_minute(self, connected: GraphSandbox, log: pytest.LogCaptureFixture) -> None:
        # Each page takes some seventeen seconds.
        wait = Fault.throttle(minutes=None, retry_after=17)
        connected.fail_next(wait, *[wait.after(1) for _ in range(9)])
        lines = [line for line in self.lines(log, page_size=25) if line[0].isdigit()]
        found = [re.match(r"(\d+) pages, (\d+) accounts so far, (\d+) accounts a minute", line) for line in lines]
        assert [(line[1], line[2]) for line in found] == [(str(page), str(25 * page)) for page in (2, 4, 6, 8, 10)]
        assert all(0 < int(line[3]) <= 50 * 60 / 34 for line in found)
