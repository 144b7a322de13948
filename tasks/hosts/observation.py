"""All nodes looked at in parallel; every node that cannot be reached is named, not only the first."""

from concurrent.futures import ThreadPoolExecutor

from blocks import HarborSite, SshHost
from tasks.errors import HarborHaError, Refused
from tasks.hosts.connection import connect
from tasks.hosts.preflight import NodeSeen, observe


def observe_all(site: HarborSite) -> list[NodeSeen]:
    """Look at every node of the site, read-only.

    Raises:
        Refused: with the reason for each node that cannot be reached as configured.
    """
    with ThreadPoolExecutor(len(site.nodes)) as pool:
        results = list(pool.map(lambda node: _seen(site, node), site.nodes))
    problems = [str(result) for result in results if isinstance(result, HarborHaError)]
    if problems:
        raise Refused(f"Not every node of {site.name} can be reached.", problems)
    return [result for result in results if isinstance(result, NodeSeen)]


def _seen(site: HarborSite, node: SshHost) -> NodeSeen | HarborHaError:
    try:
        return observe(site, connect(node))
    except HarborHaError as error:
        return error
