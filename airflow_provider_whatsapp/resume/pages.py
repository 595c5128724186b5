"""Resumes a listing of pages that an earlier try of the task has started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_whatsapp.graph.pages import Page, Position
from airflow_provider_whatsapp.resume.files import RowsLostError

if TYPE_CHECKING:
    from airflow_provider_whatsapp.graph.query import EdgeQuery
    from airflow_provider_whatsapp.resume.checkpoint import Checkpoint
    from airflow_provider_whatsapp.transport.sync import GraphClient

_ROWS_AT_ONCE = 1000


def read_pages(client: GraphClient, query: EdgeQuery, checkpoint: Checkpoint, log: Any) -> Iterator[Page]:
    """Yield the pages of a listing, including those in the checkpoint.

    :param client: client for the API
    :param query: the listing to read
    :param checkpoint: provides the rows of an earlier try, and stores those that are read
    :param log: logger of the task
    :raises ListingMovedError: if the listing must start again
    :raises RowsLostError: if the listing must start again, because checkpointed rows cannot be read any more
    :raises GraphError: if the listing cannot be completed
    """
    ids: set[str] = set()
    position = None
    if checkpoint.position is not None:
        try:
            position = msgspec.convert(checkpoint.position, Position)
        except msgspec.ValidationError:
            # The package was updated in the meantime, and the previous version stored its state in another form.
            checkpoint.forget()
    pages = client.pages(query, position=position, ids=ids)
    if position is not None:
        reached = next(pages)
        log.info("Resuming after %d pages with %d accounts that an earlier try has read", position.page, position.count)
        yield from _kept_pages(checkpoint, position, ids)
        yield reached
    for page in pages:
        yield page
        if page.rows:
            # A listing cannot resume from a page without new rows: an expired cursor can also lead to an empty page,
            # which would be taken for the end of the listing.
            position = page.position
        checkpoint.add(
            page.rows,
            position=None if position is None else asdict(position),
            progress=0 if position is None else position.page,
        )


def _kept_pages(checkpoint: Checkpoint, position: Position, ids: set[str]) -> Iterator[Page]:
    rows = checkpoint.rows()
    count = 0
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        kept = [row["id"] for row in some if isinstance(row.get("id"), str)]
        known = len(ids)
        ids.update(kept)
        if len(ids) < known + len(kept):
            raise RowsLostError("an account occurs twice in the checkpoint")
        count += len(some)
        if count > position.count:
            break
        yield Page(some, position, is_kept=True)
    if count != position.count:
        raise RowsLostError(f"expected {position.count} checkpointed rows, found {count}")
