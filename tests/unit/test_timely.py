"""What a load balancer, a power supply or a Harbor is told late is not told: another run may be at work by then."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.machinery import operation as machinery
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from tasks.balancer import steps as balancer
from tasks.fencing import steps as fencing
from tasks.harbor import steps as harbor
from tasks.observation.look import SiteLook
from tasks.on_node.authority import MAX_INTENT_AGE_S
from tasks.operation.record import OperationKind, OperationRecord
from tasks.operation.timely import StoodStill, timely
from tasks.outcome import Outcome, changed


def test_what_is_in_time_is_done_and_what_is_late_is_not_and_says_what_to_do() -> None:
    done: list[str] = []

    def drain(node: str) -> Outcome:
        done.append(node)
        return changed(node)

    act = timely(drain)
    assert act("node-a", by=time.monotonic() + 5).changed
    assert act("node-b").changed, "where no operation is under way nothing is late"
    with pytest.raises(StoodStill, match=r"17\d s ago.*nothing was done.*Run the flow again"):
        act("node-c", by=time.monotonic() - 170)
    assert done == ["node-a", "node-b"]


@pytest.mark.parametrize(
    "step",
    [
        fencing.fence_by_command,
        fencing.drain,
        balancer.undrain,
        balancer.admit,
        balancer.end_drain,
        # They tell a Harbor which database to use, or start a core for one.
        harbor.stage,
        harbor.start_next,
        harbor.repoint_core,
        harbor.repoint_by_prepare,
        harbor.restart_jobservice,
        harbor.bring_back,
        harbor.complete,
    ],
)
def test_every_act_on_what_asks_nobody_knows_of_being_late(step: Any) -> None:
    names = step.fn.__code__.co_freevars
    function = step.fn.__closure__[names.index("function")].cell_contents
    with pytest.raises(StoodStill):
        function(None, None, by=time.monotonic() - 1)


class Run:
    """Steps that are only counted; the answer to one may be slow."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.clock = 1000.0

    def on(self, step: Any, *_: str, **__: Any) -> None:
        self.steps.append(step.name)
        self.clock += 20.0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Operation]:
    run = Run()
    monkeypatch.setattr(machinery, "time", SimpleNamespace(monotonic=lambda: run.clock))
    record = OperationRecord("op", OperationKind.FAILOVER, "example", "node-a", "node-b", 1, 0.0, "o1:1")
    made = Operation(cast(Protocol, run), SiteLook((), frozenset(), 0.0), record=record)
    return run, made


def test_the_nodes_are_asked_right_before_and_their_answer_ages_from_the_question(
    work: tuple[Run, Operation],
) -> None:
    run, made = work
    until = made.in_time()
    assert len(run.steps) == 1
    assert until == 1000.0 + MAX_INTENT_AGE_S, "the 20 s that the answer took are part of its age"


def test_what_was_written_a_moment_ago_is_not_asked_again(work: tuple[Run, Operation]) -> None:
    run, made = work
    made.written_at = run.clock - 1.0
    assert made.in_time() == run.clock - 1.0 + MAX_INTENT_AGE_S
    assert run.steps == []
