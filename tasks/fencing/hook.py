"""The site's own fence: a command, or a cloud's stop call; believed only when it confirms."""

from blocks import HarborSite
from tasks.fencing.ecs import fence_by_cloud
from tasks.hosts.local import LocalCommandFailed, run_local
from tasks.outcome import Outcome, changed

# A cloud takes tens of seconds to confirm a forced stop.
_LIMIT_S = 60.0


def fence_by_command(site: HarborSite, *, node: str) -> Outcome:
    """Run the site's fence command for a node, or stop its ECS instance where that is the site's fence kind.

    The command must end with status 0 only when it has seen that the machine is off.

    Returns:
        data: `confirmed`; False when it failed, with what it said in the detail. Never raises for that: the
        ladder has further rungs.
    """
    if site.failover.fence_kind == "aliyun-ecs":
        return fence_by_cloud(site, node)
    address = site.node(node).address
    words = [
        word.replace("{node}", node).replace("{address}", address)
        for word in site.failover.fence_command or []
    ]
    try:
        said = run_local(words, timeout=_LIMIT_S)
    except LocalCommandFailed as error:
        return changed(f"not confirmed: {error.what}", confirmed=False)
    return changed(f"the fence command confirmed that {node} is off: {said.strip()[-200:]}", confirmed=True)
