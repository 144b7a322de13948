"""The primary is lost, or only seems to be."""

import pytest

from tests.lab.faults import accidents
from tests.lab.faults.scene import Scene, best_of_two
from tests.lab.faults.stage import Stage

# Seconds from the call to the first push that gets through.
HOST_ALIVE_LIMIT_S = 10.0
POWER_CUT_LIMIT_S = 20.0


def test_f1_a_killed_server_on_a_living_machine_is_restarted_without_a_failover(stage: Stage) -> None:
    with Scene(stage, "F1 PostgreSQL killed, host up", "restarted, no failover, timeline unchanged") as scene:
        primary = scene.first_primary
        accidents.kill_postgres(stage, primary)
        run = scene.flow("failover", expected_primary=primary)
        assert "restarted and is the primary again" in run.headline
        scene.unmoved()
        scene.saw("restarted, timeline unchanged")


def test_a_server_killed_for_good_is_replaced_within_ten_seconds(stage: Stage) -> None:
    def attempt() -> float:
        title, expected = (
            "F1b PostgreSQL killed for good, host up",
            "fenced over SSH, promoted, ≤ 10 s to a push",
        )
        with Scene(stage, title, expected, may_lose=True) as scene:
            old, new = scene.first_primary, scene.first_standby
            accidents.kill_postgres_for_good(stage, old)
            run = scene.flow("failover", expected_primary=old)
            assert f"{new} is the primary" in run.headline
            seconds = scene.first_push_after(run.answer["begun"])
            scene.switched_to(new)
            assert not scene.accepted_on(old, run.answer["begun"])
            accidents.repair_postgres(stage, old)
            scene.rejoin(old)
            scene.saw(f"promoted; {seconds:.1f} s to the first push")
        return seconds

    best_of_two(HOST_ALIVE_LIMIT_S, attempt)


def test_f3_a_power_cut_of_the_primarys_machine_is_survived_within_twenty_seconds(stage: Stage) -> None:
    def attempt() -> float:
        title, expected = (
            "F3 power cut of the primary's host",
            "fenced by the site's command, promoted, ≤ 20 s to a push",
        )
        with Scene(stage, title, expected, may_lose=True) as scene:
            old, new = scene.first_primary, scene.first_standby
            stage.lab.stop(old)
            run = scene.flow("failover", expected_primary=old)
            assert f"{new} is the primary" in run.headline
            assert "COMMANDED" in run.headline
            seconds = scene.first_push_after(run.answer["begun"])
            scene.switched_to(new)
            stage.lab.start(old)
            assert stage.facts(old).server is None, "the old primary started by itself"
            scene.rejoin(old)
            scene.saw(f"promoted; {seconds:.1f} s to the first push")
        return seconds

    best_of_two(POWER_CUT_LIMIT_S, attempt)


def test_f4_a_cut_between_orchestrator_and_primary_alone_is_a_false_alarm(stage: Stage) -> None:
    with Scene(stage, "F4 orchestrator cut off from the primary", "nothing done: it lives") as scene:
        primary = scene.first_primary
        stage.lab.cut("orchestrator", primary)
        run = scene.flow("failover", expected_primary=primary)
        assert "Nothing was done" in run.headline
        assert "answers as a writable primary" in run.headline
        before = run.answer["begun"]
        assert scene.first_push_after(before) < 3.0, "clients noticed something"
        stage.lab.heal()
        scene.unmoved()
        scene.saw("seen alive through the standby; pushes went on")


@pytest.mark.faults
def test_f5_a_cut_between_primary_and_standby_is_no_reason_for_a_failover(stage: Stage) -> None:
    with Scene(
        stage, "F5 primary and standby cut off from each other", "no failover; check says DEGRADED"
    ) as scene:
        primary = scene.first_primary
        stage.lab.cut(primary, scene.first_standby)
        run = scene.flow("failover", expected_primary=primary)
        assert "Nothing was done" in run.headline
        stage.lab.heal()
        scene.unmoved()
        scene.saw(run.headline)
