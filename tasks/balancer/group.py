"""What a cloud's server group says of a node: drained, up, down, or not known. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blocks import HarborSite, SshHost
from tasks.balancer.states import BalancerError, NodeState, Served


@dataclass(frozen=True)
class Server:
    """One entry of a server group.

    Attributes:
        server: the ECS instance, network interface or address that is entered.
        ip: its address; empty when it is not told.
        port: on which it gets connections; 0 when the listener says so.
        weight: 0: it gets no new connections; None: the cloud does not tell.
        kind: as the API calls it: ecs, eni, Ecs, Ip, …
        settled: the cloud is not changing it just now.
        healthy: what the load balancer's own check says; None when it does not look, or does not tell.
        said: the word that it has for it.
    """

    server: str
    ip: str
    port: int
    weight: int | None
    kind: str
    settled: bool = True
    healthy: bool | None = None
    said: str = ""


@dataclass(frozen=True)
class Group:
    """The servers behind a listener.

    Attributes:
        listens: the listener takes connections.
        checks: the listener or the group has a health check.
        only_connects: that check is a TCP connection and no more.
    """

    servers: tuple[Server, ...]
    listens: bool = True
    checks: bool = True
    only_connects: bool = True


def state_of(site: HarborSite, node: str, group: Group) -> NodeState:
    """Say what the load balancer does with a node.

    A node without an entry gets no clients; that is believed only where every entry is known to be another node.
    """
    try:
        mine = entries_of(site, node, group.servers)
    except BalancerError as error:
        return NodeState(Served.UNKNOWN, None, error.what)
    if not mine:
        strangers = [one.server for one in _strangers(site, group.servers)]
        if strangers:
            said = f"not in the server group, which has servers of no node: {', '.join(strangers)[:200]}"
            return NodeState(Served.UNKNOWN, None, said)
        return NodeState(Served.DRAINED, None, "not in the server group")
    said = ", ".join(dict.fromkeys(f"weight {one.weight} {one.said}".strip() for one in mine))
    if not all(one.settled and one.weight is not None for one in mine):
        return NodeState(Served.UNKNOWN, None, f"being changed just now, or not told: {said}")
    serving = [one for one in mine if one.weight]
    if not serving:
        # A check of what gets no clients is no check: one product does not look, the other says that all is well.
        return NodeState(Served.DRAINED, None, said)
    if not group.listens:
        return NodeState(Served.UNKNOWN, None, f"the listener does not run: {said}")
    if not group.checks:
        return NodeState(Served.UP, None, f"no health check: {said}")
    alive = _alive(serving)
    served = {True: Served.UP, False: Served.DOWN, None: Served.UNKNOWN}[alive]
    return NodeState(served, None, said, alive, group.only_connects)


def entries_of(site: HarborSite, node: str, servers: Iterable[Server]) -> list[Server]:
    """Find a node's entries, by its instance or its address.

    Raises:
        BalancerError: the instance of the node has the address of another one; nothing can be told to it.
    """
    host = site.node(node)
    mine = [one for one in servers if _is(one, host)]
    others = {other.address: other.name for other in site.nodes if other.name != node}
    wrong = [one for one in mine if one.ip in others]
    if wrong:
        raise BalancerError(
            f"{wrong[0].server} is the instance of {node} in the site file, and has the address of "
            f"{others[wrong[0].ip]}.",
            where="load balancer",
            remedy=f"Correct nodes.{node}.instance_id in the site file and apply it.",
        )
    return mine


def _is(server: Server, host: SshHost) -> bool:
    return server.server in (host.instance_id, host.address) or server.ip == host.address


def _strangers(site: HarborSite, servers: Iterable[Server]) -> list[Server]:
    return [one for one in servers if not any(_is(one, host) for host in site.nodes)]


def _alive(serving: Sequence[Server]) -> bool | None:
    if any(one.healthy for one in serving):
        return True
    return False if all(one.healthy is False for one in serving) else None
