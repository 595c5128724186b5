"""Writes objects to Azure Blob Storage, through adlfs and its Azure client."""

from __future__ import annotations

import errno
import secrets
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.storage.errors import StoreFailure
from airflow_provider_whatsapp.storage.store import Store, finish_or_cancel

# Two blocks are in memory at once: the one being read and the copy being sent.
_BLOCK_BYTES = 16 * 1024 * 1024
# Maximum number of blocks in a blob. https://learn.microsoft.com/azure/storage/blobs/scalability-targets
_MOST_BLOCKS = 50_000
# Metadata that identifies the call that published an object, for when the response to that call was lost. Azure accepts
# only C# identifiers as names.
_PUBLISHER = "whatsapp_publisher"


class AzureStore(Store):
    """A container of Azure Blob Storage, reached through adlfs."""

    def is_folder(self, key: str) -> bool:
        """Return whether there are blobs below the key. Only this request detects a missing container."""
        container, path, _ = self.fs.split_path(key)
        service = self.fs.service_client

        async def find() -> bool:
            async with service.get_container_client(container) as client:
                async for _ in client.list_blob_names(name_starts_with=f"{path.rstrip('/')}/", results_per_page=1):
                    return True
            return False

        try:
            return bool(finish_or_cancel(self.fs, find()))
        except Exception as error:
            # A token may be limited to writing. An account key may do everything, so it must be wrong.
            is_limited = not hasattr(service.credential, "account_key")
            if is_limited and StoreFailure.of(error).kind == "forbidden":
                return False
            raise

    def upload(self, file: Path, key: str, *, content_type: str, owner: str = "", replace: bool = True) -> None:
        """Upload a finished file as the object; Azure shows its blocks only when their list is committed.

        adlfs would read a file of up to 64 MB into memory. It would also number the blocks of all uploads in the same
        way, so that two uploads of one object could become an object with blocks of both.
        """
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
        from azure.storage.blob import BlobBlock, ContentSettings

        container, path, _ = self.fs.split_path(key)
        service = self.fs.service_client
        publisher = secrets.token_hex(8)
        size = file.stat().st_size
        block_bytes = max(_BLOCK_BYTES, -(-size // _MOST_BLOCKS))
        condition = {} if replace else {"match_condition": MatchConditions.IfMissing}

        async def send() -> None:
            async with service.get_blob_client(container, path) as blob:
                ids = [f"{publisher}-{number:05}" for number in range(-(-size // block_bytes))]
                with file.open("rb") as body:
                    for id_ in ids:
                        await blob.stage_block(id_, body.read(block_bytes), validate_content=True)
                try:
                    await blob.commit_block_list(
                        [BlobBlock(id_) for id_ in ids],
                        content_settings=ContentSettings(content_type=content_type),
                        # Without this, some calls of adlfs take the object for a folder.
                        metadata={"is_directory": "false", _PUBLISHER: publisher},
                        **condition,
                    )
                except (ResourceExistsError, ResourceModifiedError):
                    if replace:
                        raise
                    # The first response may have been lost, so that the client has sent the request again.
                    if await _publisher_of(blob) != publisher:
                        raise FileExistsError(errno.EEXIST, "the object exists") from None

        finish_or_cancel(self.fs, send())
        self.fs.invalidate_cache()


async def _publisher_of(blob: Any) -> str | None:
    try:
        publisher: str | None = (await blob.get_blob_properties()).metadata.get(_PUBLISHER)
    except Exception:
        return None
    return publisher
