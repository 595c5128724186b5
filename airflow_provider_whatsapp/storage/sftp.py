"""Writes objects to SFTP servers, through sshfs."""

from __future__ import annotations

import errno
import secrets
import sys
from typing import Any

# A connection that is idle while a long listing is read would be cut off by firewalls, and a server that is gone would
# otherwise be waited for without an end.
_SECONDS_BETWEEN_SIGNS_OF_LIFE = 30


def is_sftp(fs: Any) -> bool:
    """Whether the store is reached through sshfs.

    :param fs: fsspec file system
    """
    library = sys.modules.get("sshfs")
    return library is not None and isinstance(fs, library.SSHFileSystem)


def connected(fs: Any) -> Any:
    """The same store, over a connection that is open.

    Its connection is kept open while it is idle, and given up within two minutes when the server is gone.

    :param fs: file system of sshfs
    """
    if fs.client.is_closed():
        # sshfs connects once, and fsspec gives the same instance to all who ask for this server.
        fs = type(fs)(*fs.storage_args, **fs.storage_options, skip_instance_cache=True)
    fs.client.set_keepalive(_SECONDS_BETWEEN_SIGNS_OF_LIFE)
    return fs


def can_replace(fs: Any, folder: str) -> bool:
    """Whether the server can put a file in the place of another in one step.

    It can if it has OpenSSH's extension posix-rename. Without it, sshfs copies the file, which a reader could see
    half-done.

    :param fs: file system of sshfs
    :param folder: folder of the object, which need not exist
    """
    from asyncssh.sftp import SFTPNoSuchFile, SFTPNoSuchPath, SFTPOpUnsupported
    from fsspec.asyn import sync

    # A server is only known to have the extension when it is used, so a file is renamed that is not there.
    missing = f"{folder}/.airflow-whatsapp-{secrets.token_hex(8)}"

    async def ask() -> bool:
        async with fs._pool.get() as channel:
            try:
                await channel.posix_rename(missing, f"{missing}.tmp")
            except SFTPOpUnsupported:
                return False
            except (SFTPNoSuchFile, SFTPNoSuchPath):
                pass
        return True

    return bool(sync(fs.loop, ask))


def move(fs: Any, source: str, target: str, *, replace: bool) -> None:
    """Give a file another name in one step.

    :param fs: file system of sshfs
    :param source: path of the file
    :param target: its new path
    :param replace: whether a file that is there may be replaced
    :raises FileExistsError: if one is there and may not be replaced
    """
    from asyncssh.sftp import SFTPFailure, SFTPFileAlreadyExists
    from fsspec.asyn import sync

    async def rename() -> None:
        async with fs._pool.get() as channel:
            if replace:
                await channel.posix_rename(source, target)
                return
            try:
                # The rename of the protocol itself fails if the new name is taken.
                await channel.rename(source, target)
            except (SFTPFailure, SFTPFileAlreadyExists):
                if await channel.exists(target):
                    raise FileExistsError(errno.EEXIST, "the object exists") from None
                raise

    sync(fs.loop, rename)
