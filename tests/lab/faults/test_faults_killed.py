"""The process that runs a flow is killed at every boundary of its steps; the next one ends in the same state."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.faults import accidents
from lab.faults.processes import Run
from lab.faults.stage import Stage, wait_for
from tests.lab.faults.scene import Scene

Accident = dict[str, Any]


@dataclass
class Killed:
    """What was tried: where it was killed, and what went wrong."""

    points: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def note(self, run: Run, accident: Accident) -> bool:
        """Keep the point; False when the run came to its end."""
        if not run.killed():
            return False
        titles = run.titles()
        where = f"within {accident['within']}" if "within" in accident else f"after {len(titles)}"
        self.points.append(f"{where} ({titles[-1] if titles else 'nothing'})")
        return True

    def hold(self, holds: bool, what: str) -> None:
        """Keep what went wrong, so that one boundary does not hide the others."""
        if not holds:
            self.wrong.append(f"{self.points[-1] if self.points else 'whole'}: {what}")


def failover_cycle(
    stage: Stage, scene: Scene, accident: Accident, rejoin_accident: Accident, kept: Killed
) -> tuple[bool, bool]:
    """Lose the primary for good, fail over and rejoin, both killed once and run again.

    Returns:
        whether the failover and whether the rejoin were killed; one that was not has fewer steps than that.
    """
    old = stage.primary
    new, timeline = stage.peer(old), stage.timeline(old)
    stage.check()
    accidents.kill_postgres_for_good(stage, old)
    failover_killed = kept.note(stage.failover(old, accident), accident)
    again = stage.failover(old)
    told = scene.describe(again)
    done = f"{new} is the primary" in told or f"{old} is not the primary; {new}" in told
    kept.hold(done, f"the second run says: {told}")
    if stage.primary != new:
        kept.hold(False, f"{stage.primary} is the primary")
        stage.failover(old, accept_data_loss=True)
    kept.hold(stage.timeline(new) == timeline + 1, "promoted more than once")
    accidents.repair_postgres(stage, old)
    listed = len(scene.all_kept_losses(old))
    rejoin_killed = kept.note(
        stage.flow("rejoin", node=old, accident=rejoin_accident).wait(), rejoin_accident
    )
    told = scene.describe(stage.flow("rejoin", node=old).wait())
    kept.hold("replays what" in told, f"the second rejoin says: {told}")
    silent = "nothing was lost" in told and len(scene.all_kept_losses(old)) > listed
    kept.hold(not silent, f"commits were listed, and the second rejoin says: {told}")
    kept.hold(stage.timeline(new) == timeline + 1, "promoted by a rejoin")
    wait_for(stage.healthy, 40.0, lambda: f"{kept.points[-1:]}: {stage.troubles()}")
    scene.losses = (scene.losses or []) + scene.all_kept_losses(old)
    return failover_killed, rejoin_killed


def switchover_cycle(stage: Stage, scene: Scene, accident: Accident, kept: Killed) -> bool:
    """Switch over, killed once and run again; True when it was killed."""
    old = stage.primary
    new, timeline = stage.peer(old), stage.timeline(old)
    killed = kept.note(stage.flow("switchover", to=new, accident=accident).wait(), accident)
    told = scene.describe(stage.flow("switchover", to=new).wait())
    done = "is its standby" in told or f"{new} is the primary already" in told
    kept.hold(done, f"the second run says: {told}")
    kept.hold(stage.primary == new, f"{stage.primary} is the primary")
    kept.hold(stage.timeline(new) == timeline + 1, "promoted more than once, or not at all")
    wait_for(stage.healthy, 40.0, lambda: f"{kept.points[-1:]}: {stage.troubles()}")
    return killed


def test_a_failover_killed_right_after_the_promotion_goes_on_without_a_second_one(stage: Stage) -> None:
    title = "F13 failover killed after the promotion, rejoin during the rewind"
    with Scene(stage, title, "the next runs go on, one promotion", may_lose=True, pushes=False) as scene:
        kept = Killed()
        failover_cycle(
            stage, scene, {"title": "Promote the standby"}, {"title": "Record the accepted primary"}, kept
        )
        assert len(kept.points) == 2
        assert not kept.wrong, kept.wrong
        scene.saw("both went on")


def test_a_switchover_killed_while_nobody_is_primary_goes_on(stage: Stage) -> None:
    title = "F13 switchover killed after the shutdown"
    with Scene(stage, title, "the next run goes on", pushes=False) as scene:
        kept = Killed()
        assert switchover_cycle(stage, scene, {"title": "Shut the primary down"}, kept)
        assert not kept.wrong, kept.wrong
        scene.saw("went on")


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_f13_failover_and_rejoin_killed_at_every_boundary_end_in_the_same_state(stage: Stage) -> None:
    title, expected = "F13 failover and rejoin killed at every boundary", "same end state, one promotion each"
    with Scene(stage, title, expected, may_lose=True, pushes=False) as scene:
        kept = Killed()
        # Only the run that was to be killed tells whether it has that many steps: the one after it goes on from
        # there and has fewer, and the half of the boundaries passed for all of them.
        failover_killed = rejoin_killed = True
        failovers = rejoins = number = 0
        while failover_killed or rejoin_killed:
            number += 1
            at = {"after": number}
            failover_killed, rejoin_killed = failover_cycle(
                stage, scene, at if failover_killed else {}, at if rejoin_killed else {}, kept
            )
            failovers, rejoins = failovers + failover_killed, rejoins + rejoin_killed
        assert not kept.wrong, kept.wrong
        assert failovers > 20
        assert rejoins > 10
        scene.saw(f"killed at {failovers} boundaries of the failover and {rejoins} of the rejoin")


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_f13_a_switchover_killed_at_every_boundary_ends_in_the_same_state(stage: Stage) -> None:
    title = "F13 switchover killed at every boundary"
    with Scene(stage, title, "same end state, one promotion each, nothing lost", pushes=False) as scene:
        kept = Killed()
        number = 1
        while switchover_cycle(stage, scene, {"after": number}, kept):
            number += 1
        assert not kept.wrong, kept.wrong
        assert len(kept.points) > 15
        scene.saw(f"killed at {len(kept.points)} boundaries")


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_f13_failover_and_rejoin_killed_within_their_steps_end_in_the_same_state(stage: Stage) -> None:
    title, expected = (
        "F13 failover and rejoin killed within their steps",
        "same end state, one promotion each",
    )
    with Scene(stage, title, expected, may_lose=True, pushes=False) as scene:
        kept = Killed()
        for failover_step, rejoin_step in WITHIN:
            at = {"within_title": failover_step, "delay": 0.15}
            rejoin_at = {"within_title": rejoin_step, "delay": 0.15}
            failover_cycle(stage, scene, at, rejoin_at, kept)
        assert not kept.wrong, kept.wrong
        scene.saw(f"killed within {len(kept.points)} steps")


WITHIN = (
    ("Restart the primary", "Rewind"),
    ("Fence over SSH", "Start as a standby"),
    ("Promote the standby", "Repoint Harbor"),
    ("Repoint Harbor", "List what only the old primary had"),
)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_f13_a_switchover_killed_within_its_steps_ends_in_the_same_state(stage: Stage) -> None:
    title = "F13 switchover killed within its steps"
    with Scene(stage, title, "same end state, one promotion each, nothing lost", pushes=False) as scene:
        kept = Killed()
        for step in ("Shut the primary down", "Promote the standby", "Start as a standby", "Repoint Harbor"):
            switchover_cycle(stage, scene, {"within_title": step, "delay": 0.15}, kept)
        assert not kept.wrong, kept.wrong
        scene.saw(f"killed within {len(kept.points)} steps")
