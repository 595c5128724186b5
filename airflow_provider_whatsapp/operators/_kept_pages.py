"""Goes on with the pages of a listing that an earlier try of the task has begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from airflow_provider_whatsapp.graph.pages import ListingMovedError, Page, Position
from airflow_provider_whatsapp.storage.parts import PartsLostError

if TYPE_CHECKING:
    from airflow_provider_whatsapp.operators._checkpoint import Checkpoint

_ROWS_AT_ONCE = 1000

#: Gives the pages of a listing from a position on, without the rows whose ids were seen.
OpenPages: TypeAlias = Callable[[Position | None, set[str]], Iterator[Page]]


def read_pages(checkpoint: Checkpoint, open_pages: OpenPages, log: Any) -> Iterator[Page]:
    """The pages of the listing, those that an earlier try has kept included.

    :param checkpoint: has the rows of the earlier try, and keeps those that are read
    :param open_pages: reads the pages from the API
    :param log: logger of the task
    :raises ListingMovedError: if the listing must begin anew; the next call does so
    :raises GraphError: if the listing cannot be completed
    """
    ids: set[str] = set()
    position = None
    if checkpoint.position is not None:
        try:
            position = msgspec.convert(checkpoint.position, Position)
        except msgspec.ValidationError:
            # The package was updated in the meantime, and its last version kept something else.
            checkpoint.forget()
    pages = open_pages(position, ids)
    if position is not None:
        try:
            reached = next(pages)
            log.info(
                "Going on after %d pages with %d accounts, which an earlier try has kept", position.page, position.count
            )
            yield from _kept_pages(checkpoint, position, ids)
        except (ListingMovedError, PartsLostError) as problem:
            # The parts are not removed yet: if the API fails altogether, the next try can go on with them.
            checkpoint.forget()
            raise ListingMovedError(str(problem)) from problem
        yield reached
    for page in pages:
        yield page
        if page.rows:
            # A page without new rows is no place to go on from: a cursor that has stopped working can lead to an empty
            # page too, which would then be taken for the end of the listing.
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
            raise PartsLostError("an account is twice among the kept rows")
        count += len(some)
        yield Page(some, position, is_kept=True)
    if count != position.count:
        raise PartsLostError(f"{count} of {position.count} kept rows are there")
