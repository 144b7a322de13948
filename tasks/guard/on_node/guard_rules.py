"""Part of node programs: may this node be a primary? Pure decisions over what it sees of itself and its peers."""

from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

PRIMARY = "primary"
STANDBY = "standby"
DOWN = "down"  # its machine answers, its server does not run
STARTING = "starting"
SILENT = "silent"

# How long after its start a primary still yields to a peer. Later a second primary was made by somebody, and
# which one is right is not for a machine to say.
YIELD_S = 120.0


class Local(NamedTuple):
    """This node: its cluster's identity and timeline, and whether it would start as a standby."""

    node: str
    sysid: str
    timeline: int
    standby_signal: bool


class Peer(NamedTuple):
    """Another database node, as it answers."""

    name: str
    state: str
    sysid: Optional[str] = None
    timeline: int = 0


def may_start(local: Local, accepted: Optional[Dict[str, Any]], peers: Sequence[Peer]) -> Tuple[bool, str]:
    """Decide whether this node's server may start, and say why.

    A peer that is silent does not keep the accepted primary from starting: after a power cut of the whole
    site, or with the standby under repair, nobody else would ever start it.

    Args:
        accepted: `accepted.json`: the primary that was accepted last; None when none ever was.
    """
    if local.standby_signal:
        return True, "it is a standby"
    ours = [peer for peer in peers if peer.sysid == local.sysid]
    for peer in ours:
        if peer.state == PRIMARY and peer.timeline >= local.timeline:
            return False, "%s is the primary on timeline %d, this node has timeline %d" % (
                peer.name,
                peer.timeline,
                local.timeline,
            )
        if peer.state == STANDBY and peer.timeline > local.timeline:
            return False, "%s follows timeline %d, this node has timeline %d" % (
                peer.name,
                peer.timeline,
                local.timeline,
            )
    if accepted is not None:
        named, timeline = accepted.get("primary"), int(accepted.get("timeline", 0))
        if named != local.node and timeline >= local.timeline:
            return False, "%s was accepted as the primary on timeline %d" % (named, timeline)
        if timeline > local.timeline:
            return False, "it was the primary on timeline %d; its data is older" % timeline
    return True, "no peer is a primary on its timeline or a newer one"


def must_yield(local: Local, running_s: float, peers: Sequence[Peer]) -> Optional[str]:
    """Say why a primary that has just started must stop again; None when it need not.

    For two machines that boot at the same instant: neither saw the other one's server in its guard.
    """
    if local.standby_signal or running_s > YIELD_S:
        return None
    for peer in peers:
        if peer.state == PRIMARY and peer.sysid == local.sysid and peer.timeline > local.timeline:
            return "%s is the primary on timeline %d" % (peer.name, peer.timeline)
    return None


def may_resume(local: Local, accepted: Optional[Dict[str, Any]], peers: Sequence[Peer]) -> bool:
    """Tell whether a primary that has fenced itself may start again: all peers answer, none took over."""
    answered = all(peer.state in (PRIMARY, STANDBY, DOWN) for peer in peers)
    return answered and may_start(local, accepted, peers)[0]
