"""Both nodes behind the load balancer, as steps."""

from blocks import HarborSite
from tasks.balancer.balancer import admit_confirmed, balancer_of, drain_confirmed, listener_of
from tasks.balancer.cloud import CloudBalancer
from tasks.balancer.command import CommandBalancer
from tasks.balancer.haproxy import HaProxy
from tasks.balancer.states import BalancerError, Served
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged


def listen(site: HarborSite) -> Outcome:
    """Have a TCP listener on the site's port at the load balancer, where the site file asks for that.

    Raises:
        BalancerError: it could not be made or started.
    """
    balancer, port = listener_of(site), site.balancer.port
    if balancer is None:
        return unchanged("the listener is not ours to make")
    if balancer.ensure_listener():
        return changed(f"{site.balancer.instance_id} listens on {port}")
    return unchanged(f"{site.balancer.instance_id} listens on {port}")


def admit(site: HarborSite, host: Host, *, timeout: float = 30.0) -> Outcome:
    """Have a node served by the load balancer; its own health check must agree.

    Args:
        timeout: seconds to wait for the check.

    Raises:
        BalancerError: the node is not served.
    """
    node, balancer = host.name, balancer_of(site)
    if balancer is None:
        return unchanged("the load balancer is not ours to ask")
    state = balancer.status([node]).get(node)
    if state is not None and state.served is Served.UP:
        return unchanged(f"{node} is served")
    admit_confirmed(balancer, node, timeout)
    return changed(f"{node} is served")


def drain_others(site: HarborSite, host: Host) -> Outcome:
    """Take everybody but this node out of the load balancer, also whom the site file does not name any more.

    Returns:
        data: `drained`, who is out by now; `unseen`, why others may still be served, empty where none can be.

    Raises:
        BalancerError: the load balancer did not confirm it.
    """
    node, balancer = host.name, balancer_of(site)
    if balancer is None:
        return unchanged(
            "the load balancer is not ours to tell", drained=[], unseen="it cannot be told anything"
        )
    if isinstance(balancer, CloudBalancer):
        done = balancer.drain_others(node)
        told = f"drained {', '.join(done)}" if done else "it sends connections to nobody else"
        return (changed if done else unchanged)(told, drained=done, unseen="")
    states = {name: state for name, state in balancer.status().items() if name != node}
    serving = [name for name, at in states.items() if at.served is not Served.DRAINED or at.sessions]
    for name in serving:
        drain_confirmed(balancer, name)
    # The commands are run for a node of the site file; whom it does not name any more they do not know.
    only_listed = isinstance(balancer, CommandBalancer)
    unseen = "its commands know only the nodes of the site file" if only_listed else ""
    text = f"drained {', '.join(serving)}" if serving else "nobody else is served"
    return (changed if serving else unchanged)(text, drained=sorted(states), unseen=unseen)


def undrain(site: HarborSite, host: Host) -> Outcome:
    """End the drain of a node; whether it is served is for its health check to say, for it may be dead."""
    balancer = balancer_of(site)
    if balancer is None:
        return unchanged("the load balancer is not ours to tell")
    balancer.admit(host.name)
    return changed(f"{host.name} is drained no more")


def end_drain(site: HarborSite, host: Host) -> Outcome:
    """End the drain of a node if it is drained; a cloud is told nothing that it does already, which takes seconds."""
    balancer = balancer_of(site)
    if balancer is None:
        return unchanged("the load balancer is not ours to tell")
    state = balancer.status([host.name]).get(host.name)
    if state is None or state.served is not Served.DRAINED:
        return unchanged(f"{host.name} is not drained")
    balancer.admit(host.name)
    return changed(f"{host.name} is drained no more")


def hurry(site: HarborSite, host: Host) -> Outcome:
    """Have a node that was just seen to answer served without waiting for two checks; nothing depends on it."""
    balancer = balancer_of(site)
    if not isinstance(balancer, HaProxy):
        return unchanged("its health check will say so")
    try:
        balancer.hurry(host.name)
    except BalancerError as error:
        return unchanged(f"its health check will say so: {error.what}")
    return changed(f"{host.name} is served at once")


def drain(site: HarborSite, host: Host) -> Outcome:
    """Take a node out of the load balancer, so that no client reaches its Harbor; the node may be dead.

    Raises:
        BalancerError: the load balancer did not confirm it.
    """
    node, balancer = host.name, balancer_of(site)
    if balancer is None:
        return unchanged("the load balancer is not ours to tell", drained=False)
    state = balancer.status([node]).get(node)
    if state is not None and state.served is Served.DRAINED and not state.sessions:
        return unchanged(f"{node} is drained", drained=True)
    drain_confirmed(balancer, node)
    return changed(f"{node} is drained, no session is left", drained=True)
