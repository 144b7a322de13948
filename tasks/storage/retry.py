"""Try again what can be tried again: back-off with jitter, and OSS's own word on how long to wait."""

import random
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import requests
import urllib3

from tasks.storage.errors import AnswerUnreadable, CrcMismatch, EndpointUnreachable, StorageError, explain

T = TypeVar("T")

# A wrong checksum that comes back three times is damage at rest, not on the way.
_CRC_ATTEMPTS = 3

# No answer, or half of one. A short body reaches us as requests' own exception, which oss2 does not wrap.
CONNECTION_ERRORS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)


@dataclass(frozen=True)
class Patience:
    """How long one call is tried.

    Attributes:
        attempts: at most so many.
        first_s: the first pause is at most this, then twice as much each time.
        longest_s: no pause is longer, except when OSS asks for it.
        total_s: no further attempt begins after this.
        sleep: how to wait; tests replace it.
    """

    attempts: int = 8
    first_s: float = 0.2
    longest_s: float = 20.0
    total_s: float = 180.0
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False)

    def pause(self, attempt: int, asked_s: float) -> float:
        """Return the seconds to wait after the given attempt (1 is the first).

        Jitter, because sixteen threads that failed together must not come back together.
        """
        ceiling = min(self.longest_s, self.first_s * 2.0 ** (attempt - 1))
        return max(asked_s, random.uniform(ceiling / 2, ceiling))


@dataclass(frozen=True)
class Verdict:
    """What a failed attempt means."""

    error: StorageError
    again: bool
    asked_s: float = 0.0
    crc: bool = False


def judge(error: Exception, where: str) -> Verdict | None:
    """Return what an exception of a call means; None when it is none of OSS's doing."""
    import oss2

    if isinstance(error, CrcMismatch):
        return Verdict(error, True, crc=True)
    if isinstance(error, oss2.exceptions.RequestError):
        return Verdict(_unreachable(error.exception, where), True)
    if isinstance(error, CONNECTION_ERRORS):
        return Verdict(_unreachable(error, where), True)
    if isinstance(error, oss2.exceptions.ServerError):
        again = error.status in (408, 429, 500, 502, 503, 504)
        explained = explain(error.status, error.details, error.request_id, where)
        return Verdict(explained, again, _asked_delay(error))
    if isinstance(error, oss2.exceptions.OssError):
        return Verdict(StorageError(f"The SDK refused: {error.body}", where=where), False)
    if isinstance(error, ElementTree.ParseError) or str(error).startswith("parse xml"):
        return Verdict(_foreign(where), False)
    return None


def _foreign(where: str) -> AnswerUnreadable:
    """The SDK reads XML without looking whose it is, and fails in its own words; they may quote the page."""
    return AnswerUnreadable(
        "What answers at the endpoint is not OSS: its answer cannot be read.",
        where=where,
        remedy="Correct oss.endpoint; a proxy or a login page in between answers instead of OSS.",
    )


def _asked_delay(error: Any) -> float:
    text = error.headers.get("x-oss-qos-delay-time") or "0"
    return min(int(text) / 1000, 60.0) if text.isdigit() else 0.0


def _unreachable(error: Exception, where: str) -> EndpointUnreachable:
    reason = type(error).__name__
    text = str(error)
    for mark, meaning in (
        ("NameResolution", "its name cannot be resolved"),
        ("getaddrinfo", "its name cannot be resolved"),
        ("refused", "the connection was refused"),
        ("certificate", "its certificate was not accepted"),
        ("timed out", "it did not answer in time"),
        ("reset", "the connection was reset"),
        ("IncompleteRead", "the connection broke in the middle of an answer"),
    ):
        if mark in text:
            reason = meaning
            break
    return EndpointUnreachable(
        f"OSS cannot be used: {reason}.",
        where=where,
        remedy="Check oss.endpoint, DNS, and the way from the orchestrator to OSS.",
    )


def persistently(call: Callable[[int], T], where: str, patience: Patience) -> T:
    """Return what `call` returns, trying again while that can help.

    Args:
        call: gets the number of the attempt, 1 at first; must be safe to repeat.
        where: bucket and key, for the error.
        patience: how long to try.

    Raises:
        StorageError: the explained error of the last attempt.
    """
    started = time.monotonic()
    attempt = mismatches = 0
    while True:
        attempt += 1
        try:
            return call(attempt)
        except Exception as error:
            verdict = judge(error, where)
            if verdict is None:
                raise
            pause = patience.pause(attempt, verdict.asked_s)
            spent = time.monotonic() - started + pause > patience.total_s
            mismatches += verdict.crc
            enough = mismatches >= _CRC_ATTEMPTS or attempt >= patience.attempts
            if not verdict.again or spent or enough:
                raise verdict.error from None
            patience.sleep(pause)


def read_again(
    read: Callable[[], T], patience: Patience, damage: tuple[type[Exception], ...] = (CrcMismatch,)
) -> T:
    """Return what `read` returns; content that was damaged on its way is read again, three times in all.

    Args:
        read: throws away what an earlier attempt made of the content.
        patience: how long to wait in between.
        damage: the errors that mean it.

    Raises:
        The last error, when it is damage at rest.
    """
    for attempt in range(1, _CRC_ATTEMPTS):
        try:
            return read()
        except damage:
            patience.sleep(patience.pause(attempt, 0.0))
    return read()
