"""The load balancer: who is served, take a node out, bring it back; believed only when it confirms."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from blocks import HarborSite
from tasks.errors import HarborHaError

# HAProxy acts at once; a cloud's API takes a few seconds to say that it did.
_END_AGAIN_S = 1.0
# Seen with HAProxy 2.6: `shutdown sessions` passes over a session whose client has closed its half.
_REMEDY_SESSIONS = (
    "Run the flow again. HAProxy ends half a session only by `timeout client-fin` and `timeout server-fin`: "
    "set both to 3s (docs/load-balancer.md)."
)
_CONFIRM_S = 15.0


class Served(StrEnum):
    """What the load balancer does with a node."""

    UP = "up"
    DOWN = "down"
    DRAINED = "drained"
    UNKNOWN = "unknown"


class BalancerError(HarborHaError):
    """The load balancer did not answer, or did not do what it was told."""


@dataclass(frozen=True)
class NodeState:
    """One node as the load balancer sees it.

    Attributes:
        served: whether new connections go there.
        sessions: connections that are open; None when it does not say.
        check: what its health check last said.
    """

    served: Served
    sessions: int | None = None
    check: str = ""


class Balancer(Protocol):
    """What every kind of load balancer can do."""

    def status(self) -> dict[str, NodeState]:
        """Return the state of every node it knows."""

    def drain(self, node: str) -> None:
        """Send the node no new connections and close the open ones."""

    def admit(self, node: str) -> None:
        """Send the node connections again, once its health check agrees."""


def balancer_of(site: HarborSite) -> Balancer | None:
    """Give the site's load balancer; None when it is of a kind that cannot be asked."""
    if site.balancer.kind == "haproxy":
        from tasks.balancer.haproxy import HaProxy

        return HaProxy(site.balancer)
    if site.balancer.kind == "command":
        from tasks.balancer.command import CommandBalancer

        return CommandBalancer(site)
    return None


def drain_confirmed(balancer: Balancer, node: str) -> NodeState:
    """Drain a node and wait until the load balancer says that no connection is left.

    Raises:
        BalancerError: it did not confirm within 15 s; clients may still reach the node.
    """
    balancer.drain(node)
    asked = time.monotonic()

    def drained(state: NodeState) -> bool:
        nonlocal asked
        # HAProxy ends the sessions that it has; one that was just being connected came after that.
        if state.served is Served.DRAINED and state.sessions and time.monotonic() - asked > _END_AGAIN_S:
            balancer.drain(node)
            asked = time.monotonic()
        return state.served is Served.DRAINED and not state.sessions

    return _await(balancer, node, "drained", drained)


def admit_confirmed(balancer: Balancer, node: str, timeout: float = _CONFIRM_S) -> NodeState:
    """Bring a node back and wait until its health check has passed.

    Args:
        timeout: seconds.

    Raises:
        BalancerError: the node is not served; its Harbor is unhealthy, or the balancer cannot reach it.
    """
    balancer.admit(node)
    return _await(balancer, node, "up", lambda state: state.served is Served.UP, timeout)


def _await(
    balancer: Balancer,
    node: str,
    wanted: str,
    reached: Callable[[NodeState], bool],
    timeout: float = _CONFIRM_S,
) -> NodeState:
    deadline = time.monotonic() + timeout
    while True:
        state = balancer.status().get(node, NodeState(Served.UNKNOWN))
        if reached(state):
            return state
        if time.monotonic() > deadline:
            raise BalancerError(
                f"{node} is {state.served} with {state.sessions} open sessions, not {wanted}.",
                where="load balancer",
                remedy=_REMEDY_SESSIONS
                if state.served is Served.DRAINED
                else f"Look at the node's Harbor; the health check says: {state.check or 'nothing'}",
            )
        time.sleep(0.1)
