"""Harbor's containers on a node: start, stop, restart."""

from blocks import HarborSite
from tasks.harbor.on_node import start as program
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_PROGRAM = node_program(program)

# An online installer pulls its images here.
UP_TIMEOUT_S = 900.0
# Longer than a small upload needs, shorter than an operator's patience.
STOP_GRACE_S = 5


def up(site: HarborSite, host: Host) -> Outcome:
    """Bring Harbor up; unchanged when all of it runs from the present configuration.

    The first start on an empty database creates the schema: do it on one node, wait until that is healthy
    (`tasks.harbor.api.wait_healthy`), then start the others. Two cores that migrate at once wait for each
    other's lock for 15 seconds and then die.

    Raises:
        RemoteCommandFailed: the NAS is not mounted, or compose failed; its last lines are in the message.
    """
    given = {
        "install_dir": site.harbor.install_dir.rstrip("/"),
        "nas": site.nas.path.rstrip("/"),
        "subnet": site.harbor.network,
        "https_port": site.harbor.https_port,
        "timeout": UP_TIMEOUT_S,
    }
    answer = host.python(_source(), given, timeout=2 * UP_TIMEOUT_S)
    if not answer["changed"]:
        return unchanged(f"{len(answer['services'])} containers run")
    did = []
    if answer["created"]:
        did.append(f"created {len(answer['created'])} of {len(answer['services'])} containers")
    did += answer["restarted"]
    return changed(", ".join(did) or "started what was stopped")


def up_before_core(site: HarborSite, host: Host) -> Outcome:
    """Start what core looks at and what has no database, where it stands still; beside the work on the database.

    Raises:
        RemoteCommandFailed: the NAS is not mounted, or a container does not start.
    """
    given = {
        "part": "before_core",
        "install_dir": site.harbor.install_dir.rstrip("/"),
        "nas": site.nas.path.rstrip("/"),
    }
    started = host.python(_source(), given, timeout=180)["started"]
    return changed(f"started {', '.join(started)}") if started else unchanged("it runs, or is not made yet")


def stop(site: HarborSite, host: Host) -> Outcome:
    """Stop Harbor's containers. Since Harbor says `restart: always`, the engine's next start brings them back."""
    given = {
        "part": "stop",
        "install_dir": site.harbor.install_dir.rstrip("/"),
        "grace": STOP_GRACE_S,
        "timeout": 120,
    }
    answer = host.python(_source(), given, timeout=180)
    stopped = answer["stopped"]
    return changed(f"stopped {len(stopped)} containers") if stopped else unchanged("no container runs")


def restart(site: HarborSite, host: Host) -> Outcome:
    """Stop and start Harbor, in the order that its logging needs."""
    stop(site, host)
    return up(site, host)


def _source() -> str:
    return _PROGRAM
