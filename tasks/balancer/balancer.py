"""The load balancer: who is served, take a node out, bring it back; believed only when it confirms."""

import time
from collections.abc import Callable

from blocks import HarborSite
from tasks.balancer.clb import Clb
from tasks.balancer.cloud import CloudBalancer
from tasks.balancer.command import CommandBalancer
from tasks.balancer.haproxy import HaProxy
from tasks.balancer.nlb import Nlb
from tasks.balancer.states import Balancer, BalancerError, NodeState, Served

# HAProxy acts at once; a cloud's API takes a few seconds to say that it did.
_END_AGAIN_S = 1.0
# Seen with HAProxy 2.6: `shutdown sessions` passes over a session whose client has closed its half.
_REMEDY_SESSIONS = (
    "Run the flow again. HAProxy ends half a session only by `timeout client-fin` and `timeout server-fin`: "
    "set both to 3s (docs/load-balancer.md)."
)
_CONFIRM_S = 15.0


def balancer_of(site: HarborSite) -> Balancer | None:
    """Give the site's load balancer; None when it is of a kind that cannot be asked."""
    if site.balancer.kind == "haproxy":
        return HaProxy(site.balancer)
    if site.balancer.kind == "command":
        return CommandBalancer(site)
    if site.balancer.kind == "aliyun-clb":
        return Clb(site)
    if site.balancer.kind == "aliyun-nlb":
        return Nlb(site)
    return None


def listener_of(site: HarborSite) -> CloudBalancer | None:
    """Give the site's load balancer where its listener is ours to make; None where it is not."""
    balancer = balancer_of(site)
    return balancer if site.balancer.create_listener and isinstance(balancer, CloudBalancer) else None


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
        state = balancer.status([node]).get(node, NodeState(Served.UNKNOWN))
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
        time.sleep(balancer.pace_s)
