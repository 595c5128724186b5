"""Writes objects to Azure Blob Storage, through adlfs and the client of Azure that it holds."""

from __future__ import annotations

import errno
import secrets
import sys
from pathlib import Path
from typing import Any

# Two blocks are in memory at once: the one that is read and the copy that is sent.
_BLOCK_BYTES = 16 * 1024 * 1024
# A blob has at most 50,000 blocks. https://learn.microsoft.com/azure/storage/blobs/scalability-targets
_MOST_BLOCKS = 50_000
# Tells whether an object was published by this very call, after its answer was lost. Azure takes names of C# only.
_PUBLISHER = "whatsapp_publisher"


def is_azure(fs: Any) -> bool:
    """Whether the store is reached through adlfs.

    :param fs: fsspec file system
    """
    library = sys.modules.get("adlfs")
    return library is not None and isinstance(fs, library.AzureBlobFileSystem)


def has_account_key(fs: Any) -> bool:
    """Whether the credentials are the key of the account, which may do everything.

    :param fs: file system of adlfs
    """
    return hasattr(fs.service_client.credential, "account_key")


def has_objects_below(fs: Any, key: str) -> bool:
    """Whether the key is a folder. This is also the one request that finds a missing container.

    :param fs: file system of adlfs
    :param key: ``container/path`` of the object
    """
    from fsspec.asyn import sync

    container, path, _ = fs.split_path(key)

    async def find() -> bool:
        async with fs.service_client.get_container_client(container) as client:
            async for _ in client.list_blob_names(name_starts_with=f"{path.rstrip('/')}/", results_per_page=1):
                return True
        return False

    return bool(sync(fs.loop, find))


def upload(staged: Path, fs: Any, key: str, *, content_type: str, replace: bool) -> None:
    """Make the file the object. Azure shows its blocks only when their list is committed.

    adlfs would read a file of up to 64 MB as a whole. It would also number the blocks of all uploads in the same way,
    so that two uploads of one object could become one object with blocks of both.

    :param staged: the finished file
    :param fs: file system of adlfs
    :param key: ``container/path`` of the object
    :param content_type: media type of the object
    :param replace: whether an object that is there may be replaced
    :raises FileExistsError: if one is there and may not be replaced
    """
    from azure.core import MatchConditions
    from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
    from azure.storage.blob import BlobBlock, ContentSettings
    from fsspec.asyn import sync

    container, path, _ = fs.split_path(key)
    publisher = secrets.token_hex(8)
    size = staged.stat().st_size
    block_bytes = max(_BLOCK_BYTES, -(-size // _MOST_BLOCKS))
    condition = {} if replace else {"match_condition": MatchConditions.IfMissing}

    async def send() -> None:
        async with fs.service_client.get_blob_client(container, path) as blob:
            ids = [f"{publisher}-{number:05}" for number in range(-(-size // block_bytes))]
            with staged.open("rb") as file:
                for id_ in ids:
                    await blob.stage_block(id_, file.read(block_bytes), validate_content=True)
            try:
                await blob.commit_block_list(
                    [BlobBlock(id_) for id_ in ids],
                    content_settings=ContentSettings(content_type=content_type),
                    # adlfs takes an object without it for a folder in some calls.
                    metadata={"is_directory": "false", _PUBLISHER: publisher},
                    **condition,
                )
            except (ResourceExistsError, ResourceModifiedError):
                if replace:
                    raise
                # The first answer may have been lost, and the client has sent the request again.
                if await _publisher_of(blob) != publisher:
                    raise FileExistsError(errno.EEXIST, "the object exists") from None

    sync(fs.loop, send)


async def _publisher_of(blob: Any) -> str | None:
    try:
        publisher: str | None = (await blob.get_blob_properties()).metadata.get(_PUBLISHER)
    except Exception:
        return None
    return publisher
