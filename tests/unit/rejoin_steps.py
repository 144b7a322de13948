"""Steps of a rejoin by their titles, in the order in which they are done."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, cast

from flows.machinery.beside import Beside
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from tasks.harbor.back import JOBS
from tasks.observation.look import SiteLook
from tasks.operation.record import OperationKind, OperationRecord, Phase
from tasks.outcome import Outcome
from tasks.postgres.facts import NodeFacts

OP = "rejoin-1"


def ended(results: dict[str, Outcome | Exception]) -> Beside:
    """What a step has come to that ran beside others, and has ended."""
    futures: dict[str, Future[Outcome]] = {}
    for node, result in results.items():
        future = futures[node] = Future()
        if isinstance(result, Outcome):
            future.set_result(result)
        else:
            future.set_exception(result)
    return Beside(futures, kept)


def under_way(*nodes: str) -> Beside:
    """A step that goes on on these nodes."""
    return Beside({node: Future() for node in nodes}, kept)


def kept(_node: str, future: Any, _ended: float | None) -> Outcome | BaseException:
    """What became of it."""
    return cast(Outcome | BaseException, future.exception() or future.result())


NO_HARBOR = ended({})


class Steps:
    """Steps by their titles; a script says which fail."""

    def __init__(
        self, fails: dict[str, list[Exception]] | None = None, known: bool = True, jobs: str = ""
    ) -> None:
        self.done: list[str] = []
        self.fails = fails or {}
        self.jobs = jobs
        self.known = known
        self.site: Any = None
        self.dry_run = False

    def on(self, step: Any, *nodes: str, **plain: Any) -> Outcome:
        title = f"{step.name}{': ' + plain['record'].phase if 'record' in plain else ''}"
        self.done.append(title)
        errors = self.fails.get(step.name)
        if errors:
            raise errors.pop(0)
        if step.name.startswith("List what"):
            none = plain.get("kept_only", False) and not plain["interrupted"]
            found = {"none": none, "known": self.known, "why": "WAL is gone", "total": 0, "commits": []}
            return Outcome(False, "", found)
        return Outcome(True, "", {"locked": list(nodes), JOBS: self.jobs})

    @contextmanager
    def beside(self, step: Any, nodes: list[str], *, required: bool = True, **plain: Any) -> Iterator[Beside]:
        self.done += [f"{step.name} begins"]
        results = ended({node: self._tried(step, node) for node in nodes})
        yield results
        results.wait()
        self.done += [f"{step.name} is waited for"]
        for result in results.values():
            if required and isinstance(result, Exception):
                raise result

    def _tried(self, step: Any, node: str) -> Outcome | Exception:
        try:
            return self.on(step, node)
        except Exception as error:
            return error

    def try_each(
        self, step: Any, nodes: list[str], **plain: Any
    ) -> tuple[dict[str, Outcome], dict[str, str]]:
        try:
            return {nodes[0]: self.on(step, nodes[0])}, {}
        except Exception as error:
            return {}, {nodes[0]: str(error)}


def work_at(phase: Phase, steps: Steps, *nodes: NodeFacts) -> Operation:
    """A rejoin of node-a that has come to a phase."""
    record = OperationRecord(OP, OperationKind.REJOIN, "demo", "node-b", "node-a", 2, 1.0, "x:1", phase=phase)
    seen = SiteLook(tuple(nodes), frozenset({"node-a", "node-b"}), 0.1)
    work = Operation(cast(Protocol, steps), seen, record=record, locked={"node-a", "node-b"})
    work.sections["The way back"] = []
    return work
