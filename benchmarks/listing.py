"""Measures what the list of accounts costs, beside the scripts that one would write instead.

* requests: A plain ``requests.Session`` that follows ``paging.next`` and writes NDJSON with ``json.dumps``.
* httpx: The same with ``httpx.Client``.
* operator: ``WhatsAppListWabasOperator`` with an ``output_path`` that ends in ``.ndjson``.

The server sends pages that were made beforehand, so that it costs nearly nothing itself. Each case runs in a new
process, one case after the other, again and again; the table has the medians, and CPU and wall time also as multiples
of those of ``requests``. What each case imports before it begins is not counted: the HTTP library of a loop, and for
the operator what Airflow loads for every task, and the operator. What the operator loads afterwards is counted. The
command exits with 1 if the cases do not write the same rows.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import multiprocessing
import os
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FIELDS = (
    "id,name,currency,timezone_id,message_template_namespace,account_review_status,business_verification_status,"
    "ownership_type,country,creation_time,status,owner_business_info"
)
PAGE = 100
TOKEN = "EAA" + "token" * 30
SPAWN = multiprocessing.get_context("spawn")
_REQUEST = re.compile(rb"GET /v26\.0/(\d+)/client_whatsapp_business_accounts\?(\S*) ")
_AFTER = re.compile(rb"(?:^|&)after=(\d+)")


@dataclass(frozen=True)
class Cost:
    """The costs of a case.

    :param cpu: seconds of CPU
    :param wall: seconds
    :param megabytes: growth of the most memory that the process ever had
    :param rows: SHA-256 of the rows that were written
    """

    cpu: float
    wall: float
    megabytes: float
    rows: str


def serve(sizes: list[int], latency: float, control: Connection) -> None:
    """Answer requests for the accounts of a business whose id is the number of its accounts."""
    # The sandbox's accounts, but not the sandbox: it would take more CPU than the cases do.
    from airflow_provider_whatsapp.sandbox.sample_accounts import make_accounts

    accounts = make_accounts(0, {"id": "1", "name": "business"}, max(sizes), set(), owned=False)
    rows = [{name: row[name] for name in FIELDS.split(",") if name in row} for row in accounts]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        answers = {
            (size, first): answer(rows[first : first + PAGE], host, first, size)
            for size in sizes
            for first in range(0, size, PAGE)
        }
        control.send(host)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=converse, args=(connection, answers, latency), daemon=True).start()


def answer(rows: list[dict[str, Any]], host: str, first: int, size: int) -> bytes:
    """The HTTP answer with a page of accounts, compressed as the API's are.

    :param rows: accounts of the page
    :param host: address of the server
    :param first: number of the first account in the list
    :param size: number of accounts in the whole list
    """
    rows, last = rows[: size - first], min(first + PAGE, size)
    paging: dict[str, Any] = {"cursors": {"before": str(first), "after": str(last)}}
    if last < size:
        query = f"fields={FIELDS.replace(',', '%2C')}&limit={PAGE}&after={last}"
        paging["next"] = f"{host}/v26.0/{size}/client_whatsapp_business_accounts?{query}"
    # The API writes JSON without blanks, and characters beyond ASCII and slashes as escapes.
    text = json.dumps({"data": rows, "paging": paging}, separators=(",", ":")).replace("/", "\\/")
    body = gzip.compress(text.encode(), 5, mtime=0)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def converse(connection: socket.socket, answers: dict[tuple[int, int], bytes], latency: float) -> None:
    """Answer the requests of one connection."""
    received = b""
    with connection:
        while chunk := connection.recv(65536):
            received += chunk
            if b"\r\n\r\n" in received and (request := _REQUEST.match(received)):
                after = _AFTER.search(request[2])
                time.sleep(latency)
                connection.sendall(answers[int(request[1]), int(after[1]) if after else 0])
                received = b""


def prepare_requests(host: str, size: int, path: Path) -> Callable[[], object]:
    """A loop over the pages with ``requests``."""
    import requests

    def read() -> None:
        with requests.Session() as session:
            loop(session, host, size, path)

    return read


def prepare_httpx(host: str, size: int, path: Path) -> Callable[[], object]:
    """A loop over the pages with ``httpx``."""
    import httpx

    def read() -> None:
        with httpx.Client(timeout=30) as client:
            loop(client, host, size, path)

    return read


def loop(session: Any, host: str, size: int, path: Path) -> None:
    """Follow ``paging.next`` and write each row as a line."""
    session.headers["Authorization"] = f"Bearer {TOKEN}"
    url = f"{host}/v26.0/{size}/client_whatsapp_business_accounts?fields={FIELDS}&limit={PAGE}"
    with path.open("w") as file:
        while url:
            response = session.get(url)
            response.raise_for_status()
            page = response.json()
            for row in page["data"]:
                file.write(json.dumps(row) + "\n")
            url = page.get("paging", {}).get("next")


def prepare_operator(host: str, size: int, path: Path) -> Callable[[], object]:
    """The operator, in a process that has loaded what Airflow loads for every task."""
    connection = {"conn_type": "whatsapp", "host": host, "password": TOKEN, "extra": {"api_version": "v26.0"}}
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = json.dumps(connection)
    import airflow.sdk.execution_time.task_runner  # noqa: F401

    from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

    operator = WhatsAppListWabasOperator(
        task_id="accounts", business_id=size, fields=FIELDS, page_size=PAGE, output_path=str(path)
    )
    return lambda: operator.execute({})


CASES = {"requests": prepare_requests, "httpx": prepare_httpx, "operator": prepare_operator}


def measure(case: str, host: str, size: int, control: Connection) -> None:
    """Measure a case in this process and send its costs, without the lines that Airflow prints."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIRFLOW_HOME"] = folder
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        path = Path(folder, "rows.ndjson")
        work = CASES[case](host, size, path)
        memory, wall, cpu = peak_megabytes(), time.perf_counter(), time.process_time()
        work()
        wall, cpu, memory = time.perf_counter() - wall, time.process_time() - cpu, peak_megabytes() - memory
        control.send(Cost(cpu, wall, memory, digest(path)))


