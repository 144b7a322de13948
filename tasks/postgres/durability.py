"""Synchronous replication from the orchestrator's side; on the node `durability_watch` does it alone."""

import json

from blocks import HarborSite
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.operation.files import DURABILITY, path_of
from tasks.operation.store import put_state
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.on_node import pg_relax
from tasks.postgres.run_on_node import run_on_node

_PG_RELAX = node_program(pg_relax)


def relax(site: HarborSite, primary: Host) -> Outcome:
    """Let commits on the primary wait for nobody, before its standby is stopped on purpose; recorded first.

    The node's own service restores it when a standby has caught up.

    Returns:
        data: `state` and `lsn` as recorded.
    """
    answer = run_on_node(site, primary, _PG_RELAX, limit=15)
    said = changed if answer["changed"] else unchanged
    return said("commits wait for no standby", state=answer["state"], lsn=answer["lsn"])


def mirror(site: HarborSite, primary: Host, *others: Host) -> Outcome:
    """Copy the primary's durability record to the other nodes, where a failover reads it.

    Returns:
        data: `state`, empty when nothing is recorded.

    Raises:
        NotMirrored: no other node could be written.
    """
    text = (primary.read(path_of(DURABILITY)) or b"").decode("utf-8", "replace")
    if not text:
        return unchanged("no durability is recorded", state="")
    done = put_state(site, *others, name=DURABILITY, text=text)
    return Outcome(done.changed, done.detail, {**done.data, "state": json.loads(text)["state"]})
