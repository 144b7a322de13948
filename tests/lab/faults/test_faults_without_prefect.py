"""Prefect's server is dead in the night in which the primary dies: the same flow brings Harbor back without it."""

import subprocess
import sys
import time

import pytest

from deployments.kept_runs import kept_runs
from lab.faults.stage import Stage
from lab.topology import REPOSITORY
from tests.lab.faults.scene import Scene

# On this port of loopback nobody listens.
_DEAD = "http://127.0.0.1:9/api"


def without_prefect(stage: Stage, flow: str, **parameters: str) -> subprocess.CompletedProcess[str]:
    """Call a flow as the runbook does."""
    given = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
    argv = [sys.executable, "-m", "deployments.cli", "run", flow, "--site", stage.name, "--without-prefect"]
    environment = {**stage.orchestrator.environment, "PREFECT_API_URL": _DEAD}
    return subprocess.run(
        [*argv, *given], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )


@pytest.mark.faults
def test_a_power_cut_is_survived_by_a_failover_that_runs_without_prefect(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = "W3 power cut of the primary's host, Prefect dead"
    with Scene(
        stage, title, "promoted by a run without Prefect; the same again does nothing", may_lose=True
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        cut = time.time()
        stage.lab.stop(old)
        done = without_prefect(stage, "failover", expected_primary=old)
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"{new} is the primary" in done.stdout
        assert "This run is not in Prefect" in done.stderr
        seconds = scene.first_push_after(cut, 30.0)
        scene.switched_to(new)
        again = without_prefect(stage, "failover", expected_primary=old)
        assert "Nothing was done" in again.stdout, again.stderr[-3000:]
        monkeypatch.setenv("HARBOR_HA_HOME", stage.orchestrator.environment["HARBOR_HA_HOME"])
        kept = [run for run in kept_runs(stage.name) if run.begun >= cut]
        assert [run.flow for run in kept] == ["failover", "failover"]
        assert kept[0].report.exists()
        assert kept[0].report.stat().st_mode & 0o077 == 0
        stage.lab.start(old)
        scene.rejoin(old)
        scene.saw(f"promoted without Prefect; {seconds:.1f} s from the cut to the first push")