def peak_megabytes() -> float:
    """The most memory that this process ever had.

    That of ``getrusage`` would be the most that this process or the one that started it had.
    """
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak[1]) / 1024 if peak else 0.0


def digest(path: Path) -> str:
    """The SHA-256 of the rows in a file of NDJSON."""
    found = hashlib.sha256()
    with path.open() as file:
        for line in file:
            found.update(json.dumps(json.loads(line), sort_keys=True).encode())
    return found.hexdigest()


def run(case: str, host: str, size: int) -> Cost:
    """The costs of a case, measured in a new process."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=measure, args=(case, host, size, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        cost: Cost = ours.recv()
    except EOFError:
        sys.exit(f"The case {case} failed.")
    process.join()
    return cost


def main() -> None:
    """Measure every case at every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of accounts")
    parser.add_argument("--runs", type=int, default=5, help="how often each case runs")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each answer takes")
    arguments = parser.parse_args()
    ours, theirs = SPAWN.Pipe()
    SPAWN.Process(target=serve, args=(arguments.sizes, arguments.latency, theirs), daemon=True).start()
    host = ours.recv()
    print(f"{arguments.latency * 1e3:g} ms an answer, medians of {arguments.runs}; x: times that of requests")
    print(f"{'accounts':>9} {'case':<9} {'CPU s':>7} {'x':>5} {'wall s':>7} {'x':>5} {'MiB':>5}")
    for size in arguments.sizes:
        costs: dict[str, list[Cost]] = {case: [] for case in CASES}
        for _ in range(arguments.runs):
            for case, measured in costs.items():
                measured.append(run(case, host, size))
        if len({cost.rows for measured in costs.values() for cost in measured}) != 1:
            sys.exit("The cases wrote different rows.")
        base_cpu, base_wall = median(costs["requests"], "cpu"), median(costs["requests"], "wall")
        for case, measured in costs.items():
            cpu, wall = median(measured, "cpu"), median(measured, "wall")
            print(
                f"{size:>9} {case:<9} {cpu:7.2f} {cpu / base_cpu:5.2f} {wall:7.2f} {wall / base_wall:5.2f} "
                f"{median(measured, 'megabytes'):5.0f}",
                flush=True,
            )


def median(costs: list[Cost], name: str) -> float:
    """The median of one of the costs."""
    return float(statistics.median(getattr(cost, name) for cost in costs))


if __name__ == "__main__":
    main()
