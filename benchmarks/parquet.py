"""Measures what it costs to write accounts as Parquet, beside NDJSON: CPU time, size and memory.

Each case runs in a new process and writes made-up accounts with the default fields to the disk. The memory is the
growth of the most that the process ever had, from before the first row. The CPU time includes that of making the rows,
which the case "rows alone" shows. The command exits with 1 if Parquet takes more than 100 MB of memory, or if a Parquet
object does not hold all accounts.

``python benchmarks/parquet.py 10000 1000000`` writes so many accounts. It runs on Linux only.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.graph.query import build_edge_query
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.storage.target import Target

MOST_MEGABYTES = 100
ROWS_ALONE = "(rows alone)"
NAMES = (ROWS_ALONE, "a.ndjson", "a.ndjson.gz", "a.parquet")
COLUMNS = [field.key for field in build_edge_query("1/client_whatsapp_business_accounts").fields]


def peak_megabytes() -> float:
    """The most memory that this process ever had."""
    # Linux counts the memory of the parent into the `ru_maxrss` of a new process, but not into this number.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def accounts(count: int, samples: list[str]) -> Iterator[dict[str, Any]]:
    """Accounts like the samples, with the values of their own that the accounts of a real business have."""
    rng = random.Random(0)  # noqa: S311  # made-up values
    for number in range(count):
        # Parsed anew each time, as the rows of an answer are, so that they share no memory.
        row = json.loads(samples[number % len(samples)])
        row["id"] = str(10**15 + rng.getrandbits(56))
        row["name"] = f"{row['name']} {number}"
        row["message_template_namespace"] = f"{rng.getrandbits(128):032x}"
        row["creation_time"] = 1_569_783_261 + rng.randrange(223_000_000)
        row["owner_business_info"] = {"id": str(10**15 + rng.getrandbits(56)), "name": row["name"]}
        yield row


def write(name: str, count: int, folder: str) -> None:
    """Write an object, and print what that cost as JSON."""
    rows = accounts(count, json.loads(Path(folder, "samples.json").read_text()))
    memory, start = peak_megabytes(), time.process_time()
    cost: dict[str, float] = {}
    if name == ROWS_ALONE:
        for _ in rows:
            pass
    else:
        target = Target(str(Path(folder, name)))
        # What the libraries take by themselves does not count.
        memory, start = peak_megabytes(), time.process_time()
        with target.stage(rows, COLUMNS) as staged:
            staged.publish()
        cost["bytes"] = staged.stored.bytes
    cost |= {"cpu": time.process_time() - start, "megabytes": peak_megabytes() - memory}
    if name.endswith(".parquet"):
        from pyarrow import parquet

        metadata = parquet.read_metadata(Path(folder, name))
        cost |= {"rows": metadata.num_rows, "groups": metadata.num_row_groups}
    print(json.dumps(cost))


def main() -> int:
    """Run all cases, and give the exit code."""
    parser = argparse.ArgumentParser(description="Writes accounts as NDJSON and as Parquet.")
    parser.add_argument("counts", nargs="*", type=int, default=[10_000, 1_000_000])
    counts = parser.parse_args().counts
    with GraphSandbox(accounts=1000) as sandbox:
        samples = [json.dumps({key: account.get(key) for key in COLUMNS}) for account in sandbox.accounts]
    is_right = True
    print(f"{'accounts':>10} {'object':<12} {'CPU s':>8} {'MB on disk':>10} {'MB of memory':>12} {'row groups':>10}")
    for count in counts:
        for name in NAMES:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "samples.json").write_text(json.dumps(samples))
                arguments = [sys.executable, __file__, "--write", name, str(count), folder]
                output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout  # noqa: S603
            cost = json.loads(output.splitlines()[-1])
            print(
                f"{count:>10,} {name:<12} {cost['cpu']:>8.2f} {cost.get('bytes', 0) / 1e6:>10.2f} "
                f"{cost['megabytes']:>12.1f} {cost.get('groups', ''):>10}",
                flush=True,
            )
            if "rows" in cost:
                is_right = is_right and cost["rows"] == count and cost["megabytes"] <= MOST_MEGABYTES
    return 0 if is_right else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(main())
