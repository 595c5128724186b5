"""The store is chosen by its file system alone. What each store does is shown by ``nox -s e2e -- stores``."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_whatsapp.storage.address import choose_store
from airflow_provider_whatsapp.storage.azure import AzureStore
from airflow_provider_whatsapp.storage.local import LocalStore
from airflow_provider_whatsapp.storage.s3 import S3Store
from airflow_provider_whatsapp.storage.store import MovingStore, Store


def file_system(module: str, protocol: Any) -> Any:
    """A file system whose class comes from a library."""
    return type("FileSystem", (MemoryFileSystem,), {"__module__": module, "protocol": protocol, "cachable": False})()


@pytest.mark.parametrize(
    ("fs", "kind"),
    [
        (LocalFileSystem(), LocalStore),
        (file_system("somewhere", ("file", "nfs")), LocalStore),
        (MemoryFileSystem(), Store),
        (file_system("s3fs.core", ("s3", "s3a")), S3Store),
        (file_system("adlfs.spec", "abfs"), AzureStore),
        # Another library for the same stores, with none of the methods that S3Store needs.
        (file_system("s3fs_of_somebody.core", ("s3", "s3a")), Store),
        (file_system("ossfs.core", "oss"), Store),
        (file_system("somewhere", "hdfs"), MovingStore),
        (file_system("somewhere", ("hdfs", "webhdfs")), MovingStore),
    ],
)
def test_the_kind_of_a_store(fs: Any, kind: type[Store]) -> None:
    assert type(choose_store(fs)) is kind


def test_a_file_system_built_on_that_of_a_library() -> None:
    base = type(file_system("s3fs.core", "s3"))
    derived = type("Own", (base,), {"__module__": "plugins.lake", "cachable": False})
    assert type(choose_store(derived())) is S3Store


@pytest.mark.parametrize("name", ["plain", "a[1]", "a*", "a?", "a{x}"])
def test_a_folder_is_removed_alone(name: str) -> None:
    fs = MemoryFileSystem()
    others = {f"/removed/{other}/part" for other in ("a1", "ax", "ab", "planes")}
    for path in (*others, f"/removed/{name}/1", f"/removed/{name}/2"):
        fs.pipe(path, b"x")
    for _ in range(2):
        Store(fs).remove_folder(f"/removed/{name}")
    assert set(fs.find("/removed")) == others
    fs.rm("/removed", recursive=True)


@pytest.mark.parametrize("ask", ["exists", "size", "version", "open", "names", "is_folder"])
def test_what_a_library_remembers_is_not_believed(ask: str) -> None:
    class Caching(MemoryFileSystem):
        cachable = False
        store: ClassVar[dict[str, Any]] = {}
        is_forgotten = False

        def invalidate_cache(self, path: str | None = None) -> None:
            self.is_forgotten = True

    fs = Caching()
    fs.pipe_file("/lake/a", b"")
    getattr(Store(fs), ask)("/lake/a")
    assert fs.is_forgotten
