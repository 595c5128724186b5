"""Writes objects to Amazon S3 and to stores that speak its protocol, through s3fs.

The requests of an upload are sent here, one by one, and not by ``put_file`` of s3fs, which would break two promises, as
of s3fs 2026.9. ``e2e/stores/test_publishing.py`` and ``test_refusing.py`` test both:

- When a task is interrupted, for example by its ``execution_timeout``, ``put_file`` continues on the event loop of
  fsspec, and the object appears after the task has failed. Here, the next request is not sent, and the upload is
  aborted.
- When a request fails and the credentials may not abort uploads, ``put_file`` raises the failure of the abort. A server
  error, or an object that must not be replaced, would then look like a missing permission.
"""

from __future__ import annotations

import errno
import logging
import secrets
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from airflow_provider_whatsapp.storage.errors import StoreFailure
from airflow_provider_whatsapp.storage.store import Store

log = logging.getLogger(__name__)

# Maximum number of parts in an upload. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MOST_PARTS = 10_000
# Two parts are in memory at once: the one being read and the copy being sent.
_PART_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 5 * 1024 * 1024
# Metadata that identifies the call that published an object, for when the response to that call was lost.
_PUBLISHER = "whatsapp-publisher"


class S3Store(Store):
    """A bucket of S3, in which an object is visible only when it is complete."""

    #: Age from which an unfinished upload is assumed to belong to a killed worker.
    abandoned_after: ClassVar[timedelta] = timedelta(days=1)

    def check_writable(self, key: str) -> None:
        """Start an upload and abort it, which requires write permission and leaves nothing behind."""
        where = self._where(key)
        upload = self.fs.call_s3("create_multipart_upload", **where)
        # Credentials may be allowed to write but not to abort. The next run tries again, and an upload without parts
        # costs nothing.
        with suppress(Exception):
            self.fs.call_s3("abort_multipart_upload", **where, UploadId=upload["UploadId"])

    def upload(self, file: Path, key: str, *, content_type: str, owner: str = "", replace: bool = True) -> None:
        """Upload the finished file in one request, or in parts of 16 MiB; the last request makes it visible."""
        self._abort_abandoned_uploads(key)
        where, publisher = self._where(key), secrets.token_hex(8)
        kind = {"ContentType": content_type, "Metadata": {_PUBLISHER: publisher}}
        with file.open("rb") as body:
            if file.stat().st_size <= _PART_BYTES:
                self._make_appear("put_object", publisher, replace=replace, **where, **kind, Body=body.read())
            else:
                upload = self.fs.call_s3("create_multipart_upload", **where, **kind)["UploadId"]
                try:
                    parts = self._send_parts(body, file.stat().st_size, UploadId=upload, **where)
                    complete = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
                    self._make_appear("complete_multipart_upload", publisher, replace=replace, **where, **complete)
                except BaseException:
                    with suppress(Exception):
                        self.fs.call_s3("abort_multipart_upload", **where, UploadId=upload)
                    raise
        self.fs.invalidate_cache()

    def open(self, key: str) -> Any:
        """Return an object as a binary file that is read in blocks of 5 MiB; s3fs' own blocks have 50 MiB."""
        self.fs.invalidate_cache()
        return self.fs.open(key, "rb", block_size=_BLOCK_BYTES)

    def _send_parts(self, body: BinaryIO, size: int, **upload: str) -> list[dict[str, Any]]:
        part_bytes = max(_PART_BYTES, -(-size // _MOST_PARTS))
        parts: list[dict[str, Any]] = []
        for number in range(1, -(-size // part_bytes) + 1):
            # Do not keep the part in a variable: it would stay in memory while the next one is read.
            sent = self.fs.call_s3("upload_part", **upload, PartNumber=number, Body=body.read(part_bytes))
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        return parts

    def _make_appear(self, method: str, publisher: str, *, replace: bool, **request: Any) -> None:
        """Send the request that makes the object appear.

        :raises FileExistsError: if an object is there and may not be replaced
        """
        try:
            if not replace:
                try:
                    self.fs.call_s3(method, **request, IfNoneMatch="*")
                    return
                except Exception as error:
                    # Some S3-compatible stores do not support this condition. They rely on the check before the upload.
                    if StoreFailure.of(error).code != "NotImplemented":
                        raise
            self.fs.call_s3(method, **request)
        except Exception as error:
            if self._publisher_of(request) == publisher:
                # The request had succeeded, but its response was lost, and the same request failed when it was sent
                # again.
                return
            if StoreFailure.of(error).code == "PreconditionFailed":
                raise FileExistsError(errno.EEXIST, "the object exists") from None
            raise

    def _publisher_of(self, request: dict[str, Any]) -> str | None:
        try:
            found = self.fs.call_s3("head_object", Bucket=request["Bucket"], Key=request["Key"])
        except Exception:
            return None
        publisher: str | None = found.get("Metadata", {}).get(_PUBLISHER)
        return publisher

    def _abort_abandoned_uploads(self, key: str) -> None:
        """Abort uploads of this object that killed workers started more than a day ago, because S3 bills their parts.

        s3fs' ``clear_multipart_uploads`` would abort all uploads in the bucket, even those in progress.
        """
        where = self._where(key)
        try:
            found = self.fs.call_s3("list_multipart_uploads", Bucket=where["Bucket"], Prefix=where["Key"])
            for begun in found.get("Uploads", []):
                is_old = datetime.now(timezone.utc) - begun["Initiated"] > self.abandoned_after
                if begun["Key"] == where["Key"] and is_old:
                    self.fs.call_s3("abort_multipart_upload", **where, UploadId=begun["UploadId"])
                    log.info("Aborted an upload of %s that was started %s and never completed", key, begun["Initiated"])
        except Exception as error:
            # Credentials that may only write cannot list uploads. A lifecycle rule can do this instead.
            log.debug("Cannot look for abandoned uploads (%s)", StoreFailure.of(error))

    def _where(self, key: str) -> dict[str, str]:
        bucket, path, _ = self.fs.split_path(key)
        return {"Bucket": bucket, "Key": path}
