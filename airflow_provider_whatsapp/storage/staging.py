"""Folders on the worker in which objects are made before they are published.

A worker that is killed cannot remove its folder. Each folder therefore has a file that its process holds a lock on, and
whoever makes the next folder removes those that nobody holds. The operating system releases the lock of a process that
died, even in another container that shares the temporary folder.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PREFIX = "airflow-whatsapp-staging-"
_LOCK = "lock"


class StagingFolder:
    """A new folder, which is removed at the end of the ``with`` block or by :meth:`remove`."""

    def __init__(self) -> None:
        remove_abandoned_folders()
        self._lock = -1
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            # Another worker may take the folder for abandoned, and remove it, until it is locked.
            with suppress(FileNotFoundError):
                self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                except OSError:
                    # The temporary folder is on a file system without locks, where nobody can tell what is abandoned.
                    os.unlink(self.path / _LOCK)
                    os.mkdir(self.path / "in_use")
                    return
                if os.path.exists(self.path / _LOCK):
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
        _remove(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned_folders() -> None:
    """Remove the folders of workers that died. What cannot be removed stays: it may belong to another user."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            # Its worker died before it made the lock, or while it removed the folder.
            folder.rmdir()
            continue
        with suppress(OSError):
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
            finally:
                os.close(descriptor)


def _remove(folder: Path) -> None:
    # The lock goes last: without it, nobody would remove the rest after a worker that died in between.
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != _LOCK:
                path.unlink() if path.is_file() else path.rmdir()
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()
