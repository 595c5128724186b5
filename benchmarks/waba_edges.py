"""Measures what it costs to read the phone numbers of many accounts, one call an account.

* loop: A plain ``requests.Session`` that follows ``paging.next``, account by account.
* operator 1, 10, 50: ``WhatsAppListWabaEdgeOperator`` with so many accounts at once.
* mapped: A task for each account, mapped over the accounts, run by ``dag.test()`` on SQLite. There are fewer accounts,
  because Airflow maps a task over at most 1,024 of them. A scheduler and its workers add their own time to that.

Each case runs in a new process and writes NDJSON, and the sandbox runs in another process. The command exits with 1 if
the cases do not write the same rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.sandbox import GraphSandbox

FIELDS = "id,display_phone_number,verified_name,quality_rating"
MAPPED_ACCOUNTS = 50
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Cost:
    """The costs of a case, without those of imports.

    :param accounts: number of accounts that were read
    :param wall: seconds from the first request to the last row
    :param cpu: seconds of CPU
    :param megabytes: growth of the most memory that the process ever had
    :param rows: number of rows
    :param digest: SHA-256 of the rows
    """

    accounts: int
    wall: float
    cpu: float
    megabytes: float
    rows: int
    digest: str


def serve(accounts: int, latency: float, control: Connection) -> None:
    """Run the sandbox, and tell at each message how many requests and connections there were since the last one."""
    with GraphSandbox(accounts=accounts, latency=latency) as sandbox:
        control.send((sandbox.connection, [account["id"] for account in sandbox.accounts]))
        requests = connections = 0
        while control.recv():
            control.send((len(sandbox.requests) - requests, sandbox.connections - connections))
            requests, connections = len(sandbox.requests), sandbox.connections


def digest(path: Path) -> tuple[int, str]:
    """The number of rows in a file of NDJSON, and the SHA-256 of their values."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return len(rows), hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def measure(accounts: int, path: Path, work: Callable[[], object]) -> Cost:
    """The costs of the work, which writes the rows to a file."""
    memory, wall, cpu = peak_megabytes(), time.perf_counter(), time.process_time()
    work()
    wall, cpu, memory = time.perf_counter() - wall, time.process_time() - cpu, peak_megabytes() - memory
    return Cost(accounts, wall, cpu, memory, *digest(path))


def peak_megabytes() -> float:
    """The most memory that this process ever had."""
    # Linux counts the memory of the parent into the `ru_maxrss` of a new process, but not into this number.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measure_loop(connection: str, ids: list[str], folder: str) -> Cost:
    """Read with a plain loop over the accounts."""
    import requests

    settings, path = json.loads(connection), Path(folder, "loop.ndjson")

    def read() -> None:
        with requests.Session() as session, path.open("w") as file:
            session.headers["Authorization"] = f"Bearer {settings['password']}"
            for waba_id in ids:
                url = f"{settings['host']}/{settings['extra']['api_version']}/{waba_id}/phone_numbers"
                params: dict[str, Any] | None = {"fields": FIELDS, "limit": 100}
                while url:
                    page = session.get(url, params=params, timeout=30).json()
                    for row in page["data"]:
                        file.write(json.dumps({"waba_id": waba_id, **row}) + "\n")
                    url, params = page.get("paging", {}).get("next"), None

    return measure(len(ids), path, read)


def measure_operator(connection: str, ids: list[str], folder: str, *, max_concurrency: int) -> Cost:
    """Read with the operator."""
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = connection
    from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator

    def operator(waba_ids: list[str], name: str) -> Any:
        return WhatsAppListWabaEdgeOperator(
            task_id="numbers",
            waba_ids=waba_ids,
            edge="phone_numbers",
            fields=FIELDS,
            max_concurrency=max_concurrency,
            output_path=str(Path(folder, name)),
        )

    # What is loaded at the first use is not the cost of the accounts.
    operator([], "none.ndjson").execute({})
    name = f"operator-{max_concurrency}.ndjson"
    return measure(len(ids), Path(folder, name), lambda: operator(ids, name).execute({}))


