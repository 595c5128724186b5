"""Sends single requests with ``requests``: one at a time, or several concurrently.

No request is sent in the caller's thread, see :mod:`~airflow_provider_whatsapp.transport.deadline`.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.messages import Request, Response
from airflow_provider_whatsapp.transport import clock
from airflow_provider_whatsapp.transport.connections import DeadlineAdapter
from airflow_provider_whatsapp.transport.deadline import Attempt, AttemptThread
from airflow_provider_whatsapp.transport.errors import build_transport_error
from airflow_provider_whatsapp.transport.proxies import find_proxy
from airflow_provider_whatsapp.transport.shared import (
    CHUNK_BYTES,
    NO_COOKIES,
    Body,
    find_trusted_cas,
    lower_case_names,
)


class Session(requests.Session):
    """One connection to the API; follows no redirects and keeps no cookies. An :class:`Attempt` can end it.

    :param config: where the API is, how to reach it, and which credentials to use
    """

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        self.config = config
        # Otherwise an entry in `~/.netrc` would replace the Authorization header, and environment variables would
        # replace the CAs of the connection.
        self.trust_env = False
        proxy = find_proxy(config)
        self.proxies = {"https": proxy} if proxy else {}
        self.verify = find_trusted_cas(config) or True
        self.cookies.set_policy(NO_COOKIES)
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return None, so that no redirect is followed."""
        # With a target, requests would read the whole body of a redirect before it returns the response.
        return None


class Sender:
    """Sends requests, each over a kept-alive connection that no other request uses at the same time.

    :param config: where the API is and which credentials to use
    """

    def __init__(self, config: GraphConfig) -> None:
        self._config = config
        self._idle: list[Session] = []

    def close(self) -> None:
        """Close the kept-alive connections."""
        while self._idle:
            self._idle.pop().close()

    def use(self, config: GraphConfig) -> None:
        """Use other settings for the requests that start from now on.

        :param config: where the API is and which credentials to use
        """
        self._config = config
        self.close()

    def start(
        self, request: Request, thread: AttemptThread, on_answer: Callable[[Response | GraphError], object]
    ) -> OpenRequest:
        """Start sending a request, and return without waiting for its response.

        :param request: the request to send
        :param thread: the thread to send it in
        :param on_answer: called in that thread with the response, or with the error if there is none
        """
        session = self._idle.pop() if self._idle else Session(self._config)
        attempt = Attempt(self._config.timeout)
        thread.start(attempt, partial(self._attempt, session, request), on_answer)
        return OpenRequest(session, attempt, thread)

    def finish(self, request: OpenRequest) -> bool:
        """End a request that was started. Returns False if its response had not arrived and is abandoned.

        :param request: what :meth:`start` returned
        """
        if request.attempt.give_up():
            # The attempt's thread may still be using the session.
            request.session.close()
            return False
        if request.session.config == self._config:
            self._idle.append(request.session)
        else:
            request.session.close()
        return True

    def timeout_error(self) -> GraphError:
        """Return the error for a request that got no response in time."""
        return self._build_error(TimeoutError(), self._config)

    def _attempt(self, session: Session, request: Request) -> Response | GraphError:
        try:
            return self._exchange(session, request)
        except GraphError as error:
            # Drop the traceback: its frames hold the secrets that were sent.
            return error.with_traceback(None)
        except BaseException as error:
            return self._build_error(error, session.config)

    def _exchange(self, session: Session, request: Request) -> Response:
        with session.send(
            self._prepare(request, session.config),
            timeout=session.config.timeout,
            verify=session.verify,
            proxies=session.proxies,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = Body()
            while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
                body.add(chunk)
        return Response(response.status_code, lower_case_names(response.headers), body.joined())

    @staticmethod
    def _prepare(request: Request, config: GraphConfig) -> requests.PreparedRequest:
        params, headers = config.credentials.sign(request, now=clock.now())
        # The URL and the path were checked when they were given, so only the parameters are left to encode.
        # `Session.get` would check and encode everything again, which takes a fifth of the time of a request.
        prepared = requests.PreparedRequest()
        prepared.method = "GET"
        prepared.url = f"{config.url(request)}?{urlencode(params)}"
        prepared.headers = CaseInsensitiveDict({**config.headers, **headers})
        return prepared

    @staticmethod
    def _build_error(error: BaseException, config: GraphConfig) -> GraphError:
        return build_transport_error(
            error,
            config,
            timeouts=(requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError),
            refusals=(urllib3.exceptions.NewConnectionError,),
            failures=(requests.RequestException, urllib3.exceptions.HTTPError),
            proxy_errors=(OSError,),
        )


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that was started.

    :param session: the session that it uses
    :param attempt: the attempt that carries it out
    :param thread: the thread that the attempt runs in
    """

    session: Session
    attempt: Attempt
    thread: AttemptThread


class RequestPool:
    """The requests of one listing, and the threads that send them.

    :param sender: sends the requests
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._idle: list[AttemptThread] = []
        # Keyed by a number that is used only once. The caller's key is used again for the next attempt, while the
        # thread of the last one may still report its outcome.
        self._open: dict[int, tuple[int, OpenRequest]] = {}
        self._begun = 0
        self._answers: queue.SimpleQueue[tuple[int, Response | GraphError]] = queue.SimpleQueue()

    def __enter__(self) -> RequestPool:
        """Return the pool; requests without a response are abandoned at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Abandon the requests that have no response yet, and end the threads."""
        for _, request in self._open.values():
            self._finish(request)
        for thread in self._idle:
            thread.end()

    def answer(self, request: Request) -> Response | GraphError:
        """Return the response to a request, or the error if there is none.

        :param request: the request to send; no other may be in flight
        """
        self.send(0, request)
        while (received := self.receive(None)) is None:
            # This was the response to an abandoned request.
            pass
        return received[1]

    def send(self, key: int, request: Request) -> None:
        """Start sending a request.

        :param key: identifies the request among those in flight
        :param request: the request to send
        """
        number, self._begun = self._begun, self._begun + 1
        thread = self._idle.pop() if self._idle else AttemptThread()
        self._open[number] = key, self._sender.start(request, thread, partial(self._put_answer, number))

    def receive(self, seconds: float | None) -> tuple[int, Response | GraphError] | None:
        """Return the next response with the key of its request, or None if none arrived in time.

        :param seconds: longest time to wait; None waits until a response arrives or a request times out
        """
        # All requests have the same timeout, so the oldest one times out first.
        oldest, (_, oldest_request) = next(iter(self._open.items()))
        left = oldest_request.attempt.seconds_left
        try:
            number, outcome = self._answers.get(timeout=left if seconds is None else min(left, seconds))
        except queue.Empty:
            if oldest_request.attempt.seconds_left > 0:
                return None
            number, outcome = oldest, self._sender.timeout_error()
        if number not in self._open:
            # Ignore the response to an abandoned request.
            return None
        key, request = self._open.pop(number)
        self._finish(request)
        return key, outcome

    def _finish(self, request: OpenRequest) -> None:
        if self._sender.finish(request):
            self._idle.append(request.thread)
        else:
            request.thread.end()

    def _put_answer(self, number: int, outcome: Response | GraphError) -> None:
        self._answers.put((number, outcome))
