"""What was seen, condensed for decisions and put into words for a report."""

from typing import Any

from flows.rules.admission import latest_record
from flows.rules.table import Decision
from tasks import clock
from tasks.guard.seen import seen_guard
from tasks.observation.look import SiteLook
from tasks.operation.files import ACCEPTED, LAST_PRIMARY
from tasks.operation.record import LastPrimary, OperationRecord, last_primary_from
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts


def last_primary(seen: SiteLook, primary: str) -> LastPrimary | None:
    """Return the newest position known of the primary: from its own answer, or from what `check` left."""
    facts = seen.node(primary)
    if facts.is_primary and facts.position is not None:
        limit = seen_guard(facts)["self_fence_s"]
        return LastPrimary(primary, facts.position, clock.now().wall, limit)
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


def describe_suspect(seen: tuple[SiteLook, Witnesses]) -> str:
    """Say in one line how the nodes are, and what the witnesses say of one of them."""
    return f"{describe_look(seen[0])}; {describe_witnesses(seen[1])}"
