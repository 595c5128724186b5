"""Runs Airflow in a temporary folder, for the checks in this folder: ``airflow standalone``, or its parts one by one.

It runs on Linux only, because it finds processes in ``/proc``.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.sandbox import GraphSandbox

STARTED = time.monotonic()


class CheckFailedError(Exception):
    """An expectation does not hold."""


class Airflow:
    """A temporary Airflow: its settings, its processes and its REST API.

    :param home: empty folder for all of its files
    :param connection: the connection ``whatsapp_default`` as JSON
    :param dags: texts of the DAG files by DAG id
    :param settings: further environment variables
    """

    def __init__(
        self, home: Path, connection: str, dags: Mapping[str, str], settings: Mapping[str, str] | None = None
    ) -> None:
        api, trigger_logs, worker_logs = _free_ports(3)
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
            **(settings or {}),
        }
        self._headers = {"Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.output.touch()
        (home / "dags").mkdir()
        for dag_id, text in dags.items():
            (home / "dags" / f"{dag_id}.py").write_text(text, encoding="utf-8")

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start ``airflow <command>`` in a new session, and return its process.

        :param env: further environment variables of this process
        """
        with self.output.open("ab") as output:
            return subprocess.Popen(  # noqa: S603  # our own interpreter
                [sys.executable, "-m", "airflow", *command],
                cwd=self.home,
                env=self.env | dict(env or {}),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def start_standalone(self) -> None:
        """Start ``airflow standalone``, and return when all of its components are healthy."""
        self.start("standalone")
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Return when the API server, scheduler, triggerer and DAG processor are healthy."""
        wait_until("Airflow is healthy", self._is_healthy, limit=240)
        self._headers["Authorization"] = f"Bearer {self.call('GET', '/auth/token')['access_token']}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the REST API answers with."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)  # noqa: S310  # http, our own server
        with self._opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG. The API answers an error until the DAG file has been parsed."""
        path = f"/api/v2/dags/{dag_id}"
        wait_until(
            f"the DAG {dag_id} is unpaused",
            lambda: self.call("PATCH", path, {"is_paused": False})["is_paused"] is False,
        )

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any] | None = None) -> None:
        """Start a run of a DAG."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}}
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The state of a run."""
        return str(self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str = "~") -> list[dict[str, Any]]:
        """The task instances of one run or of all runs."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """The value that a task returned."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("GET", path)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, try_number: int = 1) -> str:
        """The log of one try of a task as the UI shows it, the lines of its triggers included."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        return json.dumps(self.call("GET", f"{path}?full_content=true&map_index={map_index}"))

    def read_database(self, code: str) -> Any:
        """What Airflow's models show and the REST API does not.

        :param code: Python code that prints JSON in its last line
        """
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=self.home, env=self.env, capture_output=True, text=True, timeout=60)  # noqa: S603  # our own interpreter
        expect(done.returncode == 0, f"the database cannot be read: {done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def expect_no_token(self, sandbox: GraphSandbox) -> None:
        """Raise an error if the access token is in a file of this Airflow."""
        files = [path for path in self.home.rglob("*") if path.is_file() and "browser" not in path.parts]
        leaks = [str(path.relative_to(self.home)) for path in files if sandbox.token.encode() in path.read_bytes()]
        expect(not leaks, f"the access token is in {leaks}")
        say(f"the access token is in none of {len(files)} files: logs, database, settings")

    def _is_healthy(self) -> bool:
        health = self.call("GET", "/api/v2/monitor/health")
        return all(health[name]["status"] == "healthy" for name in ("scheduler", "triggerer", "dag_processor"))


def run_check(
    check: Callable[[Airflow, GraphSandbox], None],
    sandbox: GraphSandbox,
    dags: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> None:
    """Run a check against a new Airflow and a sandbox, and exit with a message if it fails. No process is left.

    :param check: called with the Airflow, which is not started yet, and the running sandbox
    :param dags: texts of the DAG files by DAG id
    :param settings: further environment variables for Airflow
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))
    with tempfile.TemporaryDirectory(prefix="airflow-whatsapp-e2e-") as home, sandbox, _no_process_left():
        airflow = Airflow(Path(home), sandbox.connection, dags, settings)
        try:
            check(airflow, sandbox)
        except Exception as error:
            printed = airflow.output.read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
            why = error if isinstance(error, CheckFailedError) else repr(error)
            sys.exit("\n".join([*printed, f"FAILED: {why}"]).replace(sandbox.token, "***"))
    say("No process is left, and the check has passed")


def wait_until(what: str, is_so: Callable[[], bool], limit: float = 120.0) -> None:
    """Return when the condition holds. An API that does not answer yet counts as a condition that does not hold."""
    end = time.monotonic() + limit
    while True:
        error = None
        try:
            if is_so():
                return say(what)
        except OSError as error_:
            error = error_
        expect(time.monotonic() < end, f"not in time: {what} ({error})")
        time.sleep(1)


def expect(is_so: bool, otherwise: str) -> None:
    """Raise an error with the message if the condition does not hold."""
    if not is_so:
        raise CheckFailedError(otherwise)


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.monotonic() - STARTED:4.0f} s  {text}", flush=True)


def _free_ports(count: int) -> list[int]:
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


def send(number: signal.Signals, to: Iterable[int]) -> None:
    """Send a signal to processes. Those that have ended already are ignored."""
    for pid in to:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def _no_process_left() -> Iterator[None]:
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
