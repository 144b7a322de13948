"""Nobody touches anything: the watcher calls for the failover, and only for one that is needed."""

import contextlib
import time

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments import cli
from deployments.doctor import looks
from deployments.doctor.links import Holds
from lab.faults import accidents
from lab.faults.stage import Stage, wait_for
from lab.faults.unattended import Unattended
from tests.alert_chain import AlertChain
from tests.lab.faults.pace import best_of_two
from tests.lab.faults.scene import Scene, under_load

# Seconds from the power cut to the first push that gets through, with nobody's help. The goal is 11; of this, 12 to
# 15 s go by from the call to the flow's first line, where one core runs lab, load and orchestrator.
UNTOUCHED_LIMIT_S = 35.0
# From the power cut to the call: three seconds of trouble, counted from the primary's last answer, a look each half
# second, and three questions to Prefect.
CALLED_LIMIT_S = 6.0
# The same where Prometheus must see it first: two scrapes or judgements of five seconds, and five for the rule.
ALERTED_LIMIT_S = 45.0
STANDSTILL_S = 2
STANDSTILLS = 3


def stand_still(scene: Scene, watcher: Unattended) -> None:
    """Stop the primary for two seconds, and wait until it is well again."""
    accidents.stand_still(scene.stage, scene.first_primary, STANDSTILL_S)
    writes = len(scene.acknowledged())
    wait_for(lambda: len(scene.acknowledged()) > writes, 10.0, "it takes no writes any more")
    wait_for(watcher.calm, 10.0, watcher.told)


@pytest.mark.faults
def test_the_doctor_finds_a_whole_chain_and_names_the_link_that_is_taken_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in stage.orchestrator.environment.items():
        monkeypatch.setenv(name, value)
    with Unattended(stage) as watcher, temporary_settings({PREFECT_API_URL: f"{stage.orchestrator.url}/api"}):
        environment = stage.orchestrator.environment
        with AlertChain(stage.directory / "chain", watcher.port, environment) as chain:
            asked = ["doctor", stage.name, "--metrics-port", str(watcher.port)]
            asked += ["--prometheus", chain.prometheus, "--alertmanager", chain.alertmanager]
            wait_for(lambda: looks.look_at_prometheus(chain.prometheus).holds is Holds.OK, 60.0, chain.told)
            cli.main(asked)
            told = capsys.readouterr().out
            for name in ("witnesses", "fence", "watcher", "Prefect", "runner", "a call", "Prometheus"):
                assert f"ok          {name}: " in told, told
            assert "ok          Alertmanager, receiver: " in told, told + chain.told()
            assert stage.primary in told.partition("a call: ")[2].partition("\n")[0]
            chain.stop("receiver")
            cli.main(asked)
            told = capsys.readouterr().out
            assert "broken      Alertmanager, receiver: it took the alert" in told, told


def test_a_power_cut_is_survived_by_prometheus_and_alertmanager_where_the_watcher_may_not_call(
    stage: Stage,
) -> None:
    def attempt() -> float:
        title = "W2 power cut of the primary's host, Prometheus and Alertmanager"
        expected = f"called by the alert, promoted, ≤ {ALERTED_LIMIT_S:.0f} s to a push"
        with contextlib.ExitStack() as ends:
            scene = ends.enter_context(Scene(stage, title, expected, may_lose=True))
            watcher = ends.enter_context(Unattended(stage, calls=False))
            environment = stage.orchestrator.environment
            chain = ends.enter_context(AlertChain(stage.directory / "chain", watcher.port, environment))
            old, new = scene.first_primary, scene.first_standby
            cut = time.time()
            stage.lab.stop(old)
            wait_for(lambda: bool(watcher.runs()), 60.0, chain.told)
            seconds = scene.first_push_after(cut, 90.0)
            split = watcher.split(cut, seconds)
            scene.saw(", ".join(f"{name} {at:.1f}" for name, at in split.items()) + " s after the cut")
            print(scene.observed[-1])
            assert watcher.runs()[0]["parameters"]["reason"] == "alert HarborPrimaryDown"
            assert watcher.metric("calls_total") == 0.0, watcher.told()
            wait_for(lambda: watcher.runs()[0]["state_type"] == "COMPLETED", 120.0, "the run does not end")
            scene.switched_to(new)
            wait_for(lambda: "HarborPrimaryDown" not in chain.firing(), 60.0, "the alert does not end")
            stage.lab.start(old)
            scene.rejoin(old)
            assert len(watcher.runs()) == 1, "the alert started another one"
        return seconds

    best_of_two(ALERTED_LIMIT_S, attempt, stage.shell, under_load(stage))


def test_a_power_cut_is_survived_with_nobodys_help_and_two_seconds_of_standstill_start_nothing(
    stage: Stage,
) -> None:
    def attempt() -> float:
        title, expected = (
            "W1 power cut of the primary's host, watcher alone",
            f"nothing by SIGSTOP for {STANDSTILL_S} s; called, promoted, ≤ {UNTOUCHED_LIMIT_S:.0f} s to a push",
        )
        with Scene(stage, title, expected, may_lose=True) as scene, Unattended(stage) as watcher:
            for _ in range(STANDSTILLS):
                stand_still(scene, watcher)
            assert watcher.runs() == [], watcher.told()
            assert watcher.metric("calls_total") == 0.0, watcher.told()
            scene.unmoved()
            old, new = scene.first_primary, scene.first_standby
            cut = time.time()
            stage.lab.stop(old)
            seconds = scene.first_push_after(cut, 90.0)
            split = watcher.split(cut, seconds)
            scene.saw(", ".join(f"{name} {at:.1f}" for name, at in split.items()) + " s after the cut")
            print(scene.observed[-1])
            first = watcher.runs()[0]
            assert {"watcher", f"watch-{stage.name}-{old}-{scene.first_timeline}"} <= set(first["tags"])
            assert stage.site.failover.call_after_s - 1.0 < split["called"] < CALLED_LIMIT_S, watcher.told()
            wait_for(lambda: watcher.runs()[0]["state_type"] == "COMPLETED", 120.0, "the run does not end")
            scene.switched_to(new)
            primary = f'node="{new}"'
            wait_for(lambda: watcher.metric("primary", primary) == 1.0, 20.0, watcher.told)
            stage.lab.start(old)
            assert stage.facts(old).server is None, "the old primary started by itself"
            scene.rejoin(old)
            wait_for(watcher.calm, 60.0, watcher.told)
            assert len(watcher.runs()) == 1, "it was called for again"
            watcher.end()
            wait_for(lambda: not watcher.beacons(), 30.0, lambda: f"it still runs on {watcher.beacons()}")
        return seconds

    best_of_two(UNTOUCHED_LIMIT_S, attempt, stage.shell, under_load(stage))
