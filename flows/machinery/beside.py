"""A step that runs beside others: what becomes of it, and waiting for the first of two."""

import threading
import time
from collections.abc import Callable, Mapping

from flows.machinery.around import Pending
from tasks.outcome import Outcome

# Takes a node, what was submitted for it, and when that ended (monotonic; None: it goes on); waits for it and keeps it.
Keep = Callable[[str, Pending, float | None], Outcome | BaseException]


class Beside(dict[str, Outcome | BaseException]):
    """What became of a step, by node; empty until it was waited for.

    Args:
        under_way: by node what was submitted.
        keep: waits for one and keeps it for the report.
    """

    def __init__(self, under_way: Mapping[str, Pending], keep: Keep) -> None:
        super().__init__()
        self._under_way, self._keep = dict(under_way), keep
        self._ended: dict[str, float] = {}
        self._listeners: list[threading.Event] = []
        self._count = len(self._under_way)
        for node, future in self._under_way.items():

            def note_end(_: object, node: str = node) -> None:
                self._ended.setdefault(node, time.monotonic())
                if self.ended:
                    for listener in list(self._listeners):
                        listener.set()

            future.add_done_callback(note_end)

    @property
    def ended(self) -> bool:
        """Whether it has ended on every node, well or not."""
        return len(self._ended) == self._count

    def wait(self) -> None:
        """Wait until it has ended on every node."""
        while self._under_way:
            node, future = next(iter(self._under_way.items()))
            self[node] = self._keep(node, future, self._ended.get(node))
            del self._under_way[node]

    def tell(self, listener: threading.Event) -> None:
        """Set an event when it has ended on every node."""
        self._listeners.append(listener)
        if self.ended:
            listener.set()


def first_of(*steps: Beside) -> None:
    """Wait until one of them has ended on every node."""
    one_ended = threading.Event()
    for step in steps:
        step.tell(one_ended)
    one_ended.wait()
