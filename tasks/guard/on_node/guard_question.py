"""Part of node programs: ask what may hang, and go on without the answer."""

import threading
import time
from typing import Any, Callable, Optional


class Question:
    """Something that may hang, asked in a thread of its own; never a second one beside one that hangs.

    A dead NFS server holds whoever reads from it; so does a disk that stopped.

    Attributes:
        answer: the last one; None before there was any.
        asked_at: when the question to it was put, by the monotonic clock: an answer is as old as its question.
        error: what went wrong with the last question that ended; None when it was answered.
    """

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.ask = ask
        self.answer: Any = None
        self.asked_at = float("-inf")
        self.error: Optional[Exception] = None
        self._thread: Optional[threading.Thread] = None

    @property
    def hangs(self) -> bool:
        """Whether the last question has not ended yet."""
        return self._thread is not None and self._thread.is_alive()

    def put(self, wait_s: float) -> None:
        """Ask, unless the last question still hangs; wait so long for an answer and no longer."""
        if not self.hangs:
            self._thread = threading.Thread(target=self._run, args=(time.monotonic(),), daemon=True)
            self._thread.start()
        self.wait(wait_s)

    def wait(self, wait_s: float) -> None:
        """Wait so long for the answer to the last question."""
        if self._thread is not None:
            self._thread.join(max(0.0, wait_s))

    def younger_than(self, limit_s: float) -> Any:
        """Return the answer unless it is older than so many seconds, or there is none."""
        return self.answer if time.monotonic() - self.asked_at <= limit_s else None

    def _run(self, asked_at: float) -> None:
        try:
            answer = self.ask()
        except Exception as error:
            self.error = error
            return
        self.answer, self.asked_at, self.error = answer, asked_at, None


def beside(work: Any) -> threading.Thread:
    """Do something in a thread: starting a program reads a disk, which may hang."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
