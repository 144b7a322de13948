"""What is done to a peer, and how long its clients could not commit."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from benchmarks.peers.commits import first_after, longest_gap
from benchmarks.peers.machines import Machines, wait_for
from benchmarks.peers.writer import Writer, is_streamed_from, make_table
from lab.topology import PAIR

_SETTLE_S = 180.0
_OUTAGE_S = 180.0


class Peer(Protocol):
    """Software that keeps a pair of databases available by itself.

    Attributes:
        nodes: what it runs on.
        data: where its PostgreSQL keeps its data.
    """

    nodes: Machines
    data: str

    @property
    def period_s(self) -> float:
        """Seconds between two looks of its own."""

    def install(self) -> str:
        """Set it up on bare machines; returns its version and settings."""

    def roles(self) -> tuple[str, str] | None:
        """The primary and the standby, when both are well; else None."""

    def switch_over(self, primary: str, standby: str) -> None:
        """Exchange the roles, planned."""


def power_cut(peer: Peer) -> float:
    """Cut the primary's power; returns the seconds until the first commit on the other. The node is switched on again.

    Raises:
        LabError: the pair was not well before, or nobody accepts writes afterwards.
    """
    primary, _ = settle(peer)
    with _writing(peer) as writer:
        begun = time.monotonic()
        peer.nodes.lab.stop(primary)
        seconds = _outage(writer, begun, primary)
    peer.nodes.lab.start(primary)
    return seconds


def postmaster_killed(peer: Peer) -> float:
    """Kill the primary's postmaster, its host alive; returns the seconds until the first commit on either node.

    Raises:
        LabError: as `power_cut`.
    """
    primary, _ = settle(peer)
    with _writing(peer) as writer:
        begun = time.monotonic()
        peer.nodes.kill_postmaster(primary, peer.data)
        return _outage(writer, begun, primary)


def switchover(peer: Peer) -> float:
    """Exchange the roles, planned; returns the longest gap between two commits, in seconds.

    Raises:
        LabError: as `power_cut`.
    """
    primary, standby = settle(peer)
    with _writing(peer) as writer:
        begun = time.monotonic()
        peer.switch_over(primary, standby)
        wait_for(
            lambda: any(commit.node == standby and commit.at > begun for commit in writer.commits),
            _OUTAGE_S,
            f"a commit on {standby} after the switchover",
        )
        return longest_gap(writer.commits, begun)


ACCIDENTS: dict[str, Callable[[Peer], float]] = {
    "power cut": power_cut,
    "postmaster killed": postmaster_killed,
    "switchover, longest gap": switchover,
}


def prepare(peer: Peer) -> None:
    """Wait for the pair, and make the table that is written to.

    Raises:
        LabError: as `settle`.
    """
    primary, _ = settle(peer)
    make_table(peer.nodes.address(primary))


def settle(peer: Peer) -> tuple[str, str]:
    """Wait until both nodes are well and the standby streams; returns the primary and the standby.

    Raises:
        LabError: they are not within three minutes.
    """
    found: list[tuple[str, str]] = []

    def well() -> bool:
        roles = peer.roles()
        found[:] = [roles] if roles and is_streamed_from(peer.nodes.address(roles[0])) else []
        return bool(found)

    wait_for(well, _SETTLE_S, "both nodes are well and the standby streams from the primary")
    return found[0]


@contextmanager
def _writing(peer: Peer) -> Iterator[Writer]:
    """A writer that has committed; what follows happens at any moment of the peer's own rhythm."""
    with Writer({node: peer.nodes.address(node) for node in PAIR}) as writer:
        wait_for(lambda: bool(writer.commits), _OUTAGE_S, "a commit before the accident")
        # The wait before this ended with a look of the peer: without a draw every accident would come right after one.
        time.sleep(random.uniform(0, peer.period_s))
        yield writer


def _outage(writer: Writer, begun: float, victim: str) -> float:
    found: list[float] = []

    def over() -> bool:
        seconds = first_after(writer.commits, begun, victim)
        found[:] = [] if seconds is None else [seconds]
        return bool(found)

    wait_for(over, _OUTAGE_S, f"a commit after what happened to {victim}")
    return found[0]
