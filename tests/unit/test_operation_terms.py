"""Which term an operation gets: above whatever is known, also when it goes on, and also when only the NAS knows."""

from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import switchover
from flows.machinery import operation as machinery
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.rules.resume import Entry
from tasks.observation.look import SiteLook
from tasks.operation.files import OPERATION, TERM
from tasks.operation.record import OperationKind, OperationRecord, Phase
from tasks.outcome import Outcome
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import primary, standby

OPEN = OperationRecord(
    "op-1", OperationKind.SWITCHOVER, "demo", "node-a", "node-b", 2, 1.0, "x:1", phase=Phase.STOPPING, term=4
)


class Steps:
    """Steps that all work; the record that a node would have written last is kept."""

    dry_run = False
    site = type("Site", (), {"name": "demo"})()

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def on(self, step: Any, *nodes: str, **plain: Any) -> Outcome:
        self.told.append((step.name, plain))
        return Outcome(True, "", {"locked": list(nodes), "records": {}})

    def terms(self) -> list[int]:
        return [plain["term"] for title, plain in self.told if title == "Take the site's lock"]


@pytest.fixture(autouse=True)
def _no_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machinery, "host_of", lambda site, path: path)


def work_on(steps: Steps, *nodes: NodeFacts) -> Operation:
    return Operation(cast(Protocol, steps), SiteLook(nodes, frozenset({"node-a", "node-b"}), 0.1))


def leave(work: Operation) -> None:
    work._renewal.close()


def holding(record: OperationRecord, term: int) -> dict[str, Any]:
    return {OPERATION: asdict(record), TERM: {"term": term, "op_id": "op-9"}}


def test_a_term_that_was_claimed_and_never_used_does_not_end_the_operation_that_goes_on() -> None:
    # A call for the new primary claimed the next term and failed, since the old one was away; from then on the
    # open failover was superseded for ever, and everything else refused because it was open.
    steps = Steps()
    work = work_on(steps, primary("node-a"), standby("node-b", state=holding(OPEN, 5)))
    work.resume(OPEN)
    leave(work)
    assert steps.terms() == [6]
    assert work.held.term == 6
    assert work.authority()["term"] == 6


def test_a_term_of_the_same_number_that_another_call_claimed_does_not_end_the_operation_that_goes_on() -> (
    None
):
    # node-b was away, and with it the record; a call claimed the same term on node-a and failed for want of node-b.
    # From then on: "Another operation has begun since: term 4", on every call.
    steps = Steps()
    claimed = primary("node-a", state={TERM: {"term": 4, "op_id": "op-9"}})
    work = work_on(steps, claimed, standby("node-b", state={OPERATION: asdict(OPEN)}))
    work.resume(OPEN)
    leave(work)
    assert steps.terms() == [5]


def test_whoever_goes_on_has_a_term_of_its_own() -> None:
    steps = Steps()
    work = work_on(steps, primary("node-a"), standby("node-b", state=holding(OPEN, 4)))
    work.resume(OPEN)
    leave(work)
    assert steps.terms() == [5]


def test_an_operation_of_the_version_before_has_no_term_and_gets_one() -> None:
    steps, old = Steps(), replace(OPEN, term=0)
    work = work_on(steps, primary("node-a"), standby("node-b", state={OPERATION: asdict(old)}))
    work.resume(old)
    leave(work)
    assert steps.terms() == [1]


def test_a_term_that_only_the_nas_still_knows_is_seen_by_the_look() -> None:
    steps = Steps()
    told = {TERM: {"term": 11, "op_id": "op-9"}}
    work = work_on(steps, primary("node-a", shared=told), standby("node-b"))
    work.open(OperationKind.FAILOVER, "node-a", "node-b", {})
    leave(work)
    assert steps.terms() == [12]


def test_whoever_takes_over_knows_what_the_one_before_has_staged_and_drained() -> None:
    # A failover took over from a killed switchover and ended early: Harbor was left on the standby's address.
    left = replace(OPEN, staged=True, drained=("node-a",))
    steps = Steps()
    work = work_on(steps, primary("node-a"), standby("node-b", state=holding(left, 4)))
    work.open(OperationKind.FAILOVER, "node-a", "node-b", {})
    leave(work)
    assert work.held.staged
    assert work.held.drained == ("node-a",)
    ended = replace(left, phase=Phase.ABORTED)
    clean = work_on(Steps(), primary("node-a"), standby("node-b", state=holding(ended, 4)))
    clean.open(OperationKind.FAILOVER, "node-a", "node-b", {})
    leave(clean)
    assert not clean.held.staged


def test_a_switchover_that_begins_anew_is_closed_with_the_term_that_it_was_resumed_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another call had claimed a term and failed. The resumed switchover claimed the next one, then wrote what it had
    # read before with the old one: its own term had taken its lock, at every call again.
    steps = Steps()
    open_there = replace(OPEN, phase=Phase.STARTED)
    work = work_on(
        steps,
        replace(primary("node-a"), state=holding(open_there, 5)),
        replace(standby("node-b"), state=holding(open_there, 5)),
    )
    work.resume(open_there)
    monkeypatch.setattr(switchover, "decide_entry", lambda work: SimpleNamespace(kind=Entry.OBSERVE))
    monkeypatch.setattr(switchover, "take_back", lambda work: [])
    monkeypatch.setattr(work, "look", lambda: None)
    assert switchover.resumed(work) is Entry.OBSERVE
    leave(work)
    closed = [plain["record"] for title, plain in steps.told if title == "Close the operation"]
    assert [(record.phase, record.term) for record in closed] == [(Phase.ABORTED, 6)]
