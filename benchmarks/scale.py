"""Measures what 10, 1,000 and 100,000 accounts take, as an object and in XCom: the figures of ``docs/scale.md``.

Each case runs in a new process, and the sandbox in another one. The fields are the default ones. The phone numbers of
100,000 accounts take some minutes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from waba_edges import peak_megabytes, serve

SIZES = (10, 1_000, 100_000)
# The last one reads the phone numbers of the accounts in the first one.
OUTPUTS = ("accounts.ndjson", "accounts.ndjson.gz", "XCom", "phone_numbers.ndjson")
SPAWN = multiprocessing.get_context("spawn")


def measure(connection: str, folder: str, output: str, control: Connection) -> None:
    """List the accounts or their phone numbers, and send the bytes that come out and the growth of memory in MiB."""
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = connection
    from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator

    path = Path(folder, output)

    def listing(max_items: int | None) -> Any:
        arguments: dict[str, Any] = {"task_id": "listing", "max_items": max_items}
        if output != "XCom":
            arguments["output_path"] = str(path)
        if output == "phone_numbers.ndjson":
            return WhatsAppListWabaEdgeOperator(
                waba_ids=str(Path(folder, OUTPUTS[0])), edge="phone_numbers", **arguments
            )
        return WhatsAppListWabasOperator(**arguments)

    # What is loaded at the first use is not the cost of the accounts.
    listing(1).execute({})
    control.send("warm")
    control.recv()
    before = peak_megabytes()
    result = listing(None).execute({})
    # What a task returns is sent to the API server as JSON.
    size = len(json.dumps(result)) if output == "XCom" else path.stat().st_size
    control.send((size, peak_megabytes() - before))


def main() -> None:
    """Print the costs as a table."""
    print("| accounts | output | calls | bytes | MiB more memory |\n|---|---|---|---|---|")
    for accounts in SIZES:
        ours, theirs = SPAWN.Pipe()
        server = SPAWN.Process(target=serve, args=(accounts, 0.0, theirs))
        server.start()
        connection, _ = ours.recv()
        with tempfile.TemporaryDirectory() as folder:
            for output in OUTPUTS:
                case, its_end = SPAWN.Pipe()
                process = SPAWN.Process(target=measure, args=(connection, folder, output, its_end))
                process.start()
                case.recv()
                count_calls(ours)
                case.send("go")
                size, memory = case.recv()
                process.join()
                print(f"| {accounts:,} | {output} | {count_calls(ours):,} | {size:,} | {memory:.1f} |", flush=True)
        ours.send(False)
        server.join()


def count_calls(server: Connection) -> int:
    """The number of calls since the last time."""
    server.send(True)
    calls: int = server.recv()[0]
    return calls


if __name__ == "__main__":
    main()
