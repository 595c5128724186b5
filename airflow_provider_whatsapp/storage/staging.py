"""Manages the folders on the worker in which objects are prepared before they are published.

A worker that is killed cannot remove its folder. Each folder therefore has a file that its process locks, and the next
process that creates a folder removes the unlocked ones. The operating system releases the lock of a process that died,
even in another container that shares the temporary directory.
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
    """A new folder; removed at the end of the ``with`` block or by :meth:`remove`."""

    def __init__(self) -> None:
        remove_abandoned_folders()
        self._lock = -1
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            # Until the folder is locked, another worker may take it for abandoned and remove it.
            with suppress(FileNotFoundError):
                self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                except OSError:
                    # The temporary directory is on a file system without locks, so abandoned folders cannot be
                    # recognised.
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
        """Remove the folder with all its contents."""
        _remove(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned_folders() -> None:
    """Remove the folders of workers that died, except those that cannot be removed, e.g. of another user."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            # Its worker died before it created the lock, or while it removed the folder.
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
    # Remove the lock last: without it, the rest would never be removed if the worker died in between.
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != _LOCK:
                path.unlink() if path.is_file() else path.rmdir()
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()
