"""Names of what is kept beside an object: checkpoints, records, and copies that are not the object yet."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator

_SECONDS_UNTIL_ABANDONED = 3600
# Most file systems limit names to 255 bytes.
_LONGEST_NAME_TO_EXTEND = 200


def hidden_path(key: str, suffix: str) -> str:
    """The path of what is kept beside an object: ``bucket/wabas.ndjson`` gives ``bucket/_wabas.ndjson.suffix``.

    The name begins with ``_``, because Spark, Athena and Trino skip such names, and does not end like the object's.

    :param key: path of the object within its store
    :param suffix: what the path is for
    """
    folder, _, name = key.rpartition("/")
    if len(name.encode()) > _LONGEST_NAME_TO_EXTEND:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"{folder}/_{name}.{suffix}"


def temporary_name(name: str, owner: str) -> str:
    """A new name for a copy that is not complete yet.

    :param name: name of the object, without its folder
    :param owner: identifies the task instance that writes; letters and digits
    """
    return f"{_temporary_prefix(name)}{owner}-{secrets.token_hex(8)}.tmp"


def find_abandoned(names: Iterable[str], name: str, owner: str, changed_at: Callable[[str], float]) -> Iterator[str]:
    """The names of the copies that killed workers left behind.

    A copy of another task instance that changed within the last hour may belong to a worker that is still writing it.

    :param names: names in the object's folder
    :param name: name of the object
    :param owner: identifies the task instance that asks, whose own earlier copies are abandoned at once
    :param changed_at: returns when a copy was last changed, in unix seconds
    """
    prefix = _temporary_prefix(name)
    for found in names:
        if found.startswith(prefix):
            is_own = bool(owner) and found.startswith(f"{prefix}{owner}-")
            if is_own or time.time() - changed_at(found) > _SECONDS_UNTIL_ABANDONED:
                yield found


def _temporary_prefix(name: str) -> str:
    # A hash of the name, because a name that is already 255 bytes long could not take a prefix.
    return f".airflow-whatsapp-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"
