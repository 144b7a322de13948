"""Ask each link of the chain: nodes, watcher, Prefect, Prometheus, Alertmanager. Each has a time limit of its own."""

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from blocks import HarborSite
from blocks.store import copy_path
from deployments import runs
from deployments.catalogue import TAG
from deployments.doctor import links
from deployments.doctor.links import Holds, Link
from deployments.schedules import due_runs, wanted_schedules
from deployments.watch.rounds import look_at_backups
from flows.check import served
from flows.machinery.vision import blind, sightings
from flows.rules.policy import policy_of
from flows.rules.verdict import Verdict, verdict
from tasks import clock
from tasks.errors import HarborHaError
from tasks.fencing.rehearsal import fence_trouble
from tasks.guard.install import guard_version
from tasks.observation.budget import CALM_BUDGET_S
from tasks.observation.look import look
from tasks.observation.witnesses import ask_witnesses

RULES = Path(__file__).parents[1] / "alerts" / "prometheus-rules.yml"
ALERT = "HarborPrimaryDown"
_LIMIT_S = 10.0
_DRILL_S = 90.0


def look_at_nodes(site: HarborSite) -> tuple[list[Link], str]:
    """Look at the site as `status` does; return its links, and the primary's name where there is one."""
    seen = look(site, CALM_BUDGET_S)
    answers = ask_witnesses(site, [node.name for node in site.nodes])
    judged = verdict(
        seen.every,
        {node.name: node.address for node in site.nodes},
        policy_of(site),
        clock.now(),
        balancer_up=served(site, answers),
        guard_version=guard_version(),
        site=site.name,
    )
    unseeing = blind(site, seen, answers, sightings(site, seen, answers))
    primaries = [node.name for node in seen.nodes if node.is_primary]
    sound = len(primaries) == 1 and judged.kind in (Verdict.HEALTHY, Verdict.DEGRADED)
    return links.nodes_link(judged, unseeing), primaries[0] if sound else ""


def look_at_fence(site: HarborSite) -> Link:
    """Look whether a machine could be switched off."""
    policy = site.failover
    command = policy.fence_command
    found = command is not None and bool(command) and shutil.which(command[0]) is not None
    return links.fence_link(policy.fence_kind, command, found, fence_trouble(site))


