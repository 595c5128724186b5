"""The query of ``docs/account-model.md`` that connects the accounts of a change of currency."""

from __future__ import annotations

from pathlib import Path

import duckdb
from documentation import snippet

from airflow_provider_whatsapp.storage.parquet import write_parquet

DAYS = {
    "2026-12-30": [("1", "+91 22 5550 100"), ("2", "+49 30 5550 200"), ("8", "+1 555 0100")],
    "2026-12-31": [("1", "+91 22 5550 100"), ("2", "+49 30 5550 200"), ("9", "+1 555 0100"), ("8", "+1 555 0100")],
    "2027-01-01": [("7", "+91 22 5550100"), ("2", "+49 30 5550 200"), ("9", "+1 555 0100"), ("8", "+1 555 0100")],
}


def test_old_and_new_accounts_are_found(tmp_path: Path) -> None:
    for day, numbers in DAYS.items():
        folder = tmp_path / "numbers" / f"ds={day}"
        folder.mkdir(parents=True)
        rows = [{"waba_id": waba_id, "display_phone_number": number} for waba_id, number in numbers]
        write_parquet(rows, folder / "numbers.parquet", ["waba_id", "display_phone_number"])
    query = snippet("migrated", "account-model.md").replace("s3://my-lake", str(tmp_path))
    with duckdb.connect() as database:
        assert database.execute(query).fetchall() == [("1", "7", "91225550100")]
