"""The former primary comes back."""

import pytest

from lab.faults import accidents
from lab.faults.stage import Stage
from tests.lab.faults.scene import Scene


def diverged_failover(stage: Stage, scene: Scene, writes: int = 20) -> tuple[str, str]:
    """Fail over from a primary that acknowledged writes which the standby never got; return old and new."""
    old, new = scene.first_primary, scene.first_standby
    scene.diverge(writes)
    accidents.kill_postgres_for_good(stage, old)
    stage.lab.heal()
    run = scene.flow("failover", expected_primary=old)
    assert f"{new} is the primary" in run.headline
    accidents.repair_postgres(stage, old)
    return old, new


@pytest.mark.faults
def test_r1_a_primary_that_was_shut_down_cleanly_follows_without_a_rewind(stage: Stage) -> None:
    with Scene(stage, "R1 rejoin after a clean stop", "follows, no rewind", pushes=False) as scene:
        old, new = scene.first_primary, scene.first_standby
        with stage.settings(failover__restart_first=False):
            stage.shell(old, f"systemctl stop {stage.layout.unit}")
            run = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in run.headline
        run = scene.rejoin(old)
        assert "followed" in run.headline
        assert "Rewind" not in run.titles()
        scene.switched_to(new)
        scene.saw("followed")


def test_r2_a_diverged_primary_is_rewound_and_what_only_it_had_is_listed(stage: Stage) -> None:
    with Scene(
        stage, "R2 rejoin after divergence", "rewound; every lost write listed", may_lose=True
    ) as scene:
        old, new = diverged_failover(stage, scene)
        run = scene.rejoin(old)
        assert "was rewound" in run.headline
        scene.switched_to(new)
        assert scene.lost(), "nothing was lost: the scenario did not happen"
        scene.saw(f"rewound; {run.headline.partition('; ')[2]}")


def test_r3_a_node_that_cannot_be_rewound_is_cloned_and_its_old_data_kept(stage: Stage) -> None:
    title, expected = (
        "R3 rejoin, WAL for the rewind is gone",
        "cloned, old directory kept, loss unknown and said so",
    )
    with Scene(stage, title, expected, may_lose=True, pushes=False) as scene:
        scene.unknowable = True
        old, new = scene.first_primary, scene.first_standby
        with stage.settings(failover__restart_first=False):
            scene.diverge(20)
            for _ in range(2):
                accidents.write_wal(stage, old, 4)
                stage.execute(old, "CHECKPOINT; SELECT pg_switch_wal();")
            stage.shell(old, f"systemctl stop {stage.layout.unit}")
            stage.lab.heal()
            run = scene.flow("failover", expected_primary=old, accept_data_loss=True)
        assert f"{new} is the primary" in run.headline
        accidents.forget_old_wal(stage, old)
        run = scene.rejoin(old)
        assert "was cloned" in run.headline
        assert "cannot be known" in run.headline
        kept = stage.shell(old, f"ls -d {stage.layout.data}.kept.*").split()
        assert kept
        stage.shell(old, f"rm -rf {' '.join(kept)}")
        scene.switched_to(new)
        scene.saw(run.headline.partition("; ")[2])


def test_r4_a_node_that_was_rewound_and_not_started_is_only_started(stage: Stage) -> None:
    with Scene(
        stage,
        "R4 rejoin killed after the rewind",
        "started only, no second rewind",
        may_lose=True,
        pushes=False,
    ) as scene:
        old, new = diverged_failover(stage, scene)
        first = stage.flow("rejoin", node=old, accident={"title": "Rewind"}).wait()
        assert first.killed()
        run = scene.rejoin(old)
        assert "was started" in run.headline
        assert "Rewind" not in run.titles()
        # It is the report of this run that is read; the one that was killed left none.
        assert scene.losses
        assert "existed only on" in run.headline
        scene.switched_to(new)
        scene.saw("started only")


@pytest.mark.faults
def test_r6_another_database_is_refused_and_not_touched(stage: Stage) -> None:
    with Scene(
        stage, "R6 rejoin of a node with another database", "refused, not wiped", pushes=False
    ) as scene:
        node = scene.first_standby
        accidents.put_another_database(stage, node)
        try:
            refusal = scene.flow("rejoin", node=node).refusal
            assert "another database" in refusal
            assert stage.shell(node, f"cat {stage.layout.data}/mine") == "untouched"
        finally:
            accidents.take_away_the_other_database(stage, node)
        scene.saw(refusal.splitlines()[1].strip(" -")[:120])


@pytest.mark.faults
def test_r8_a_clone_that_does_not_fit_is_refused_with_numbers(stage: Stage) -> None:
    with Scene(
        stage, "R8 no room for a clone", "refused with numbers, data untouched", pushes=False
    ) as scene:
        node = scene.first_standby
        with accidents.small_disk(stage, node):
            refusal = scene.flow("rejoin", node=node).refusal
            assert "MB free" in refusal
        # As the report says: make room, and run it again.
        scene.rejoin(node)
        scene.saw(refusal.partition(" -> ")[0][-120:])
