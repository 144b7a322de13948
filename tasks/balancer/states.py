"""What a load balancer says of a node, and what every kind of load balancer can do."""

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
