"""A flow's run of steps: one by one or on several nodes at once, each timed and kept for the report."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import Any, TypeVar

from blocks import HarborSite, load_site
from flows.machinery.around import Pending, call, run_logger, submit
from flows.machinery.beside import Beside
from tasks.errors import HarborHaError, Refused
from tasks.operation.held import Held
from tasks.operation.store import LockLost
from tasks.outcome import Outcome
from tasks.step import Step

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class StepRecord:
    """One step on one node, as the report shows it.

    Attributes:
        begin_s: seconds after the flow's start.
        outcome: None when the step failed, or was only announced in a dry run.
    """

    title: str
    nodes: tuple[str, ...]
    begin_s: float
    seconds: float
    outcome: Outcome | None
    error: str = ""


class StepsFailed(HarborHaError):
    """Several nodes failed in the same step."""

    def __init__(self, title: str, errors: dict[str, BaseException]) -> None:
        self.errors = errors
        texts = "; ".join(f"{node}: {error}" for node, error in errors.items())
        super().__init__(f"{title} failed on {len(errors)} nodes. {texts}")


@dataclass
class Protocol:
    """What a flow did so far.

    Args:
        name: the flow's name.
        site: the loaded site.
        dry_run: announce the steps and run none of them.

    Attributes:
        held: the lock without which no step begins; None: the steps ask for themselves, or take none.
    """

    name: str
    site: HarborSite
    dry_run: bool = False
    started: float = field(default_factory=time.monotonic)
    records: list[StepRecord] = field(default_factory=list)
    held: Held | None = None

    @classmethod
    def begin(cls, name: str, site: str, dry_run: bool = False) -> "Protocol":
        """Load the site and start the clock."""
        started = time.monotonic()
        return cls(name, load_site(site), dry_run, started)

    def on(self, step: Step, *nodes: str, **plain: Any) -> Outcome:
        """Run a step once, with the given nodes as its hosts, and wait for it."""
        return (
            self.on_each(step, [nodes[0]], then=nodes[1:], **plain)[nodes[0]]
            if nodes
            else self._alone(step, plain)
        )

    def on_each(
        self, step: Step, nodes: Sequence[str], *, then: Sequence[str] = (), **plain: Any
    ) -> dict[str, Outcome]:
        """Run a step on several nodes at once and wait for all of them.

        Args:
            step: the step.
            nodes: one run for each.
            then: further hosts that every run gets after its own node.
            plain: further arguments, the same for all.

        Raises:
            the error of the node that failed, or StepsFailed when several did; the others ran to their end.
        """
        hosts = {node: [node, *then] for node in nodes}
        if self.dry_run:
            for listed in hosts.values():
                self._announce(step, listed)
            return {node: Outcome(False, "not run") for node in nodes}
        if len(hosts) == 1:
            return self._raise_or_return(
                step, {node: self._timed(step, listed, plain) for node, listed in hosts.items()}
            )
        futures = {
            node: (time.monotonic(), submit(step, self.site.name, listed, self._given(plain)))
            for node, listed in hosts.items()
        }
        return self._raise_or_return(
            step, {node: self._awaited(step, hosts[node], *futures[node]) for node in hosts}
        )

    @contextlib.contextmanager
    def beside(
        self,
        step: Step,
        nodes: Sequence[str],
        *,
        then: Sequence[str] = (),
        required: bool = True,
        **plain: Any,
    ) -> Iterator[Beside]:
        """Run a step on several nodes while the body of the `with` goes on, and wait for it at the body's end.

        Args:
            then: further hosts that every run gets after its own node.
            required: a failure is an error, not only a line in the report.

        Yields:
            by node what became of it; empty until it is waited for.

        Raises:
            what `on_each` raises, unless the body raised already.
        """
        hosts = {node: [node, *then] for node in nodes}
        begin = time.monotonic()

        def keep(node: str, future: Pending, ended: float | None) -> Outcome | BaseException:
            return self._kept(step, hosts[node], begin, future.result, ended)

        if self.dry_run:
            self.on_each(step, nodes, then=then, **plain)
            yield Beside({}, keep)
            return
        under_way = {
            node: submit(step, self.site.name, listed, self._given(plain)) for node, listed in hosts.items()
        }
        results = Beside(under_way, keep)
        try:
            yield results
        finally:
            results.wait()
        if required:
            self._raise_or_return(step, results)

    def try_each(
        self, step: Step, nodes: Sequence[str], *, then: Sequence[str] = (), **plain: Any
    ) -> tuple[dict[str, Outcome], dict[str, str]]:
        """Run a step on several nodes at once; a node that fails is reported and no reason to stop.

        Returns:
            the outcomes, and the errors of the nodes that failed.
        """
        before = len(self.records)
        try:
            return self.on_each(step, nodes, then=then, **plain), {}
        except Exception:
            records = {
                record.nodes[0]: record for record in self.records[before:] if record.title == step.name
            }
            good = {node: record.outcome for node, record in records.items() if record.outcome is not None}
            return good, {node: record.error for node, record in records.items() if record.outcome is None}

    def in_turn(self, first: Step, second: Step, nodes: Sequence[str], **plain: Any) -> dict[str, str]:
        """Run a step on several nodes at once, and a second one on each node as soon as it is through the first.

        Args:
            first: the step; a node on which it fails does not get the second.
            second: the other; that it fails is only reported.
            nodes: one run of each for each.
            plain: further arguments of the first, the same for all.

        Returns:
            the errors of the nodes on which the first failed.
        """
        if self.dry_run:
            self.on_each(first, nodes, **plain)
            self.on_each(second, nodes)
            return {}
        failed: dict[str, str] = {}
        for node, result in self._as_they_end(first, nodes, plain):
            if isinstance(result, Outcome):
                self.try_each(second, [node])
            else:
                failed[node] = str(result)
        return failed

    def _as_they_end(
        self, step: Step, nodes: Sequence[str], plain: dict[str, Any]
    ) -> Iterator[tuple[str, Outcome | BaseException]]:
        begin = time.monotonic()
        futures = {node: submit(step, self.site.name, [node], self._given(plain)) for node in nodes}
        ended: Queue[tuple[str, float]] = Queue()
        for node, future in futures.items():

            def note_end(_: object, node: str = node) -> None:
                ended.put((node, time.monotonic()))

            future.add_done_callback(note_end)
        for _ in futures:
            node, at = ended.get()
            yield node, self._kept(step, [node], begin, futures[node].result, at)

    def watch(
        self,
        title: str,
        look: Callable[[], Seen],
        describe: Callable[[Seen], str],
        *nodes: str,
        begun: float | None = None,
    ) -> Seen:
        """Look at something and keep what was seen, also in a dry run.

        Args:
            title: what the report calls it.
            look: the look; it changes nothing.
            describe: says in one line what was seen.
            nodes: what was looked at.
            begun: when the look began, by the monotonic clock, where that was before.
        """
        begin = time.monotonic() if begun is None else begun
        seen = look()
        record = StepRecord(
            title, nodes, begin - self.started, time.monotonic() - begin, Outcome(False, describe(seen))
        )
        self.records.append(record)
        run_logger().info("%-9s %5.1f s  %s: %s", "saw", record.seconds, title, describe(seen))
        return seen

    def total(self) -> float:
        """Return the seconds since the flow began."""
        return time.monotonic() - self.started

    def counts(self) -> tuple[int, int]:
        """Return how many steps changed something and how many found nothing to do."""
        done = [record.outcome for record in self.records if record.outcome is not None]
        return sum(outcome.changed for outcome in done), sum(not outcome.changed for outcome in done)

    def changed(self) -> list[str]:
        """List the steps that changed something, with their nodes; for a refusal that comes after them."""
        return [
            f"{record.title}{' on ' + ', '.join(record.nodes) if record.nodes else ''}"
            for record in self.records
            if record.outcome is not None and record.outcome.changed
        ]

    @contextlib.contextmanager
    def telling_changes(self) -> Iterator[None]:
        """Add to a refusal in the body what the steps before it have changed; also where the lock was lost.

        A step that refuses does not know what came before it, and "nothing was changed" was said of half a site.
        """
        try:
            yield
        except Refused as refused:
            refused.changed = refused.changed or self.changed()
            raise
        except LockLost as lost:
            lost.meaning += f" What this run had changed before: {'; '.join(self.changed()) or 'nothing'}."
            raise

    @contextlib.contextmanager
    def going_back(self) -> Iterator[None]:
        """Let the steps of the body begin also where a node that has the lock cannot be asked: they put back."""
        before = self.held
        self.held = before and replace(before, everywhere=False)
        try:
            yield
        finally:
            self.held = before

    def _given(self, plain: dict[str, Any]) -> dict[str, Any]:
        return plain if self.held is None else {**plain, "held": self.held.plain()}

    def _alone(self, step: Step, plain: dict[str, Any]) -> Outcome:
        if self.dry_run:
            self._announce(step, [])
            return Outcome(False, "not run")
        return self._raise_or_return(step, {"": self._timed(step, [], plain)})[""]

    def _announce(self, step: Step, nodes: list[str]) -> None:
        self.records.append(StepRecord(step.name, tuple(nodes), self.total(), 0.0, None))

    def _timed(self, step: Step, nodes: list[str], plain: dict[str, Any]) -> Outcome | BaseException:
        begin = time.monotonic()
        return self._kept(step, nodes, begin, lambda: call(step, self.site.name, nodes, self._given(plain)))

    def _awaited(
        self, step: Step, nodes: list[str], begin: float, future: Pending
    ) -> Outcome | BaseException:
        return self._kept(step, nodes, begin, future.result)

    def _kept(
        self,
        step: Step,
        nodes: list[str],
        begin: float,
        call: Callable[[], Outcome],
        ended: float | None = None,
    ) -> Outcome | BaseException:
        try:
            outcome = call()
        except Exception as error:
            self._record(step, nodes, (begin, ended or time.monotonic()), None, str(error))
            return error
        self._record(step, nodes, (begin, ended or time.monotonic()), outcome, "")
        return outcome

    def _record(
        self, step: Step, nodes: list[str], span: tuple[float, float], outcome: Outcome | None, error: str
    ) -> None:
        begin, seconds = span[0], span[1] - span[0]
        record = StepRecord(step.name, tuple(nodes), begin - self.started, seconds, outcome, error)
        self.records.append(record)
        where = f" [{', '.join(nodes)}]" if nodes else ""
        word = "FAILED" if outcome is None else "changed" if outcome.changed else "unchanged"
        detail = error if outcome is None else outcome.detail
        run_logger().info("%-9s %5.1f s  %s%s: %s", word, seconds, step.name, where, detail)

    def _raise_or_return(
        self, step: Step, results: Mapping[str, Outcome | BaseException]
    ) -> dict[str, Outcome]:
        errors = {node: result for node, result in results.items() if isinstance(result, BaseException)}
        lost = [error for error in errors.values() if isinstance(error, LockLost)]
        if len(errors) == 1 or lost:
            # That the lock is gone is one thing, on however many nodes it was noticed.
            raise next(iter(lost or errors.values()))
        if errors:
            raise StepsFailed(step.name, errors)
        return {node: result for node, result in results.items() if isinstance(result, Outcome)}
