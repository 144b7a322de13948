"""What the load balancers of a cloud have in common: whom they are asked about, a drain by weight, their errors."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from blocks import HarborSite
from tasks.aliyun.client import Cloud, CloudUnusable, Product
from tasks.aliyun.errors import CloudRefused, CloudSilent
from tasks.balancer.group import Group, Server, entries_of, state_of
from tasks.balancer.states import BalancerError, NodeState

# For a look where nobody waits, and for a change: an API that throttles is asked again in that time.
LOOK_S = 10.0
CALL_S = 30.0
FULL_WEIGHT = 100

Listener = Mapping[str, Any]


class CloudBalancer(ABC):
    """A load balancer of the cloud whose TCP listener on the site's port leads to the nodes.

    The group is always the one that the listener names: a drain is a drain of what clients use.

    Args:
        site: whose load balancer, nodes and account.
    """

    pace_s = 1.0
    product: Product

    def __init__(self, site: HarborSite) -> None:
        self._site = site

    def status(self, nodes: Sequence[str] = (), limit_s: float | None = None) -> dict[str, NodeState]:
        """Ask for the listener, its group and its health, for all nodes at once.

        Raises:
            BalancerError: it cannot be asked.
        """
        with asked():
            cloud, deadline = self._cloud(limit_s or LOOK_S)
            group = self._group(cloud, self._listener(cloud, deadline), deadline)
        wanted = [node.name for node in self._site.nodes if node.runs_harbor]
        return {name: state_of(self._site, name, group) for name in wanted if not nodes or name in nodes}

    def drain(self, node: str) -> None:
        """Give the node's entries the weight 0. The open sessions are not ended by that."""
        with asked():
            cloud, deadline = self._cloud(CALL_S)
            listener = self._listener(cloud, deadline)
            mine = entries_of(self._site, node, self._servers(cloud, listener, deadline))
            serving = [one for one in mine if one.weight != 0 or not one.settled]
            if serving:
                self._weigh(cloud, listener, serving, 0, deadline)

    def admit(self, node: str) -> None:
        """Give the node's entries their weight back, or enter the node where it has none."""
        with asked():
            cloud, deadline = self._cloud(CALL_S)
            listener = self._listener(cloud, deadline)
            mine = entries_of(self._site, node, self._servers(cloud, listener, deadline))
            sleeping = [one for one in mine if not one.weight or not one.settled]
            if not mine:
                self._enter(cloud, listener, node, deadline)
            elif sleeping:
                self._weigh(cloud, listener, sleeping, FULL_WEIGHT, deadline)

    def drain_others(self, node: str) -> list[str]:
        """Give every entry that is not the node's the weight 0, whoever it is; name those that had another one.

        After a disaster the lost machines are not in the site file any more, and still are in the group.

        Raises:
            BalancerError: it did not confirm within 30 s.
        """
        with asked():
            cloud, deadline = self._cloud(CALL_S)
            listener = self._listener(cloud, deadline)
            found: list[Server] = []
            while others := self._others(cloud, listener, node, deadline):
                if time.monotonic() > deadline:
                    names = ", ".join(one.server for one in others)
                    raise BalancerError(f"It goes on to send connections to {names}.", where="load balancer")
                found = found or others
                self._weigh(cloud, listener, others, 0, deadline)
                time.sleep(self.pace_s)
        return [one.server for one in found]

    def _others(self, cloud: Cloud, listener: Listener, node: str, deadline: float) -> list[Server]:
        servers = self._servers(cloud, listener, deadline)
        mine = entries_of(self._site, node, servers)
        return [one for one in servers if one not in mine and (one.weight != 0 or not one.settled)]

    def ensure_listener(self) -> bool:
        """Make the TCP listener where there is none, start it where it does not run; say whether that was needed.

        Raises:
            BalancerError: it could not be made.
        """
        with asked():
            return self._ensure_listener(*self._cloud(CALL_S))

    def _cloud(self, limit_s: float) -> tuple[Cloud, float]:
        # Made first: the SDK's import is not the API's time.
        cloud = Cloud(self._site, self.product)
        return cloud, time.monotonic() + limit_s

    @abstractmethod
    def _listener(self, cloud: Cloud, deadline: float) -> Listener: ...

    @abstractmethod
    def _servers(self, cloud: Cloud, listener: Listener, deadline: float) -> list[Server]: ...

    @abstractmethod
    def _group(self, cloud: Cloud, listener: Listener, deadline: float) -> Group: ...

    @abstractmethod
    def _weigh(
        self, cloud: Cloud, listener: Listener, servers: Sequence[Server], weight: int, deadline: float
    ) -> None: ...

    @abstractmethod
    def _enter(self, cloud: Cloud, listener: Listener, node: str, deadline: float) -> None: ...

    @abstractmethod
    def _ensure_listener(self, cloud: Cloud, deadline: float) -> bool: ...


@contextmanager
def asked() -> Iterator[None]:
    """Turn what the cloud's API says into the load balancer's own error."""
    try:
        yield
    except (CloudRefused, CloudSilent, CloudUnusable) as error:
        raise BalancerError(
            error.what, where="load balancer", meaning=error.meaning, remedy=error.remedy
        ) from error
