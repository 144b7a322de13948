"""After the fence the old primary's exact end is weighed again: who has more goes on."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import failover as flow
from flows.machinery import exact_end
from flows.machinery import operation as machinery
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.rules.after_fence import AFTER_FENCE_RULES, AfterFence, AfterFenceView, after_fence
from flows.rules.policy import Policy
from flows.rules.table import Decision
from tasks.clock import Moment
from tasks.errors import Refused
from tasks.observation.look import SiteLook
from tasks.operation.record import Fence, OperationKind, OperationRecord, Phase
from tasks.outcome import Outcome
from tasks.postgres.facts import NodeFacts
from tasks.postgres.lsn import Lsn
from tests.unit.facts_builder import NOW, control, deaf_standby, stopped, unreached, witnesses

LIMIT = Policy().max_lag_bytes
END = Lsn(0x50000000)
MUCH = 300 << 20


def old_primary(**changes: Any) -> NodeFacts:
    return stopped(held=True, **{"checkpoint_end": END, **changes})


def behind(lacks: int) -> NodeFacts:
    at = Lsn(END - lacks)
    return deaf_standby(replay_lsn=at, receive_lsn=at)


def ask(lacks: int, old: NodeFacts | None = None, **options: Any) -> Decision[AfterFence]:
    return after_fence(old or old_primary(), behind(lacks), Policy(), NOW, **options)


def test_a_standby_that_lacks_no_more_than_allowed_is_promoted() -> None:
    assert ask(0).kind is AfterFence.PROMOTE
    assert ask(LIMIT).kind is AfterFence.PROMOTE


def test_a_primary_that_was_stopped_cleanly_and_has_more_is_started_again() -> None:
    # A position of three minutes before had allowed the promotion; the exact end was 300 MB ahead.
    decision = ask(MUCH)
    assert decision.kind is AfterFence.RESTART_OLD
    assert f"{MUCH:,} bytes" in decision.reasons[0]


def test_a_loss_that_the_operator_accepts_is_named_with_its_exact_size() -> None:
    decision = ask(MUCH, accept_data_loss=True)
    assert decision.kind is AfterFence.PROMOTE
    assert f"{MUCH:,} bytes" in decision.reasons[0]


@pytest.mark.parametrize(
    "old",
    [
        unreached(),
        old_primary(control=control(state="in production"), checkpoint_end=None),
        old_primary(checkpoint_end=None),
    ],
)
def test_without_an_exact_end_what_was_weighed_before_stands(old: NodeFacts) -> None:
    assert ask(MUCH, old).kind is AfterFence.PROMOTE


def test_another_database_is_not_started_for_it_has_more() -> None:
    other = old_primary(control=control(state="shut down", system_identifier="1"))
    assert ask(MUCH, other).kind is AfterFence.REFUSE


def test_every_rule_is_reached() -> None:
    view = AfterFenceView(MUCH, LIMIT, accepted=False, sound=True)
    views = [
        replace(view, lag_bytes=None),
        replace(view, lag_bytes=0),
        replace(view, accepted=True),
        view,
        replace(view, sound=False),
    ]
    taken = [next(rule.name for rule in AFTER_FENCE_RULES if rule.when(each)) for each in views]
    assert taken == [rule.name for rule in AFTER_FENCE_RULES]


RECORD = OperationRecord(
    "op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, 1.0, "x:1", term=4, staged=True
)


class Steps:
    """The steps of a failover by title, with the phase in which each was done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
        self.dry_run = False
        self.fails: set[str] = set()
        self.site = SimpleNamespace(
            failover=SimpleNamespace(repoint="edit"),
            node=lambda name: SimpleNamespace(address=name, runs_harbor=True),
        )

    def on(self, step: Any, *nodes: str, **plain: Any) -> Outcome:
        self.done.append((step.name, nodes, plain))
        return Outcome(True, "", {"locked": list(nodes), "timeline": 3})

    def try_each(
        self, step: Any, nodes: Sequence[str], **plain: Any
    ) -> tuple[dict[str, Outcome], dict[str, str]]:
        for node in nodes:
            self.done.append((step.name, (node,), plain))
        if step.name in self.fails:
            return {}, dict.fromkeys(nodes, "its disk is full")
        return {node: Outcome(True, "primary on timeline 2") for node in nodes}, {}

    def titles(self) -> list[str]:
        return [title for title, _, _ in self.done]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setattr(machinery, "publish", lambda run, headline, sections: None)
    for module in (flow, exact_end):
        monkeypatch.setattr(module, "clock", SimpleNamespace(now=lambda: Moment(NOW.monotonic, NOW.wall)))
    monkeypatch.setattr(Operation, "policy", Policy())
    return Steps()


