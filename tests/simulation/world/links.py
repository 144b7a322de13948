"""Who reaches whom: directed links between places that may be cut, and places that are dead."""

from typing import Any

from tests.simulation.world.machines import Node

BALANCER, REDIS, NAS = "balancer", "redis", "nas"


class Links:
    """The network of a site.

    Attributes:
        cut: directed pairs of places between which packets are lost.
        down: balancer, redis, NAS that are dead.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.cut: set[tuple[str, str]] = set()
        self.down: set[str] = set()

    def has_nas(self, name: str) -> bool:
        """Tell whether the NAS answers a node."""
        return NAS not in self.down and self.path(name, NAS)

    def path(self, one: str, other: str) -> bool:
        """Tell whether two places can talk."""
        cut = self.cut
        return not cut or one == other or ((one, other) not in cut and (other, one) not in cut)

    def ssh(self, origin: str, name: str) -> bool:
        """Tell whether a login from there works."""
        node = self.nodes[name]
        return node.lives and self.path(origin, name)

    def ways(self, origin: str, name: str) -> list[str]:
        """List the nodes over which a login works when the direct one does not."""
        return [
            other
            for other, node in self.nodes.items()
            if other != name and node.lives and self.path(origin, other) and self.ssh(other, name)
        ]

    def port(self, origin: str, name: str) -> str:
        """Say what a TCP connection to a node's PostgreSQL does."""
        node = self.nodes[name]
        if not node.on or not self.path(origin, name):
            return "silent"
        if node.frozen:
            return "open" if node.server is not None else "refused"
        return "open" if node.server is not None else "refused"

    def service(self, origin: str, name: str) -> str:
        """Say what a TCP connection to the load balancer or Redis does."""
        return "open" if self.path(origin, name) and name not in self.down else "silent"

    def name_at(self, address: str) -> str:
        """Name the node at an address."""
        return next(node.name for node in self.nodes.values() if node.address == address)


class NoNetwork:
    """Stands for `socket` on the orchestrator: nothing in a history may ask the network of the machine it runs on.

    A client's write once did, unseen: its answer was that of whatever had the address, and took most of the time.
    """

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the simulation reaches for the network: socket.{name}")
