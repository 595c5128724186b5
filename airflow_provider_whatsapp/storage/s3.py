"""Writes objects to Amazon S3 and to stores that speak its protocol, through s3fs.

The requests of an upload are made here, one by one, and not by ``put_file`` of s3fs, which breaks two promises, as of
s3fs 2026.9. ``e2e/stores/test_publishing.py`` and ``test_refusing.py`` show both:

- When a task is interrupted, for example by its ``execution_timeout``, ``put_file`` continues on the event loop of
  fsspec, and the object appears after the task has failed. Here, the next request is not made, and the upload is
  aborted.
- When a request fails and the credentials may not abort uploads, ``put_file`` raises the failure of the abort. The
  failure of a server, or an object that must not be replaced, would then look like a missing right.
"""

from __future__ import annotations

import errno
import logging
import secrets
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

from airflow_provider_whatsapp.storage.errors import StoreFailure
from airflow_provider_whatsapp.storage.store import Store

log = logging.getLogger(__name__)

# An upload has at most 10,000 parts. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MOST_PARTS = 10_000
# Two parts are in memory at once: the one that is read and the copy that is sent.
_PART_BYTES = 16 * 1024 * 1024
_ABANDONED_AFTER = timedelta(days=1)
# Metadata that identifies the call that published an object, for when the answer to that call was lost.
_PUBLISHER = "whatsapp-publisher"


class S3Store(Store):
    """A bucket of S3, which shows an object only when it is complete."""

    def check_writable(self, key: str) -> None:
        """Begin an upload and abort it, which needs the right to write and leaves nothing."""
        where = self._where(key)
        upload = self.fs.call_s3("create_multipart_upload", **where)
        # Credentials may be allowed to write and not to abort. The next run tries again, and an upload without parts
        # costs nothing.
        with suppress(Exception):
            self.fs.call_s3("abort_multipart_upload", **where, UploadId=upload["UploadId"])

    def upload(self, file: Path, key: str, *, content_type: str, owner: str = "", replace: bool = True) -> None:
        """Send the finished file in one request, or in parts of 16 MiB. S3 shows it after the last request."""
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

    def _send_parts(self, body: BinaryIO, size: int, **upload: str) -> list[dict[str, Any]]:
        part_bytes = max(_PART_BYTES, -(-size // _MOST_PARTS))
        parts: list[dict[str, Any]] = []
        for number in range(1, -(-size // part_bytes) + 1):
            # Not in a variable, which would keep the part in memory while the next one is read.
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
                    # Some stores that speak the protocol of S3 do not have this condition. There, the check before it
                    # counts.
                    if StoreFailure.of(error).code != "NotImplemented":
                        raise
            self.fs.call_s3(method, **request)
        except Exception as error:
            if self._publisher_of(request) == publisher:
                # It had worked, but its answer was lost, and the same request failed when it was sent again.
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
        """Abort the uploads of this object that killed workers began more than a day ago. S3 bills their parts.

        Not by s3fs' ``clear_multipart_uploads``, which aborts those of all objects of the bucket, even those that are
        in progress.
        """
        where = self._where(key)
        try:
            found = self.fs.call_s3("list_multipart_uploads", Bucket=where["Bucket"], Prefix=where["Key"])
            for begun in found.get("Uploads", []):
                is_old = datetime.now(timezone.utc) - begun["Initiated"] > _ABANDONED_AFTER
                if begun["Key"] == where["Key"] and is_old:
                    self.fs.call_s3("abort_multipart_upload", **where, UploadId=begun["UploadId"])
                    log.info("Aborted an upload of %s that was begun %s and never ended", key, begun["Initiated"])
        except Exception as error:
            # Credentials that may only write cannot list uploads. A lifecycle rule can do this instead.
            log.debug("Abandoned uploads cannot be looked for (%s)", StoreFailure.of(error))

    def _where(self, key: str) -> dict[str, str]:
        bucket, path, _ = self.fs.split_path(key)
        return {"Bucket": bucket, "Key": path}
