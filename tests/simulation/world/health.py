"""Whether a site is healthy, in truth."""

from tests.simulation.world.site import MASK, World

JOBS = "another database is used by the jobservice of"


def unhealthy(world: World) -> str:
    """Say what keeps the site from being healthy; empty when nothing does."""
    primaries = world.primaries
    if len(primaries) != 1:
        return f"{len(primaries)} primaries"
    primary = primaries[0]
    for name in world.databases:
        node = world.nodes[name]
        if node is not primary and (node.server is None or node.server.upstream != primary.name):
            return f"{name} does not follow {primary.name}"
        if MASK in node.files:
            return f"{name} is masked"
    for name, node in world.nodes.items():
        if node.harbor is not None:
            if name in world.drained:
                return f"{name} is drained"
            if not world.check_up(name) or node.harbor.core != primary.name:
                return f"the Harbor of {name} does not work with {primary.name}"
            if node.harbor.jobs != primary.name:
                return f"{JOBS} {name}"
    return ""
