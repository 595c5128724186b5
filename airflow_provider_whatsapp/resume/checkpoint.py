"""Stores the rows of a listing while it is read, so that the next try of the task can resume it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import ParamSpec

from airflow_provider_whatsapp._compat import AirflowException, TaskDeferred
from airflow_provider_whatsapp.graph import GraphError
from airflow_provider_whatsapp.resume.files import CheckpointFiles
from airflow_provider_whatsapp.transport import clock

if TYPE_CHECKING:
    from airflow_provider_whatsapp.resume.published import TaskIdentity
    from airflow_provider_whatsapp.storage.target import Target

#: Maximum number of consecutive waits for a rate limit without progress.
MAX_FRUITLESS_WAITS = 5

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Checkpoint:
    """The rows that the tries of a task instance have read so far, stored beside the target.

    If the store refuses them, the listing continues nevertheless after one warning in the log, and the next try starts
    with the first page.

    :param target: the object to write; None stores nothing
    :param identity: identifies the task instance and what it lists
    :param log: logger of the task
    :param interval: seconds between two checkpoints of the rows
    """

    def __init__(self, target: Target | None, identity: TaskIdentity, log: Any, *, interval: float) -> None:
        #: Position of the listing after its last stored row, as JSON; None at its start.
        self.position: Any = None
        #: Whether an earlier try has stored rows.
        self.has_rows = False
        self._files = None
        if target is not None and identity.owner:
            self._files = CheckpointFiles(target.store, target.key, owner=identity.owner)
        self._may_be_continued = identity.may_be_continued
        self._is_last_try = identity.is_last
        self._log = log
        self._works = self._files is not None
        self._has_new_rows = False
        #: Number of pages, or of accounts, up to the last stored row.
        self.progress = 0
        self._fruitless_waits = 0
        self._progress_at_last_wait = 0
        #: Number of times that the listing has begun again because it had moved or its rows were lost.
        self._times_begun_again = 0
        self._interval = interval
        self._next_checkpoint = clock.monotonic() + interval

    def __enter__(self) -> Checkpoint:
        """Return the checkpoint."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store the rows if another try can resume with them, and remove them otherwise."""
        try:
            is_failure = error is not None and not isinstance(error, TaskDeferred)
            is_the_end = isinstance(error, AirflowException) or (is_failure and self._is_last_try)
            if error is None or is_the_end or not self._may_be_continued:
                self.clear()
            elif isinstance(error, Exception) and self._has_new_rows:
                self._keep()
        finally:
            if self._files is not None:
                self._files.close()

    def ask_store(
        self, action: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result | None:
        """Run an action in the store, and return its result, or None with a warning if the store refuses it.

        :param action: function to call; the listing must not depend on it
        :param args: positional arguments of the action
        :param kwargs: keyword arguments of the action
        """
        try:
            return action(*args, **kwargs)
        except Exception as error:
            if self._works:
                # Leave out the exception's message: it comes from another library and may contain a secret.
                self._log.warning(
                    "Nothing can be stored beside the object (%s), so a retry starts with the first page; the "
                    "credentials of the store must be allowed to list, read, write and delete there",
                    type(error).__name__,
                )
            # Do not try again: the store would probably refuse each part.
            self._works = False
            return None

    def find_rows(self, *, counts_waits: bool) -> bool:
        """Load the position of an earlier try, and return whether it has stored rows.

        :param counts_waits: whether the waits of that try count, because this try resumes after one of them
        """
        if self._files is None:
            return False
        self.ask_store(self._files.find)
        state = self._files.state
        if state is None:
            return False
        try:
            self.position, self.progress = state["position"], state["progress"]
            waits, progress, times = (
                state[name] for name in ("fruitless_waits", "progress_at_last_wait", "times_begun_again")
            )
        except KeyError:
            # The package was updated in the meantime, and the previous version stored its state in another form.
            self.forget()
            return False
        self.has_rows = True
        if counts_waits:
            self._fruitless_waits, self._progress_at_last_wait, self._times_begun_again = waits, progress, times
        return True

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return the rows that an earlier try has stored.

        :raises RowsLostError: if some of them can no longer be read
        """
        return self._files.rows() if self._files is not None else iter(())

    def add(self, rows: Iterable[dict[str, Any]], *, position: Any, progress: int) -> None:
        """Add rows that were read; they are stored about once a minute.

        :param rows: rows as JSON
        :param position: position of the listing after the last of them, as JSON
        :param progress: a number that grows with the listing
        """
        self.position, self.progress = position, progress
        if self._works and self._files is not None and self._may_be_continued:
            self._has_new_rows = True
            self._files.add(rows)
            if clock.monotonic() >= self._next_checkpoint:
                self._keep()
                self._next_checkpoint = clock.monotonic() + self._interval

    def keep_for_wait(self, error: GraphError) -> bool:
        """Store all rows read so far, before the task waits. Returns False if the store refused.

        :param error: the rate-limit error that causes the wait
        :raises GraphError: the same error, if the listing has waited repeatedly without progress
        """
        if self.progress > self._progress_at_last_wait:
            self._fruitless_waits, self._progress_at_last_wait = 0, self.progress
        if max(self._fruitless_waits, self._times_begun_again) >= MAX_FRUITLESS_WAITS:
            raise error
        self._fruitless_waits += 1
        return self._keep()

    def forget(self) -> None:
        """Begin with the first row again. The checkpointed rows stay in the store until new ones replace them."""
        self.position, self.has_rows, self._has_new_rows, self.progress = None, False, False, 0
        self._progress_at_last_wait = 0
        self._times_begun_again += 1
        if self._files is not None:
            self._files.forget()

    def clear(self) -> None:
        """Remove all rows that were stored beside the target."""
        self.forget()
        if self._files is not None:
            self.ask_store(self._files.clear)

    def _keep(self) -> bool:
        files = self._files
        if files is None or not self._works:
            return False
        state = {
            "position": self.position,
            "progress": self.progress,
            "fruitless_waits": self._fruitless_waits,
            "progress_at_last_wait": self._progress_at_last_wait,
            "times_begun_again": self._times_begun_again,
        }
        self.ask_store(files.keep, state)
        self._has_new_rows = False
        return self._works
