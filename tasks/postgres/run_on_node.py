"""Run one of our programs on a node, on the site's cluster there."""

from typing import Any

from blocks import HarborSite
from tasks.hosts.connection import Host
from tasks.postgres.layout import STATE_DIR, layout_of

# What the orchestrator waits for beyond the node's own limits: a cold SSH connection and Python's start.
_OVERHEAD_S = 10.0


def run_on_node(site: HarborSite, host: Host, program: str, *, limit: float, **given: Any) -> dict[str, Any]:
    """Run a program as root in one round trip and return its answer.

    Args:
        program: its text, by `tasks.node_program`.
        limit: seconds that its own limits add up to.
        given: what it reads besides the names of the cluster.
    """
    parameters = {**cluster_names(site, host), **given}
    answer: dict[str, Any] = host.python(program, parameters, timeout=limit + _OVERHEAD_S)
    return answer


def cluster_names(site: HarborSite, host: Host) -> dict[str, Any]:
    """Say where the cluster's things are; plain data without secrets."""
    layout = layout_of(site)
    return {
        "node": host.name,
        "address": host.address,
        "major": layout.major,
        "data": layout.data,
        "conf": layout.conf,
        "bin": layout.bin,
        "port": str(layout.port),
        "unit": layout.unit,
        "socket_dir": "/var/run/postgresql",
        "state_dir": STATE_DIR,
        "log": layout.log,
    }
