"""Worker processes that a test can kill. They are forked from a server that has imported the operators once for all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_whatsapp.storage.target import Target

_CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["airflow_provider_whatsapp.operators.whatsapp"])


def start_task(kind: Any, arguments: dict[str, Any], try_number: int) -> ForkServerProcess:
    """Start a try of a task in a worker, which stores a checkpoint whenever it can."""
    # The server has the environment of the test that was the first to need it.
    connection = os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"]
    return _start(_run_task, kind, arguments, try_number, connection)


def start_publishing(path: Path) -> ForkServerProcess:
    """Start to write an object in a worker, which is killed after half of the bytes that it publishes."""
    return _start(_publish_half, path)


def _start(target: Any, *args: Any) -> ForkServerProcess:
    worker = _CONTEXT.Process(target=target, args=args, daemon=True)
    worker.start()
    return worker


def _run_task(kind: Any, arguments: dict[str, Any], try_number: int, connection: str) -> None:
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = connection
    kind.checkpoint_interval = 0.0
    instance = SimpleNamespace(
        dag_id="dag", run_id="run", task_id="t", map_index=-1, is_mapped=False, try_number=try_number, max_tries=99
    )
    kind(task_id="t", **arguments).execute({"ti": instance})


def _publish_half(path: Path) -> None:
    def copy_half(source: Any, sink: Any, length: int) -> None:
        sink.write(b"half")
        sink.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    shutil.copyfileobj = copy_half  # type: ignore[assignment]
    with Target(str(path)).stage([{"id": "1"}], ["id"]) as staged:
        staged.publish()
