"""A primary that nobody reaches is not proven dead: what each way of fencing makes of an isolated one."""

import pytest

from lab.faults import accidents
from lab.faults.stage import Stage, wait_for
from tests.lab.faults.scene import Scene

GUARD_UNIT = "harbor-ha-guard.service"


def test_f7_a_primary_isolated_with_its_harbor_is_not_replaced_unless_it_is_certainly_fenced(
    stage: Stage,
) -> None:
    title, expected = (
        "F7 primary and its Harbor isolated, no fence",
        "refused, with what to attest; nothing moved",
    )
    with Scene(stage, title, expected) as scene, stage.settings(failover__fence_command=None):
        primary = scene.first_primary
        accidents.isolate(stage, primary)
        run = scene.flow("failover", expected_primary=primary)
        assert "attest_fenced=true" in run.refusal
        stage.lab.heal()
        scene.unmoved()
        scene.saw("refused: nothing proves that it is off")


@pytest.mark.faults
def test_f7_an_isolated_primary_is_switched_off_by_the_sites_command(stage: Stage) -> None:
    title, expected = (
        "F7b primary and its Harbor isolated, with a fence command",
        "switched off, then promoted",
    )
    with Scene(stage, title, expected, may_lose=True, pushes=False) as scene:
        old, new = scene.first_primary, scene.first_standby
        accidents.isolate(stage, old)
        run = scene.flow("failover", expected_primary=old)
        assert "COMMANDED" in run.headline
        assert not stage.lab.is_running(old)
        scene.switched_to(new)
        stage.lab.heal()
        stage.lab.start(old)
        scene.rejoin(old)
        scene.saw("switched off and replaced")


@pytest.mark.faults
def test_f7_an_isolated_primary_stops_itself_before_the_other_is_promoted(stage: Stage) -> None:
    title, expected = (
        "F7c primary isolated, self-fence of 10 s",
        "it stops itself; promoted after the time and margin",
    )
    with (
        Scene(stage, title, expected, may_lose=True) as scene,
        stage.settings(failover__fence_command=None, failover__self_fence_s=10),
    ):
        stage.install_guard()
        old, new = scene.first_primary, scene.first_standby
        # It counts with the limit that the guard itself told, which the check of each minute keeps.
        told = "cat /run/harbor-ha/guard.json"
        wait_for(
            lambda: '"self_fence_s": 10' in stage.shell(old, told, check=False),
            15.0,
            "the guard has not told its limit",
        )
        stage.check()
        accidents.isolate(stage, old)
        run = scene.flow("failover", expected_primary=old)
        assert "SELF_FENCE" in run.headline
        assert not stage.shell(old, "pgrep -x postgres", check=False), "it still runs"
        scene.switched_to(new)
        stage.lab.heal()
        scene.rejoin(old)
        scene.saw("stopped itself, then replaced")


@pytest.mark.faults
def test_f7_with_witnesses_alone_only_what_no_client_reaches_goes_on_beside_the_new_primary(
    stage: Stage,
) -> None:
    title, expected = (
        "F7d primary isolated, fencing: witnesses",
        "drained, promoted; then SPLIT_BRAIN until its guard stops it",
    )
    with (
        Scene(stage, title, expected, may_lose=True, two_writers=True) as scene,
        stage.settings(failover__fence_command=None, failover__fencing="witnesses"),
    ):
        old, new = scene.first_primary, scene.first_standby
        scene.wait_until_settled_primary()
        # Its guard would stop it before anybody has looked: also while it is isolated, since the NAS tells it.
        stage.shell(old, f"systemctl stop {GUARD_UNIT}")
        accidents.isolate(stage, old)
        run = scene.flow("failover", expected_primary=old)
        assert "WITNESSES" in run.headline
        assert stage.served()[old] == "drained"
        stage.lab.heal()
        # A busy lab does not answer the first look after the cut.
        wait_for(lambda: stage.check()["verdict"] == "SPLIT_BRAIN", 60.0, "two primaries are not told")
        assert stage.served()[old] == "drained", "clients reach the Harbor of the old primary"
        assert "beside" in scene.flow("rejoin", node=old).refusal
        stage.shell(old, f"systemctl start {GUARD_UNIT}")
        wait_for(lambda: stage.facts(old).server is None, 30.0, "its guard has not stopped the old primary")
        scene.rejoin(old)
        assert stage.primary == new
        scene.saw("promoted; SPLIT_BRAIN reported until the guard of the old one stopped it")
