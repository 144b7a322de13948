"""One look at the whole site: all nodes at once, over every path that there is, and all witnesses."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from blocks import HarborSite, SshHost
from tasks import clock
from tasks.hosts.connection import connect
from tasks.observation.witnesses import ask_witnesses
from tasks.operation.files import LOCK, PAUSED
from tasks.operation.holder import known_dead
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts
from tasks.postgres.layout import database_nodes
from tasks.postgres.probe import probe

# A healthy node answers in 0.2 s.
_PATIENCE_S = 1.0


@dataclass(frozen=True)
class SiteLook:
    """What was seen of the site in one look.

    Attributes:
        every: all nodes, in the order of the site file.
        databases: the names of those that run PostgreSQL.
        seconds: how long it took.
    """

    every: tuple[NodeFacts, ...]
    databases: frozenset[str]
    seconds: float

    @property
    def nodes(self) -> tuple[NodeFacts, ...]:
        """The database nodes, which decisions are about."""
        return tuple(node for node in self.every if node.name in self.databases)

    def node(self, name: str) -> NodeFacts:
        """Find a node's facts; KeyError when it was not looked at."""
        return {node.name: node for node in self.nodes}[name]

    def others(self, name: str) -> tuple[NodeFacts, ...]:
        """Give the facts of all database nodes but one."""
        return tuple(node for node in self.nodes if node.name != name)

    @property
    def reached(self) -> list[str]:
        """Name the nodes that were reached."""
        return [node.name for node in self.every if node.reachable]


def look(site: HarborSite) -> SiteLook:
    """Look at all nodes at once.

    A node that is not quick to answer is asked through every other node as well, before the direct path has
    given up: one time-out after the other would double the time to a failover, and a primary that is only cut
    off from here must not be taken for dead.
    """
    started = clock.now()
    nodes = site.nodes
    with ThreadPoolExecutor(max(1, len(nodes) * len(site.nodes))) as pool:
        known_silent = {node.name for node in nodes if connect(node).silent}
        tries = {node.name: [pool.submit(probe, site, connect(node))] for node in nodes}
        # Nobody is waited for who was silent the last time: the other paths are tried at once.
        first = [attempts[0] for name, attempts in tries.items() if name not in known_silent]
        wait(first, timeout=_PATIENCE_S)
        slow = [node for node in nodes if not _answered(tries[node.name][0])]
        for node in slow:
            ways = [other for other in site.nodes if other.name not in (node.name, *known_silent)]
            tries[node.name] += [pool.submit(_through, site, node, other) for other in ways]
        seen = [_best([attempt.result() for attempt in attempts]) for attempts in tries.values()]
        seen = [_without_dead_lock(facts) for facts in seen]
    databases = frozenset(node.name for node in database_nodes(site))
    return SiteLook(with_pause(seen, databases), databases, started.age(clock.now()))


def look_with_witnesses(site: HarborSite, node: str) -> tuple[SiteLook, Witnesses]:
    """Look at the site and ask everybody about one node, at the same time."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_witnesses, site, node)
        seen = look(site)
        return seen, with_views(asked.result(), seen.others(node))


def with_pause(seen: Sequence[NodeFacts], databases: frozenset[str]) -> tuple[NodeFacts, ...]:
    """Show the database nodes, which decisions look at, a pause that only another node or the NAS tells of.

    The node on which somebody wrote it may be the one that is dead now.
    """
    elsewhere = [node.state for node in seen if node.name not in databases] + [node.shared for node in seen]
    flags = [files[PAUSED] for files in elsewhere if PAUSED in files]
    if not flags:
        return tuple(seen)
    return tuple(
        replace(node, shared={**node.shared, PAUSED: flags[0]}) if node.name in databases else node
        for node in seen
    )


def with_views(witnesses: Witnesses, others: Sequence[NodeFacts]) -> Witnesses:
    """Add what the other nodes' own probes saw of the node's PostgreSQL port."""
    tcp = dict(witnesses.tcp)
    for other in others:
        if other.reachable and witnesses.node in other.tcp:
            tcp[other.name] = other.tcp[witnesses.node]
    mute = tuple(other.name for other in others if other.name not in tcp)
    return replace(witnesses, tcp=tcp, mute=mute)


def _without_dead_lock(facts: NodeFacts) -> NodeFacts:
    """Leave out a lock whose process is known to be gone: a killed flow must not stop the next one for 15 min."""
    lock = facts.state.get(LOCK)
    if not isinstance(lock, dict) or not known_dead(str(lock.get("holder"))):
        return facts
    return replace(facts, state={name: value for name, value in facts.state.items() if name != LOCK})


def _answered(attempt: "Future[NodeFacts]") -> bool:
    return attempt.done() and attempt.result().reachable


def _through(site: HarborSite, node: SshHost, other: SshHost) -> NodeFacts:
    return probe(site, connect(node, via=other), path=f"via {other.name}")


def _best(results: Sequence[NodeFacts]) -> NodeFacts:
    for facts in results:
        if facts.reachable:
            return facts
    return replace(results[0], error="; ".join(facts.error for facts in results))
