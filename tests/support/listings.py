"""The operators and the sensor, each with a sandbox that it lists, so that one test can run over all of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from numbered_accounts import give_numbers, ids_of, numbers_of
from task_instance import TaskInstance

from airflow_provider_whatsapp.graph import GraphRateLimitError
from airflow_provider_whatsapp.graph.edges import find_edge
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

#: Number of units in each listing. A unit is what is checkpointed as a whole and takes one call: a page, or an account.
UNITS = 9
#: A rate limit of the whole app that lasts longer than a try waits in its worker slot.
THROTTLE = Fault.throttle(code=4, minutes=9)


class Listing:
    """An operator or a sensor with the sandbox that it lists.

    :param sandbox: a sandbox that :meth:`open` has filled
    """

    kind: ClassVar[Any]
    #: Name of a unit in the log.
    unit: ClassVar[str]
    #: Number of units of an earlier try that are requested again by the one that continues after them.
    read_again: ClassVar[int]
    #: Arguments that make it another listing.
    other_queries: ClassVar[list[dict[str, Any]]]
    noun = "accounts"

    def __init__(self, sandbox: GraphSandbox) -> None:
        self.sandbox = sandbox
        #: Arguments that it cannot do without.
        self.required: dict[str, Any] = {}
        #: Arguments with which each unit takes one call, one after the other.
        self.arguments: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def open(cls, monkeypatch: pytest.MonkeyPatch, *, units: int = UNITS, latency: float = 0.0) -> Iterator[Listing]:
        """Run a sandbox with so many units, which is that of the connection ``whatsapp_default``."""
        with GraphSandbox(accounts=cls.accounts_in(units), latency=latency) as sandbox:
            monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
            yield cls(sandbox)

    @classmethod
    def accounts_in(cls, units: int) -> int:
        """The number of accounts in so many units."""
        raise NotImplementedError

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that it must give."""
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, Any]:
        """The part of the manifest that says what was listed."""
        raise NotImplementedError

    @property
    def source(self) -> str:
        """The edge of the Graph API that lineage names."""
        raise NotImplementedError

    def units(self) -> list[int]:
        """The numbers of the units that were answered, in order."""
        raise NotImplementedError

    def continued_after(self, kept: int) -> list[int]:
        """The units that are read by a try that continues after so many."""
        return list(range(max(1, kept + 1 - self.read_again), UNITS + 1))

    def at(self, fault: Fault, unit: int) -> Fault:
        """The fault, when it acts on a unit alone."""
        raise NotImplementedError

    def clear(self) -> None:
        """Leave nothing to list."""
        self.sandbox.accounts.clear()

    def other_item(self) -> dict[str, Any]:
        """What is listed by another task that is mapped over the argument."""
        return {"max_items": 1}

    def build(self, **arguments: Any) -> Any:
        return self.kind(task_id="list", **{**self.arguments, **arguments})

    def run(self, context: Any = None, **arguments: Any) -> Any:
        """What it gives to XCom."""
        return self.give(self.build(**arguments), context or {})

    def give(self, task: Any, context: Any) -> Any:
        """What a task of this kind gives to XCom."""
        return task.execute(context)

    def task(
        self, path: Path | str | None = None, *, retries: int = 0, run_id: str = "run", **arguments: Any
    ) -> TaskInstance:
        if path is not None:
            arguments["output_path"] = str(path)
        return TaskInstance(lambda: self.build(**arguments), retries=retries, run_id=run_id)

    def interrupted(self, path: Path, after: int = 2, **arguments: Any) -> TaskInstance:
        """A task whose first try was throttled after some units, and whose second one comes next."""
        self.sandbox.fail_next(THROTTLE.after(after))
        instance = self.task(path, retries=2, **arguments)
        fail_once(instance)
        assert self.units() == list(range(1, after + 1))
        return instance


