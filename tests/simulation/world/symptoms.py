"""What a look may show beside the truth of this world: settings, disks and helpers of which nothing else here depends.

Each makes a rule refuse or a verdict complain; with its end everything is as before.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tasks.operation.files import OPERATION
from tasks.postgres.facts import NOISE, Archiver, Disk, NodeFacts

GB = 1 << 30
# The world's clocks begin in November 2023.
SOON = datetime(2023, 11, 20, tzinfo=UTC)


def _server(**changes: Any) -> Callable[[NodeFacts], NodeFacts]:
    return lambda node: node if node.server is None else replace(node, server=replace(node.server, **changes))


def _cluster(**changes: Any) -> Callable[[NodeFacts], NodeFacts]:
    return lambda node: (
        node if node.cluster is None else replace(node, cluster=replace(node.cluster, **changes))
    )


def _replay_paused(node: NodeFacts) -> NodeFacts:
    return _server(replay_paused=True)(node) if node.is_standby else node


def _another_database(node: NodeFacts) -> NodeFacts:
    cluster = node.cluster
    if cluster is None or cluster.control is None:
        return node
    control = replace(cluster.control, system_identifier="7300000000000000009")
    other = replace(node, cluster=replace(cluster, control=control))
    return _server(system_identifier="7300000000000000009")(other)


def _certificate(node: NodeFacts) -> NodeFacts:
    return node if node.harbor is None else replace(node, harbor=replace(node.harbor, certificate_end=SOON))


def _guard(node: NodeFacts) -> NodeFacts:
    return node if node.guard is None else replace(node, guard=replace(node.guard, version="another"))


SYMPTOMS: dict[str, Callable[[NodeFacts], NodeFacts]] = {
    "replay paused": _replay_paused,
    "another database": _another_database,
    "another major version": _server(version_num=140010),
    "pg_hba.conf broken": _server(hba_errors=1),
    "no free sender": _server(free_senders=0),
    "no free slot": _server(free_slots=0),
    "base backup": _server(base_backups=1),
    "long transaction": _server(oldest_transaction_s=4000.0),
    "archiver fails": _server(archiver=Archiver(True, 3, "000000010000000000000007", 2e9, None)),
    "archive behind": _cluster(ready_count=50),
    "recovery target": _cluster(auto_conf=("recovery_target_time",)),
    "overridden": _cluster(auto_conf=("primary_conninfo",)),
    "disk nearly full": lambda node: replace(node, data_disk=Disk(100 * GB, 5 * GB)),
    "certificate": _certificate,
    "other guard": _guard,
    "login prints": lambda node: replace(node, problems={**node.problems, NOISE: "Welcome"}),
    "late part": lambda node: replace(node, problems={**node.problems, "disks": "late"}),
    "damaged record": lambda node: replace(node, state={**node.state, OPERATION: {"damaged": True}}),
}
