"""The base classes of all object stores, also used for stores that need no module of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.storage.errors import StoreError, StoreFailure, UnsuitableStoreError
from airflow_provider_whatsapp.storage.names import find_abandoned, temporary_name

# Keys under which the libraries of the stores report an object's size, hash, version and time of writing. If one of the
# values changes while an object is read, the object was replaced.
_VERSION_FACTS = ("size", "ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "created")


class Store:
    """A store in which an upload becomes visible only when it is complete.

    The methods raise the exceptions of the store's library.

    :param fs: fsspec file system of the store
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    @property
    def fs(self) -> Any:
        """The fsspec file system of the store."""
        return self._fs

    def locate(self, uri: str, path: str) -> tuple[str, str]:
        """Return the store's own address of an object, and its key: the path within the store.

        :param uri: address as the user gave it, without the connection
        :param path: path from Airflow
        """
        return uri, path

    def check_writable(self, key: str) -> None:
        """Check before the listing what would fail after it, if that leaves nothing in the store.

        :param key: path of the object
        :raises UnsuitableStoreError: if an object cannot be written there, or not in one step
        """

    def is_folder(self, key: str) -> bool:
        """Return whether there are objects below the key; False if the credentials lack permission to list."""
        self.fs.invalidate_cache()
        try:
            return bool(self.fs.isdir(key))
        except Exception as error:
            if StoreFailure.of(error).kind == "forbidden":
                return False
            raise

    def upload(self, file: Path, key: str, *, content_type: str, owner: str = "", replace: bool = True) -> None:
        """Upload a finished file as the object; on any failure, what was there before stays.

        :param file: the file on this machine
        :param key: path of the object
        :param content_type: media type of the object, for stores that keep one
        :param owner: identifies the task instance that uploads, so that its next try immediately removes what a killed
            try left behind; letters and digits
        :param replace: whether an existing object may be replaced. Stores that cannot check this replace it
        :raises FileExistsError: if an object exists and must not be replaced
        """
        self.fs.put_file(str(file), key)
        self._check_size(file, key)

    def exists(self, key: str) -> bool:
        """Return whether the object exists now."""
        self.fs.invalidate_cache()
        try:
            # Do not use the library's `exists`: for some stores, it returns False after any error.
            self.fs.info(key)
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if the store does not say.

        :raises FileNotFoundError: if there is no such object
        """
        self.fs.invalidate_cache()
        size: int | None = self.fs.info(key).get("size")
        return size

    def version(self, key: str) -> dict[str, Any]:
        """Return what the store says about an object that differs when it is replaced.

        :raises FileNotFoundError: if there is no such object
        """
        self.fs.invalidate_cache()
        info = self.fs.info(key)
        return {name: info[name] for name in _VERSION_FACTS if name in info}

    def open(self, key: str) -> Any:
        """Return an object as a binary file.

        :raises FileNotFoundError: if there is no such object
        """
        self.fs.invalidate_cache()
        return self.fs.open(key, "rb")

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder; none if there is no such folder."""
        self.fs.invalidate_cache()
        try:
            return [str(path).rpartition("/")[2] for path in self.fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    def remove(self, key: str) -> None:
        """Remove an object.

        :raises FileNotFoundError: if there is no such object; only in some stores
        """
        self.fs.rm_file(key)

    def remove_folder(self, folder: str) -> None:
        """Remove a folder, if it exists, with all its objects."""
        self.fs.invalidate_cache()
        with suppress(FileNotFoundError):
            if not any(character in folder for character in "*?["):
                self.fs.rm(folder, recursive=True)
                return
            # The library would take this name for a pattern, and also remove other folders that match it.
            for name in self.names(folder):
                self.fs.rm_file(f"{folder}/{name}")
            self.fs.rmdir(folder)

    def _check_size(self, file: Path, key: str) -> None:
        stored, size = self.size(key), file.stat().st_size
        if stored is not None and stored != size:
            raise StoreError(f"the store holds {stored} bytes after {size} bytes were written to {key}")


class MovingStore(Store):
    """A store that may show half an upload; files are uploaded under a temporary name and moved into place."""

    def check_writable(self, key: str) -> None:
        """Check that the store can move an object.

        :raises UnsuitableStoreError: if it cannot
        """
        from fsspec import AbstractFileSystem

        # Some file systems set the method on the instance.
        if getattr(self.fs.mv, "__func__", self.fs.mv) is AbstractFileSystem.mv:
            raise UnsuitableStoreError(
                "half an object could be seen, because this store shows uploads before they are complete and cannot "
                "move an object into place in one step; use another store"
            )

    def upload(self, file: Path, key: str, *, content_type: str, owner: str = "", replace: bool = True) -> None:
        """Upload the finished file under a temporary name, and move it into place."""
        folder, _, name = key.rpartition("/")
        temporary = f"{folder}/{temporary_name(name, owner)}"
        self.fs.makedirs(folder, exist_ok=True)
        self._remove_abandoned(folder, name, owner)
        try:
            self.fs.put_file(str(file), temporary)
            self._check_size(file, temporary)
            self.move(temporary, key, replace=replace)
        except BaseException:
            with suppress(Exception):
                self.fs.rm_file(temporary)
            raise

    def move(self, source: str, target: str, *, replace: bool) -> None:
        """Move an object to another key in one step.

        :param source: key of the object
        :param target: its new key
        :param replace: whether an existing object may be replaced
        :raises FileExistsError: if one exists and must not be replaced
        """
        self.fs.mv(source, target)
        if self.exists(source):
            raise StoreError(f"{target} could not be replaced: the store did not move {source} into place")

    def _remove_abandoned(self, folder: str, name: str, owner: str) -> None:
        # Abandoned copies stay in a store that cannot list objects or does not report times.
        with suppress(Exception):
            for found in find_abandoned(
                self.names(folder), name, owner, lambda found: self.fs.modified(f"{folder}/{found}").timestamp()
            ):
                self.fs.rm_file(f"{folder}/{found}")


def finish_or_cancel(fs: Any, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the event loop of a store's library, and return its result.

    fsspec's own ``sync`` lets the coroutine continue when the task is interrupted, for example by its
    ``execution_timeout``. The object would then appear after the task has failed.

    :param fs: asynchronous file system of fsspec
    :param coroutine: coroutine to run
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, fs.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
