"""Ask many at once and go on when the time is over: what is late is not known, and nobody waits for it.

Each question has a thread of its own, which may stay behind: a machine that hangs, a status command, a Redis that
says nothing. A pool would wait for them at its end, so one hung third machine made the facts of the others too old
to promote on, in every run.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

from tasks.errors import HarborHaError

Answer = TypeVar("Answer")

# For one look at everything. A healthy node answers in 0.2 s; a machine without power costs an SSH time-out of 3 s.
LOOK_BUDGET_S = 3.2
# Where no client waits: a node that is only slow, with a cold connection on busy cores, is still seen.
CALM_BUDGET_S = 6.0
# A question of the look before may still be out. A third one would be asked in vain, each second of an outage.
MAX_LEFT_BEHIND = 2

_out: "Counter[tuple[int, Hashable]]" = Counter()
_out_lock = threading.Lock()


class TooLate(HarborHaError):
    """No answer within the time that a look has."""


def ask(key: Hashable, question: Callable[[], Answer]) -> "Future[Answer]":
    """Ask in a thread that nobody has to wait for.

    Args:
        key: what is asked of whom; of one key at most two questions are out at the same time.
        question: it must have a time limit of its own, or its thread stays for ever.

    Returns:
        the answer to come; an error when two earlier questions are still out.
    """
    answer: Future[Answer] = Future()
    # The process id is part of the key: a forked child has none of its parent's threads.
    slot = (os.getpid(), key)
    with _out_lock:
        if _out[slot] >= MAX_LEFT_BEHIND:
            answer.set_exception(TooLate("It has not answered the questions before this one either."))
            return answer
        _out[slot] += 1

    def run() -> None:
        try:
            result = question()
        except Exception as error:
            _settle(slot)
            answer.set_exception(error)
        else:
            _settle(slot)
            answer.set_result(result)

    threading.Thread(target=run, daemon=True, name=f"ask {key}").start()
    return answer


def left_behind(key: Hashable) -> int:
    """Count the questions of a key that are still out."""
    with _out_lock:
        return _out[(os.getpid(), key)]


def wait_until(
    done: Callable[[], bool], answers: Callable[[], Iterable["Future[Any]"]], deadline: float
) -> bool:
    """Wait until a condition holds that answers decide, or the deadline (monotonic) has passed.

    Args:
        done: the condition; looked at after each answer.
        answers: what may still come; may grow while waiting.

    Returns:
        whether it holds.
    """
    while not done():
        left = deadline - time.monotonic()
        pending = [answer for answer in answers() if not answer.done()]
        if left <= 0 or not pending:
            return done()
        wait(pending, timeout=left, return_when=FIRST_COMPLETED)
    return True


def answer_or(answer: "Future[Answer]", otherwise: Callable[[str], Answer]) -> Answer:
    """Give an answer that has come; for one that is late or failed, what is to be said instead.

    A defect in one question is as good as no answer: it must not take a failover's look with it.

    Args:
        otherwise: makes it of the reason.
    """
    if not answer.done():
        return otherwise("no answer within the time of a look")
    error = answer.exception()
    if error is None:
        return answer.result()
    # Of an error that is not ours only the name: its text is not known, and may hold what must not be shown.
    return otherwise(str(error) if isinstance(error, HarborHaError) else f"a defect: {type(error).__name__}")


def _settle(slot: tuple[int, Hashable]) -> None:
    with _out_lock:
        _out[slot] -= 1
        if _out[slot] <= 0:
            del _out[slot]
