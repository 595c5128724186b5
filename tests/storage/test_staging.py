"""Staging folders of workers that died are removed by the next one on the same machine, and others are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from airflow_provider_whatsapp.storage.staging import StagingFolder

_KILLED = """
import os, signal
from airflow_provider_whatsapp.storage.staging import StagingFolder
folder = StagingFolder().path
(folder / "object").write_bytes(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this process and of those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_is_removed_at_its_end(folder: Path) -> None:
    with StagingFolder() as path:
        (path / "object").touch()
        assert path.parent == folder
        assert path.stat().st_mode & 0o777 == 0o700
    assert os.listdir(folder) == []


def test_the_folder_of_a_killed_worker_is_removed(folder: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(folder)) == 1
    with StagingFolder() as path:
        assert os.listdir(folder) == [path.name]


def test_the_folder_of_a_worker_that_lives_is_not_removed(folder: Path) -> None:
    with StagingFolder() as first:
        (first / "object").write_bytes(b"half")
        with StagingFolder():
            assert (first / "object").read_bytes() == b"half"
        assert os.listdir(folder) == [first.name]


def test_what_a_worker_left_that_died_before_it_had_a_lock_is_removed(folder: Path) -> None:
    (folder / "airflow-whatsapp-staging-empty").mkdir()
    (folder / "airflow-whatsapp-tests").mkdir()
    with StagingFolder() as path:
        assert sorted(os.listdir(folder)) == [path.name, "airflow-whatsapp-tests"]


def test_a_lock_that_is_a_link_is_left_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.touch()
    trap = folder / "airflow-whatsapp-staging-trap"
    trap.mkdir()
    (trap / "lock").symlink_to(outside)
    with StagingFolder():
        assert outside.exists()
        assert trap.exists()
