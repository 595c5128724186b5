"""Checks in a real triggerer that deferred sensors share readings, write logs and survive the end of the triggerer.

It starts ``airflow standalone`` on SQLite in a temporary folder, against its own sandbox. It needs no network beyond
loopback. It runs on Linux only, because it finds processes in ``/proc``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.sandbox import GraphSandbox

STARTED = time.monotonic()
TIME_LIMIT = 450.0
INTERVAL = 5
WATCHED_FOR = 20
RUNS = [f"wait_{number}" for number in range(1, 6)]
NEWCOMER = {"id": "777000111222333", "name": "Café Newcomer"}
DAG = "/api/v2/dags/deferral"
DAG_FILE = f"""
from airflow.sdk import Param, dag, task
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

@dag(schedule=None, params={{"waba_id": Param("", type="string")}})
def deferral():
    shared = WhatsAppWabasSensor(
        task_id="shared", waba_ids=["{{{{ params.waba_id }}}}"], fields="id,name", deferrable=True,
        poke_interval={INTERVAL}, timeout=300,
    )

    @task
    def name(accounts):
        return accounts[0]["name"]

    name(shared.output)

deferral()
"""
# The REST API does not show the arguments of triggers, and the database holds them encrypted. Airflow's model decrypts
# them.
PRINT_DEADLINES = """
import json
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
with create_session() as session:
    print(json.dumps({trigger.id: trigger.kwargs["clock"]["deadline"] for trigger in session.query(Trigger)}))
"""


class CheckFailedError(Exception):
    """An expectation does not hold."""


class Airflow:
    """A temporary Airflow: its settings, its processes and its REST API."""

    def __init__(self, home: Path, connection: str) -> None:
        api, trigger_logs, worker_logs = free_ports(3)
        self.home = home
        self.url = f"http://127.0.0.1:{api}"
        self.output = home / "output.log"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            # Standalone starts its components as `airflow ...`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_WHATSAPP_DEFAULT": connection,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            # Seconds until another triggerer takes over from one that was killed.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
        }
        self._headers = {"Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        (home / "dags").mkdir()
        (home / "dags" / "deferral.py").write_text(DAG_FILE, encoding="utf-8")

    def start(self, component: str) -> None:
        """Start ``airflow <component>`` in a new session."""
        command = [sys.executable, "-m", "airflow", component]
        with self.output.open("ab") as output:
            subprocess.Popen(  # noqa: S603  # our own interpreter
                command, cwd=self.home, env=self.env, stdout=output, stderr=output, start_new_session=True
            )

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the REST API answers with."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)  # noqa: S310  # http, our own server
        with self._opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def log_in(self) -> None:
        """Get a token of the REST API for the calls that follow."""
        self._headers["Authorization"] = f"Bearer {self.call('GET', '/auth/token')['access_token']}"

    def is_healthy(self) -> bool:
        """Whether every component reports that it is healthy."""
        health = self.call("GET", "/api/v2/monitor/health")
        return all(health[name]["status"] == "healthy" for name in ("scheduler", "triggerer", "dag_processor"))

    def unpause(self) -> bool:
        """Unpause the DAG. The API answers an error until the DAG file has been parsed."""
        return self.call("PATCH", DAG, {"is_paused": False})["is_paused"] is False

    def all_deferred(self) -> bool:
        """Whether the sensor of every run is deferred."""
        tasks = self.call("GET", f"{DAG}/dagRuns/~/taskInstances")["task_instances"]
        return all_are("deferred", [task["state"] for task in tasks if task["task_id"] == "shared"])

    def all_succeeded(self) -> bool:
        """Whether every run has succeeded."""
        return all_are("success", [run["state"] for run in self.call("GET", f"{DAG}/dagRuns")["dag_runs"]])

    def xcom(self, run_id: str, task_id: str) -> Any:
        """The value that the task returned."""
        return self.call("GET", f"{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value")["value"]

    def log_of(self, run_id: str) -> str:
        """The log of the sensor as the UI shows it, the lines of its triggers included."""
        return json.dumps(self.call("GET", f"{DAG}/dagRuns/{run_id}/taskInstances/shared/logs/1?full_content=true"))

    def deadlines(self) -> dict[str, float]:
        """The deadlines of the triggers in the database in unix seconds, by the id of the trigger."""
        command = [sys.executable, "-c", PRINT_DEADLINES]
        done = subprocess.run(command, cwd=self.home, env=self.env, capture_output=True, text=True, timeout=60)  # noqa: S603  # our own interpreter
        expect(done.returncode == 0, f"the triggers cannot be read: {done.stderr}")
        deadlines: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return deadlines


def main() -> None:
    """Run the check, and exit with a message if it fails."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))
    with (
        tempfile.TemporaryDirectory(prefix="airflow-whatsapp-e2e-") as home,
        GraphSandbox(accounts=150) as sandbox,
        no_process_left(),
    ):
        airflow = Airflow(Path(home), sandbox.connection)
        try:
            check_deferral(airflow, sandbox)
        except Exception as error:
            printed = airflow.output.read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
            why = error if isinstance(error, CheckFailedError) else repr(error)
            sys.exit("\n".join([*printed, f"FAILED: {why}"]).replace(sandbox.token, "***"))
    say("No process is left, and the check has passed")


