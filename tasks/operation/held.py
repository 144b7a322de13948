"""May a step of this flow still begin? Only while the site's lock is the flow's, and has been ever since it was taken.

A failover asks on the node, with its term and phase. `bootstrap` and `adopt` have neither, and held a lock whose loss
nobody told them: an adoption that had stood still, while its operator put the old Harbor back, took it down with the
pushes of an hour; a bootstrap that had stood still pointed every Harbor at the primary of before the failover. So
each of their steps asks the nodes first.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from blocks import HarborSite
from tasks.hosts.connection import connect
from tasks.on_node.authority import MAX_INTENT_AGE_S
from tasks.operation import store
from tasks.operation.timely import StoodStill

# A node that is busy with a step of ours, or a connection that broke, is asked again.
_ATTEMPTS = 3
_PAUSE_S = 1.0
# sshd takes ten sessions on a connection; as many steps as a flow begins at once would leave none for their work.
_AT_ONCE = threading.Semaphore(3)


@dataclass(frozen=True)
class Held:
    """A lock that a flow has taken.

    Attributes:
        operation: for what.
        nodes: where.
        everywhere: all of these nodes must say that it is still ours. On the way back, which must be open when one
            of them is away, it is enough that one does and none denies it.
    """

    operation: str
    nodes: tuple[str, ...]
    everywhere: bool = True

    def plain(self) -> dict[str, Any]:
        """Say it to a task, which takes plain values."""
        return {**asdict(self), "nodes": list(self.nodes)}


def require_held(site: HarborSite, held: Mapping[str, Any]) -> None:
    """Let a step begin if its flow still has the lock.

    Raises:
        LockLost: another run has, or has had it since.
        NotMirrored: not all of the nodes can be asked.
        StoodStill: their answer was old when it came.
    """
    hosts = [connect(site.node(name)) for name in held["nodes"]]
    required = held["nodes"] if held["everywhere"] else ()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _AT_ONCE:
                asked = time.monotonic()
                store.confirm(site, *hosts, op_id=held["operation"], required=required)
        except store.NotMirrored:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(_PAUSE_S)
            continue
        # The process may have stood still since a node answered.
        late = time.monotonic() - asked - MAX_INTENT_AGE_S
        if late <= 0:
            return
    raise StoodStill(late)
