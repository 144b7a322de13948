"""An operation on the site: its record on the nodes, its lock, and what was last seen."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.rules.admission import latest_record
from flows.rules.policy import Policy, policy_of
from flows.rules.table import Decision
from tasks import clock
from tasks.errors import Refused
from tasks.observation.look import SiteLook, look, look_with_witnesses
from tasks.operation import steps as operation
from tasks.operation.files import ACCEPTED, LAST_PRIMARY
from tasks.operation.record import LastPrimary, OperationKind, OperationRecord, Phase, last_primary_from
from tasks.operation.store import holder
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts


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
    """

    run: Protocol
    seen: SiteLook
    witnesses: Witnesses | None = None
    record: OperationRecord | None = None
    sections: dict[str, list[str]] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, run: Protocol) -> "Operation":
        """Look at the site."""
        return cls(run, run.watch("Look at all nodes", lambda: look(run.site), describe_look))

    @classmethod
    def begin_with(cls, run: Protocol, suspect: str) -> "Operation":
        """Look at the site and ask everybody about one node: the first look of a failover is its first round.

        Looking at a machine without power takes 3 s, which clients wait for.
        """
        if suspect not in [node.name for node in run.site.nodes]:
            return cls.begin(run)
        seen, witnesses = run.watch(
            f"Look at {suspect} over every path",
            lambda: look_with_witnesses(run.site, suspect),
            lambda both: f"{describe_look(both[0])}; {describe_witnesses(both[1])}",
        )
        return cls(run, seen, witnesses)

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
        self.seen = self.run.watch("Look again", lambda: look(self.run.site), describe_look)

    def look_at(self, node: str) -> None:
        """Look at all nodes and ask everybody about one of them."""
        self.seen, self.witnesses = self.run.watch(
            f"Look at {node} over every path",
            lambda: look_with_witnesses(self.run.site, node),
            lambda seen: f"{describe_look(seen[0])}; {describe_witnesses(seen[1])}",
        )

    def note(self, section: str, decision: Decision[Any]) -> None:
        """Keep a decision for the report."""
        lines = [f"{describe_decision(decision)}: {'; '.join(decision.reasons)}".rstrip(": ")]
        self.sections.setdefault(section, []).extend([*lines, *decision.warnings])

    def open(self, kind: OperationKind, expected_primary: str, target: str, notes: dict[str, str]) -> None:
        """Take the lock and begin a new operation; nothing but its record is written."""
        facts, previous = self.seen.node(expected_primary), latest_record(self.seen.nodes)
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
            notes=notes,
        )
        self.lock()
        self.advance(Phase.STARTED)

    def resume(self, record: OperationRecord) -> None:
        """Take the lock of an operation whose process is gone."""
        self.record = record.at(record.phase, orchestrator=holder())
        self.lock()

    def lock(self) -> None:
        """Take the lock on every node that is reached; the target must be among them."""
        record = self.held
        outcome = self.run.on(operation.acquire, *self.paths(), op_id=record.op_id, required=[record.target])
        self.locked.update(outcome.data["locked"])

    def _lock_newcomers(self) -> None:
        """Take the lock on nodes that were not reached when it was taken: without it they keep no record."""
        new = [path for path in self.paths() if path.partition(" ")[0] not in self.locked]
        if new:
            done, _ = self.run.try_each(operation.acquire, new[:1], then=new[1:], op_id=self.held.op_id)
            for outcome in done.values():
                self.locked.update(outcome.data["locked"])

    def _locked_paths(self) -> list[str]:
        self._lock_newcomers()
        return [path for path in self.paths() if path.partition(" ")[0] in self.locked]

    def advance(self, phase: Phase, **changes: Any) -> None:
        """Write the next phase on the nodes, before its step is taken."""
        self.record = self.held.at(phase, **changes)
        paths = self._locked_paths()
        self.run.on(operation.advance, *paths, record=self.record, required=[self.record.target])

    def close(self, phase: Phase = Phase.DONE) -> None:
        """Write the last phase and give the lock back."""
        self.record = self.held.at(phase)
        self.run.on(operation.close, *self._locked_paths(), record=self.record)

    def paths(self) -> list[str]:
        """Name all nodes that are reached, with the way there where it is not the direct one."""
        return [self.path(node) for node in self.seen.nodes if node.reachable]

    def path(self, node: NodeFacts) -> str:
        """Name one node with the way there, for a step."""
        way = node.reachable_by[0] if node.reachable_by else "direct"
        return node.name if way == "direct" else f"{node.name} {way}"

    def refuse(self, what: str, decision: Decision[Any]) -> NoReturn:
        """Report the reasons and end the flow as refused; the lock is given back.

        Raises:
            Refused: always.
        """
        if self.record is not None and not self.run.dry_run:
            self.close(Phase.ABORTED)
        publish(
            self.run,
            f"{what} Refused: {decision.reasons[0]}",
            {"Refused because": decision.lines(), **self.sections},
        )
        raise Refused(what, decision.lines())


def last_primary(seen: SiteLook, primary: str) -> LastPrimary | None:
    """Return the newest position known of the primary: from its own answer, or from what `check` left."""
    facts = seen.node(primary)
    if facts.is_primary and facts.position is not None:
        return LastPrimary(primary, facts.position, clock.now().wall)
    kept = [last_primary_from(node.state.get(LAST_PRIMARY), node.name) for node in seen.nodes]
    known = [last for last in kept if last is not None and last.node == primary]
    return max(known, key=lambda last: last.at, default=None)


def identity(seen: SiteLook) -> str | None:
    """Return the system identifier that the nodes have accepted as the site's."""
    for node in seen.nodes:
        accepted = node.state.get(ACCEPTED)
        if isinstance(accepted, dict) and accepted.get("system_identifier"):
            return str(accepted["system_identifier"])
    return next((node.system_identifier for node in seen.nodes if node.system_identifier), None)


def durability_state(seen: SiteLook) -> str | None:
    """Return the recorded state of the synchronous replication; None when none is recorded."""
    for node in seen.nodes:
        recorded = node.state.get("durability")
        if isinstance(recorded, dict) and "state" in recorded:
            return str(recorded["state"])
    return None


def open_record(seen: SiteLook) -> OperationRecord | None:
    """Return the operation that was begun and not ended, if any."""
    record = latest_record(seen.nodes)
    return record if record is not None and record.open else None


def describe_decision(decision: Decision[Any]) -> str:
    """Name a decision, with the rule of docs/rules.md that it comes from where that says more."""
    kind, rule = (
        [letter for letter in str(text).lower() if letter.isalpha()]
        for text in (decision.kind, decision.rule)
    )
    return str(decision.kind) if kind == rule else f"{decision.kind} ({decision.rule})"


def describe_look(seen: SiteLook) -> str:
    """Say in one line how the nodes are."""
    return ", ".join(f"{node.name} {describe_node(node)}" for node in seen.nodes)


def describe_node(node: NodeFacts) -> str:
    """Say in a few words how a node is."""
    if not node.reachable:
        return "not reached"
    if node.server is None:
        return "has a hanging server" if node.running else "has no server running"
    role = "standby" if node.server.in_recovery else "primary"
    return f"{role} on timeline {node.server.timeline} at {node.position.lsn if node.position else 'nowhere'}"


def describe_witnesses(witnesses: Witnesses) -> str:
    """Say in one line what the witnesses say."""
    said = [*witnesses.sightings, *witnesses.unknown]
    return "; ".join(said) if said else f"all witnesses have lost {witnesses.node}"
