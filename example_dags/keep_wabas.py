"""Keeps a list of all accounts in object storage. It lists all of them once a week, and otherwise only the new ones.

Listing only new accounts saves most calls, but misses two changes:

- An account that was created long ago and is shared today, because the API can only filter by the time of creation.
- An account that is no longer shared: it stays in the list.

The full listing at the start of each week corrects both.

Each week has a folder. Its objects are named after the time from which accounts were listed, in unix seconds; 0 means
all accounts. The next listing starts an hour before the newest account in the folder. So nothing else has to remember
the last successful run: a failed run leaves no object, and the next run lists from the same time again. This works for
scheduled, manual and asset-triggered runs, and even after someone has cleared tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import read_rows

# In seconds. An account that was created shortly before the newest one may have been shared after it.
OVERLAP = 3600
WEEK = "{{ params.lake }}/wabas/{{ dag_run.run_after.strftime('%G-W%V') }}"


def rows_in(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of all listings in the folder. An account that was listed twice has two rows, the latest last."""
    path = ObjectStoragePath(folder)
    listings = [file for file in path.iterdir() if file.suffix == ".ndjson"] if path.exists() else []
    for listing in sorted(listings, key=lambda file: int(file.stem)):
        yield from read_rows(f"{folder}/{listing.name}")


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once would list the same accounts.
    max_active_runs=1,
    default_args={"retries": 3},
    params={"lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp")},
    tags=["whatsapp"],
)
def keep_wabas() -> None:
    @task
    def since(folder: str) -> int | None:
        """Return the unix time from which to list accounts, or None to list all of them."""
        newest = max((int(row.get("creation_time") or 0) for row in rows_in(folder)), default=0)
        return newest - OVERLAP if newest else None

    @task
    def accounts(folder: str) -> int:
        """Return the number of accounts. Work with the accounts here."""
        # An account of the overlap is in two listings.
        by_id = {row["id"]: row for row in rows_in(folder)}
        return len(by_id)

    start = since(WEEK)
    listing = WhatsAppListWabasOperator(
        task_id="listing",
        created_after=start,
        output_path=WEEK + "/{{ ti.xcom_pull(task_ids='since') or 0 }}.ndjson",
    )
    listing >> accounts(WEEK)


keep_wabas()