def measure_mapped(connection: str, ids: list[str], folder: str) -> Cost:
    """Read with a task for each account."""
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = connection
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(folder, "dags"))
    os.environ["AIRFLOW_CONFIG"] = os.devnull
    ids = ids[:MAPPED_ACCOUNTS]
    Path(folder, "dags").mkdir()
    Path(folder, "dags", "mapped.py").write_text(MAPPED_DAG)
    Path(folder, "ids.json").write_text(json.dumps(ids))
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    import runpy

    os.environ["BENCHMARK_FOLDER"] = folder
    dag = runpy.run_path(str(Path(folder, "dags", "mapped.py")))["mapped"]

    def run() -> None:
        finished = dag.test()
        if finished.state != "success":
            sys.exit("The mapped DAG failed.")

    return measure(len(ids), Path(folder, "mapped.ndjson"), run)


MAPPED_DAG = f'''
import json, os
from pathlib import Path
from airflow.sdk import dag, task
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook

FOLDER = Path(os.environ.get("BENCHMARK_FOLDER", "."))


@dag(schedule=None)
def mapped_over_accounts():
    @task
    def ids():
        return json.loads((FOLDER / "ids.json").read_text())

    @task
    def numbers(waba_id):
        rows = WhatsAppHook().iter_edge(f"{{waba_id}}/phone_numbers", fields="{FIELDS}")
        return [{{"waba_id": waba_id, **row}} for row in rows]

    @task
    def write(lists):
        lines = [json.dumps(row) for rows in lists for row in rows]
        (FOLDER / "mapped.ndjson").write_text("\\n".join(lines))

    write(numbers.expand(waba_id=ids()))


mapped = mapped_over_accounts()
'''


def run(work: Callable[[str, list[str], str], Cost], connection: str, ids: list[str]) -> Cost:
    """The costs of a case, measured in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=report, args=(work, connection, ids, folder, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            cost: Cost = ours.recv()
        except EOFError:
            sys.exit("A case failed.")
        process.join()
        return cost


def report(
    work: Callable[[str, list[str], str], Cost], connection: str, ids: list[str], folder: str, control: Connection
) -> None:
    """Measure a case in this process and send its costs, without the lines that Airflow prints."""
    os.environ["AIRFLOW_HOME"] = folder
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    control.send(work(connection, ids, folder))


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=5000, help="number of accounts")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that each answer takes")
    arguments = parser.parse_args()
    ours, theirs = SPAWN.Pipe()
    SPAWN.Process(target=serve, args=(arguments.accounts, arguments.latency, theirs), daemon=True).start()
    connection, ids = ours.recv()
    cases: dict[str, Callable[[str, list[str], str], Cost]] = {
        "loop": measure_loop,
        **{f"operator {n}": partial(measure_operator, max_concurrency=n) for n in (1, 10, 50)},
        "mapped": measure_mapped,
    }
    print(f"{arguments.accounts} accounts, {arguments.latency * 1e3:g} ms an answer; per 1,000 accounts:")
    print(f"{'case':<12} {'accounts':>8} {'wall s':>8} {'CPU s':>7} {'MiB':>6} {'calls':>7} {'connections':>12}")
    costs: dict[str, Cost] = {}
    for name, work in cases.items():
        costs[name] = cost = run(work, connection, ids)
        ours.send(True)
        calls, connections = ours.recv()
        share = cost.accounts / 1000
        print(
            f"{name:<12} {cost.accounts:>8} {cost.wall / share:8.1f} {cost.cpu / share:7.2f} {cost.megabytes:6.0f} "
            f"{calls / share:7.0f} {connections:12}"
        )
    ours.send(False)
    if len({(cost.rows, cost.digest) for name, cost in costs.items() if name != "mapped"}) != 1:
        sys.exit("The cases wrote different rows.")


if __name__ == "__main__":
    main()
