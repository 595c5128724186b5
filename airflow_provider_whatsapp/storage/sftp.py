"""Writes objects to SFTP servers, through sshfs."""

from __future__ import annotations

import errno
import io
import secrets
from typing import Any, BinaryIO, ClassVar

from airflow_provider_whatsapp.storage.errors import UnsuitableStoreError
from airflow_provider_whatsapp.storage.store import MovingStore, finish_or_cancel

_READ_BYTES = 1024 * 1024


class SftpStore(MovingStore):
    """An SFTP server, reached through sshfs.

    Its connection is kept open while it is idle, and closed within two minutes if the server is gone.

    :param fs: file system of sshfs
    """

    #: Firewalls would close a connection that is idle during a long listing, and a server that is gone would block the
    #: task forever.
    seconds_between_signs_of_life: ClassVar[int] = 30

    def __init__(self, fs: Any) -> None:
        super().__init__(fs)
        self._keep_alive()

    @property
    def fs(self) -> Any:
        """The file system; reconnects if the server was restarted during the listing."""
        if self._fs.client.is_closed():
            # sshfs connects only once, and fsspec caches the instance for this server.
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options, skip_instance_cache=True)
            self._keep_alive()
        return self._fs

    def _keep_alive(self) -> None:
        self.fs.client.set_keepalive(self.seconds_between_signs_of_life)

    def open(self, key: str) -> BinaryIO:
        """Return an object as a binary file that is read in pieces of 1 MiB.

        sshfs makes a request for each ``read``, and gzip and the readers of text read 8 KiB at a time.
        """
        return io.BufferedReader(_RawFile(super().open(key)), _READ_BYTES)

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
