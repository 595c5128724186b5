"""Folders on the worker in which objects are made before they are published.

A worker that is killed cannot remove its folder. Each folder therefore has a file that its process holds a lock on, and
whoever makes the next folder removes those that nobody holds. The operating system releases the lock of a process that
died, also in another container that shares the temporary folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

_PREFIX = "airflow-whatsapp-"
_LOCK = ".airflow-whatsapp-lock"


class StagingFolder:
    """A new folder, which is removed at the end of the ``with`` block or by :meth:`remove`."""

    def __init__(self) -> None:
        remove_abandoned_folders()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            except OSError:
                # The temporary folder is on a file system without locks, where nobody can tell what is abandoned.
                (self.path / _LOCK).unlink()
                return
            # Another worker may have taken the folder for abandoned before it was locked.
            if (self.path / _LOCK).exists():
                return
            os.close(self._lock)

    def __enter__(self) -> Path:
        """Return the path of the folder."""
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the folder."""
        self.remove()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned_folders() -> None:
    """Remove the folders of workers that died. What cannot be removed stays: it may belong to another user."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)