class Accounts(Listing):
    """The accounts of a business, ten on each page."""

    kind: ClassVar[Any] = WhatsAppListWabasOperator
    unit = "pages"
    read_again = 1
    other_queries: ClassVar = [{"relationship": "owned"}]

    def __init__(self, sandbox: GraphSandbox) -> None:
        super().__init__(sandbox)
        self.arguments = {"fields": "id,name", "page_size": 10}

    @classmethod
    def accounts_in(cls, units: int) -> int:
        return 10 * units

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [{key: account[key] for key in ("id", "name") if key in account} for account in self.sandbox.accounts]

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "pages": UNITS,
            "business_id": self.sandbox.business_id,
            "relationship": "client",
            "fields": ["id", "name"],
            "truncated": False,
        }

    @property
    def source(self) -> str:
        return f"{self.sandbox.business_id}/client_whatsapp_business_accounts"

    def units(self) -> list[int]:
        cursors = [request.params.get("after") for request in self.sandbox.requests if request.status == 200]
        positions = list(dict.fromkeys(cursors))
        return [positions.index(cursor) + 1 for cursor in cursors]

    def at(self, fault: Fault, unit: int) -> Fault:
        return fault.after(unit - 1)


class AwaitedAccounts(Accounts):
    """Accounts that a sensor waits for, and that are there when it looks."""

    kind = WhatsAppWabasSensor

    def give(self, task: Any, context: Any) -> Any:
        return task.poke(context).xcom_value

    def other_item(self) -> dict[str, Any]:
        return {"where": {"id": self.rows[0]["id"]}}


class PhoneNumbers(Listing):
    """The phone numbers of accounts, of which some have none and none has a second page."""

    kind = WhatsAppListWabaEdgeOperator
    unit = "accounts"
    read_again = 0
    other_queries: ClassVar = [
        {"edge": "message_templates"},
        {"edge": "subscribed_apps"},
        {"edge_params": {"name": "x"}},
        {"on_account_error": "skip"},
    ]
    noun = "rows"

    def __init__(self, sandbox: GraphSandbox) -> None:
        super().__init__(sandbox)
        give_numbers(sandbox, most=30)
        self.required = {"waba_ids": ids_of(sandbox), "edge": "phone_numbers"}
        self.arguments = {**self.required, "max_concurrency": 1}

    @classmethod
    def accounts_in(cls, units: int) -> int:
        return units

    @property
    def rows(self) -> list[dict[str, Any]]:
        return numbers_of(self.sandbox)

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "pages": UNITS,
            "accounts": UNITS,
            "skipped": [],
            "skipped_count": 0,
            "edge": "phone_numbers",
            "fields": find_edge("phone_numbers").fields.split(","),
            "truncated": False,
        }

    @property
    def source(self) -> str:
        return "whatsapp_business_accounts/phone_numbers"

    def units(self) -> list[int]:
        ids = ids_of(self.sandbox)
        answered = [request.path for request in self.sandbox.requests if request.status == 200]
        return [ids.index(path.strip("/").split("/")[-2]) + 1 for path in answered]

    def at(self, fault: Fault, unit: int) -> Fault:
        return fault.on(ids_of(self.sandbox)[unit - 1])

    def clear(self) -> None:
        for account in self.sandbox.accounts:
            account["phone_numbers"] = []


#: Those that keep a checkpoint, overwrite or compare: all but the sensor.
OPERATORS: list[type[Listing]] = [Accounts, PhoneNumbers]
LISTINGS: list[type[Listing]] = [*OPERATORS, AwaitedAccounts]


def fail_once(instance: TaskInstance) -> None:
    """Run one try of a task, which a rate limit ends."""
    with pytest.raises(GraphRateLimitError):
        instance.build().execute({"ti": instance.ti})  # type: ignore[typeddict-item]  # a stand-in
    instance.ti.try_number += 1


def rows_in(path: Path) -> list[dict[str, Any]]:
    """The rows of an object, by its suffix."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if ".csv" in path.name:
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if ".json" in path.name and ".jsonl" not in path.name:
        rows: list[dict[str, Any]] = json.loads(text)
        return rows
    return [json.loads(line) for line in text.splitlines()]


def record_of(target: Path) -> Path:
    """The record of who published an object."""
    return target.with_name(f"_{target.name}.airflow-record")


def parts_of(target: Path) -> list[Path]:
    """The parts that are kept beside an object, in order."""
    return sorted(target.with_name(f"_{target.name}.airflow-parts").glob("*"))


def lines_of(part: Path) -> list[Any]:
    """The rows of a part, and the state of the listing after them."""
    state, *rows = [json.loads(line) for line in gzip.decompress(part.read_bytes()).splitlines()]
    return [*rows, state]


def write_lines(part: Path, lines: list[Any]) -> None:
    """Replace the rows of a part, and the state after them."""
    lines = [*lines[-1:], *lines[:-1]]
    part.write_bytes(gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))