def check_deferral(airflow: Airflow, sandbox: GraphSandbox) -> None:
    """Defer five runs, kill and replace their triggerer, add the account, and check what the runs got."""
    airflow.start("standalone")
    wait_until("Airflow is healthy", airflow.is_healthy, limit=240)
    airflow.log_in()
    wait_until("the DAG is unpaused", airflow.unpause)
    for run_id in RUNS:
        conf = {"waba_id": NEWCOMER["id"]}
        airflow.call("POST", f"{DAG}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})
    wait_until(f"{len(RUNS)} sensors are deferred", airflow.all_deferred)

    wait_for_readings(sandbox, 2)
    seen = count_readings(sandbox, WATCHED_FOR)
    say(f"{seen} readings in {WATCHED_FOR} s for {len(RUNS)} waits that look every {INTERVAL} s")
    expect(1 < seen <= WATCHED_FOR / INTERVAL + 1, "readings are not shared, or there are none")

    deadlines = airflow.deadlines()
    expect(len(deadlines) == len(RUNS), f"{len(deadlines)} triggers for {len(RUNS)} runs")
    kill_triggerer()
    expect(count_readings(sandbox, 2 * INTERVAL) == 0, "somebody reads although the triggerer was killed")
    expect(airflow.all_deferred(), "tasks are no longer deferred after the triggerer was killed")
    say("the triggerer is killed: nobody reads, all sensors are still deferred")
    airflow.start("triggerer")
    wait_for_readings(sandbox, 2)
    expect(airflow.all_deferred(), "tasks are no longer deferred under the new triggerer")
    expect(airflow.deadlines() == deadlines, "the deadlines moved")
    say("the new triggerer reads on, towards the same deadlines")

    sandbox.accounts.append(dict(NEWCOMER))
    wait_until("the account came and all runs succeeded", airflow.all_succeeded)
    for run_id in RUNS:
        got = airflow.xcom(run_id, "shared"), airflow.xcom(run_id, "name")
        expect(got == ([NEWCOMER], NEWCOMER["name"]), f"{run_id} has something else in XCom: {got}")
        log = airflow.log_of(run_id)
        for line in (
            "0 accounts count; the condition is not met yet - looking",
            "1 accounts count; the condition is met",
        ):
            expect(line in log, f"the log of {run_id} does not say: {line}")
    say("every run has the one account in XCom that it waited for, and the log of its task tells of the wait")
    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    leaks = [str(path.relative_to(airflow.home)) for path in files if sandbox.token.encode() in path.read_bytes()]
    expect(not leaks, f"the access token is in {leaks}")
    say(f"the access token is in none of {len(files)} files: logs, database, settings")


def readings(sandbox: GraphSandbox) -> int:
    """The number of times that the listing was started. Later pages do not count."""
    return sum("after" not in request.params for request in sandbox.requests)


def count_readings(sandbox: GraphSandbox, seconds: float) -> int:
    """The number of readings within some seconds from now."""
    before = readings(sandbox)
    time.sleep(seconds)
    return readings(sandbox) - before


def wait_for_readings(sandbox: GraphSandbox, count: int) -> None:
    """Return after ``count`` more readings."""
    enough = readings(sandbox) + count
    wait_until(f"{count} more readings", lambda: readings(sandbox) >= enough)


def wait_until(what: str, is_so: Callable[[], bool], limit: float = 120.0) -> None:
    """Return when the condition holds. An API that does not answer yet counts as a condition that does not hold."""
    end = min(time.monotonic() + limit, STARTED + TIME_LIMIT)
    while True:
        error = None
        try:
            if is_so():
                return say(what)
        except OSError as error_:
            error = error_
        expect(time.monotonic() < end, f"not in time: {what} ({error})")
        time.sleep(1)


def all_are(state: str, states: list[str]) -> bool:
    """Whether all of the states are this one; raises an error if one of them is ``failed``."""
    expect("failed" not in states, f"waiting for {state}, but found {states}")
    return states == [state] * len(RUNS)


def expect(is_so: bool, otherwise: str) -> None:
    """Raise an error with the message if the condition does not hold."""
    if not is_so:
        raise CheckFailedError(otherwise)


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.monotonic() - STARTED:4.0f} s  {text}", flush=True)


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def descendants(of: int) -> dict[int, str]:
    """The command lines of the running descendants of a process, by process id."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at.
        with suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            parents[int(folder.name)] = int(parent)
            if state != "Z":
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    family = {of}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return {pid: commands[pid] for pid in family - {of} if pid in commands}


def kill_triggerer() -> None:
    """Kill the triggerer with all its child processes, as the failure of its machine would."""
    triggerers = [pid for pid, command in descendants(os.getpid()).items() if "airflow triggerer" in command]
    expect(bool(triggerers), "no triggerer was found")
    send(signal.SIGKILL, {pid for triggerer in triggerers for pid in (triggerer, *descendants(triggerer))})
    # Requests that it sent before may still arrive.
    time.sleep(1)


def send(number: signal.Signals, to: Iterable[int]) -> None:
    """Send a signal to processes. Those that have ended already are ignored."""
    for pid in to:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def no_process_left() -> Iterator[None]:
    """Terminate all descendants of this process after the block, and kill those that do not end."""
    # Let orphaned processes become children of this process. Otherwise they could not be found.
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    try:
        yield
    finally:
        began = time.monotonic()
        send(signal.SIGTERM, descendants(os.getpid()))
        while family := descendants(os.getpid()):
            waited = time.monotonic() - began
            expect(waited < 30, f"still running: {family}")
            if waited > 15:
                send(signal.SIGKILL, family)
            time.sleep(0.5)
        with suppress(ChildProcessError):
            while os.wait():
                pass


if __name__ == "__main__":
    main()
