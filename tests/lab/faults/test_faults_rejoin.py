"""The former primary comes back."""

from tests.lab.faults import accidents
from tests.lab.faults.scene import Scene
from tests.lab.faults.stage import Stage, wait_for


def test_r2_a_diverged_primary_is_rewound_and_what_only_it_had_is_listed(stage: Stage) -> None:
    title = "R2 rejoin after divergence"
    with Scene(stage, title, "rewound; every lost write listed", may_lose=True) as scene:
        old, new = scene.first_primary, scene.first_standby
        # The standby hears nothing any more, Harbor and the writer go on.
        accidents.freeze(stage, new, "walreceiver")
        before = len(scene.acknowledged())
        wait_for(lambda: len(scene.acknowledged()) > before + 20, 20.0)
        accidents.kill_postgres_for_good(stage, old)
        run = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in run.headline
        accidents.repair_postgres(stage, old)
        run = scene.rejoin(old)
        assert "was rewound" in run.headline
        scene.switched_to(new)
        lost = scene.lost()
        assert lost, "nothing was lost: the scenario did not happen"
        scene.saw(f"rewound; {run.headline.partition('; ')[2]}")
