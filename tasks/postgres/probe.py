"""Look at one node in one round trip."""

from dataclasses import replace
from typing import Any

from blocks import HarborSite
from tasks import clock
from tasks.errors import HarborHaError
from tasks.guard.on_node.guard_note import heartbeat_path
from tasks.hosts.connection import Host
from tasks.hosts.on_node import node_probe
from tasks.hosts.on_node.node_probe import PORT_TIMEOUT_S
from tasks.node_program import node_program
from tasks.operation.files import PAUSED, TERM, shared_path
from tasks.postgres.facts import NOISE, NodeFacts
from tasks.postgres.facts_parser import parse_answer
from tasks.postgres.facts_query import FACTS_QUERY
from tasks.postgres.layout import STATE_DIR, layout_of, peers_of

NODE_PROBE = node_program(node_probe)
# The slowest honest answer is a psql that gives up on a hanging server after 2 s; the whole look has 3.2 s, in
# which the connection is made as well (tasks/observation/budget.py).
PROBE_LIMIT_S = 2.5
# Harbor's health may take nearly all of it. Who looks at a primary that is silent does not wait so long: a core whose
# database has lost its power does not answer, and each of a failover's looks took the whole time of a look for that.
HARBOR_LIMIT_S = 2.0
HURRIED_HARBOR_S = 1.0


def probe_request(
    site: HarborSite, node_name: str, harbor_s: float = HARBOR_LIMIT_S, port_s: float = PORT_TIMEOUT_S
) -> dict[str, Any]:
    """Say what the probe is to look at on a node; plain data without secrets.

    Args:
        harbor_s: seconds for its Harbor to say how it is.
        port_s: seconds for another node's PostgreSQL port to answer.
    """
    node, layout = site.node(node_name), layout_of(site)
    return {
        "limit_s": PROBE_LIMIT_S,
        "harbor_s": harbor_s,
        "port_s": port_s,
        # No failover asks for it, and each of its looks would start processes on every node for it.
        "images": harbor_s > HURRIED_HARBOR_S,
        "runs_postgres": node.runs_postgres,
        "runs_harbor": node.runs_harbor,
        "bin_dir": layout.bin,
        "conf_dir": layout.conf,
        "unit": layout.unit,
        "data_dir": layout.data,
        "socket_dir": "/var/run/postgresql",
        "port": layout.port,
        "database": site.postgres.database,
        "query": FACTS_QUERY,
        "nas_path": site.nas.path,
        "install_dir": site.harbor.install_dir,
        "https_port": site.harbor.https_port,
        "hostname": site.harbor.hostname,
        "state_dir": STATE_DIR,
        "guard_file": heartbeat_path({}),
        "shared_files": {name: shared_path(site.nas.path, site.name, name) for name in (PAUSED, TERM)},
        "peers": [[peer.name, peer.address, layout.port] for peer in peers_of(site, node_name)],
    }


def probe(
    site: HarborSite,
    host: Host,
    *,
    path: str = "direct",
    harbor_s: float = HARBOR_LIMIT_S,
    port_s: float = PORT_TIMEOUT_S,
) -> NodeFacts:
    """Look at one node in one round trip; changes nothing there.

    Args:
        site: the site.
        host: the node, as reached over `path`.
        path: the name of that path, for the evidence.
        harbor_s: seconds for its Harbor to say how it is.
        port_s: seconds for another node's PostgreSQL port to answer.

    Returns:
        The facts. A node that cannot be reached, or whose answer cannot be read, is a result too: its
        `error` says why and `reachable_by` is empty.
    """
    started = clock.now()
    try:
        answer = host.python(
            NODE_PROBE, probe_request(site, host.name, harbor_s, port_s), timeout=PROBE_LIMIT_S + 1
        )
        facts = parse_answer(host.name, answer, started, clock.now(), path)
    except HarborHaError as error:
        return NodeFacts(host.name, started, error=f"{path}: {error}")
    if not host.noise:
        return facts
    return replace(facts, problems={**facts.problems, NOISE: host.noise})
