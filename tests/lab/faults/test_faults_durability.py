"""Synchronous replication: writes go on without the standby, what was promised is kept."""

import time
from collections.abc import Iterator

import pytest

from lab.faults import accidents
from lab.faults.stage import Stage, wait_for
from tests.lab.faults.scene import Scene

pytestmark = pytest.mark.faults

# From the loss of the standby to the next acknowledged write.
RELAX_LIMIT_S = 15.0


@pytest.fixture
def preferred(stage: Stage) -> Iterator[Stage]:
    """The site with `durability: preferred`, synchronous."""
    stage.restore()
    with stage.settings(postgres__durability="preferred"):
        stage.install_guard()
        wait_for(lambda: recorded(stage, stage.primary) == "SYNC", 40.0, "it does not become synchronous")
        yield stage
    stage.install_guard()
    wait_for(lambda: recorded(stage, stage.primary) == "ASYNC", 40.0, "it does not become asynchronous again")


def recorded(stage: Stage, node: str) -> str:
    """The state of the replication as it is recorded on a node."""
    return str(stage.facts(node).state.get("durability", {}).get("state"))


def test_c1_writes_go_on_within_15_s_of_losing_the_standby_and_that_is_recorded_first(
    preferred: Stage,
) -> None:
    stage, title = preferred, "C1 synchronous, standby loses power"
    with Scene(
        stage,
        title,
        "writes go on ≤ 15 s later, ASYNC_DEGRADED recorded, SYNC again after",
        keep=True,
        pushes=False,
    ) as scene:
        primary, standby = scene.first_primary, scene.first_standby
        stage.lab.stop(standby)
        cut = time.time()
        wait_for(lambda: max(scene.acknowledged().values()) > cut + 1.0, 30.0, "writes hang")
        gap = scene.write_gap()
        assert gap <= RELAX_LIMIT_S
        assert recorded(stage, primary) == "ASYNC_DEGRADED"
        stage.lab.start(standby)
        wait_for(lambda: recorded(stage, primary) == "SYNC", 60.0, "it does not become synchronous again")
        scene.unmoved()
        stage.wait_until_back(standby)
        scene.saw(f"writes hung for {gap:.1f} s; degraded and restored, recorded")


def test_f5_synchronous_a_cut_between_the_pair_is_relaxed_and_healed(preferred: Stage) -> None:
    stage, title = preferred, "F5b synchronous, primary and standby cut off from each other"
    with Scene(
        stage, title, "no failover, relaxed ≤ 15 s, SYNC after the heal", keep=True, pushes=False
    ) as scene:
        primary = scene.first_primary
        stage.lab.cut(primary, scene.first_standby)
        cut = time.time()
        wait_for(lambda: max(scene.acknowledged().values()) > cut + 12.0, 40.0, "writes hang")
        assert scene.write_gap() <= RELAX_LIMIT_S
        assert "Nothing was done" in scene.flow("failover", expected_primary=primary).headline
        stage.lab.heal()
        wait_for(lambda: recorded(stage, primary) == "SYNC", 60.0, "it does not become synchronous again")
        scene.unmoved()
        scene.saw(f"writes hung for {scene.write_gap():.1f} s")


def test_c2_a_promoted_standby_waits_for_nobody_and_a_synchronous_failover_loses_nothing(
    preferred: Stage,
) -> None:
    stage, title = preferred, "C2 synchronous failover"
    with Scene(
        stage, title, "nothing lost; first commit after the promotion does not wait", keep=True
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        stage.check()
        accidents.kill_postgres_for_good(stage, old)
        run = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in run.headline
        assert stage.value(new, "SHOW synchronous_standby_names") == ""
        scene.switched_to(new)
        accidents.repair_postgres(stage, old)
        scene.rejoin(old)
        wait_for(lambda: recorded(stage, new) == "SYNC", 60.0, "it does not become synchronous again")
        scene.saw("nothing lost; SYNC again after the rejoin")


def test_f9_synchronous_a_failover_from_a_degraded_pair_is_refused(preferred: Stage) -> None:
    stage, title = preferred, "C3 failover from ASYNC_DEGRADED"
    with Scene(
        stage,
        title,
        "refused: no zero-loss claim; accepted by an operator",
        keep=True,
        may_lose=True,
        pushes=False,
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        stage.lab.cut(old, new)
        wait_for(lambda: recorded(stage, old) == "ASYNC_DEGRADED", 40.0, "it does not relax")
        stage.check()
        scene.wait_for_writes(10)
        accidents.kill_postgres_for_good(stage, old)
        stage.lab.heal()
        refusal = scene.flow("failover", expected_primary=old).refusal
        assert "not synchronous" in refusal
        run = scene.flow("failover", expected_primary=old, accept_data_loss=True)
        assert f"{new} is the primary" in run.headline
        accidents.repair_postgres(stage, old)
        scene.rejoin(old)
        scene.saw("refused, then accepted; the loss is listed")
