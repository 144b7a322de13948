"""Look at the database nodes before a dump: all at once, the silent ones named."""

from concurrent.futures import ThreadPoolExecutor

from blocks import HarborSite, SshHost
from flows.rules.dump_node import DumpCandidate
from tasks.backup.night.candidates import replication_position
from tasks.errors import HarborHaError
from tasks.hosts.connection import connect
from tasks.postgres.layout import database_nodes


def candidates_of(site: HarborSite) -> list[DumpCandidate]:
    """Ask every database node for its role and position."""
    nodes = database_nodes(site)
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        return list(pool.map(lambda node: _candidate(site, node), nodes))


def _candidate(site: HarborSite, node: SshHost) -> DumpCandidate:
    try:
        found = replication_position(site, connect(node))
    except HarborHaError as error:
        return DumpCandidate(node.name, "", error=error.what)
    return DumpCandidate(
        node.name,
        found.role,
        found.lsn,
        found.streaming,
        system_identifier=found.system_identifier,
        version_num=found.version_num,
    )
