"""Writes objects to Google Cloud Storage, through gcsfs."""

from __future__ import annotations

import logging
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from airflow_provider_whatsapp.storage.errors import MissingBucketError
from airflow_provider_whatsapp.storage.store import Store, finish_or_cancel

# gcsfs keeps several copies of a chunk in memory while it sends it. The size must be a multiple of 256 KiB.
# https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
_CHUNK_BYTES = 8 * 1024 * 1024
# Metadata that identifies the call that published an object, for when the response to that call was lost.
_PUBLISHER = "whatsapp-publisher"
_UPLOAD_ID = re.compile(r"(upload_id=)[^&\s'\"]+")


class GcsStore(Store):
    """A bucket of Google Cloud Storage, in which an object is visible only when it is complete.

    :param fs: file system of gcsfs
    """

    #: Timeout of a request. By default, gcsfs waits for a response indefinitely. A chunk needs 70 KB/s to be sent in
    #: this time; gcsfs tries a request six times.
    seconds_for_a_request: ClassVar[int] = 120

    def __init__(self, fs: Any) -> None:
        super().__init__(_without_grpc(fs, self.seconds_for_a_request))
        logging.getLogger("gcsfs").addFilter(_MASK_UPLOADS)

    def check_writable(self, key: str) -> None:
        """Start an upload and cancel it, which requires write permission and leaves nothing behind.

        :raises MissingBucketError: if there is no such bucket
        """
        from fsspec.asyn import sync
        from gcsfs.core import initiate_upload

        bucket, path, _ = self.fs.split_path(key)
        try:
            upload = sync(self.fs.loop, initiate_upload, self.fs, bucket, path)
        except FileNotFoundError:
            raise MissingBucketError from None
        with suppress(Exception):
            self.fs.call("DELETE", upload)

    def upload(self, file: Path, key: str, *, content_type: str, owner: str = "", replace: bool = True) -> None:
        """Upload the finished file in chunks of 8 MiB; the object is visible after the last one."""
        publisher = secrets.token_hex(8)
        put = self.fs._put_file(
            str(file),
            key,
            content_type=content_type,
            chunksize=_CHUNK_BYTES,
            metadata={_PUBLISHER: publisher},
            # gcsfs compares the hash in the response with the file's, so the object need not be read again.
            consistency="md5",
            mode="overwrite" if replace else "create",
        )
        try:
            finish_or_cancel(self.fs, put)
        except FileExistsError:
            # The first response may have been lost, so that gcsfs has sent the request again.
            if self._publisher_of(key) != publisher:
                raise

    def _publisher_of(self, key: str) -> str | None:
        try:
            self.fs.invalidate_cache()
            publisher: str | None = self.fs.info(key).get("metadata", {}).get(_PUBLISHER)
        except Exception:
            return None
        return publisher


def _without_grpc(fs: Any, timeout: int) -> Any:
    """Return the same store, limited to the JSON API and with a timeout for each request.

    By default, gcsfs requests the type of the bucket over gRPC before each upload. That takes three minutes where gRPC
    is blocked, and its uploads to zonal buckets are visible before they are complete.
    """
    from gcsfs.core import GCSFileSystem

    if type(fs) is GCSFileSystem and fs.requests_timeout is not None:
        return fs
    return GCSFileSystem(*fs.storage_args, **{"requests_timeout": timeout, **fs.storage_options})


class MaskUploads(logging.Filter):
    """Masks the addresses of unfinished uploads, with which anyone could write to the bucket.

    gcsfs logs them for each chunk at level DEBUG, and in the messages of some exceptions at level ERROR.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record; every record is logged."""
        message = record.getMessage()
        traceback = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        if _UPLOAD_ID.search(message + traceback):
            record.msg, record.args = _UPLOAD_ID.sub(r"\1***", message), ()
            record.exc_info = record.exc_text = None
        return True


_MASK_UPLOADS = MaskUploads()
