"""Writes objects to SFTP servers, through sshfs."""

from __future__ import annotations

import errno
import secrets
from typing import Any

from airflow_provider_whatsapp.storage.errors import UnsuitableStoreError
from airflow_provider_whatsapp.storage.store import MovingStore

# Firewalls would close a connection that is idle during a long listing, and a server that is gone would block the task
# forever.
_SECONDS_BETWEEN_SIGNS_OF_LIFE = 30


class SftpStore(MovingStore):
    """An SFTP server, reached through sshfs.

    Its connection is kept open while it is idle, and closed within two minutes if the server is gone.

    :param fs: file system of sshfs
    """

    def __init__(self, fs: Any) -> None:
        super().__init__(fs)
        _keep_alive(self.fs)

    @property
    def fs(self) -> Any:
        """The file system; reconnects if the server was restarted during the listing."""
        if self._fs.client.is_closed():
            # sshfs connects only once, and fsspec caches the instance for this server.
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options, skip_instance_cache=True)
            _keep_alive(self._fs)
        return self._fs

    def check_writable(self, key: str) -> None:
        """Check that the server can replace a file in one step.

        This requires OpenSSH's posix-rename extension. Without it, sshfs copies the file, and a reader could see half
        of it.

        :raises UnsuitableStoreError: if the server does not have it
        """
        from asyncssh.sftp import SFTPNoSuchFile, SFTPNoSuchPath, SFTPOpUnsupported
        from fsspec.asyn import sync

        fs = self.fs
        # The only way to detect the extension is to use it, so rename a file that does not exist.
        missing = f"{key.rpartition('/')[0]}/.airflow-whatsapp-{secrets.token_hex(8)}"

        async def ask() -> None:
            async with fs._pool.get() as channel:
                try:
                    await channel.posix_rename(missing, f"{missing}.tmp")
                except (SFTPNoSuchFile, SFTPNoSuchPath):
                    pass
                except SFTPOpUnsupported:
                    raise UnsuitableStoreError(
                        "half an object could be seen, because the server does not support posix-rename, which "
                        "replaces a file in one step; use another store"
                    ) from None

        sync(fs.loop, ask)

    def move(self, source: str, target: str, *, replace: bool) -> None:
        """Rename a file on the server."""
        from asyncssh.sftp import SFTPFailure, SFTPFileAlreadyExists
        from fsspec.asyn import sync

        fs = self.fs

        async def rename() -> None:
            async with fs._pool.get() as channel:
                if replace:
                    await channel.posix_rename(source, target)
                    return
                try:
                    # The protocol's own rename fails if the new name is taken.
                    await channel.rename(source, target)
                except (SFTPFailure, SFTPFileAlreadyExists):
                    if await channel.exists(target):
                        raise FileExistsError(errno.EEXIST, "the object exists") from None
                    raise

        sync(fs.loop, rename)


def _keep_alive(fs: Any) -> None:
    fs.client.set_keepalive(_SECONDS_BETWEEN_SIGNS_OF_LIFE)
