"""Planned exchanges: without loss, or not at all."""

import pytest

from lab.faults import accidents
from lab.faults.stage import Stage
from tests.lab.faults.pace import best_of_two
from tests.lab.faults.scene import Scene, under_load

# Seconds between the last push before and the first one after.
WRITE_GAP_LIMIT_S = 5.0


def test_s1_a_switchover_loses_nothing_and_stops_writes_for_less_than_five_seconds(stage: Stage) -> None:
    def attempt() -> float:
        with Scene(stage, "S1 planned switchover", "roles swapped, nothing lost, write gap ≤ 5 s") as scene:
            new = scene.first_standby
            run = scene.flow("switchover", to=new)
            assert "is its standby" in run.headline
            assert "Rewind" not in run.titles()
            scene.switched_to(new)
            scene.first_push_after(run.answer["ended"])
            gap = scene.push_gap(run.answer["begun"])
            scene.saw(f"gap {scene.write_gap():.1f} s for the database, {gap:.1f} s between pushes")
        return gap

    best_of_two(WRITE_GAP_LIMIT_S, attempt, stage.shell, under_load(stage))


@pytest.mark.faults
def test_s2_a_switchover_goes_on_over_a_long_transaction_which_is_rolled_back(stage: Stage) -> None:
    with Scene(
        stage,
        "S2 switchover with an open transaction",
        "it is rolled back; nothing acknowledged is lost",
        pushes=False,
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        accidents.open_transaction(stage, old)
        run = scene.flow("switchover", to=new)
        assert "is its standby" in run.headline
        scene.switched_to(new)
        assert stage.value(new, "SELECT count(*) FROM faults.open") == "0"
        scene.saw("switched; the transaction was rolled back")


@pytest.mark.faults
@pytest.mark.parametrize("how", ["replay paused", "receiver stopped", "cut off"])
def test_s3_a_switchover_to_a_standby_that_is_not_ready_is_refused_before_anything(
    stage: Stage, how: str
) -> None:
    with Scene(stage, f"S3 switchover, {how}", "refused, primary untouched", pushes=False) as scene:
        old, new = scene.first_primary, scene.first_standby
        started = stage.value(old, "SELECT pg_postmaster_start_time()")
        if how == "replay paused":
            stage.execute(new, "SELECT pg_wal_replay_pause()")
        elif how == "receiver stopped":
            accidents.freeze(stage, new, "walreceiver")
            accidents.write_wal(stage, old, 20)
        else:
            stage.lab.cut(old, new)
            scene.wait_until_deaf(new)
        refusal = scene.flow("switchover", to=new).refusal
        assert refusal.startswith("Refused")
        accidents.thaw(stage, new)
        stage.lab.heal()
        stage.execute(new, "SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()")
        scene.unmoved()
        assert stage.value(old, "SELECT pg_postmaster_start_time()") == started
        scene.saw(refusal.splitlines()[1].strip(" -")[:120])


@pytest.mark.faults
def test_s4_when_the_standby_dies_after_the_primary_was_stopped_the_primary_comes_back(stage: Stage) -> None:
    with Scene(
        stage, "S4 standby dies after the primary was stopped", "primary taken back, timeline unchanged"
    ) as scene:
        new = scene.first_standby
        accident = {
            "title": "Shut the primary down",
            "run": ["docker", "kill", stage.lab.topology.container(new)],
        }
        run = scene.flow("switchover", to=new, accident=accident)
        assert "error" in run.answer
        scene.unmoved()
        assert scene.first_push_after(run.answer["ended"]) < 10.0
        stage.lab.start(new)
        stage.wait_until_back(new)
        scene.saw("primary taken back; the standby came back by itself")


@pytest.mark.faults
def test_s5_without_the_shutdown_checkpoint_on_the_standby_the_primary_comes_back(stage: Stage) -> None:
    with Scene(
        stage, "S5 shutdown checkpoint not received", "no promotion, primary taken back", pushes=False
    ) as scene:
        new = scene.first_standby
        # After the preconditions and before the stop: the standby's receiver reads no more.
        freeze = accidents.freeze_command(stage, new, "walreceiver")
        run = scene.flow(
            "switchover", to=new, accident={"title": "Record the operation", "nth": 2, "run": freeze}
        )
        assert "NotReplayed" in run.refusal or "ShutdownFailed" in run.refusal
        accidents.thaw(stage, new)
        scene.unmoved()
        assert "Promote the standby" not in run.titles()
        scene.saw(run.refusal.partition(" -> ")[0][:120])


@pytest.mark.faults
def test_s7_a_promotion_that_hangs_is_waited_for_and_never_asked_for_twice(stage: Stage) -> None:
    with Scene(
        stage,
        "S7 promotion hangs",
        "reported with what to do; the next run goes on, one promotion",
        pushes=False,
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        freeze = accidents.freeze_command(stage, new, "startup")
        accident = {"title": "Prove that the standby has everything", "run": freeze}
        run = scene.flow("switchover", to=new, accident=accident)
        assert "PromotionNotFinished" in run.refusal
        assert stage.facts(old).server is None, "the old primary was started beside a promotion"
        accidents.thaw(stage, new)
        again = scene.flow("switchover", to=new)
        assert "is its standby" in again.headline
        scene.switched_to(new)
        scene.saw("stopped after 60 s; the second run went on")
