"""Runs the example DAG ``export_wabas`` in a real Airflow with a temporary SQLite database, and shows the result.

The DAG lists the business of the connection ``whatsapp_default`` if the environment defines one, otherwise a made-up
business on a local sandbox.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUTPUT = HERE / "demo_output"
CONNECTION = "AIRFLOW_CONN_WHATSAPP_DEFAULT"
SHOWN_ROWS = 10
COLUMNS = ("id", "name", "country", "ownership_type", "account_review_status")


def main() -> None:
    """Run the DAG and show what it exported."""
    with tempfile.TemporaryDirectory(prefix="airflow-whatsapp-demo-") as home, connection():
        # Airflow reads the whole folder, and other examples need a later version than the oldest supported one.
        dags = Path(home, "dags")
        dags.mkdir()
        shutil.copy(HERE / "example_dags" / "export_wabas.py", dags)
        # Airflow 3.1 cannot quiet single loggers. Its one level stays at INFO there, because a higher one would also
        # hide the progress of the listing.
        airflow = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
        # Set these before Airflow is imported, because it reads its settings then.
        os.environ.update(
            AIRFLOW_HOME=home,
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
            AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING" if airflow >= (3, 2) else "INFO",
            AIRFLOW__LOGGING__NAMESPACE_LEVELS="airflow.task.operators.airflow_provider_whatsapp=INFO",
        )
        print("Creating Airflow's database ...", flush=True)
        # As `airflow db migrate` does in a process of its own, which would import Airflow once more.
        from airflow.utils.db import initdb

        initdb()
        manifest = run_export()
    show(manifest)


@contextmanager
def connection() -> Iterator[None]:
    """Point ``whatsapp_default`` to a sandbox within the block, unless the environment defines it already."""
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
    """Run the DAG in this process and return the manifest that its task gave to XCom."""
    # Airflow's dependencies warn about each other's deprecated functions, which would hide the output of the demo.
    warnings.simplefilter("ignore")
    from example_dags.export_wabas import export_wabas

    run = export_wabas().test(run_conf={"lake": f"file://{OUTPUT}"})
    export = run.get_task_instance("export")
    if run.state != "success" or export is None:
        sys.exit("The run failed. The log lines above say why.")
    manifest: dict[str, Any] = export.xcom_pull(task_ids="export")
    return manifest


def show(manifest: dict[str, Any]) -> None:
    """Print the first accounts as a table, the number of accounts, the manifest and the path of the object."""
    # Imported here, because Airflow reads its settings when it is first imported.
    from airflow_provider_whatsapp.rows import read_rows

    rows = list(islice(read_rows(manifest), SHOWN_ROWS))
    print()
    print_table(rows)
    print(f"\n{manifest['count']:,} accounts in all; these are the first {len(rows)}.\n")
    print("Downstream tasks get this manifest from XCom:")
    print(json.dumps(manifest, indent=2))
    print(f"\nThe accounts are in this file:\n  {manifest['uri'].removeprefix('file://')}")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows in columns, each as wide as its widest cell."""
    lines = [COLUMNS, *([shorten(str(row.get(column, ""))) for column in COLUMNS] for row in rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        print("  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(line, widths, strict=True)).rstrip())


def shorten(text: str) -> str:
    """Return the text on one line of at most 34 characters."""
    text = " ".join(text.split())
    return text if len(text) <= 34 else text[:33] + "…"


def width(text: str) -> int:
    """Return the text's width in terminal columns: Chinese characters take two, combining accents none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


if __name__ == "__main__":
    main()
