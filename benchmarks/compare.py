"""Compares what it costs to list accounts with this package, with other libraries and with a plain loop.

Each program of ``benchmarks/peers/`` runs in a new process, one after the other, again and again, against one server
in a process of its own. The tables have the medians. ``x`` says how many times that of the plain ``requests`` loop of
the same run a figure is; on another machine, and on a busy one, those figures stay about the same and the seconds do
not. CPU, wall time and memory are measured from when the program has imported its library to its end. What a program
loads later counts, too. What Airflow loads for every task is loaded before.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import server
from report import BASE, write_docs

PEERS = (
    "requests_loop",
    "httpx_loop",
    "list_operator",
    "list_hook",
    "http_operator",
    "facebook_sdk",
    "pywa_client",
    "dlt_pipeline",
)
OURS = "list_operator"
#: Seconds after which a program counts as one that never ends. The slowest of those that end takes three.
PATIENCE = 15
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Cost:
    """The costs of one run.

    :param loading: seconds of CPU until the library is imported
    :param cpu: seconds of CPU from then on
    :param wall: seconds from then on
    :param megabytes: growth of the most memory that the process ever had, from then on
    :param ids: ids of the accounts that were written, or None if the format cannot be read here
    """

    loading: float
    cpu: float
    wall: float
    megabytes: float
    ids: list[str] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    :param cost: its costs; None if it failed or did not end
    :param error: name of the exception, or None
    :param requests: number of requests that it sent
    :param connections: number of connections that it opened
    :param foreign_tokens: number of times that it sent the token to another host
    """

    cost: Cost | None
    error: str | None
    requests: int
    connections: int
    foreign_tokens: int


@dataclass
class Results:
    """All figures of a run of this command, as they are written to a file."""

    machine: str
    versions: dict[str, str]
    costs: list[dict[str, Any]] = field(default_factory=list)
    waits: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    growth: list[dict[str, Any]] = field(default_factory=list)


class Runner:
    """Runs programs against one server.

    :param sizes: numbers of accounts that the server can list
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        self._control, theirs = _SPAWN.Pipe()
        _SPAWN.Process(target=server.serve, args=(sorted(set(sizes)), theirs), daemon=True).start()
        self._host = self._control.recv()

    def run(self, peer: str, business: int, *, latency: float = 0.0, suffix: str = "ndjson") -> Outcome:
        """Run a program in a new process.

        :param peer: name of its module
        :param business: number of accounts, or a fault
        :param latency: seconds that each answer takes
        :param suffix: suffix of the file to write
        """
        self._control.send(latency)
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=measure, args=(peer, self._host, business, suffix, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            # What lists many accounts may take as long as it likes.
            answer = ours.recv() if business not in server.FAULTS or ours.poll(PATIENCE) else "never ends"
        except EOFError:
            answer = "the process died"
        process.kill()
        process.join()
        self._control.send(None)
        requests, connections, foreign_tokens = self._control.recv()
        if isinstance(answer, Cost):
            return Outcome(answer, None, requests, connections, foreign_tokens)
        return Outcome(None, answer, requests, connections, foreign_tokens)


def measure(peer: str, host: str, business: int, suffix: str, control: Connection) -> None:
    """Run a program in this process and send its costs, or the name of its exception."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIRFLOW_HOME"] = folder
        # Without the lines that Airflow prints.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        path = Path(folder, f"rows.{suffix}")
        module = importlib.import_module(f"peers.{peer}")
        if getattr(module, "NEEDS_AIRFLOW", False):
            # Loaded for every task, whose process is a fork of its supervisor's.
            importlib.import_module("airflow.sdk.execution_time.supervisor")
            importlib.import_module("airflow.sdk.execution_time.task_runner")
        loading = time.process_time()
        work = module.prepare(host, business, path, token=server.TOKEN, fields=server.FIELDS)
        loading = time.process_time() - loading
        # What was imported would be searched for garbage again and again otherwise. Airflow does the same in a task.
        gc.collect()
        gc.freeze()
        memory, wall, cpu = peak_megabytes(), time.perf_counter(), time.process_time()
        try:
            work()
        except Exception as error:
            control.send(type(error).__name__)
            return
        wall, cpu, memory = time.perf_counter() - wall, time.process_time() - cpu, peak_megabytes() - memory
        ids = [json.loads(line)["id"] for line in path.open()] if suffix == "ndjson" else None
        control.send(Cost(loading, cpu, wall, memory, ids))


def peak_megabytes() -> float:
    """The most memory that this process ever had.

    On Linux, that of ``getrusage`` would be the most that this process or the one that started it had.
    """
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


