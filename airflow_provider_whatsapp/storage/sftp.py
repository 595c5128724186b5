"""Writes objects to SFTP servers, through sshfs."""

from __future__ import annotations

import errno
import io
import secrets
from typing import Any, BinaryIO

from airflow_provider_whatsapp.storage.errors import UnsuitableStoreError
from airflow_provider_whatsapp.storage.store import MovingStore, finish_or_cancel

# A connection that is idle while a long listing is read would be cut off by firewalls, and a server that is gone would
# otherwise block the task forever.
_SECONDS_BETWEEN_SIGNS_OF_LIFE = 30
_READ_BYTES = 1024 * 1024


class SftpStore(MovingStore):
    """An SFTP server, reached through sshfs.

    Its connection is kept open while it is idle, and given up within two minutes when the server is gone.

    :param fs: file system of sshfs
    """

    def __init__(self, fs: Any) -> None:
        super().__init__(fs)
        _keep_alive(self.fs)

    @property
    def fs(self) -> Any:
        """The file system, over a connection that is open: the server may have been restarted during the listing."""
        if self._fs.client.is_closed():
            # sshfs connects once, and fsspec gives the same instance to all who ask for this server.
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options, skip_instance_cache=True)
            _keep_alive(self._fs)
        return self._fs

    def open(self, key: str) -> BinaryIO:
        """An object as a binary file that is read in pieces of 1 MiB.

        sshfs makes a request for each ``read``, and gzip and the readers of text ask for 8 KiB at a time.
        """
        return io.BufferedReader(_RawFile(super().open(key)), _READ_BYTES)

    def check_writable(self, key: str) -> None:
        """Make sure that the server can put a file in the place of another in one step.

        It can if it has OpenSSH's extension posix-rename. Without it, sshfs copies the file, which a reader could see
        half-done.

        :raises UnsuitableStoreError: if the server does not have it
        """
        from asyncssh.sftp import SFTPNoSuchFile, SFTPNoSuchPath, SFTPOpUnsupported
        from fsspec.asyn import sync

        fs = self.fs
        # A server is only known to have the extension when it is used, so a file is renamed that is not there.
        missing = f"{key.rpartition('/')[0]}/.airflow-whatsapp-{secrets.token_hex(8)}"

        async def ask() -> None:
            async with fs._pool.get() as channel:
                try:
                    await channel.posix_rename(missing, f"{missing}.tmp")
                except (SFTPNoSuchFile, SFTPNoSuchPath):
                    pass
                except SFTPOpUnsupported:
                    raise UnsuitableStoreError(
                        "half an object could be seen, because the server has no posix-rename, with which a file can "
                        "be replaced in one step; use another store"
                    ) from None

        sync(fs.loop, ask)

    def move(self, source: str, target: str, *, replace: bool) -> None:
        """Rename a file on the server."""
        from asyncssh.sftp import SFTPFailure, SFTPFileAlreadyExists

        fs = self.fs

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

        finish_or_cancel(fs, rename())


class _RawFile(io.RawIOBase):
    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position: int = self._file.seek(offset, whence)
        return position

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def close(self) -> None:
        self._file.close()
        super().close()


def _keep_alive(fs: Any) -> None:
    fs.client.set_keepalive(_SECONDS_BETWEEN_SIGNS_OF_LIFE)
