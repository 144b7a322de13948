"""One look at the whole site: all nodes at once, over every path that there is, and all witnesses."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from blocks import HarborSite, SshHost
from tasks import clock
from tasks.clock import Moment
from tasks.hosts.connection import connect
from tasks.hosts.on_node.node_probe import PORT_TIMEOUT_S
from tasks.observation.budget import LOOK_BUDGET_S, answer_or, ask, wait_until
from tasks.observation.witnesses import PORT_LIMIT_S, Answers, ask_witnesses, witnesses_of
from tasks.operation.files import LOCK, PAUSED
from tasks.operation.holder import known_dead
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts
from tasks.postgres.layout import database_nodes
from tasks.postgres.probe import HARBOR_LIMIT_S, HURRIED_HARBOR_S, probe

# A machine that lives takes a connection within milliseconds, and answers the look in 0.2 s.
_HANDSHAKE_S = 0.4
_PATIENCE_S = 1.0
# For a machine that a fence command has just confirmed to be off: if that is not true it answers within this, over a
# network where a healthy answer takes milliseconds. Its silence proves nothing more then, so no packet is sent twice.
OFF_PATIENCE_S = 0.5
# Both have the same time and begin at the same moment; the one that is added up last gets a moment to do so.
_WITNESSES_LATER_S = 0.3


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


def look(
    site: HarborSite,
    budget_s: float = LOOK_BUDGET_S,
    *,
    harbor_s: float = HARBOR_LIMIT_S,
    suspect: str = "",
    said_off: bool = False,
) -> SiteLook:
    """Look at all nodes at once, and go on when the time is over: who is late was not reached.

    A node that is not quick to answer is asked through every other node as well, before the direct path has
    given up: one time-out after the other would double the time to a failover, and a primary that is only cut
    off from here must not be taken for dead. A node that hangs is not waited for: what is known of the others
    would be too old to act on.

    Args:
        site: the site.
        budget_s: seconds for all of it.
        harbor_s: of these for each Harbor to say how it is.
        suspect: a node that may be gone; it is asked over every path from the beginning.
        said_off: the suspect was confirmed to be off, and has half a second to prove the contrary.
    """
    started = clock.now()
    tries = _ask_all(site, time.monotonic() + budget_s, harbor_s, suspect, said_off)
    seen = [_best(name, started, attempts) for name, attempts in tries.items()]
    databases = frozenset(node.name for node in database_nodes(site))
    alive = [_without_dead_lock(facts) for facts in seen]
    return SiteLook(with_pause(alive, databases), databases, started.age(clock.now()))


def look_with_witnesses(
    site: HarborSite, node: str, budget_s: float = LOOK_BUDGET_S, *, said_off: bool = False
) -> tuple[SiteLook, Witnesses]:
    """Look at the site and ask everybody about one node, at the same time.

    Args:
        budget_s: seconds for the nodes.
        said_off: the node was confirmed to be off; see `look`.
    """
    port_s = OFF_PATIENCE_S if said_off else PORT_LIMIT_S
    asked = ask(("witnesses", site.name, node), lambda: ask_witnesses(site, [node], port_s=port_s))
    begun = clock.now()
    seen = look(site, budget_s, harbor_s=HURRIED_HARBOR_S, suspect=node, said_off=said_off)
    wait_until(asked.done, lambda: [asked], time.monotonic() + _WITNESSES_LATER_S)
    answers = answer_or(asked, lambda _: Answers(begun))
    return seen, witnesses_of(site, node, answers, seen.every)


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


def _without_dead_lock(facts: NodeFacts) -> NodeFacts:
    """Leave out a lock whose process is known to be gone: a killed flow must not stop the next one for 15 min."""
    lock = facts.state.get(LOCK)
    if not isinstance(lock, dict) or not known_dead(str(lock.get("holder"))):
        return facts
    return replace(facts, state={name: value for name, value in facts.state.items() if name != LOCK})


def _ask_all(
    site: HarborSite, deadline: float, harbor_s: float, suspect: str, said_off: bool
) -> "dict[str, list[Future[NodeFacts]]]":
    """Ask every node, and who does not answer at once over every other path; return what was asked of whom."""
    nodes = site.nodes
    silent = {node.name for node in nodes if connect(node).silent}
    port_s = OFF_PATIENCE_S if said_off else PORT_TIMEOUT_S

    def question(node: SshHost, via: SshHost | None = None) -> "Future[NodeFacts]":
        path = "direct" if via is None else f"via {via.name}"
        host = connect(node, via=via)
        return ask(
            (site.name, node.name, path),
            lambda: probe(site, host, path=path, harbor_s=harbor_s, port_s=port_s),
        )

    def ask_around(wanted: Callable[[SshHost], bool], through: Callable[[SshHost], bool]) -> None:
        for node in nodes:
            if len(tries[node.name]) == 1 and wanted(node) and not _answered(tries[node.name][0]):
                ways = [other for other in nodes if other.name not in (node.name, *silent) and through(other)]
                tries[node.name] += [question(node, other) for other in ways]

    begun = time.monotonic()
    tries = {node.name: [question(node)] for node in nodes}
    # Nobody is waited for who was silent the last time, or is said to be gone: a second of each failover.
    ask_around(lambda node: node.name in silent or node.name == suspect, lambda _: True)
    given_up = {*silent, suspect} if said_off else silent
    quick = [tries[node.name][0] for node in nodes if node.name not in given_up]
    wait_until(lambda: all(attempt.done() for attempt in quick), lambda: quick, begun + _HANDSHAKE_S)
    # From here on through who is there: a way through a machine that takes no connection leads nowhere, and took a
    # second of each failover, whose standby waits for its old primary's port and is asked through that, too.
    ask_around(lambda node: not connect(node).heard, lambda way: connect(way).heard)
    wait_until(lambda: all(attempt.done() for attempt in quick), lambda: quick, begun + _PATIENCE_S)
    ask_around(lambda _: True, lambda way: connect(way).heard)
    if said_off:
        rest = {name: attempts for name, attempts in tries.items() if name != suspect}
        _wait_for_one_of_each(rest, deadline)
        _wait_for_one_of_each(tries, min(deadline, begun + OFF_PATIENCE_S))
    else:
        _wait_for_one_of_each(tries, deadline)
    return tries


def _wait_for_one_of_each(tries: "Mapping[str, list[Future[NodeFacts]]]", deadline: float) -> None:
    wait_until(
        lambda: all(any(map(_answered, attempts)) for attempts in tries.values()),
        lambda: [attempt for attempts in tries.values() for attempt in attempts],
        deadline,
    )


def _answered(attempt: "Future[NodeFacts]") -> bool:
    return attempt.done() and attempt.exception() is None and attempt.result().reachable


def _best(name: str, started: Moment, attempts: Sequence["Future[NodeFacts]"]) -> NodeFacts:
    """Take the answer of the best path; where no path led there, say why of each."""
    reached = next((attempt.result() for attempt in attempts if _answered(attempt)), None)
    if reached is not None:
        return reached
    failed = [answer_or(attempt, lambda why: NodeFacts(name, started, error=why)) for attempt in attempts]
    return NodeFacts(name, started, error="; ".join(dict.fromkeys(facts.error for facts in failed)))
