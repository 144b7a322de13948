"""HAProxy through its runtime API: one command a connection, plain text."""

import csv
import io
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from blocks import LoadBalancer
from tasks.balancer.states import BalancerError, NodeState, Served

_TIMEOUT_S = 3.0
# Clients wait meanwhile; later than this the health check has said it by itself.
_HURRY_S = 0.5
# A server's line has some 600 characters; whatever sends more is no runtime API.
_MAX_ANSWER = 4 << 20
_NEEDED = ("pxname", "svname", "scur", "status")
# srv_admin_state in `show servers state`: maintenance that was ordered on this server itself, by the runtime API
# or by `disabled` in the configuration. Other bits are inherited: a tracked server, a name that does not resolve.
_ORDERED = 0x01 | 0x04


class HaProxy:
    """HAProxy whose admin socket is reachable over TCP.

    Args:
        settings: where it is; `backend` has one server a node, with the node's name.
    """

    pace_s = 0.1

    def __init__(self, settings: LoadBalancer) -> None:
        self._settings = settings

    def status(self, nodes: Sequence[str] = (), limit_s: float | None = None) -> dict[str, NodeState]:
        """Read `show stat`; one answer has all nodes.

        Raises:
            BalancerError: it did not answer, or with something else.
        """
        deadline = time.monotonic() + (limit_s or _TIMEOUT_S)
        states = parse_stat(self._ask("show stat", deadline), self._settings.backend)
        if any(state.check.startswith("MAINT (") for state in states.values()):
            # Such a server may be drained by us besides; only its admin state says so.
            ordered = parse_admin_states(
                self._ask(f"show servers state {self._settings.backend}", deadline), self._settings.backend
            )
            states = {name: _ours(state, ordered.get(name, 0)) for name, state in states.items()}
        return states

    def drain(self, node: str) -> None:
        """Put the server into maintenance and close its sessions: `drain` alone would keep them open."""
        server = f"{self._settings.backend}/{node}"
        self._tell(f"set server {server} state maint")
        self._tell(f"shutdown sessions server {server}")

    def admit(self, node: str) -> None:
        """Take the server out of maintenance; it gets connections once its check has passed."""
        self._tell(f"set server {self._settings.backend}/{node} state ready")

    def hurry(self, node: str) -> None:
        """Serve a node from now on, until its health check says otherwise; what is in maintenance stays there.

        For one that was just seen to answer: HAProxy asks a server that was down each half second, and believes the
        second answer.
        """
        self._tell(f"set server {self._settings.backend}/{node} health up", time.monotonic() + _HURRY_S)

    def _tell(self, command: str, deadline: float | None = None) -> None:
        answer = self._ask(command, deadline).strip()
        if answer:
            raise BalancerError(
                f"`{command}` was answered with: {answer.splitlines()[0][:100]}",
                where="load balancer",
                remedy="The servers of the backend must have the names of the nodes.",
            )

    def _ask(self, command: str, deadline: float | None = None) -> str:
        address = (self._settings.admin_host or self._settings.address, self._settings.admin_port or 9999)
        end = deadline or time.monotonic() + _TIMEOUT_S
        try:
            with socket.create_connection(address, timeout=_left(end)) as connection:
                connection.sendall(command.encode() + b"\n")
                answer = bytearray()
                while block := connection.recv(65536):
                    answer += block
                    # Of the whole answer, not of each piece: one that trickles would hold up a failover.
                    connection.settimeout(_left(end))
                    if len(answer) > _MAX_ANSWER:
                        raise OSError("it does not stop talking")
        except OSError as error:
            raise BalancerError(
                f"The runtime API at {address[0]}:{address[1]} did not answer ({error}).",
                where="load balancer",
                meaning="Nodes cannot be taken out or brought back.",
                remedy="Check that HAProxy runs and that `stats socket … level admin` listens there.",
            ) from error
        return answer.decode("utf-8", "replace")


def parse_stat(text: str, backend: str) -> dict[str, NodeState]:
    """Parse `show stat` (CSV with a `# ` before its header) into the states of a backend's servers.

    A row that is cut off or odd is a server of which nothing is known.

    Raises:
        BalancerError: it is no such table: another service listens there, or HAProxy's master.
    """
    if not text.startswith("# "):
        raise _no_table("show stat")
    reader = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    try:
        if not set(_NEEDED) <= set(reader.fieldnames or ()):
            raise _no_table("show stat")
        rows = [row for row in reader if row["pxname"] == backend]
    except csv.Error as error:
        raise _no_table("show stat") from error
    named = [row for row in rows if row["svname"] and row["svname"] not in ("BACKEND", "FRONTEND")]
    return {row["svname"]: _state(row) for row in named}


def parse_admin_states(text: str, backend: str) -> dict[str, int]:
    """Parse `show servers state` into the administrative state of a backend's servers; what is odd is left out."""
    lines = [line.split() for line in text.splitlines()]
    header = next((line[1:] for line in lines if line[:2] == ["#", "be_id"]), [])
    rows = [dict(zip(header, line, strict=True)) for line in lines if len(line) == len(header)]
    ours = [row for row in rows if row.get("be_name") == backend]
    states = {row.get("srv_name", ""): row.get("srv_admin_state", "") for row in ours}
    return {name: int(bits) for name, bits in states.items() if bits.isascii() and bits.isdigit()}


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _no_table(command: str) -> BalancerError:
    return BalancerError(
        f"What listens at the runtime API's address does not answer `{command}`.",
        where="load balancer",
        meaning="It is not known whom it serves.",
        remedy="admin_host and admin_port must be HAProxy's `stats socket`, not its master's and not a web page.",
    )


def _state(row: Mapping[str, str | None]) -> NodeState:
    # A line of `show stat` ends with a comma: one that was cut has fields without a value, or one too few.
    values = list(row.values())
    sessions = row["scur"] or "0"
    if None in values or not (sessions.isascii() and sessions.isdigit()):
        return NodeState(Served.UNKNOWN, None, "its line cannot be read")
    status = row["status"] or ""
    served = _served(status)
    check = " ".join(part for part in (row.get("check_status"), row.get("last_chk")) if part)
    if served is Served.UNKNOWN:
        check = f"{status} {check}".strip()
    # `L4OK`, or `* L4OK` while the next check is under way.
    connects = "L4OK" in (row.get("check_status") or "")
    return NodeState(served, int(sessions), check, _alive(status), connects)


def _served(status: str) -> Served:
    # `UP 1/2` is a server on its way down, which still gets connections; `DOWN 1/2` the other way round.
    # `MAINT (via b/s)` and `MAINT (resolution)` end by themselves: nobody has drained such a server.
    if status == "MAINT":
        return Served.DRAINED
    if status.startswith(("UP", "no check")):
        return Served.UP
    return Served.DOWN if status.startswith("DOWN") else Served.UNKNOWN


def _alive(status: str) -> bool | None:
    """Tell what the health check says: in maintenance it does not look, and `DOWN 1/2` has just been answered."""
    if status.startswith("UP"):
        return True
    return False if status == "DOWN" else None


def _ours(state: NodeState, admin: int) -> NodeState:
    drained = state.check.startswith("MAINT (") and admin & _ORDERED
    return replace(state, served=Served.DRAINED) if drained else state
