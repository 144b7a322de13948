"""How an operation leaves: what was changed is put back, the lock is given back, and the report says what stays."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.machinery import operation as machinery
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.traffic import put_back
from tasks.errors import HarborHaError, Refused
from tasks.observation.look import SiteLook
from tasks.operation.record import OperationKind, OperationRecord, Phase
from tasks.operation.store import LockLost, NotMirrored
from tasks.outcome import Outcome
from tests.unit.facts_builder import primary, standby, unreached

RECORD = OperationRecord("op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, 1.0, "x:1", term=4)


class Steps:
    """The steps of an operation by title, with what they were told."""

    def __init__(self, refusing: HarborHaError | None = None) -> None:
        self.done: list[tuple[str, dict[str, Any]]] = []
        self.refusing = refusing
        self.dry_run = False
        self.site: Any = None

    def on(self, step: Any, *nodes: str, **plain: Any) -> Outcome:
        self.done.append((step.name, plain))
        if step.name == "Record the operation" and self.refusing is not None:
            raise self.refusing
        return Outcome(True, "", {"locked": list(nodes)})

    def titles(self) -> list[str]:
        return [title for title, _ in self.done]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, list[str]]]]:
    told: list[tuple[str, dict[str, list[str]]]] = []
    monkeypatch.setattr(
        machinery, "publish", lambda run, headline, sections: told.append((headline, sections))
    )
    return told


def work_at(phase: Phase, steps: Steps, **changes: Any) -> Operation:
    seen = SiteLook((primary("node-a"), standby("node-b")), frozenset({"node-a", "node-b"}), 0.1)
    record = replace(RECORD, phase=phase, **changes)
    work = Operation(cast(Protocol, steps), seen, record=record, locked={"node-a", "node-b"})
    work.way_back = lambda _: ["node-a stays fenced"]
    return work


def leave(work: Operation, error: BaseException) -> None:
    with pytest.raises(type(error)), work:
        raise error


def test_any_error_before_promoting_puts_back_and_closes(reports: list[Any]) -> None:
    for error in (HarborHaError("no room"), Refused("No.", ["why"]), ValueError("a defect")):
        steps = Steps()
        leave(work_at(Phase.FENCING, steps), error)
        assert steps.titles() == ["Record the operation", "Close the operation"]
        assert steps.done[1][1]["record"].phase is Phase.ABORTED
    assert reports[0][1]["What stays changed"] == ["node-a stays fenced"]


def test_a_refusal_says_what_it_changed_and_only_else_that_nothing_was(reports: list[Any]) -> None:
    fenced, clean = Refused("No.", ["why"]), Refused("No.", ["why"])
    leave(work_at(Phase.FENCED, Steps()), fenced)
    assert "What was changed: node-a stays fenced." in str(fenced)
    work = work_at(Phase.STARTED, Steps())
    work.way_back = None
    leave(work, clean)
    assert "Nothing was changed." in str(clean)


@pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.PROMOTED, Phase.OPENING, Phase.SETTLING])
def test_past_the_promotion_the_record_stays_open_and_nothing_is_taken_back(
    phase: Phase, reports: list[Any]
) -> None:
    # A refusal there closed the operation as aborted, and the next call knew of no promotion.
    steps, error = Steps(), Refused("No.", ["why"])
    leave(work_at(phase, steps), error)
    assert steps.titles() == ["Give the site's lock back"]
    assert "stays open" in str(error)


def test_a_killed_process_does_nothing_more() -> None:
    steps = Steps()
    leave(work_at(Phase.FENCING, steps), KeyboardInterrupt())
    assert steps.titles() == []


def test_a_way_back_that_fails_leaves_the_record_open_for_the_next_run(reports: list[Any]) -> None:
    steps = Steps()
    work = work_at(Phase.STOPPING, steps)

    def fails(_: Operation) -> list[str]:
        raise HarborHaError("node-a does not start")

    work.way_back = fails
    leave(work, HarborHaError("late"))
    assert steps.titles() == ["Record the operation", "Give the site's lock back"]
    assert "node-a does not start" in reports[0][1]["What stays changed"][0]


@pytest.mark.parametrize("error", [LockLost("of another run"), NotMirrored("nobody answers")])
def test_whoever_cannot_confirm_its_lock_puts_nothing_back(error: HarborHaError, reports: list[Any]) -> None:
    # A failover stood still, another run promoted the standby and ended; waking up, the first one failed at its next
    # record, and on its way out pointed every Harbor at the old primary.
    steps = Steps(refusing=error)
    work, touched = work_at(Phase.FENCING, steps), []
    work.way_back = lambda _: touched.append("Harbor") or []  # type: ignore[func-returns-value]
    leave(work, HarborHaError("late"))
    assert touched == []
    assert steps.titles() == ["Record the operation", "Give the site's lock back"]
    assert str(error) in reports[0][1]["What stays changed"][0]


def test_an_abort_must_reach_a_target_that_may_know_of_a_promotion(reports: list[Any]) -> None:
    for promised, required in ((True, ["node-b"]), (False, [])):
        steps = Steps()
        work = work_at(Phase.STARTED, steps)
        work.promised = promised
        leave(work, HarborHaError("no"))
        assert steps.done[1][1]["required"] == required


def test_each_step_says_for_which_operation_and_phase_it_is_done() -> None:
    authority = work_at(Phase.PROMOTING, Steps()).authority()
    assert authority["phases"] == ["promoting"]
    assert (authority["term"], authority["operation"]) == (4, "op-1")


class Tried(Steps):
    """Steps of which those on a node that is not reached would fail."""

    failing = ""

    def try_each(
        self, step: Any, nodes: list[str], **plain: Any
    ) -> tuple[dict[str, Outcome], dict[str, str]]:
        self.done.append((step.name, plain))
        if step.name == self.failing:
            return {}, dict.fromkeys(nodes, "it did not end within 90 s")
        return {node: Outcome(True, "") for node in nodes}, {}


def test_a_harbor_that_is_not_reached_when_all_is_put_back_is_named() -> None:
    # Staged by a switchover that was killed, and taken over by a failover that was refused: the Harbor of the machine
    # that was off used a standby from its next boot on, the record was closed, and the report said nothing of it.
    steps = Tried()
    nodes = {
        name: SimpleNamespace(name=name, address=name, runs_harbor=True) for name in ("node-a", "node-b")
    }
    failover = SimpleNamespace(repoint="edit")
    steps.site = SimpleNamespace(nodes=list(nodes.values()), node=nodes.__getitem__, failover=failover)
    seen = SiteLook((unreached("node-a"), standby("node-b")), frozenset(nodes), 0.1)
    work = Operation(cast(Protocol, steps), seen, record=replace(RECORD, staged=True), locked={"node-b"})
    left = put_back(work)
    # Who has been replaced meanwhile is told so before it points a Harbor anywhere.
    assert steps.titles() == ["Record the operation", "Repoint Harbor", "Restart Harbor's jobservice"]
    assert all(plain["by"] is not None for _, plain in steps.done[1:])
    assert len(left) == 1
    assert left[0].startswith(
        "the Harbor of node-a, which is not reached, may be set to node-b: run bootstrap"
    )


def test_a_jobservice_that_does_not_come_back_when_all_is_put_back_is_named() -> None:
    # node-a had booted with the address of the standby; the primary was restarted, and no look shows what its
    # jobservice has asked core for: the site was HEALTHY, and its jobs wrote to nobody.
    steps = Tried()
    steps.failing = "Restart Harbor's jobservice"
    nodes = {"node-a": SimpleNamespace(name="node-a", address="node-a", runs_harbor=True)}
    nodes["node-b"] = SimpleNamespace(name="node-b", address="node-b", runs_harbor=False)
    steps.site = SimpleNamespace(node=nodes.__getitem__, failover=SimpleNamespace(repoint="edit"))
    seen = SiteLook((primary("node-a"), standby("node-b")), frozenset(nodes), 0.1)
    work = Operation(cast(Protocol, steps), seen, record=replace(RECORD, staged=True), locked=set(nodes))
    assert put_back(work) == [
        "the jobservice of node-a may use the database of node-b: it did not end within 90 s "
        "-> `docker restart harbor-jobservice` there"
    ]


def test_a_harbor_that_was_never_reached_was_never_told_of_the_target_and_nothing_is_said_of_it() -> None:
    # A failover from a machine without power, refused for want of a fence, said that its Harbor might be changed.
    steps = Tried()
    nodes = {
        name: SimpleNamespace(name=name, address=name, runs_harbor=True) for name in ("node-a", "node-b")
    }
    steps.site = SimpleNamespace(
        nodes=list(nodes.values()), node=nodes.__getitem__, failover=SimpleNamespace(repoint="edit")
    )
    seen = SiteLook((unreached("node-a"), standby("node-b")), frozenset(nodes), 0.1)
    work = Operation(cast(Protocol, steps), seen, record=replace(RECORD, staged=True), locked={"node-b"})
    work.never_staged = frozenset({"node-a"})
    assert put_back(work) == []
