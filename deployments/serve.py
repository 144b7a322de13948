"""One process that runs whatever is due: `harbor-ha serve`."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx
    from prefect.deployments.runner import RunnerDeployment

SETTINGS = {
    # The default of ten seconds is the longest single wait of a failover that an alert starts.
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    # With the automation of `harbor-ha setup`, a flow that was killed is marked as crashed within 90 s.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # Without an API address Prefect would start a server for each process, and nobody would see its runs.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    # A line for each task that it "finished in state Completed()", between the lines that say what it did.
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "harbor_ha,flows,tasks",
    # Watcher and receiver run no flow: each of their lines was followed by a warning that it belongs to none.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""Settings of the runner and of the flows' processes; the environment's own values go first."""


def prepare_environment() -> None:
    """Set what is not set yet. To be called before anything imports prefect, which reads settings once."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def serve_all(sites: Sequence[str], limit: int | None, metrics_port: int | None = None) -> None:
    """Register every deployment and run what is due, until the process is told to stop.

    Args:
        sites: names of saved sites that the schedules run for; without any, nothing is scheduled.
        limit: how many runs at once; None: as many as are due.
        metrics_port: of the watcher that runs beside it for these sites; None: no watcher.

    Raises:
        SiteUnknown: a site was never saved.
    """
    from blocks import load_site
    from blocks.prefect_api import prefect_api
    from blocks.store import saved_sites
    from deployments.catalogue import CATALOGUE
    from deployments.choices import offer
    from deployments.events import expect_backups
    from deployments.setup import setup
    from deployments.warm import serve_warm, start_fork_server
    from deployments.watch.beside import watch_beside

    start_fork_server()
    setup()
    loaded = tuple(load_site(name) for name in sites)
    deployments = [entry.deployment(loaded) for entry in CATALOGUE]
    offer(deployments, saved_sites() | {site.name: [node.name for node in site.nodes] for site in loaded})
    with prefect_api(timeout=30) as api:
        remove_other_schedules(api, deployments)
        expect_backups(api, loaded)
    if loaded and metrics_port is not None:
        watch_beside([site.name for site in loaded], metrics_port)
    flows = [entry.flow() for entry in CATALOGUE]
    serve_warm(list(zip(deployments, flows, strict=True)), limit)


def remove_other_schedules(api: "httpx.Client", deployments: "Sequence[RunnerDeployment]") -> int:
    """Remove the schedules on the server that these deployments do not have, and return how many there were.

    Prefect itself only adds and changes them: a site that is served no more would be backed up every night.
    """
    from deployments.catalogue import TAG

    wanted = {made.name: {schedule.slug for schedule in made.schedules or []} for made in deployments}
    asked = {"deployments": {"name": {"any_": list(wanted)}, "tags": {"all_": [TAG]}}}
    removed = 0
    for known in api.post("deployments/filter", json=asked).raise_for_status().json():
        for schedule in known["schedules"]:
            if schedule["slug"] not in wanted[known["name"]]:
                api.delete(f"deployments/{known['id']}/schedules/{schedule['id']}").raise_for_status()
                removed += 1
    return removed
