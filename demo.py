"""The main job in a real Airflow on a throw-away SQLite database: client accounts into an object in storage.

Lists the business of the connection ``whatsapp_default`` when the environment has one, else that of a local sandbox.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUTPUT = HERE / "demo_output"
CONNECTION = "AIRFLOW_CONN_WHATSAPP_DEFAULT"
SHOWN_ROWS = 10
COLUMNS = ("id", "name", "country", "ownership_type", "account_review_status")


def main() -> None:
    """Run the export DAG and show what a user gets."""
    with tempfile.TemporaryDirectory(prefix="airflow-whatsapp-demo-") as home, connection():
        # Airflow reads its settings when it is first imported.
        os.environ.update(
            AIRFLOW_HOME=home,
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__DAGS_FOLDER=str(HERE / "example_dags"),
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
            AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
            AIRFLOW__LOGGING__NAMESPACE_LEVELS="airflow.task.operators.airflow_provider_whatsapp=INFO",
        )
        print("Making Airflow's database ...", flush=True)
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
        manifest = run_export()
    show(manifest)


@contextmanager
def connection() -> Iterator[None]:
    """Let ``whatsapp_default`` lead to the sandbox unless it leads somewhere already."""
    if os.environ.get(CONNECTION):
        print("Listing the business of the connection whatsapp_default.", flush=True)
        yield
        return
    from airflow_provider_whatsapp.sandbox import GraphSandbox

    with GraphSandbox(accounts=2500) as sandbox:
        print(f"Listing a made-up business with 2,500 client accounts on the sandbox at {sandbox.url}.", flush=True)
        os.environ[CONNECTION] = sandbox.connection
        yield


def run_export() -> dict[str, Any]:
    """Run the example DAG in this process and return what it left in XCom."""
    # What Airflow's own libraries find deprecated in each other is not what this shows.
    warnings.simplefilter("ignore")
    from example_dags.export_client_wabas import export_client_wabas

    run = export_client_wabas().test(run_conf={"lake": f"file://{OUTPUT}"})
    export = run.get_task_instance("export")
    if run.state != "success" or export is None:
        sys.exit("The run failed; the lines above say why.")
    manifest: dict[str, Any] = export.xcom_pull(task_ids="export")
    return manifest


def show(manifest: dict[str, Any]) -> None:
    """Print the first accounts as a table, how many there are, the manifest and where the object lies."""
    path = manifest["uri"].removeprefix("file://")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, SHOWN_ROWS)]
    print()
    print_table(rows)
    print(f"\n{manifest['count']:,} accounts in all, {manifest['count'] - len(rows):,} of them not shown.\n")
    print("The manifest, as downstream tasks find it in XCom:")
    print(json.dumps(manifest, indent=2))
    print(f"\nThe object is still there:\n  {path}")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows in columns as wide as their widest cell."""
    lines = [COLUMNS, *([shorten(str(row.get(column, ""))) for column in COLUMNS] for row in rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        print("  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(line, widths, strict=True)).rstrip())


def shorten(text: str) -> str:
    """The text on one line of at most 34 characters."""
    text = " ".join(text.split())
    return text if len(text) <= 34 else text[:33] + "…"


def width(text: str) -> int:
    """How many columns of a terminal the text takes; Chinese characters take two, accents none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


if __name__ == "__main__":
    main()
