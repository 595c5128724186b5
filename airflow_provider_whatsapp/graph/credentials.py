"""Signs requests with the credentials of a connection, and masks them everywhere else."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import quote

from airflow_provider_whatsapp.graph.messages import Request

_MASK = "***"
# Meta accepts a timed proof for five minutes. Only one is created per minute, so that few need to be masked.
_PROOF_PERIOD = 60
_PERIODS_TO_MASK = 10
# A clock that is off by less cannot be the reason why a proof is refused.
_TOLERATED_SECONDS = 120
# A shorter secret is not masked in rows, because it could occur in ordinary text.
_SHORTEST_SECRET = 8
# JSON can write an ASCII letter as an escape, and a body can be UTF-16: a search for the secret's bytes would find
# nothing then. Letters beyond ASCII do not matter, because no secret has any.
_ASCII_ESCAPE = re.compile(rb"\\u00[2-7]")
_SECRET_PARAMETER = re.compile(
    r"(?i)(access_token|appsecret_proof|input_token|client_secret|app_secret)(=|%3D)[^&\s\"'<>]+"
)
# Every access token of Meta's apps starts with EAA.
_TOKEN = re.compile(r"EAA[A-Za-z0-9]{20,}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The access token and the app secret of a connection; signs requests and masks secrets in texts.

    https://developers.facebook.com/documentation/facebook-login/security

    :param token: system user access token
    :param app_secret: secret of the token's app; if given, every request carries an ``appsecret_proof``
    :param timed_proof: whether a proof is valid for only five minutes, instead of as long as the token
    """

    token: str = field(repr=False)
    app_secret: str | None = field(default=None, repr=False)
    timed_proof: bool = True

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets except timed proofs, each as it is and percent-encoded."""
        return _spell_out((self.token, self.app_secret or "", self._proof_of(self.token)))

    def secrets_at(self, now: float) -> tuple[str, ...]:
        """Return all secrets at a point in time: :attr:`secrets`, and the timed proofs that are or were valid.

        :param now: the time in unix seconds
        """
        if self.app_secret is None or not self.timed_proof:
            return self.secrets
        latest = self._period(now)
        # Include the next period, because another thread may have signed a request since the time was read.
        periods = range(latest - _PERIODS_TO_MASK * _PROOF_PERIOD, latest + 2 * _PROOF_PERIOD, _PROOF_PERIOD)
        return (*self.secrets, *(self._timed_proof(begin) for begin in periods))

    def sign(self, request: Request, *, now: float) -> tuple[dict[str, str], dict[str, str]]:
        """Return the query parameters and headers to send, with the token and its proof among them.

        :param request: the request to sign
        :param now: time of this attempt in unix seconds
        """
        params = dict(request.params)
        if self.app_secret is not None and self.timed_proof:
            begin = self._period(now)
            params["appsecret_time"] = str(begin)
            params["appsecret_proof"] = self._timed_proof(begin)
        elif self.app_secret is not None:
            params["appsecret_proof"] = self._proof_of(self.token)
        if request.inspects_own_token:
            params["input_token"] = self.token
        return params, {"Authorization": f"Bearer {self.token}"}

    def describe_clock_problem(self, date: str, *, now: float) -> str:
        """Return a sentence about this machine's clock, for the error of a refused proof; empty if it may be right.

        :param date: ``Date`` header of the response
        :param now: the time in unix seconds
        """
        if self.app_secret is None or not self.timed_proof:
            return ""
        try:
            ahead = now - parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError, OverflowError):
            return ""
        if abs(ahead) < _TOLERATED_SECONDS:
            return ""
        return (
            f"The clock of this machine is {abs(ahead) / 60:.0f} minutes {'ahead of' if ahead > 0 else 'behind'} the "
            "API's, and its proofs hold a time: set the clock, or `proof` in the connection's extra to \"plain\"."
        )

    def redact(self, text: str, *, now: float) -> str:
        """Return the text with these secrets, and anything else that looks like a token, masked.

        :param now: the time in unix seconds
        """
        for secret in self.secrets_at(now):
            text = text.replace(secret, _MASK)
        return redact(text)

    def mask_for(self, body: bytes, *, now: float) -> Callable[[str], str] | None:
        """Return a function that masks these secrets in texts, or None if the response contains none of them.

        A server may echo the token in a row, and rows are stored in XCom and in objects.

        :param body: the decompressed response
        :param now: the time in unix seconds
        """
        secrets = [secret for secret in self.secrets_at(now) if len(secret) >= _SHORTEST_SECRET]
        plain = body.replace(b"\\/", b"/") if any("/" in secret for secret in secrets) else body
        # Most secrets contain nothing that JSON escapes.
        spellings = {spelling.encode() for secret in secrets for spelling in (secret, json.dumps(secret)[1:-1])}
        is_spelled_otherwise = b"\x00" in body or _ASCII_ESCAPE.search(body)
        if not is_spelled_otherwise and not any(spelling in plain for spelling in spellings):
            return None

        def mask(text: str) -> str:
            # Replace one after the other: a regular expression of all secrets takes seconds for a long text.
            for secret in secrets:
                text = text.replace(secret, _MASK)
            return text

        return mask

    def _timed_proof(self, begin: int) -> str:
        return self._proof_of(f"{self.token}|{begin}")

    def _proof_of(self, message: str) -> str:
        return "" if self.app_secret is None else _hmac(self.app_secret, message)

    @staticmethod
    def _period(now: float) -> int:
        return int(now) // _PROOF_PERIOD * _PROOF_PERIOD


# Cached, because every log line of an HTTP library is searched for these.
@lru_cache(maxsize=1024)
def _hmac(secret: str, message: str) -> str:
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


@lru_cache(maxsize=64)
def _spell_out(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the non-empty secrets, each as it is and percent-encoded."""
    plain = [secret for secret in secrets if secret]
    return tuple(dict.fromkeys([*plain, *(quote(secret, safe="") for secret in plain)]))


def redact(text: str) -> str:
    """Return the text with access tokens, and the values of secret query parameters, masked."""
    return _TOKEN.sub(_MASK, _SECRET_PARAMETER.sub(rf"\1\2{_MASK}", text))
