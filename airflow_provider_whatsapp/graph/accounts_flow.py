"""Decides which account to read next when one edge of many accounts is listed concurrently.

Each account is a listing of its own, with a :class:`~airflow_provider_whatsapp.graph.flow.GraphFlow`. This flow sends
the requests of several accounts concurrently. Meta counts the calls to these edges for each account and also for the
app: an account that has used up its own limit waits alone, while a limit of the app holds back all accounts.

https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeAlias

from airflow_provider_whatsapp.graph.app_limit import AppLimit, Pause
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.error_codes import concerns_one_account
from airflow_provider_whatsapp.graph.errors import GraphError, GraphRateLimitError
from airflow_provider_whatsapp.graph.flow import Flow, GraphFlow, Outcome, ReadConnection, Wait
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.graph.pages import Page
from airflow_provider_whatsapp.graph.patience import UNNAMED_WAIT, Patience, used_up_error
from airflow_provider_whatsapp.graph.query import EdgeQuery
from airflow_provider_whatsapp.graph.usage import Usage

#: How many accounts may be read ahead of one that waits for its rate limit. Their rows are spooled to disk.
MAX_LEAD = 10_000
#: How many accounts may wait at the same time. Each keeps its last page in memory.
MAX_WAITING = 100


@dataclass(frozen=True, slots=True)
class Send:
    """Asks the client to send a request, while others may be in flight.

    :param key: identifies the request among those in flight
    :param request: what to send
    """

    key: int
    request: Request


@dataclass(frozen=True, slots=True)
class Receive:
    """Asks the client for the next response to any of the requests in flight.

    :param seconds: longest time to wait for one, or None to wait until one arrives
    """

    seconds: float | None


@dataclass(frozen=True, slots=True)
class AccountPage:
    """Some rows of one account.

    :param waba_id: id of the account
    :param page: the rows
    """

    waba_id: str
    page: Page


@dataclass(frozen=True, slots=True)
class AccountEnd:
    """One account has been read completely, or is left out.

    :param waba_id: id of the account
    :param error: why the account is left out; None if it was read completely
    """

    waba_id: str
    error: GraphError | None = None


#: What the client sends into the flow: a key and the response to that request; the settings of the connection if they
#: have changed; None after anything else.
Answer: TypeAlias = tuple[int, Response | GraphError] | GraphConfig | None
AccountsSteps: TypeAlias = Generator[Send | Receive | Wait | ReadConnection | AccountPage | AccountEnd, Answer, None]


@dataclass(slots=True, eq=False)
class _Reading:
    """An account that is being read.

    :param number: position of the account among all accounts
    :param waba_id: id of the account
    :param flow: yields the requests and the pages of the account
    :param request: the request to send next, or None if the flow has not yielded it yet
    """

    number: int
    waba_id: str
    flow: Flow[Page, None]
    request: Request | None = None


@dataclass(order=True, slots=True)
class _Sleeper:
    until: float
    number: int
    reading: _Reading = field(compare=False)
    pause: Pause = field(compare=False)


class AccountsFlow:
    """Reads one edge of many accounts.

    :param new_flow: creates the flow that reads one account, given a patience and the id of the account
    :param patience: how often to retry, and how long to wait when there is nothing else to do
    :param now: returns the seconds since a fixed moment; never goes back
    :param max_concurrency: maximum number of requests in flight
    :param skips_accounts: whether to leave out an account that the API refuses, instead of raising the error
    :param percent: percentage used of the app's rate limit, if already known
    """

    def __init__(
        self,
        *,
        new_flow: Callable[[Patience, str], GraphFlow],
        patience: Patience,
        now: Callable[[], float],
        max_concurrency: int,
        skips_accounts: bool,
        percent: float | None = None,
    ) -> None:
        self._new_flow = new_flow
        self._patience = patience
        # This flow limits the waits, not the flow of the account: while one account waits, others can be read.
        self._patience_of_one = replace(
            patience, longest_named_wait=math.inf, budget=math.inf, unnamed_wait=UNNAMED_WAIT, max_usage=math.inf
        )
        self._now = now
        self._skips_accounts = skips_accounts
        self._limit = AppLimit(max_usage=patience.max_usage, max_concurrency=max_concurrency, now=now, percent=percent)
        self._accounts: Iterator[tuple[str, EdgeQuery | None]] = iter(())
        self._begun = 0
        #: Numbers of the accounts that have started but not ended, oldest first.
        self._unfinished: dict[int, None] = {}
        self._to_send: deque[_Reading] = deque()
        self._on_their_way: dict[int, _Reading] = {}
        self._sleepers: list[_Sleeper] = []
        self._waited = 0.0

    def read(self, accounts: Iterable[tuple[str, EdgeQuery | None]]) -> AccountsSteps:
        """Yield the pages of all accounts, in the order in which they arrive, and the end of each account.

        :param accounts: id and query of each account, consumed lazily; None instead of the query if nothing is to be
            read for the account
        :raises GraphError: if an account cannot be read; the error names the account
        """
        self._accounts = iter(accounts)
        while True:
            self._wake()
            if self._has_room and not self._to_send and self._may_begin():
                begun = next(self._accounts, None)
                if begun is not None:
                    yield from self._begin(*begun)
                    continue
            # Checked only once: if the pause ended between two checks, nothing would be left to send or to wait for.
            is_paused = self._limit.is_paused
            if self._has_room and self._to_send and not is_paused:
                reading = self._to_send.popleft()
                self._limit.note_sent(reading.number)
                self._on_their_way[reading.number] = reading
                request, reading.request = reading.request, None
                yield Send(reading.number, request)  # type: ignore[arg-type]  # only readings with a request are queued
            elif self._on_their_way:
                answer = yield Receive(self._seconds_to_next_step(is_paused=is_paused))
                if isinstance(answer, tuple):
                    key, outcome = answer
                    yield from self._advance(self._on_their_way.pop(key), outcome)
            elif self._to_send or self._sleepers:
                yield from self._wait_in_place(is_paused=is_paused)
            else:
                return

    @property
    def _has_room(self) -> bool:
        return self._limit.has_room(self._on_their_way)

    def _may_begin(self) -> bool:
        lead = self._begun - next(iter(self._unfinished), self._begun)
        return lead < MAX_LEAD and len(self._sleepers) < MAX_WAITING

    def _begin(self, waba_id: str, query: EdgeQuery | None) -> AccountsSteps:
        number, self._begun = self._begun, self._begun + 1
        if query is None:
            yield AccountEnd(waba_id)
            return
        self._unfinished[number] = None
        reading = _Reading(number, waba_id, self._new_flow(self._patience_of_one, waba_id).pages(query))
        yield from self._advance(reading, None)

    def _advance(self, reading: _Reading, outcome: Outcome) -> AccountsSteps:
        """Continue an account until its next request or wait.

        :param outcome: the response to its last request
        """
        pause = Pause()
        while True:
            try:
                step = reading.flow.send(outcome)
            except StopIteration:
                yield self._end(reading, None)
                return
            except GraphError as error:
                error.waba_id = reading.waba_id
                if not (self._skips_accounts and concerns_one_account(error)):
                    raise
                yield self._end(reading, error)
                return
            outcome = None
            if isinstance(step, Page):
                yield AccountPage(reading.waba_id, step)
                pause = self._pace(reading, step.usage)
                continue
            if isinstance(step, ReadConnection):
                answer = yield step
                outcome = answer if isinstance(answer, GraphConfig) else None
                continue
            if isinstance(step, Request):
                reading.request = step
            else:
                pause = self._note_wait(reading, step)
            self._put_to_sleep(reading, pause)
            return

    def _end(self, reading: _Reading, error: GraphError | None) -> AccountEnd:
        if error is not None:
            self._limit.note_left_out()
        del self._unfinished[reading.number]
        return AccountEnd(reading.waba_id, error)

    def _put_to_sleep(self, reading: _Reading, pause: Pause) -> None:
        if reading.request is not None and pause.until <= self._now():
            self._to_send.append(reading)
        else:
            heapq.heappush(self._sleepers, _Sleeper(pause.until, reading.number, reading, pause))

    def _wake(self) -> None:
        """Queue the accounts whose wait is over."""
        while self._sleepers and self._sleepers[0].until <= self._now():
            reading = heapq.heappop(self._sleepers).reading
            if reading.request is None:
                # After a wait, a flow always yields a request.
                reading.request = reading.flow.send(None)  # type: ignore[assignment]
            self._to_send.append(reading)

    def _note_wait(self, reading: _Reading, wait: Wait) -> Pause:
        """Return the wait of an account after a failure; if a limit of the app was reached, make all accounts wait."""
        error, now = wait.error, self._now()
        if not isinstance(error, GraphRateLimitError):
            return Pause(now + wait.seconds, now, error)
        named = UNNAMED_WAIT if error.retry_after is None else error.retry_after.total_seconds()
        pause = Pause(now + wait.seconds, now + named, error)
        self._limit.note_refusal(reading.waba_id, error, pause)
        return pause

    def _pace(self, reading: _Reading, usage: Usage | None) -> Pause:
        """Return the wait before the next page of an account, given how much of its limit is used.

        If the limit of the app is nearly used up, all accounts wait.
        """
        beyond = None if usage is None else usage.beyond(reading.waba_id)
        if self._limit.note_page(beyond) and beyond is not None:
            self._limit.wait(self._pause_for(beyond, waba_id=None))
        if usage is None:
            return Pause()
        own = usage.by_node.get(reading.waba_id)
        return Pause() if own is None else self._pause_for(own, waba_id=reading.waba_id)

    def _pause_for(self, usage: Usage, *, waba_id: str | None) -> Pause:
        """Return the wait for a limit that is nearly used up.

        Whether it is too long is decided only when there is nothing else to do, because other accounts are read
        meanwhile.

        :param usage: usage of that limit
        :param waba_id: id of the account that the limit applies to, or None if it applies to more than one
        """
        seconds = self._patience.needed_pause(usage)
        if not seconds:
            return Pause()
        until, error = self._now() + seconds, None
        if self._patience.raises_when_used_up:
            error = used_up_error(usage, seconds)
            error.waba_id = waba_id
        return Pause(until, until, error)

    def _seconds_to_next_step(self, *, is_paused: bool) -> float | None:
        """Return the seconds until something can be sent, or None if that depends on a response."""
        moments = []
        if self._sleepers:
            moments.append(self._sleepers[0].until)
        if self._to_send and is_paused and self._has_room:
            moments.append(self._limit.pause.until)
        return max(0.0, min(moments) - self._now()) if moments else None

    def _wait_in_place(self, *, is_paused: bool) -> AccountsSteps:
        """Wait for the end of a pause, because until then there is nothing to send and nothing to receive."""
        now = self._now()
        pause = self._limit.pause if is_paused else self._sleepers[0].pause
        seconds = max(0.0, pause.until - now)
        if pause.error is not None:
            named = max(0.0, pause.named_until - now)
            too_long = isinstance(pause.error, GraphRateLimitError) and named > self._patience.longest_named_wait
            if too_long or self._waited + seconds > self._patience.budget:
                if isinstance(pause.error, GraphRateLimitError):
                    # Part of the wait has passed while other accounts were read. Rounded to whole seconds for the log.
                    pause.error.retry_after = timedelta(seconds=math.ceil(named))
                raise pause.error
        else:
            # The API still accepts calls. Without this bound, accounts that have nearly used up their limits would hold
            # the worker slot with a wait before each page.
            seconds = min(seconds, max(0.0, self._patience.budget - self._waited))
        self._waited += seconds
        yield Wait(seconds)
        if pause.error is None:
            self._cut_short(is_pause_of_all=is_paused)

    def _cut_short(self, *, is_pause_of_all: bool) -> None:
        """End a pause early."""
        if is_pause_of_all:
            self._limit.go_on()
        else:
            self._sleepers[0].until = min(self._sleepers[0].until, self._now())
