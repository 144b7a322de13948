"""What a load balancer says of a node, and what every kind of load balancer can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tasks.errors import HarborHaError


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
        alive: whether the balancer's own check sees the node; None when it does not look (maintenance, no check)
            or is of two minds. A node that is not served is not thereby lost.
        only_connects: its check asks no more than a TCP connection, which the kernel of a hung machine accepts too.
    """

    served: Served
    sessions: int | None = None
    check: str = ""
    alive: bool | None = None
    only_connects: bool = False


class Balancer(Protocol):
    """What every kind of load balancer can do.

    Attributes:
        pace_s: seconds between two questions while something is waited for; a cloud counts them.
    """

    pace_s: float

    def status(self, nodes: Sequence[str] = (), limit_s: float | None = None) -> dict[str, NodeState]:
        """Return the state of the nodes it knows.

        Args:
            nodes: only these are wanted; empty: all.
            limit_s: seconds after which an answer is worth nothing; None: what this kind of balancer needs.

        Raises:
            BalancerError: it cannot be asked.
        """

    def drain(self, node: str) -> None:
        """Send the node no new connections and close the open ones."""

    def admit(self, node: str) -> None:
        """Send the node connections again, once its health check agrees."""
