"""Writes objects in processes of their own, which can be killed and whose memory can be measured.

Each line of the standard input is a JSON object that says what to write. A forked process writes it. Its id is printed
when it starts, and how it ended when it has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Loaded once, so that each forked process starts at once.
import airflow.sdk.io
from airflow.sdk import ObjectStoragePath  # noqa: F401

from airflow_provider_whatsapp.storage.target import Target

airflow.sdk.io.has_fs("s3")
for _library in ("s3fs", "gcsfs", "adlfs", "sshfs"):
    __import__(_library)


def rows(count: int, size: int) -> Iterator[dict[str, Any]]:
    """Rows of a known content.

    :param count: number of rows
    :param size: size of each row in bytes, about
    """
    for number in range(count):
        yield {"id": str(number), "name": f"{number:x}" * (size // max(len(f"{number:x}"), 1))}


def peak_memory() -> int:
    """The most memory that this process has had since it was reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def write(job: dict[str, Any]) -> None:
    """Write an object, and print how much more memory it took to publish it than to list it."""
    os.environ["AIRFLOW_CONN_LAKE"] = json.dumps(job["connection"])
    events = 0

    def count(event: str, arguments: object) -> None:
        nonlocal events
        events += 1
        # The signal is an event, too.
        if events - 1 == job.get("kill_at_event") and event != "os.kill":
            os.kill(os.getpid(), signal.SIGKILL)

    target = Target(job["path"], conn_id="lake")
    with target.stage(rows(job["count"], job["size"]), ["id", "name"]) as staged:
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_memory()
        sys.addaudithook(count)
        staged.publish(owner="worker")
    stored = staged.stored
    print(
        json.dumps(
            {"bytes": stored.bytes, "sha256": stored.sha256, "memory": peak_memory() - before, "events": events}
        ),
        flush=True,
    )


def main() -> None:
    """Do the jobs one after the other."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            print(json.dumps({"pid": os.getpid()}), flush=True)
            try:
                write(json.loads(line))
            except BaseException as error:
                print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"exit": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
