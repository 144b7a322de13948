"""What a failover knows of a primary that it cannot ask any more."""

import json

from flows.machinery.sight import last_primary
from tasks.observation.look import SiteLook
from tasks.operation.files import LAST_PRIMARY
from tasks.operation.record import to_json
from tasks.postgres.facts import Guard, NodeFacts
from tests.unit.facts_builder import primary, standby, unreached


def site(*nodes: NodeFacts) -> SiteLook:
    return SiteLook(nodes, frozenset({"node-a", "node-b"}), 0.1)


def test_the_self_fence_counts_with_the_limit_that_the_guard_itself_told_and_not_with_the_site_files() -> (
    None
):
    # The site file said 20 s; the guard on the node had been installed with another limit, or did not run at all.
    told = Guard(True, 0.5, "v1", 45.0)
    kept = last_primary(site(primary("node-a", guard=told), standby("node-b")), "node-a")
    assert kept is not None
    assert kept.self_fence_s == 45.0
    later = site(unreached("node-a"), standby("node-b", state={LAST_PRIMARY: json.loads(to_json(kept))}))
    assert last_primary(later, "node-a") == kept


def test_a_guard_that_has_gone_silent_fences_nobody() -> None:
    silent = Guard(True, 300.0, "v1", 45.0)
    kept = last_primary(site(primary("node-a", guard=silent), standby("node-b")), "node-a")
    assert kept is not None
    assert kept.self_fence_s is None
