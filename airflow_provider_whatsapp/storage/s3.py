"""Writes objects to Amazon S3 and to stores that speak its protocol, through s3fs."""

from __future__ import annotations

import errno
import logging
import secrets
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.storage.errors import Problem

log = logging.getLogger(__name__)

# An upload has at most 10,000 parts. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MOST_PARTS = 10_000
# Two parts are in memory at once: the one that is read and the copy that is sent.
_PART_BYTES = 16 * 1024 * 1024
_ABANDONED_AFTER = timedelta(days=1)
# Tells whether an object was published by this very call, after its answer was lost.
_PUBLISHER = "whatsapp-publisher"


def is_s3(fs: Any) -> bool:
    """Whether the store is reached through s3fs.

    :param fs: fsspec file system
    """
    library = sys.modules.get("s3fs")
    return library is not None and isinstance(fs, library.S3FileSystem)


def check_writable(fs: Any, key: str) -> None:
    """Begin an upload and abort it, which needs the right to write and leaves nothing.

    :param fs: file system of s3fs
    :param key: ``bucket/path`` of the object
    """
    where = _where(fs, key)
    upload = fs.call_s3("create_multipart_upload", **where)
    # Credentials may be allowed to write and not to abort. The next run tries again, and an upload without parts costs
    # nothing.
    with suppress(Exception):
        fs.call_s3("abort_multipart_upload", **where, UploadId=upload["UploadId"])


def upload(staged: Path, fs: Any, key: str, *, content_type: str, replace: bool) -> None:
    """Make the file the object. S3 shows an object only when it is complete.

    s3fs would read a file of up to 100 MB as a whole, and send larger ones in ten parts of 50 MB at once.

    :param staged: the finished file
    :param fs: file system of s3fs
    :param key: ``bucket/path`` of the object
    :param content_type: media type of the object
    :param replace: whether an object that is there may be replaced
    :raises FileExistsError: if one is there and may not be replaced
    """
    where = _where(fs, key)
    publisher = secrets.token_hex(8)
    kind = {"ContentType": content_type, "Metadata": {_PUBLISHER: publisher}}
    size = staged.stat().st_size
    with staged.open("rb") as file:
        if size <= _PART_BYTES:
            _make_appear(fs, "put_object", publisher, replace=replace, **where, **kind, Body=file.read())
            return
        upload_id = fs.call_s3("create_multipart_upload", **where, **kind)["UploadId"]
        this = {**where, "UploadId": upload_id}
        part_bytes = max(_PART_BYTES, -(-size // _MOST_PARTS))
        try:
            parts = []
            for number in range(1, -(-size // part_bytes) + 1):
                sent = fs.call_s3("upload_part", **this, PartNumber=number, Body=file.read(part_bytes))
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            complete = {"MultipartUpload": {"Parts": parts}}
            _make_appear(fs, "complete_multipart_upload", publisher, replace=replace, **this, **complete)
        except BaseException:
            with suppress(Exception):
                fs.call_s3("abort_multipart_upload", **this)
            raise


def abort_abandoned_uploads(fs: Any, key: str) -> None:
    """Abort the uploads of this object that killed workers began more than a day ago. S3 bills their parts.

    Only those of this object: s3fs' ``clear_multipart_uploads`` aborts those of all objects of the bucket, also those
    that go on.

    :param fs: file system of s3fs
    :param key: ``bucket/path`` of the object
    """
    where = _where(fs, key)
    try:
        found = fs.call_s3("list_multipart_uploads", Bucket=where["Bucket"], Prefix=where["Key"])
        for begun in found.get("Uploads", []):
            is_old = datetime.now(timezone.utc) - begun["Initiated"] > _ABANDONED_AFTER
            if begun["Key"] == where["Key"] and is_old:
                fs.call_s3("abort_multipart_upload", **where, UploadId=begun["UploadId"])
                log.info("Aborted an upload of %s that was begun %s and never ended", key, begun["Initiated"])
    except Exception as error:
        # Credentials that may only write cannot list uploads. A lifecycle rule can do this instead.
        log.debug("Abandoned uploads cannot be looked for (%s)", Problem.of(error))


def _make_appear(fs: Any, method: str, publisher: str, *, replace: bool, **request: Any) -> None:
    """Send the request that makes the object appear.

    :raises FileExistsError: if an object is there and may not be replaced
    """
    try:
        if not replace:
            try:
                fs.call_s3(method, **request, IfNoneMatch="*")
                return
            except Exception as error:
                # Some stores that speak the protocol of S3 do not have this condition. There, the check before it
                # counts.
                if Problem.of(error).code != "NotImplemented":
                    raise
        fs.call_s3(method, **request)
    except Exception as error:
        if _publisher_of(fs, request) == publisher:
            # It had worked, but its answer was lost, and the same request failed when it was sent again.
            return
        if Problem.of(error).code == "PreconditionFailed":
            raise FileExistsError(errno.EEXIST, "the object exists") from None
        raise


def _publisher_of(fs: Any, request: dict[str, Any]) -> str | None:
    try:
        metadata = fs.call_s3("head_object", Bucket=request["Bucket"], Key=request["Key"]).get("Metadata", {})
    except Exception:
        return None
    publisher: str | None = metadata.get(_PUBLISHER)
    return publisher


def _where(fs: Any, key: str) -> dict[str, str]:
    bucket, path, _ = fs.split_path(key)
    return {"Bucket": bucket, "Key": path}