def look_at_watcher(site: str, port: int) -> Link:
    """Ask the watcher for its numbers."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=_LIMIT_S, trust_env=False)
        samples = links.samples_of(answer.raise_for_status().text, site)
    except httpx.HTTPError:
        return links.watcher_link(site, port, None)
    return links.watcher_link(site, port, samples)


def look_at_prefect(api: httpx.Client, site: HarborSite) -> list[Link]:
    """Ask Prefect who takes its runs, and what is due; raises httpx.HTTPError."""
    asked = {"deployments": {"tags": {"all_": [TAG]}}}
    known = api.post("deployments/filter", json=asked).raise_for_status().json()
    ready = {item["name"]: item["status"] == "READY" for item in known}
    prefect = Link("Prefect", Holds.OK, "answers")
    return [
        prefect,
        links.runner_link(ready.get("failover")),
        links.schedules_link(site.name, due_runs(api, site.name), wanted_schedules(site), datetime.now(UTC)),
    ]


def drill_by_call(api: httpx.Client, site: str, primary: str) -> Link:
    """Call a failover as the watcher does, as a dry run of a sound site; raises httpx.HTTPError."""
    begun = time.monotonic()
    deployment = runs.find_deployment(api, "failover")
    given = {"site": site, "expected_primary": primary, "reason": "harbor-ha doctor", "dry_run": True}
    run = runs.wait(api, runs.start(api, deployment, given, tags=["doctor"]), _DRILL_S, lambda _: None)
    headline = run.message or next(iter(runs.reports(api, run.id)), "")
    return links.drill_link("a call", run.state, _first(headline), time.monotonic() - begun)


def look_at_prometheus(address: str) -> Link:
    """Ask Prometheus for its rules and for the watcher as its target."""
    try:
        with httpx.Client(base_url=address, timeout=_LIMIT_S, trust_env=False) as prometheus:
            rules = prometheus.get("/api/v1/rules").raise_for_status().json()
            asked = {"query": 'up{job="harbor-ha"} == 1'}
            up = prometheus.get("/api/v1/query", params=asked).raise_for_status().json()
        wanted = links.rule_names(yaml.safe_load(RULES.read_text(encoding="utf-8")))
        return links.rules_link(links.rule_names(rules), wanted, bool(up["data"]["result"]))
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{address} does not answer as Prometheus does ({type(error).__name__})"
        return Link("Prometheus", Holds.BROKEN, said, "systemctl status prometheus")


def drill_by_alert(api: httpx.Client, address: str, site: str, primary: str) -> Link:
    """Tell Alertmanager that the primary is down, and see what comes of it: a failover that finds it sound.

    Args:
        address: of Alertmanager.

    Raises:
        httpx.HTTPError: Prefect does not answer.
    """
    begun, wall = time.monotonic(), datetime.now(UTC)
    labels = {"alertname": ALERT, "site": site, "node": primary, "severity": "critical"}
    alert = {
        "labels": labels,
        "startsAt": wall.isoformat(),
        "endsAt": (wall + timedelta(minutes=1)).isoformat(),
    }
    try:
        told = httpx.post(f"{address}/api/v2/alerts", json=[alert], timeout=_LIMIT_S, trust_env=False)
        told.raise_for_status()
    except httpx.HTTPError as error:
        said = f"{address} does not take an alert ({type(error).__name__})"
        return Link("Alertmanager", Holds.BROKEN, said, "systemctl status prometheus-alertmanager")
    run = _until(lambda: _called(api, site, wall), _DRILL_S)
    if run is None:
        said = f"it took the alert {ALERT}, and no failover was called in {_DRILL_S:.0f} s"
        remedy = (
            "its route and its token file (docs/operations.md, alerts); systemctl status harbor-ha-receiver"
        )
        return Link("Alertmanager, receiver", Holds.BROKEN, said, remedy)
    ended = runs.wait(api, runs.read_run(api, run), _DRILL_S, lambda _: None)
    return links.drill_link(
        "Alertmanager, receiver", ended.state, _first(ended.message), time.monotonic() - begun
    )


def look_at_backup(site: HarborSite) -> list[Link]:
    """List the bucket."""
    try:
        found = look_at_backups(site)
    except HarborHaError as error:
        return [Link("backup", Holds.BROKEN, f"the bucket cannot be asked: {error.what}", error.remedy)]
    if found is None:
        return [Link("backup", Holds.NOT_SET_UP, "the site has no bucket")]
    return links.backups_link(found.last, found.last_verified, datetime.now(UTC))


def look_at_disk() -> Link:
    """Look how much room this machine has for sites and reports."""
    place = copy_path("any").parents[1]
    there = next(path for path in (place, *place.parents) if path.exists())
    usage = shutil.disk_usage(there)
    return links.disk_link(str(place), usage.free / usage.total)


def _called(api: httpx.Client, site: str, since: datetime) -> str | None:
    asked = {
        "deployments": {"name": {"any_": ["failover"]}},
        "flow_runs": {"expected_start_time": {"after_": (since - timedelta(seconds=1)).isoformat()}},
        "sort": "EXPECTED_START_TIME_DESC",
    }
    for run in api.post("flow_runs/filter", json=asked).raise_for_status().json():
        given: dict[str, Any] = run.get("parameters") or {}
        if given.get("site") == site and str(given.get("reason")).endswith(ALERT):
            return str(run["id"])
    return None


def _until(ask: Callable[[], str | None], limit_s: float) -> str | None:
    deadline = time.monotonic() + limit_s
    while (found := ask()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _first(text: str) -> str:
    return next(
        (line.strip("# *") for line in text.splitlines() if "Nothing" in line or "Would" in line), text[:200]
    )
