"""HAProxy through its runtime API: one command a connection, plain text."""

import csv
import io
import socket

from blocks import LoadBalancer
from tasks.balancer.states import BalancerError, NodeState, Served

_TIMEOUT_S = 3.0


class HaProxy:
    """HAProxy whose admin socket is reachable over TCP.

    Args:
        settings: where it is; `backend` has one server a node, with the node's name.
    """

    def __init__(self, settings: LoadBalancer) -> None:
        self._settings = settings

    def status(self) -> dict[str, NodeState]:
        """Read `show stat`.

        Raises:
            BalancerError: it did not answer.
        """
        return parse_stat(self._ask("show stat"), self._settings.backend)

    def drain(self, node: str) -> None:
        """Put the server into maintenance and close its sessions: `drain` alone would keep them open."""
        server = f"{self._settings.backend}/{node}"
        self._tell(f"set server {server} state maint")
        self._tell(f"shutdown sessions server {server}")

    def admit(self, node: str) -> None:
        """Take the server out of maintenance; it gets connections once its check has passed."""
        self._tell(f"set server {self._settings.backend}/{node} state ready")

    def _tell(self, command: str) -> None:
        answer = self._ask(command).strip()
        if answer:
            raise BalancerError(
                f"`{command}` was answered with: {answer}",
                where="load balancer",
                remedy="The servers of the backend must have the names of the nodes.",
            )

    def _ask(self, command: str) -> str:
        address = (self._settings.admin_host or self._settings.address, self._settings.admin_port or 9999)
        try:
            with socket.create_connection(address, timeout=_TIMEOUT_S) as connection:
                connection.sendall(command.encode() + b"\n")
                answer = bytearray()
                while block := connection.recv(65536):
                    answer += block
        except OSError as error:
            raise BalancerError(
                f"The runtime API at {address[0]}:{address[1]} did not answer ({error}).",
                where="load balancer",
                meaning="Nodes cannot be taken out or brought back.",
                remedy="Check that HAProxy runs and that `stats socket … level admin` listens there.",
            ) from error
        return answer.decode("utf-8", "replace")


def parse_stat(text: str, backend: str) -> dict[str, NodeState]:
    """Parse `show stat` (CSV with a `# ` before its header) into the states of a backend's servers."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    return {
        row["svname"]: NodeState(_served(row["status"]), int(row["scur"] or 0), _check(row))
        for row in rows
        if row["pxname"] == backend and row["svname"] not in ("BACKEND", "FRONTEND")
    }


def _served(status: str) -> Served:
    # `UP 1/2` is a server on its way down, which still gets connections; `DOWN 1/2` the other way round.
    if status.startswith("MAINT"):
        return Served.DRAINED
    if status.startswith(("UP", "no check")):
        return Served.UP
    return Served.DOWN if status.startswith(("DOWN", "NOLB", "DRAIN")) else Served.UNKNOWN


def _check(row: dict[str, str]) -> str:
    return " ".join(part for part in (row.get("check_status", ""), row.get("last_chk", "")) if part)
