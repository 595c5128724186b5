"""Writes objects to Google Cloud Storage, through gcsfs."""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_provider_whatsapp.storage.errors import MissingBucketError

# gcsfs holds several copies of a chunk while it sends it. A chunk must be a multiple of 256 KiB.
# https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
_CHUNK_BYTES = 8 * 1024 * 1024
# gcsfs waits for an answer without an end by default. A chunk needs 70 KB/s to be sent in this time, and gcsfs sends a
# request six times.
_SECONDS_FOR_A_REQUEST = 120
# Tells whether an object was published by this very call, after its answer was lost.
_PUBLISHER = "whatsapp-publisher"


def is_gcs(fs: Any) -> bool:
    """Whether the store is reached through gcsfs.

    :param fs: fsspec file system
    """
    library = sys.modules.get("gcsfs.core")
    return library is not None and isinstance(fs, library.GCSFileSystem)


def without_grpc(fs: Any) -> Any:
    """The same store, reached over the JSON API only and with a bound for the time of each request.

    By default, gcsfs asks for the type of the bucket over gRPC before each upload. That takes three minutes where gRPC
    does not get through, and the uploads to zonal buckets that it then makes can be seen before they are complete.

    :param fs: file system of gcsfs
    """
    core = sys.modules["gcsfs.core"].GCSFileSystem
    if type(fs) is core and fs.requests_timeout is not None:
        return fs
    return core(*fs.storage_args, **{"requests_timeout": _SECONDS_FOR_A_REQUEST, **fs.storage_options})


def check_writable(fs: Any, key: str) -> None:
    """Begin an upload and cancel it, which needs the right to write and leaves nothing.

    :param fs: file system of gcsfs
    :param key: ``bucket/path`` of the object
    :raises MissingBucketError: if there is no such bucket
    """
    from fsspec.asyn import sync
    from gcsfs.core import initiate_upload

    bucket, path, _ = fs.split_path(key)
    try:
        upload = sync(fs.loop, initiate_upload, fs, bucket, path)
    except FileNotFoundError:
        raise MissingBucketError from None
    with suppress(Exception):
        fs.call("DELETE", upload)


def upload(staged: Path, fs: Any, key: str, *, content_type: str, replace: bool) -> None:
    """Make the file the object. GCS shows an object only when it is complete.

    :param staged: the finished file
    :param fs: file system of gcsfs
    :param key: ``bucket/path`` of the object
    :param content_type: media type of the object
    :param replace: whether an object that is there may be replaced
    :raises FileExistsError: if one is there and may not be replaced
    """
    publisher = secrets.token_hex(8)
    try:
        fs.put_file(
            str(staged),
            key,
            content_type=content_type,
            chunksize=_CHUNK_BYTES,
            metadata={_PUBLISHER: publisher},
            # The hash in the answer is compared with that of the file, so that the object need not be read.
            consistency="md5",
            mode="overwrite" if replace else "create",
        )
    except FileExistsError:
        # The first answer may have been lost, and gcsfs has sent the request again.
        if _publisher_of(fs, key) != publisher:
            raise


def _publisher_of(fs: Any, key: str) -> str | None:
    try:
        fs.invalidate_cache()
        publisher: str | None = fs.info(key).get("metadata", {}).get(_PUBLISHER)
    except Exception:
        return None
    return publisher
