"""Writes objects to the worker's own file system."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from airflow_provider_whatsapp.storage.errors import UnsuitableStoreError
from airflow_provider_whatsapp.storage.names import find_abandoned, temporary_name
from airflow_provider_whatsapp.storage.store import Store

_COPY_BYTES = 1024 * 1024
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


class LocalStore(Store):
    """The worker's own file system, in which a copy of the file replaces the object in one step."""

    def locate(self, uri: str, path: str) -> tuple[str, str]:
        """Return the address of the absolute path, and that path."""
        key = os.path.abspath(path)
        return f"file://{key}", key

    def check_writable(self, key: str) -> None:
        """Check that this process may write to the nearest existing folder.

        :raises UnsuitableStoreError: if it is not allowed to
        """
        existing = next(parent for parent in Path(os.path.realpath(key)).parents if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise UnsuitableStoreError(f"this worker cannot write below {str(existing)!r}")

    def upload(self, file: Path, key: str, *, content_type: str, owner: str = "", replace: bool = True) -> None:
        """Copy the finished file next to the object, and rename the copy."""
        # Keep a symbolic link, and replace the file that it points to.
        target = Path(os.path.realpath(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target, owner)
        # The copy must be in the target's own folder, because os.replace is atomic only within a file system.
        copy = target.with_name(temporary_name(target.name, owner))
        try:
            with file.open("rb") as source, copy.open("xb") as sink:
                with suppress(FileNotFoundError):
                    shutil.copymode(target, copy)
                shutil.copyfileobj(source, sink, _COPY_BYTES)
                sink.flush()
                # Without this, a power failure after the replacement could leave an empty file.
                os.fsync(sink.fileno())
            if replace or not _link(copy, target):
                os.replace(copy, target)
        finally:
            copy.unlink(missing_ok=True)


def _link(copy: Path, target: Path) -> bool:
    """Hard-link the copy to the target, which must not exist. Returns False if hard links are not supported."""
    try:
        os.link(copy, target)
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            return False
        raise
    return True


def _remove_abandoned(target: Path, owner: str) -> None:
    folder = target.parent
    with suppress(OSError):
        for found in find_abandoned(
            os.listdir(folder), target.name, owner, lambda found: (folder / found).stat().st_mtime
        ):
            (folder / found).unlink()
