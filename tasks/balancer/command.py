"""A load balancer behind the site's own commands, for example a cloud's command line."""

from collections.abc import Sequence

from blocks import HarborSite
from tasks.balancer.states import BalancerError, NodeState, Served
from tasks.hosts.local import LocalCommandFailed, run_local

_TIMEOUT_S = 30.0


class CommandBalancer:
    """Runs the site's commands; `{node}` and `{address}` in them are replaced.

    Args:
        site: whose commands.
    """

    def __init__(self, site: HarborSite) -> None:
        self._site = site

    def status(self) -> dict[str, NodeState]:
        """Ask for each node; a word other than up, down or drained is not believed."""
        return {node.name: self._state(node.name) for node in self._site.nodes if node.runs_harbor}

    def drain(self, node: str) -> None:
        """Run the drain command."""
        self._run(self._site.balancer.drain_command, node)

    def admit(self, node: str) -> None:
        """Run the undrain command."""
        self._run(self._site.balancer.undrain_command, node)

    def _state(self, node: str) -> NodeState:
        said = self._run(self._site.balancer.status_command, node).strip()
        known = said in (Served.UP, Served.DOWN, Served.DRAINED)
        return NodeState(Served(said) if known else Served.UNKNOWN, None, said)

    def _run(self, command: Sequence[str] | None, node: str) -> str:
        address = self._site.node(node).address
        words = [word.replace("{node}", node).replace("{address}", address) for word in command or []]
        try:
            return run_local(words, timeout=_TIMEOUT_S)
        except LocalCommandFailed as error:
            raise BalancerError(error.what, where="load balancer") from error