def compare(
    runner: Runner, peers: Iterable[str], size: int, runs: int, *, latency: float = 0.0
) -> list[dict[str, Any]]:
    """A line of figures for each program: the medians of some runs in which they took turns.

    :param runner: runs them
    :param peers: names of their modules
    :param size: number of accounts
    :param runs: how often each runs
    :param latency: seconds that each answer takes
    """
    outcomes: dict[str, list[Outcome]] = {peer: [] for peer in peers}
    for _ in range(runs):
        for peer, found in outcomes.items():
            found.append(runner.run(peer, size, latency=latency))
    expected = None
    lines = []
    for peer, found in outcomes.items():
        costs = [outcome.cost for outcome in found if outcome.cost is not None]
        if len(costs) < len(found):
            sys.exit(f"{peer} failed with {size} accounts: {found[0].error}")
        ids = costs[0].ids
        expected = expected or ids
        if ids is None or sorted(ids) != sorted(expected or ()) or len(ids) != size:
            sys.exit(f"{peer} wrote {len(ids or ())} of {size} accounts.")
        line = {
            name: statistics.median(getattr(cost, name) for cost in costs)
            for name in ("loading", "cpu", "wall", "megabytes")
        }
        last = found[-1]
        lines.append({"peer": peer, "size": size, **line, "requests": last.requests, "connections": last.connections})
    base = next((line for line in lines if line["peer"] == BASE), lines[0])
    for line in lines:
        line.update(cpu_x=line["cpu"] / base["cpu"], wall_x=line["wall"] / base["wall"])
    return lines


def judge(runner: Runner, peer: str, fault: int) -> str:
    """What a program makes of a fault, in a few words."""
    outcome = runner.run(peer, fault)
    leak = ", token sent to the other host" if outcome.foreign_tokens else ""
    if outcome.cost is None:
        return (outcome.error if outcome.error == "never ends" else "error") + leak
    found = len(set(outcome.cost.ids or ()))
    if found == server.ACCOUNTS_BEHIND_FAULTS:
        return "complete" + leak
    return f"{found} of {server.ACCOUNTS_BEHIND_FAULTS} accounts, no error{leak}"


def print_lines(title: str, lines: list[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"\n{title}")
    print(
        f"{'accounts':>9} {'program':<14} {'load s':>7} {'CPU s':>7} {'x':>6} {'wall s':>7} {'x':>6} {'MiB':>6}", end=""
    )
    print(f" {'calls':>6} {'conn.':>5}")
    for line in lines:
        print(
            "{size:>9} {peer:<14} {loading:7.2f} {cpu:7.2f} {cpu_x:6.2f} {wall:7.2f} {wall_x:6.2f} {megabytes:6.0f} "
            "{requests:6} {connections:5}".format(**line),
            flush=True,
        )


def main() -> None:
    """Measure, print the tables, and write the figures where they are wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few accounts and one run each")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of accounts")
    parser.add_argument("--runs", type=int, help="how often each program runs")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="which programs to run")
    parser.add_argument("--costs-only", action="store_true", help="no waiting, no faults, no growth")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--docs", type=Path, help="folder of the documentation, whose tables and chart are replaced")
    arguments = parser.parse_args()
    quick = arguments.quick
    sizes = arguments.sizes or ([200, 1_000] if quick else [1_000, 10_000, 100_000])
    runs = arguments.runs or (1 if quick else 5)
    waits = [(0.02, 200), (0.2, 200)] if quick else [(0.02, 20_000), (0.2, 2_000)]
    growth = [200, 1_000] if quick else [1_000, 10_000, 100_000, 1_000_000]
    in_memory = [] if quick else [200_000]
    runner = Runner([*sizes, *(size for _, size in waits), *growth, *in_memory])

    modules = {peer: importlib.import_module(f"peers.{peer}") for peer in arguments.peers}
    results = Results(
        machine=f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        versions={peer: f"{module.PACKAGE} {version(module.PACKAGE)}" for peer, module in modules.items()},
    )
    print(results.machine)
    print("\n".join(f"{peer:<14} {name}" for peer, name in results.versions.items()))
    for size in sizes:
        lines = compare(runner, arguments.peers, size, runs)
        print_lines(f"Without waiting, medians of {runs}", lines)
        results.costs += lines
    if not arguments.costs_only:
        for size in in_memory:
            lines = compare(runner, arguments.peers, size, 1)
            print_lines("Memory with many accounts, one run", lines)
            results.costs += lines
        for latency, size in waits:
            lines = compare(runner, arguments.peers, size, runs, latency=latency)
            for line in lines:
                line.update(latency=latency, of_server=line["wall"] / (size / server.PAGE * latency))
            print_lines(f"{latency * 1e3:g} ms an answer, medians of {runs}", lines)
            results.waits += lines
        print("\nFaults")
        for fault, name in server.FAULTS.items():
            for peer in arguments.peers:
                results.faults.append({"peer": peer, "fault": name, "outcome": judge(runner, peer, fault)})
                print("{fault:<28} {peer:<14} {outcome}".format(**results.faults[-1]), flush=True)
        print("\nThe operator alone, one run each")
        for size, suffix in [*((size, "ndjson") for size in growth)] + [
            (growth[-2], suffix) for suffix in ("ndjson.gz", "json", "csv", "parquet")
        ]:
            cost = runner.run(OURS, size, suffix=suffix).cost
            if cost is None:
                sys.exit(f"The operator failed with {size} accounts to {suffix}.")
            results.growth.append({**asdict(cost), "ids": None, "size": size, "suffix": suffix})
            print(
                f"{size:>9} {suffix:<10} {cost.cpu:7.2f} s CPU, {cost.cpu / size * 1e6:6.1f} us an account, "
                f"{cost.wall:7.2f} s, {cost.megabytes:5.0f} MiB",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(results), indent=1) + "\n")
    if arguments.docs:
        write_docs(asdict(results), arguments.docs)


if __name__ == "__main__":
    main()
