"""An operation on the site: its record on the nodes, its lock and term, what was last seen, and its one way out."""

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self

from flows.machinery.ahead import Ahead, watched
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.machinery.sight import (
    describe_decision,
    describe_look,
    durability_state,
    identity,
    last_primary,
)
from flows.rules.admission import highest_term, latest_record
from flows.rules.policy import Policy, policy_of
from flows.rules.silence import PACE_S
from flows.rules.table import FACTS_LIMIT_S, Decision
from tasks import clock
from tasks.errors import HarborHaError, Refused
from tasks.observation.budget import CALM_BUDGET_S, LOOK_BUDGET_S
from tasks.observation.look import SiteLook, look, look_with_witnesses
from tasks.on_node.authority import MAX_INTENT_AGE_S
from tasks.operation import steps as operation
from tasks.operation.record import CLOSED, OperationKind, OperationRecord, Phase, record_from
from tasks.operation.store import holder, renewed
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts
from tasks.step import host_of, node_of

# A third of what a node allows.
_FRESH_INTENT_S = 10.0
# What is done up to these is put back; an operation that ends early after them stays open.
_ABORTABLE = (Phase.STARTED, Phase.FENCING, Phase.FENCED, Phase.STOPPING, Phase.TAKING_BACK)


@dataclass
class Operation:
    """A failover, switchover or rejoin that is under way.

    Attributes:
        run: the steps so far.
        seen: the newest look at the site.
        witnesses: what the others last said of the old primary; None before they were asked.
        record: what the nodes hold about it; None before the lock is taken.
        sections: what the report says before its steps, by section.
        locked: the nodes on which this process holds the lock.
        stays: what this process has done that no way back undoes, in words.
        never_staged: nodes whose Harbor nobody has told of the target: they were not reached when it was time.
        preparing: the next cores are being started beside what is done now.
        readied: where this process has begun a next core: nodes, with the way there.
        way_back: puts back what was changed before the promotion and returns what stays changed, in words.
        fenced_at: when this process began what fenced the old primary (monotonic); None: it did not.
        promised: some node may hold that this operation has come to promoting.
        written_at: when this process wrote the record last, by its monotonic clock.
        before: the look before the newest one at a suspect; None when there was one only.
        locked_at: when this process had taken the lock, by its monotonic clock; None: it has not.
        ahead: the look at the suspect that begins while the first one goes on, until it is taken.
    """

    run: Protocol
    seen: SiteLook
    witnesses: Witnesses | None = None
    record: OperationRecord | None = None
    sections: dict[str, list[str]] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    before: SiteLook | None = None
    stays: list[str] = field(default_factory=list)
    never_staged: frozenset[str] = frozenset()
    preparing: bool = False
    readied: set[str] = field(default_factory=set)
    way_back: "Callable[[Operation], list[str]] | None" = None
    fenced_at: float | None = None
    promised: bool = False
    written_at: float | None = None
    locked_at: float | None = None
    ahead: "Ahead[tuple[SiteLook, Witnesses]] | None" = None
    _renewal: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    def begin(cls, run: Protocol) -> "Operation":
        """Look at the site."""
        return cls(run, run.watch("Look at all nodes", lambda: look(run.site, CALM_BUDGET_S), describe_look))

    @classmethod
    def begin_with(cls, run: Protocol, suspect: str) -> "Operation":
        """Look at the site and ask everybody about one node; a second look begins beside that, or beside the lock."""
        if suspect not in [node.name for node in run.site.nodes]:
            return cls.begin(run)
        # What the first one still asks over the same connection comes first: it has the time of one after its end.
        budget_s = 2 * LOOK_BUDGET_S - PACE_S
        ahead = Ahead(lambda: look_with_witnesses(run.site, suspect, budget_s), PACE_S)
        return cls(run, *watched(run, suspect, lambda: look_with_witnesses(run.site, suspect)), ahead=ahead)

    @property
    def policy(self) -> Policy:
        """What the site's settings allow."""
        return policy_of(self.run.site)

    @property
    def held(self) -> OperationRecord:
        """The record, which exists once the lock is taken."""
        assert self.record is not None
        return self.record

    def look(self) -> None:
        """Look at all nodes again."""
        self.leave_ahead()
        self.seen = self.run.watch("Look again", lambda: look(self.run.site, CALM_BUDGET_S), describe_look)

    def look_at(self, node: str, *, said_off: bool = False) -> None:
        """Look at all nodes and ask everybody about one; said_off: it was just confirmed to be off."""
        self.leave_ahead()
        look_now = partial(look_with_witnesses, self.run.site, node, said_off=said_off)
        self._have_seen(node, *watched(self.run, node, look_now))

    def look_taken_ahead(self, node: str) -> bool:
        """Take the look at the suspect that is under way since the first one; False when there is none.

        One that is old by now is none, as the lock was long in coming; nor is one at another node.
        """
        ahead, self.ahead = self.ahead, None
        if ahead is None:
            return False
        seen, witnesses = watched(self.run, node, ahead.take, begun=ahead.begins_at)
        if witnesses.node != node or witnesses.observed_at.age(clock.now()) > FACTS_LIMIT_S / 2:
            return False
        self._have_seen(node, seen, witnesses)
        return True

    def leave_ahead(self) -> None:
        """Do without the look that is under way."""
        if self.ahead is not None:
            self.ahead.leave()
            self.ahead = None

    def _have_seen(self, node: str, seen: SiteLook, witnesses: Witnesses) -> None:
        # A load balancer does not look at what is drained; that this operation did it is no gap in what is known.
        ours = self.record is not None and node in self.record.drained
        self.before, self.seen, self.witnesses = self.seen, seen, replace(witnesses, drained_by_us=ours)

    def note(self, section: str, decision: Decision[Any]) -> None:
        """Keep a decision for the report."""
        lines = [f"{describe_decision(decision)}: {'; '.join(decision.reasons)}".rstrip(": ")]
        self.sections.setdefault(section, []).extend([*lines, *decision.warnings])

    def open(
        self,
        kind: OperationKind,
        expected_primary: str,
        target: str,
        notes: dict[str, str],
        *,
        staged: bool = False,
    ) -> None:
        """Take the lock for a new operation with the next term; nothing but its record is written.

        Args:
            staged: every Harbor will be told to make ready for the target, right after this.
        """
        facts, previous = self.seen.node(expected_primary), latest_record(self.seen.nodes)
        # What one that is taken over has changed is put back by whoever ends it.
        left = previous if previous is not None and previous.open else None
        self.record = OperationRecord(
            op_id=f"{kind}-{secrets.token_hex(4)}",
            kind=kind,
            site=self.run.site.name,
            expected_primary=expected_primary,
            target=target,
            from_timeline=self.seen.node(target).timeline,
            started_at=time.time(),
            orchestrator=holder(),
            system_identifier=identity(self.seen) or facts.system_identifier,
            last_primary=last_primary(self.seen, expected_primary),
            durability_state=durability_state(self.seen),
            last_failover=previous.failover_at if previous else None,
            term=highest_term(self.seen.nodes) + 1,
            staged=staged or (left is not None and left.staged),
            drained=left.drained if left is not None else (),
            notes=notes,
        )
        self.lock()
        self.advance(Phase.STARTED)

    def resume(self, record: OperationRecord) -> None:
        """Take the lock of an operation whose process is gone; what it wrote last is read under the lock.

        It gets a term above all that are known: one that another call claimed and could not use would end it for
        ever, also one of the same number, claimed where its record was not known.

        Raises:
            Refused: it has ended in the meantime.
        """
        term = highest_term(self.seen.nodes) + 1
        self.record = record.at(record.phase, orchestrator=holder(), term=term)
        self.promised = record.past_return
        found = self.lock()
        copies = [record_from(copy, node) for node, copy in found.items()]
        newest = max((copy for copy in copies if copy is not None), key=lambda r: r.progress, default=record)
        if newest.op_id != record.op_id or newest.phase in CLOSED:
            self._release()
            ended = f"{newest.kind} {newest.op_id} is at `{newest.phase}` by now -> run the flow again"
            self.record = None
            raise Refused(f"{record.kind} {record.op_id} does not go on.", [ended])
        if newest.progress > record.progress:
            self.record = newest.at(newest.phase, orchestrator=holder(), term=term)
            self.promised = newest.past_return

    def lock(self) -> dict[str, Any]:
        """Take the lock on every node that is reached, the target among them, and keep it while this runs.

        Returns:
            what each node holds as the record of an operation, undecoded.
        """
        record = self.held
        paths = self.paths()
        outcome = self.run.on(
            operation.acquire, *paths, op_id=record.op_id, term=record.term, required=[record.target]
        )
        self.locked.update(outcome.data["locked"])
        self.locked_at = time.monotonic()
        hosts = [host_of(self.run.site, path) for path in paths]
        self._renewal.close()
        self._renewal.enter_context(renewed(self.run.site, *hosts, op_id=record.op_id))
        return dict(outcome.data["records"])

    def _lock_newcomers(self) -> None:
        """Take the lock on nodes that were not reached when it was taken: without it they keep no record."""
        new = [path for path in self.paths() if node_of(path) not in self.locked]
        if new:
            record = self.held
            done, _ = self.run.try_each(
                operation.acquire, new[:1], then=new[1:], op_id=record.op_id, term=record.term
            )
            for outcome in done.values():
                self.locked.update(outcome.data["locked"])

    def _locked_paths(self) -> list[str]:
        self._lock_newcomers()
        return [path for path in self.paths() if node_of(path) in self.locked]

    def advance(
        self, phase: Phase, *, accepted: str | None = None, required: str | None = None, **changes: Any
    ) -> None:
        """Write the next phase on the nodes, before its step is taken.

        Args:
            accepted: the text of accepted.json that is written with it, where a promotion has been proven.
            required: the node that must have it; the target unless given.
        """
        self.record = self.held.at(phase, **changes)
        self.promised = self.promised or self.record.past_return
        # Counted from before: how long the answer was on its way is part of its age.
        begun = time.monotonic()
        self.run.on(
            operation.advance,
            *self._locked_paths(),
            record=self.record,
            required=[required or self.record.target],
            accepted=accepted,
        )
        self.written_at = begun

    def confirm_intent(self) -> None:
        """Write the phase once more where it is not fresh, or not known to a node that has come back meanwhile.

        A node does nothing for an intent of more than half a minute ago, or for one that it was not told.
        """
        unknown = [path for path in self.paths() if node_of(path) not in self.locked]
        fresh = self.written_at is not None and time.monotonic() - self.written_at < _FRESH_INTENT_S
        if unknown or not fresh:
            self.advance(self.held.phase)

    def in_time(self) -> float:
        """Say until when an act on load balancer, power supply or Harbor may begin, by this process's clock.

        None can ask whether this operation is still the one that counts. So the nodes are asked, unless that was a
        moment ago, and what begins later than they would allow is not done.
        """
        now = time.monotonic()
        if self.written_at is None or now - self.written_at > _FRESH_INTENT_S:
            self.run.on(operation.advance, *self._locked_paths(), record=self.held, required=[])
            self.written_at = now
        return self.written_at + MAX_INTENT_AGE_S

    def authority(self) -> dict[str, Any]:
        """Say for which operation and phase a step is done; the node holds it against what it knows."""
        record = self.held
        return {
            "term": record.term,
            "operation": record.op_id,
            "holder": holder(),
            "phases": [record.phase.value],
        }

    def close(self, phase: Phase = Phase.DONE) -> None:
        """Write the last phase and give the lock back."""
        self.record = self.held.at(phase)
        # An abort that the target does not know of is none, where it may know of a promotion.
        required = [self.record.target] if self.promised else []
        self.run.on(operation.close, *self._locked_paths(), record=self.record, required=required)
        self.locked.clear()

    def _release(self) -> None:
        """Give the lock back and leave the record as it is, for the run that goes on."""
        if paths := [path for path in self.paths() if node_of(path) in self.locked]:
            with contextlib.suppress(HarborHaError):
                self.run.on(operation.release, *paths, op_id=self.held.op_id)
        self.locked.clear()

    def abort(self) -> list[str]:
        """End early: put back what was changed and close the record; past the promotion only give the lock back.

        Returns:
            what stays changed, in words.
        """
        if self.run.dry_run or self.record is None or not self.locked:
            return []
        if self.held.phase not in _ABORTABLE:
            self._release()
            return [f"{self._unfinished()}; run again, it goes on", *self._still_drained()]
        try:
            # Also who was replaced comes this way, and would put back what is another's by now.
            self.run.on(operation.advance, *self._locked_paths(), record=self.held, required=[])
            left = [*self.stays, *(self.way_back(self) if self.way_back else [])]
            self.close(Phase.ABORTED)
        except HarborHaError as error:
            self._release()
            return [f"{self._unfinished()}: {error}", *self._still_drained()]
        return left

    def _unfinished(self) -> str:
        return f"{self.held.kind} {self.held.op_id} stays open at `{self.held.phase}`"

    def _still_drained(self) -> list[str]:
        # Said also past the promotion: a run that stood still there has lost its lock, and another one has closed it.
        told = "is still drained at the load balancer, unless another run has it served again"
        return [f"{node} {told}" for node in self.held.drained]

    def paths(self) -> list[str]:
        """Name all nodes that are reached, with the way there where it is not the direct one."""
        return [self.path(node) for node in self.seen.nodes if node.reachable]

    def path(self, node: NodeFacts) -> str:
        """Name one node with the way there, for a step."""
        way = node.reachable_by[0] if node.reachable_by else "direct"
        return node.name if way == "direct" else f"{node.name} {way}"

    @property
    def fence_age_s(self) -> float:
        """Seconds since this process began what fenced the old primary; endless when it did not."""
        return float("inf") if self.fenced_at is None else time.monotonic() - self.fenced_at

    def refuse(self, what: str, decision: Decision[Any]) -> NoReturn:
        """End the flow as refused; leaving the `with` puts back what was changed, and reports.

        Raises:
            Refused: always.
        """
        self.sections = {"Refused because": decision.lines(), **self.sections}
        raise Refused(what, decision.lines())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The one way out: whatever ends a flow early is put back, given back, and told.

        A signal that ends the process is no error: what it leaves is found by the run that goes on.
        """
        if error is not None and not isinstance(error, Exception):
            return
        self.leave_ahead()
        self._renewal.close()
        if error is None:
            if self.locked and not self.run.dry_run:
                self._release()
            return
        left = self.abort()
        if isinstance(error, Refused):
            error.changed.extend(left)
        if isinstance(error, HarborHaError):
            self._report(error, left)

    def _report(self, error: HarborHaError, left: list[str]) -> None:
        if isinstance(error, Refused):
            headline = f"{error.what} Refused: {error.reasons[0] if error.reasons else 'see below'}"
        else:
            headline = f"Failed: {error}"
        publish(self.run, headline, {**({"What stays changed": left} if left else {}), **self.sections})
