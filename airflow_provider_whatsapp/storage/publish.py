"""Makes a finished file the object at its address, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.storage import azure, gcs, s3, sftp
from airflow_provider_whatsapp.storage.errors import StoreError

# Protocols of stores in which an upload becomes visible only when it is complete. In other stores the file is
# uploaded under a temporary name and then moved into place, because a reader could otherwise see half of it.
_PROTOCOLS_WITH_ATOMIC_UPLOADS = frozenset(
    {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"}
)
_SECONDS_UNTIL_ABANDONED = 3600
_COPY_BYTES = 1024 * 1024
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
# Most file systems take names of 255 bytes.
_LONGEST_NAME_TO_EXTEND = 200


def is_local(fs: Any) -> bool:
    """Whether the store is this machine's own file system.

    :param fs: fsspec file system
    """
    return "file" in _protocols(fs)


def can_publish_whole(fs: Any, key: str) -> bool:
    """Whether an object can appear in the store in one step.

    :param fs: fsspec file system
    :param key: path of the object within the store
    """
    from fsspec import AbstractFileSystem

    if sftp.is_sftp(fs):
        return sftp.can_replace(fs, key.rpartition("/")[0])
    # Some file systems set the method on the instance.
    has_own_move = getattr(fs.mv, "__func__", fs.mv) is not AbstractFileSystem.mv
    return is_local(fs) or _uploads_atomically(fs) or has_own_move


def hidden_path(key: str, suffix: str) -> str:
    """The path of what is kept beside an object: ``bucket/wabas.ndjson`` gives ``bucket/_wabas.ndjson.suffix``.

    The name begins with ``_``, because Spark, Athena and Trino skip such names, and does not end like the object's.

    :param key: path of the object within its store
    :param suffix: what the path is for
    """
    folder, _, name = key.rpartition("/")
    if len(name.encode()) > _LONGEST_NAME_TO_EXTEND:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"{folder}/_{name}.{suffix}"


def publish(
    staged: Path,
    fs: Any,
    key: str,
    *,
    uri: str,
    owner: str = "",
    content_type: str = "application/octet-stream",
    replace: bool = True,
) -> None:
    """Make the file the object in the store; on any failure, what was there before stays.

    :param staged: the finished file on this machine
    :param fs: fsspec file system of the store
    :param key: path of the object within the store
    :param uri: address of the object, for error messages
    :param owner: tells the task instance that publishes from others, so that its next try removes at once what a killed
        try has left; letters and digits
    :param content_type: media type of the object, where the store keeps one
    :param replace: whether an object that is there may be replaced. Stores that cannot see to it replace it.
    :raises FileExistsError: if an object is there and may not be replaced
    :raises OSError: if the disk failed; a store raises exceptions of its library
    """
    if is_local(fs):
        _replace_local_file(staged, Path(key), owner, replace=replace)
        return
    if s3.is_s3(fs):
        s3.upload(staged, fs, key, content_type=content_type, replace=replace)
    elif gcs.is_gcs(fs):
        gcs.upload(staged, fs, key, content_type=content_type, replace=replace)
    elif azure.is_azure(fs):
        azure.upload(staged, fs, key, content_type=content_type, replace=replace)
    elif _uploads_atomically(fs):
        fs.put_file(str(staged), key)
        fs.invalidate_cache()
        _check_size(staged, fs, key, uri)
    else:
        _upload_and_move(staged, fs, key, uri=uri, owner=owner, replace=replace)
    fs.invalidate_cache()


def _check_size(staged: Path, fs: Any, key: str, uri: str) -> None:
    stored, size = fs.info(key).get("size"), staged.stat().st_size
    if stored is not None and stored != size:
        raise StoreError(f"{uri} holds {stored} bytes after {size} bytes were written to it")


def _replace_local_file(staged: Path, path: Path, owner: str, *, replace: bool) -> None:
    # A symbolic link stays a link: the file that it points to is replaced.
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_copies(target, owner)
    # The copy must be in the target's own folder, because os.replace works in one step only within a file system.
    copy = target.with_name(_temporary_name(target.name, owner))
    try:
        with staged.open("rb") as source, copy.open("xb") as sink:
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
    """Give the file a second name that nobody has; False if the file system has no hard links."""
    try:
        os.link(copy, target)
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            return False
        raise
    return True


def _upload_and_move(staged: Path, fs: Any, key: str, *, uri: str, owner: str, replace: bool) -> None:
    parent, _, name = key.rpartition("/")
    temporary = f"{parent}/{_temporary_name(name, owner)}"
    fs.makedirs(parent, exist_ok=True)
    _remove_abandoned_uploads(fs, parent, _temporary_prefix(name), owner)
    try:
        fs.put_file(str(staged), temporary)
        _check_size(staged, fs, temporary, uri)
        if sftp.is_sftp(fs):
            sftp.move(fs, temporary, key, replace=replace)
            return
        fs.mv(temporary, key)
        if fs.exists(temporary):
            raise StoreError(f"{uri} could not be replaced: the store did not move {temporary} into its place")
    except BaseException:
        with suppress(Exception):
            fs.rm_file(temporary)
        raise


def _remove_abandoned_uploads(fs: Any, folder: str, prefix: str, owner: str) -> None:
    # The same as for copies on this machine. A store that cannot be listed or names no times keeps what was abandoned.
    with suppress(Exception):
        for path in fs.ls(folder, detail=False):
            name = str(path).rpartition("/")[2]
            if name.startswith(prefix) and (
                (bool(owner) and name.startswith(f"{prefix}{owner}-"))
                or time.time() - fs.modified(path).timestamp() > _SECONDS_UNTIL_ABANDONED
            ):
                fs.rm_file(path)


def _uploads_atomically(fs: Any) -> bool:
    return bool(_protocols(fs) & _PROTOCOLS_WITH_ATOMIC_UPLOADS)


def _protocols(fs: Any) -> frozenset[str]:
    return frozenset({fs.protocol} if isinstance(fs.protocol, str) else fs.protocol)


def _temporary_name(name: str, owner: str) -> str:
    return f"{_temporary_prefix(name)}{owner}-{secrets.token_hex(8)}.tmp"


def _temporary_prefix(name: str) -> str:
    # A hash of the name, because a name that is already 255 bytes long could not take a prefix.
    return f".airflow-whatsapp-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"


def _remove_abandoned_copies(target: Path, owner: str) -> None:
    # A worker that was killed while it published has left its copy behind. A copy of another task instance that changed
    # within the last hour may belong to a worker that is still writing it.
    prefix = _temporary_prefix(target.name)
    for copy in target.parent.glob(f"{prefix}*.tmp"):
        with suppress(OSError):
            is_own = bool(owner) and copy.name.startswith(f"{prefix}{owner}-")
            if is_own or time.time() - copy.stat().st_mtime > _SECONDS_UNTIL_ABANDONED:
                copy.unlink()
