"""A promotion that takes longer than its run waits for it, and an old machine that somebody switches on meanwhile."""

import pytest

from lab.faults import accidents
from lab.faults.stage import Stage, wait_for
from tests.lab.faults.scene import Scene

JOURNAL = "journalctl -u postgresql@15-main -o cat --since=-5min"


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_f17_an_old_primary_that_is_switched_on_while_a_promotion_is_pending_waits_for_it(
    stage: Stage,
) -> None:
    title, expected = (
        "F17 promotion outlasts its run, old machine switched on meanwhile, cut off from the new one",
        "it does not start, by what the NAS says; the new one is accepted by its own guard; failover goes on",
    )
    with Scene(stage, title, expected, may_lose=True, pushes=False) as scene:
        old, new = scene.first_primary, scene.first_standby
        state = f"{stage.site.nas.path.rstrip('/')}/.harbor-ha/{stage.name}"
        # Its replay does not come to its end; what was told to promote itself answers as a standby for as long.
        accidents.freeze(stage, new, "startup")
        stage.lab.stop(old)
        run = stage.failover(old)
        assert "The promotion did not end within 60 s" in run.refusal
        assert f'"node": "{new}"' in stage.shell(new, f"cat {state}/promotion.json")

        stage.lab.cut(old, new)
        stage.lab.start(old)
        held = "the NAS says that " + new + " was told to promote itself"
        wait_for(lambda: held in stage.shell(old, JOURNAL, check=False), 90.0, "its boot guard says nothing")
        assert stage.facts(old).server is None

        accidents.thaw(stage, new)
        wait_for(
            lambda: f'"primary": "{new}"' in stage.shell(new, f"cat {state}/accepted.json"),
            30.0,
            "nobody has accepted it",
        )
        assert stage.facts(old).server is None, "it has started beside the new one"
        stage.lab.heal()
        again = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in again.headline
        scene.switched_to(new)
        scene.rejoin(old)
        scene.saw("held by the NAS; accepted by its guard; the next call went on")
