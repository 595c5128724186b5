from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from airflow_provider_whatsapp.resume.checkpoint import Checkpoint
from airflow_provider_whatsapp.resume.published import TaskIdentity
from airflow_provider_whatsapp.sandbox import no_waits
from airflow_provider_whatsapp.storage.target import Target
from airflow_provider_whatsapp.transport import clock


def test_rows_are_kept_although_the_clock_of_the_machine_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = TaskIdentity("run", -1, "", "a", may_be_continued=True, is_last=False)
    with no_waits():
        checkpoint = Checkpoint(Target(f"{tmp_path}/a.csv"), identity, logging.getLogger(), interval=60)
        yesterday = time.time() - 24 * 3600
        monkeypatch.setattr(time, "time", lambda: yesterday)
        for number in range(3):
            clock.wait(50)
            checkpoint.add([{"id": str(number)}], position=number, progress=number)
        assert len(list(tmp_path.glob("_*/*"))) == 1
        checkpoint.clear()
