"""From the watcher's numbers to a run by way of Prometheus, Alertmanager and the receiver, all of them real."""

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from blocks.prefect_api import prefect_api
from deployments.catalogue import entry
from deployments.watch.metrics import SiteCollector
from tests.alert_chain import AlertChain, free_port
from tests.unit.harbor_site import make_site
from tests.unit.test_rules_watch import T, later
from tests.unit.test_watcher import powerless, well
from tests.unit.watched_site import Scene

pytestmark = pytest.mark.servers

# Two scrapes and three evaluations of 5 s each, and what a busy machine needs beside them.
CALLED_LIMIT_S = 60.0


def runs(site: str) -> list[dict[str, Any]]:
    """What was started of the deployment `failover` for a site: other tests have the same server, and others."""
    with prefect_api(timeout=30) as api:
        asked = {"deployments": {"name": {"any_": ["failover"]}}}
        found: list[dict[str, Any]] = api.post("flow_runs/filter", json=asked).raise_for_status().json()
    return [run for run in found if run["parameters"].get("site") == site]


def test_a_watcher_that_may_not_call_has_the_failover_started_by_the_shipped_rule_and_route(
    prefect_server: str, tmp_path: Path
) -> None:
    entry("failover").deployment().apply()
    site = make_site(tmp_path).model_copy(update={"name": "chain"})
    scene = Scene(site, calls=False)
    now = scene.live(T, 10, well)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SiteCollector([scene.item], lambda: (later(20).monotonic, later(20).wall)))
    port = free_port()
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        with AlertChain(tmp_path / "chain", port, {"PREFECT_API_URL": prefect_server}) as chain:
            assert "HarborPrimaryDown" not in chain.firing()
            assert runs(site.name) == []
            scene.live(later(now.monotonic - T.monotonic + 0.5), 10, powerless)
            lost = time.monotonic()
            while not runs(site.name):
                assert time.monotonic() < lost + CALLED_LIMIT_S, chain.told()
                time.sleep(0.2)
            print(f"called {time.monotonic() - lost:.1f} s after the primary was lost")
            (run,) = runs(site.name)
            assert "HarborPrimaryDown" in chain.firing()
    finally:
        server.shutdown()
        thread.join(10)
    assert scene.calls == []
    given = dict(run["parameters"])
    assert given.pop("alert_time"), "without it a failover that waited in a queue would act on an old alert"
    assert given == {
        "site": site.name,
        "expected_primary": "node-a",
        "reason": "alert HarborPrimaryDown",
    }
