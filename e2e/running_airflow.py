"""Runs Airflow in a temporary folder, for the checks in this folder: ``airflow standalone``, or its parts one by one.

It needs no network beyond loopback. It runs on Linux only, because it finds processes in ``/proc``.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from services import free_port

from airflow_provider_whatsapp.sandbox import GraphSandbox

STARTED = time.monotonic()
# A guard against what hangs, for each step of a check. On a busy machine, a step takes minutes.
LIMIT = 1800.0
# Seconds between two checkpoints of a listing. By default, it is a minute, and no process lives that long here.
SECONDS_BETWEEN_PARTS = 2
# What DAG files begin with. LAKE is the folder that tasks write to.
_HEAD = f"""
import os
from datetime import timedelta
from airflow.sdk import DAG, Asset, AssetAlias, AssetWatcher, task
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.retry import GraphRetryPolicy
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasChangeTrigger

for operator in (WhatsAppListWabasOperator, WhatsAppListWabaEdgeOperator):
    operator.checkpoint_interval = {SECONDS_BETWEEN_PARTS}
LAKE = os.environ["LAKE"]
"""


def dag_file(dag_id: str, tasks: str, arguments: str = "schedule=None") -> str:
    """Return the text of a DAG file.

    :param tasks: code within the DAG, for which the names of ``_HEAD`` are imported
    :param arguments: further arguments of the DAG, as code
    """
    return f"{_HEAD}\nwith DAG({dag_id!r}, {arguments}):\n{textwrap.indent(textwrap.dedent(tasks), '    ')}"


class CheckFailedError(Exception):
    """An expectation does not hold."""


class Airflow:
    """A temporary Airflow: its settings, its processes and its REST API.

    :param home: empty folder for all of its files
    :param connection: the connection ``whatsapp_default`` as JSON
    :param dags: texts of the DAG files by DAG id
    """

    def __init__(self, home: Path, connection: str, dags: Mapping[str, str]) -> None:
        api, trigger_logs, worker_logs = (free_port() for _ in range(3))
        self.home = home
        self.lake = home / "lake"
        # A killed process leaves the files that it staged, which must go with the other files of this Airflow.
        self.staging = home / "staging"
        self.url = f"http://127.0.0.1:{api}"
        self.output = home / "output.log"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            # Standalone starts its components as `airflow ...`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "LAKE": str(self.lake),
            "TMPDIR": str(self.staging),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_WHATSAPP_DEFAULT": connection,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API__DEFAULT_WRAP": "True",
            # An API server that is started again must accept the tokens of the scheduler and the tasks.
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            # Seconds until another triggerer takes over from one that was killed.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
        }
        self._headers = {"Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.output.touch()
        for folder in (self.lake, self.staging, home / "dags"):
            folder.mkdir()
        for dag_id, text in dags.items():
            (home / "dags" / f"{dag_id}.py").write_text(text, encoding="utf-8")

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start ``airflow <command>`` in a new session, and return its process.

        :param env: further environment variables of this process
        """
        with self.output.open("ab") as output:
            return subprocess.Popen(
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
        wait_until("Airflow is healthy", self._is_healthy)
        self._headers["Authorization"] = f"Bearer {self.call('GET', '/auth/token')['access_token']}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON of an answer of the REST API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)
        with self._opener.open(request, timeout=LIMIT) as answer:
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

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the first hundred runs of a DAG, the oldest first."""
        path = f"/api/v2/dags/{dag_id}/dagRuns?limit=100&order_by=run_after"
        found: list[dict[str, Any]] = self.call("GET", path)["dag_runs"]
        return found

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        """Return whether a run has ended."""
        return self.run_state(dag_id, run_id) in {"success", "failed"}

    def wait_for_success(self, dag_id: str, *run_ids: str) -> None:
        """Return when the runs have ended.

        :raises CheckFailedError: if one of them has failed
        """
        for run_id in run_ids:
            wait_until(f"{dag_id}, {run_id} has ended", partial(self.has_ended, dag_id, run_id))
            expect(self.run_state(dag_id, run_id) == "success", f"the run {run_id} of {dag_id} has failed")

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the states of the tasks of a run by task id."""
        return {task["task_id"]: str(task["state"]) for task in self.task_instances(dag_id, run_id)}

    def task_instances(self, dag_id: str, run_id: str = "~") -> list[dict[str, Any]]:
        """Return the task instances of one run, or of all runs of a DAG."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return the value that a task returned."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("GET", path)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, try_number: int = 1) -> str:
        """Return the log of one try of a task as the UI shows it, with the lines of its triggers."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        return json.dumps(self.call("GET", f"{path}?full_content=true&map_index={map_index}"))

    def read_database(self, code: str) -> Any:
        """Return what Airflow's models show and the REST API does not.

        :param code: Python code that prints JSON in its last line
        """
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=self.home, env=self.env, capture_output=True, text=True, timeout=LIMIT)
        expect(done.returncode == 0, f"the database cannot be read: {done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def expect_no_secret(self, *secrets: str) -> None:
        """Raise an error if a secret is in a file of this Airflow."""
        files = [path for path in self.home.rglob("*") if path.is_file() and "browser" not in path.parts]
        leaks = [path for path in files for secret in secrets if secret.encode() in path.read_bytes()]
        expect(not leaks, f"a secret is in {leaks}")
        say(f"no secret is in any of {len(files)} files: logs, database, settings")

    def _is_healthy(self) -> bool:
        health = self.call("GET", "/api/v2/monitor/health")
        return all(health[name]["status"] == "healthy" for name in ("scheduler", "triggerer", "dag_processor"))


def run_check(check: Callable[[Airflow, GraphSandbox], None], sandbox: GraphSandbox, dags: Mapping[str, str]) -> None:
    """Run a check against a new Airflow and a sandbox, and exit with a message if it fails. No process is left.

    :param check: called with the Airflow, which is not started yet, and the running sandbox
    :param dags: texts of the DAG files by DAG id
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))
    with tempfile.TemporaryDirectory(prefix="airflow-whatsapp-e2e-") as home, sandbox, _no_process_left():
        airflow = Airflow(Path(home), sandbox.connection, dags)
        try:
            check(airflow, sandbox)
        except Exception as error:
            printed = airflow.output.read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
            why = error if isinstance(error, CheckFailedError) else repr(error)
            sys.exit("\n".join([*printed, f"FAILED: {why}"]).replace(sandbox.token, "***"))
    say("No process is left, and the check has passed")


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    """Return when the condition holds. An API that does not answer yet counts as a condition that does not hold."""
    end = time.monotonic() + LIMIT
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


def descendants(of: int) -> dict[int, str]:
    """Return the command lines of the running descendants of a process, by process id."""
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


def find_processes(pattern: str) -> list[int]:
    """Return the ids of the running descendants of this process whose command line matches a regular expression."""
    return [pid for pid, command in descendants(os.getpid()).items() if re.search(pattern, command)]


def kill(*pids: int) -> int:
    """Kill processes with all their descendants, as the failure of a machine would, and return how many there were."""
    expect(bool(pids), "there is no such process")
    family = {pid for ancestor in pids for pid in (ancestor, *descendants(ancestor))}
    _send(signal.SIGKILL, family)
    wait_until("processes are killed", lambda: family.isdisjoint(descendants(os.getpid())))
    return len(family)


def _send(number: signal.Signals, to: Iterable[int]) -> None:
    for pid in to:
        # A process may have ended already.
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
        _send(signal.SIGTERM, descendants(os.getpid()))
        while family := descendants(os.getpid()):
            waited = time.monotonic() - began
            expect(waited < LIMIT, f"still running: {family}")
            if waited > 30:
                _send(signal.SIGKILL, family)
            time.sleep(0.5)
        with suppress(ChildProcessError):
            while os.wait():
                pass
