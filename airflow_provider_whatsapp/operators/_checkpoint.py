"""Keeps the rows of a listing while it is read, so that the next try of the task need not begin with the first page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from airflow_provider_whatsapp._compat import AirflowException
from airflow_provider_whatsapp.graph import GraphError
from airflow_provider_whatsapp.graph.pages import ListingMovedError, Page, Position
from airflow_provider_whatsapp.graph.seen import SeenIds
from airflow_provider_whatsapp.storage.parts import PartsLostError
from airflow_provider_whatsapp.transport import clock

if TYPE_CHECKING:
    from airflow_provider_whatsapp.operators._published import Tries
    from airflow_provider_whatsapp.storage.target import Target

#: How often in a row a listing may wait for a rate limit without reading a further page with new rows in between.
MAX_FRUITLESS_WAITS = 5
_SECONDS_BETWEEN_PARTS = 60.0
_ROWS_AT_ONCE = 1000

#: Gives the pages of a listing from a position on, without the rows whose ids were seen.
OpenPages: TypeAlias = Callable[[Position | None, SeenIds], Iterator[Page]]
_Result = TypeVar("_Result")


class Checkpoint:
    """The rows that the tries of a task instance have read so far, kept beside the target.

    If the store refuses to keep rows, the listing is read to its end all the same, one warning in the log says so, and
    the next try begins with the first page.

    :param target: the object that is written; None keeps nothing
    :param tries: the tries of the task instance
    :param log: logger of the task
    """

    def __init__(self, target: Target | None, tries: Tries, log: Any) -> None:
        self._parts = target.open_parts(tries.owner) if target is not None and tries.owner else None
        self._may_be_continued = tries.may_be_continued
        self._log = log
        self._works = self._parts is not None
        self._position: Position | None = None
        self._has_new_pages = False
        self._fruitless_waits = 0
        self._pages_at_last_wait = 0

    def __enter__(self) -> Checkpoint:
        """Return the checkpoint."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the rows if another try can go on with them, and remove them if none can."""
        try:
            if error is None or isinstance(error, AirflowException) or not self._may_be_continued:
                self.clear()
            elif isinstance(error, Exception) and self._has_new_pages:
                self._keep()
        finally:
            if self._parts is not None:
                self._parts.close()

    def attempt(self, action: Callable[[], _Result]) -> _Result | None:
        """What the action gives, or None and a warning when the store refuses it.

        :param action: what to do in the store that the listing does not depend on
        """
        try:
            return action()
        except Exception as error:
            if self._works:
                # Without the exception's text: it comes from another library and may contain a secret.
                self._log.warning(
                    "Nothing can be kept beside the object (%s), so that a retry begins with the first page; the "
                    "credentials of the store must be allowed to list, read, write and delete there",
                    type(error).__name__,
                )
            # The store is left alone from now on: it would most likely refuse each part.
            self._works = False
            return None

    def find_rows(self, *, counts_waits: bool) -> bool:
        """Look for the rows that an earlier try has kept; False when there are none.

        :param counts_waits: whether the waits of that try count, because this one goes on after one of them
        """
        if self._parts is None:
            return False
        self.attempt(self._parts.find)
        state = self._parts.state
        if state is None:
            return False
        try:
            position = None if state["position"] is None else Position(**state["position"])
            waits, pages = state["fruitless_waits"], state["pages_at_last_wait"]
        except (KeyError, TypeError):
            # The package was updated in the meantime, and its last version kept something else.
            self._forget()
            return False
        self._position = position
        if counts_waits:
            self._fruitless_waits, self._pages_at_last_wait = waits, pages
        return True

    def pages(self, open_pages: OpenPages) -> Iterator[Page]:
        """The pages of the listing, those that an earlier try has kept included.

        Pages are kept about once a minute while they are read.

        :param open_pages: reads the pages from the API
        :raises ListingMovedError: if the listing must begin anew; the next call does so
        :raises GraphError: if the listing cannot be completed
        """
        ids = SeenIds()
        pages = open_pages(self._position, ids)
        if self._position is not None:
            try:
                reached = next(pages)
                yield from self._kept_pages(self._position, ids)
            except (ListingMovedError, PartsLostError) as problem:
                # The parts are not removed yet: if the API fails altogether, the next try can go on with them.
                self._forget()
                raise ListingMovedError(str(problem)) from problem
            yield reached
        next_part = clock.now() + _SECONDS_BETWEEN_PARTS
        for page in pages:
            yield page
            if page.rows:
                # A page without new rows is no place to go on from: a cursor that has stopped working can lead to an
                # empty page too, which would then be taken for the end of the listing.
                self._position = page.position
            if self._works and self._parts is not None and self._may_be_continued:
                self._has_new_pages = True
                self._parts.add(page.rows)
                if clock.now() >= next_part:
                    self._keep()
                    next_part = clock.now() + _SECONDS_BETWEEN_PARTS

    def keep_for_wait(self, error: GraphError) -> bool:
        """Keep the rows of all pages read so far, before the task waits; False when the store refused.

        :param error: the rate limit that is waited for
        :raises GraphError: the same, if the listing waited for it again and again and came no further
        """
        pages = 0 if self._position is None else self._position.page
        if pages > self._pages_at_last_wait:
            self._fruitless_waits, self._pages_at_last_wait = 0, pages
        if self._fruitless_waits >= MAX_FRUITLESS_WAITS:
            raise error
        self._fruitless_waits += 1
        return self._keep()

    def clear(self) -> None:
        """Remove all rows that were kept beside the target."""
        self._forget()
        if self._parts is not None:
            self.attempt(self._parts.clear)

    def _forget(self) -> None:
        self._position, self._has_new_pages = None, False
        if self._parts is not None:
            self._parts.forget()

    def _kept_pages(self, position: Position, ids: SeenIds) -> Iterator[Page]:
        self._log.info(
            "Going on after %d pages with %d accounts, which an earlier try has kept", position.page, position.count
        )
        rows = self._parts.rows() if self._parts is not None else iter(())
        count = 0
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            for row in some:
                if "id" in row and not ids.add(row["id"]):
                    raise PartsLostError("an account is twice among the kept rows")
            count += len(some)
            yield Page(some, position, is_kept=True)
        if count != position.count:
            raise PartsLostError(f"{count} of {position.count} kept rows are there")

    def _keep(self) -> bool:
        parts = self._parts
        if parts is None or not self._works:
            return False
        state = {
            "position": None if self._position is None else asdict(self._position),
            "fruitless_waits": self._fruitless_waits,
            "pages_at_last_wait": self._pages_at_last_wait,
        }
        self.attempt(lambda: parts.keep(state))
        self._has_new_pages = False
        return self._works
