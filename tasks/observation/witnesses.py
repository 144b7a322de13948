"""Ask everybody who deals with a node whether it lives: the load balancer, Redis, and its own port."""

import functools
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from blocks import HarborSite
from tasks import clock
from tasks.balancer.balancer import balancer_of
from tasks.balancer.states import NodeState, Served
from tasks.clock import Moment
from tasks.observation.budget import LOOK_BUDGET_S, answer_or, ask, wait_until
from tasks.observation.redis import Client, address_of, hears, list_clients
from tasks.operation.files import WITNESSED
from tasks.operation.sightings import Sightings, newest
from tasks.operation.witnesses import OPEN, ORCHESTRATOR, Witnesses
from tasks.postgres.facts import NodeFacts

# Time for one lost packet, which is sent again after a second, and for the answer.
PORT_LIMIT_S = 1.25


@dataclass(frozen=True)
class Answers:
    """What was said in one round, about any number of nodes; what did not come in time is missing.

    Attributes:
        observed_at: when the round began.
        ports: PostgreSQL's port by node, from here: `open`, `refused` or `silent`.
        balancer: the load balancer's state of the nodes by name; None when it could not be asked.
        clients: Redis's clients; None when it could not be asked.
        resolved: the IP addresses that the nodes' addresses in the site file stand for.
        problems: who could not be asked and why, by `balancer` and `redis`.
    """

    observed_at: Moment
    ports: Mapping[str, str] = field(default_factory=dict)
    balancer: Mapping[str, NodeState] | None = None
    clients: tuple[Client, ...] | None = None
    resolved: Mapping[str, frozenset[str]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def ask_witnesses(
    site: HarborSite, nodes: Sequence[str], limit_s: float = LOOK_BUDGET_S, port_s: float = PORT_LIMIT_S
) -> Answers:
    """Ask about nodes, everybody at once, and go on when the time is over.

    Args:
        site: the site.
        nodes: their names; those without PostgreSQL are asked about at the load balancer and Redis alone.
        limit_s: seconds for all of it.
        port_s: of these for PostgreSQL's port to answer.
    """
    observed, deadline = clock.now(), time.monotonic() + limit_s
    addresses = {name: site.node(name).address for name in nodes}
    port = site.postgres.port
    ports = {
        name: ask(("port", address, port), functools.partial(tcp_state, address, port, port_s))
        for name, address in addresses.items()
        if site.node(name).runs_postgres
    }
    names = {
        name: ask(("address", address), functools.partial(resolve, address))
        for name, address in addresses.items()
    }
    redis: Future[tuple[Client, ...] | None] = ask(
        ("redis", site.redis.host, site.redis.port), lambda: list_clients(site.redis, limit_s)
    )
    balancer = ask(("balancer", site.name), lambda: _balancer_states(site, nodes, limit_s))
    asked: list[Future[object]] = [*ports.values(), *names.values(), redis, balancer]  # type: ignore[list-item]
    wait_until(lambda: all(answer.done() for answer in asked), lambda: asked, deadline)
    problems: dict[str, str] = {}
    return Answers(
        observed_at=observed,
        ports={name: answer_or(answer, lambda _: "silent") for name, answer in ports.items()},
        balancer=answer_or(balancer, _kept("balancer", problems)),
        clients=answer_or(redis, _kept("redis", problems)),
        resolved={name: answer_or(answer, lambda _: frozenset()) for name, answer in names.items()},
        problems=problems,
    )


def witnesses_of(site: HarborSite, node: str, answers: Answers, nodes: Iterable[NodeFacts]) -> Witnesses:
    """Say what all witnesses see of one node: what was answered, and the other nodes' own views of its port.

    Args:
        nodes: facts of all nodes, with or without a database: a Harbor's node is a witness too.
    """
    listed = list(nodes)
    target, note = site.node(node), note_of(listed)
    others = [other for other in listed if other.name != node]
    tcp = {ORCHESTRATOR: answers.ports[node]} if node in answers.ports else {}
    views = {other.name: other.tcp[node] for other in others if other.reachable and node in other.tcp}
    seen = note.nodes.get(node) if note else None
    state = None if answers.balancer is None else answers.balancer.get(node)
    addresses = answers.resolved.get(node, frozenset()) | addresses_of(node, listed, note)
    return Witnesses(
        node=node,
        observed_at=answers.observed_at,
        tcp={**tcp, **views},
        mute=tuple(other.name for other in others if other.name not in views) if target.runs_postgres else (),
        balancer_up=None if state is None else state.alive,
        balancer_only_connects=state is not None and state.only_connects,
        balancer_drained=None
        if state is None or state.served is Served.UNKNOWN
        else state.served is Served.DRAINED,
        redis_connected=None
        if answers.clients is None or not addresses
        else hears(answers.clients, addresses),
        has_balancer=site.balancer.kind != "none" and target.runs_harbor,
        has_redis=target.runs_harbor,
        saw=seen.saw if seen else None,
    )


def note_of(nodes: Iterable[NodeFacts]) -> Sightings | None:
    """Find the newest note of who could see whom, on any node that was reached."""
    return newest(node.state[WITNESSED] for node in nodes if WITNESSED in node.state)


def addresses_of(node: str, nodes: Iterable[NodeFacts], note: Sightings | None) -> frozenset[str]:
    """Give the IP addresses of a node as it tells them itself now, or as it told them when it was last in service.

    An address that two nodes have (a bridge of Docker's, a shared one) tells nothing of either.
    """
    told = {name: set(seen.addresses) for name, seen in note.nodes.items()} if note else {}
    told.update({facts.name: set(facts.addresses) for facts in nodes if facts.addresses})
    foreign = {address for name, owned in told.items() if name != node for address in owned}
    return frozenset(told.get(node, set()) - foreign)


def tcp_state(address: str, port: int, limit_s: float = PORT_LIMIT_S) -> str:
    """Try a TCP connection: `open`, `refused` or `silent`."""
    try:
        socket.create_connection((address, port), timeout=limit_s).close()
    except ConnectionRefusedError:
        return "refused"
    except (OSError, UnicodeError):
        return "silent"
    return OPEN


def resolve(address: str) -> frozenset[str]:
    """Give the IP addresses of a host name, or the address itself; nothing when the name is not known.

    Not those of loopback, as which Debian's installer enters a machine's own name: they are everybody's.
    """
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    places = {str(place[0]) for *_, place in found}
    return frozenset(
        place for place in places if (ip := address_of(place)) is not None and not ip.is_loopback
    )


def _balancer_states(site: HarborSite, nodes: Sequence[str], limit_s: float) -> dict[str, NodeState] | None:
    balancer = balancer_of(site)
    harbors = [name for name in nodes if site.node(name).runs_harbor]
    return balancer.status(harbors, limit_s) if balancer and harbors else None


def _kept(who: str, problems: dict[str, str]) -> Callable[[str], None]:
    def keep(why: str) -> None:
        problems[who] = why

    return keep
