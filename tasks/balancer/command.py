"""A load balancer behind the site's own commands, for example a cloud's command line."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from blocks import HarborSite
from tasks.balancer.states import BalancerError, NodeState, Served
from tasks.hosts.local import LocalCommandFailed, run_local

_TIMEOUT_S = 30.0
# Each word, and what it says of the node itself: a node that was taken out may be alive.
_WORDS = {"up": True, "down": False, "drained": None}


class CommandBalancer:
    """Runs the site's commands; `{node}` and `{address}` in them are replaced.

    Args:
        site: whose commands.
    """

    pace_s = 0.1

    def __init__(self, site: HarborSite) -> None:
        self._site = site

    def status(self, nodes: Sequence[str] = (), limit_s: float | None = None) -> dict[str, NodeState]:
        """Ask for each node, for all at once; a word other than up, down or drained is not believed.

        One after the other, two nodes of 4.2 s made every failover decide on facts that were too old.

        Raises:
            BalancerError: no command ended well; where only some did not, their nodes are not known.
        """
        wanted = [
            node.name for node in self._site.nodes if node.runs_harbor and node.name in (nodes or [node.name])
        ]
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            asked = {name: pool.submit(self._state, name, limit_s or _TIMEOUT_S) for name in wanted}
        failed = [error for future in asked.values() if (error := future.exception()) is not None]
        if failed and len(failed) == len(asked):
            raise failed[0]
        return {name: _known(future) for name, future in asked.items()}

    def drain(self, node: str) -> None:
        """Run the drain command."""
        self._run(self._site.balancer.drain_command, node)

    def admit(self, node: str) -> None:
        """Run the undrain command."""
        self._run(self._site.balancer.undrain_command, node)

    def _state(self, node: str, limit_s: float) -> NodeState:
        said = self._run(self._site.balancer.status_command, node, limit_s).strip()
        if said not in _WORDS:
            return NodeState(Served.UNKNOWN, None, "the status command printed another word")
        return NodeState(Served(said), None, said, _WORDS[said])

    def _run(self, command: Sequence[str] | None, node: str, limit_s: float = _TIMEOUT_S) -> str:
        address = self._site.node(node).address
        words = [word.replace("{node}", node).replace("{address}", address) for word in command or []]
        try:
            return run_local(words, timeout=limit_s)
        except LocalCommandFailed as error:
            raise BalancerError(error.what, where="load balancer") from error


def _known(asked: "Future[NodeState]") -> NodeState:
    error = asked.exception()
    return asked.result() if error is None else NodeState(Served.UNKNOWN, None, str(error))
