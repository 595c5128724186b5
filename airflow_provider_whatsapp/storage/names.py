"""Makes the names of what is stored beside an object: checkpoints, records and temporary copies."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator

_SECONDS_UNTIL_ABANDONED = 3600
# Most file systems limit names to 255 bytes.
_LONGEST_NAME_TO_EXTEND = 200


def hidden_path(key: str, suffix: str) -> str:
    """Return a path beside an object: ``bucket/wabas.ndjson`` gives ``bucket/_wabas.ndjson.suffix``.

    The name begins with ``_``, because Spark, Athena and Trino skip such names, and has a different suffix.

    :param key: path of the object within its store
    :param suffix: suffix that says what the path is for
    """
    folder, _, name = key.rpartition("/")
    if len(name.encode()) > _LONGEST_NAME_TO_EXTEND:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"{folder}/_{name}.{suffix}"


def temporary_name(name: str, owner: str) -> str:
    """Return a new name for an incomplete copy.

    :param name: name of the object, without its folder
    :param owner: identifies the task instance that writes; letters and digits
    """
    return f"{_temporary_prefix(name)}{owner}-{secrets.token_hex(8)}.tmp"


def find_abandoned(names: Iterable[str], name: str, owner: str, changed_at: Callable[[str], float]) -> Iterator[str]:
    """Yield the names of the copies that killed workers left behind.

    A copy of another task instance that changed within the last hour may belong to a worker that is still writing it.

    :param names: names in the object's folder
    :param name: name of the object
    :param owner: identifies the task instance that asks, whose own earlier copies count as abandoned immediately
    :param changed_at: returns when a copy was last changed, in unix seconds
    """
    prefix = _temporary_prefix(name)
    for found in names:
        if found.startswith(prefix):
            is_own = bool(owner) and found.startswith(f"{prefix}{owner}-")
            if is_own or time.time() - changed_at(found) > _SECONDS_UNTIL_ABANDONED:
                yield found


def _temporary_prefix(name: str) -> str:
    # Use a hash of the name, because a prefix would make a long name exceed 255 bytes.
    return f".airflow-whatsapp-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"
