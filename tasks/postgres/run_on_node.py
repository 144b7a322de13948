"""Run one of our programs on a node, on the site's cluster there."""

from collections.abc import Mapping
from typing import Any

from blocks import HarborSite
from tasks.errors import Superseded
from tasks.hosts.connection import Host
from tasks.postgres.layout import STATE_DIR, layout_of

# For which operation a program acts: `term`, `operation`, `holder` and `phases`, as `tasks.on_node.authority` reads it.
Authority = Mapping[str, Any]

# What the orchestrator waits for beyond the node's own limits: a cold SSH connection and Python's start.
_OVERHEAD_S = 10.0


def run_on_node(site: HarborSite, host: Host, program: str, *, limit: float, **given: Any) -> dict[str, Any]:
    """Run a program as root in one round trip and return its answer.

    Args:
        program: its text, by `tasks.node_program`.
        limit: seconds that its own limits add up to.
        given: what it reads besides the names of the cluster; `authority` says for which operation it acts.

    Raises:
        Superseded: the node knows that the operation is over, is at another step, or is another's.
    """
    parameters = {**cluster_names(site, host), **given}
    answer: dict[str, Any] = host.python(program, parameters, timeout=limit + _OVERHEAD_S)
    require_authority(answer, host)
    return answer


def require_authority(answer: dict[str, Any], host: Host) -> None:
    """Raise Superseded when a program has found on its node that it may not act any more."""
    if "outdated" in answer:
        raise Superseded(
            f"The step was not done: {answer['outdated']}.",
            where=host.name,
            meaning="Another run works on the site, or this one was held up; nothing was changed on the node.",
            remedy="Look at the other run, or run the flow again; it looks anew.",
        )


def cluster_names(site: HarborSite, host: Host) -> dict[str, Any]:
    """Say where the cluster's things are; plain data without secrets."""
    layout = layout_of(site)
    return {
        "node": host.name,
        "site": site.name,
        "nas_path": site.nas.path.rstrip("/") if site.node(host.name).runs_harbor else None,
        "address": host.address,
        "major": layout.major,
        "data": layout.data,
        "archive": layout.archive,
        "conf": layout.conf,
        "bin": layout.bin,
        "port": str(layout.port),
        "unit": layout.unit,
        "socket_dir": "/var/run/postgresql",
        "state_dir": STATE_DIR,
        "log": layout.log,
    }
