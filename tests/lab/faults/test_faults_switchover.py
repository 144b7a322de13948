"""Planned exchanges: without loss, or not at all."""

from tests.lab.faults.scene import Scene
from tests.lab.faults.stage import Stage

WRITE_GAP_LIMIT_S = 5.0


def test_s1_a_switchover_loses_nothing_and_stops_writes_for_less_than_five_seconds(stage: Stage) -> None:
    seconds = []
    for _ in range(2):
        with Scene(stage, "S1 planned switchover", "roles swapped, nothing lost, write gap ≤ 5 s") as scene:
            new = scene.first_standby
            run = scene.flow("switchover", to=new)
            assert "is its standby" in run.headline
            assert "Rewind" not in run.titles()
            scene.switched_to(new)
            scene.first_push_after(run.answer["ended"])
            gap = scene.push_gap(run.answer["begun"])
            seconds.append(gap)
            scene.saw(f"gap {scene.write_gap():.1f} s for the database, {gap:.1f} s between pushes")
        if gap <= WRITE_GAP_LIMIT_S:
            break
    assert min(seconds) <= WRITE_GAP_LIMIT_S, f"no push for {seconds} s"