def fenced(steps: Steps, lacks: int, monkeypatch: pytest.MonkeyPatch) -> Operation:
    """An operation whose process has just fenced the old primary over SSH."""
    seen = SiteLook((old_primary(), behind(lacks)), frozenset({"node-a", "node-b"}), 0.1)
    work = Operation(cast(Protocol, steps), seen, witnesses(), locked={"node-a", "node-b"})
    work.record = RECORD.at(Phase.FENCED, fence=Fence("STOPPED", "seen", 1.0))
    monkeypatch.setattr(machinery.time, "monotonic", lambda: 100.0)
    work.fenced_at = 99.0
    work.look_at = lambda node: None  # type: ignore[method-assign]
    work.way_back = flow.put_back
    return work


def promote(work: Operation, **options: Any) -> str:
    calm = flow.look_once_more(work, attest_fenced=False, **{"accept_data_loss": False, **options})
    if not calm:
        flow.promote(work)
    return calm


def test_the_old_primary_that_has_more_is_the_primary_again_and_nothing_is_promoted(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = fenced(steps, MUCH, monkeypatch)
    told = promote(work)
    assert "Promote the standby" not in " ".join(steps.titles())
    assert f"{MUCH:,} bytes" in told
    (restart,) = [step for step in steps.done if step[0] == "Take the old primary back"]
    assert restart[1] == ("node-a",)
    assert restart[2]["authority"]["phases"] == [Phase.TAKING_BACK.value]
    # On the node that acts by it, before it acts.
    written = [step for step in steps.done if step[0] == "Record the operation"]
    assert written[0][2]["required"] == ["node-a"]
    assert written[0][2]["record"].phase is Phase.TAKING_BACK
    assert steps.titles().index("Record the operation") < steps.titles().index("Take the old primary back")
    assert work.held.fence is None
    assert work.abort() == []
    # Every Harbor that was told to make ready for the standby is told otherwise.
    repointed = [plain for title, _, plain in steps.done if title == "Repoint Harbor"]
    assert [plain["database_host"] for plain in repointed] == ["node-a", "node-a"]


def test_an_old_primary_that_does_not_start_is_fenced_again_and_the_call_refused(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = fenced(steps, MUCH, monkeypatch)
    steps.fails = {"Take the old primary back"}
    with pytest.raises(Refused, match="its disk is full"):
        promote(work)
    after = steps.titles()[steps.titles().index("Take the old primary back") + 1 :]
    assert any("Fence" in title or "fence" in title for title in after)
    assert work.held.fence is not None


@pytest.mark.parametrize(("lacks", "accepted"), [(0, False), (MUCH, True)])
def test_a_standby_that_may_go_on_is_promoted(
    lacks: int, accepted: bool, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = fenced(steps, lacks, monkeypatch)
    assert promote(work, accept_data_loss=accepted) == ""
    assert work.held.phase is Phase.PROMOTED


@pytest.mark.parametrize(
    ("rung", "age_s", "looks"),
    [("STOPPED", 1.0, 0), ("COMMANDED", 2.5, 0), ("COMMANDED", 3.5, 1), ("ATTESTED", 0.5, 1)],
)
def test_the_look_that_saw_the_fence_hold_is_the_last_one_while_it_is_fresh(
    rung: str, age_s: float, looks: int, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without power was looked at twice after it was switched off, each time for two and a half seconds."""
    work = fenced(steps, 0, monkeypatch)
    work.record = work.held.at(Phase.FENCED, fence=Fence(rung, "seen", 1.0))
    work.witnesses = replace(witnesses(), observed_at=Moment(NOW.monotonic - age_s, NOW.wall - age_s))
    asked: list[str] = []
    work.look_at = asked.append  # type: ignore[method-assign]
    flow.look_once_more(work, attest_fenced=False, accept_data_loss=False)
    assert asked == ["node-a"] * looks
