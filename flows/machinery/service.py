"""Does the site serve its clients? Asked by a real write through the load balancer, as they do."""

from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.rules.primary import Other, other_state
from flows.rules.restart import advanced
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.web import HarborRefused, HarborUnreachable, through_balancer
from tasks.observation.look import SiteLook
from tasks.postgres.facts import NodeFacts

# Clients give up after more; a failover that waits for a machine that hangs must not.
_WRITE_LIMIT_S = 3.0


def try_write(run: Protocol, limit_s: float = 5.0) -> HarborHaError | None:
    """Write through the load balancer; return why it failed, or nothing.

    Args:
        limit_s: seconds for each of its two requests.
    """
    try:
        with HarborApi(through_balancer(run.site), timeout=limit_s) as api:
            api.probe_write()
    except HarborHaError as error:
        return error
    return None


def why(error: HarborHaError | None) -> str:
    """Say why a write failed; what to do is the finding's to say, which knows the rest of the site."""
    return "" if error is None else f"{error.where}: {error.what}"


def unresponsive(work: Operation, primary: str) -> bool:
    """Whether of the primary only the kernel answers, and its clients cannot write.

    Such a machine was taken for one with writers attached, and nothing was ever done about it. The write is tried
    only when the witnesses have seen exactly that.
    """
    witnesses = work.witnesses
    if witnesses is None or not witnesses.only_handshakes or work.seen.node(primary).reachable:
        return False
    if other_state(work.seen.others(primary)) is not Other.SILENT:
        return False
    return _clients_cannot_write(work)


def stalled(work: Operation, primary: str) -> bool:
    """Whether a primary whose machine is reached commits nothing any more, although a standby still hears it.

    A WAL sender says from memory that it is there. On a data disk that hung it did so for as long as the disk did,
    and the failover was refused because the primary was alive. One that is slow and commits is another thing: its
    standbys receive more WAL, and clients can write. Looks again when it may be so.
    """
    if not _mute(work.seen.node(primary)) or other_state(work.seen.others(primary)) is not Other.HEARS:
        return False
    if not _clients_cannot_write(work):
        return False
    before = work.seen.others(primary)
    work.look_at(primary)
    return _mute(work.seen.node(primary)) and not advanced(before, work.seen.others(primary))


def _mute(node: NodeFacts) -> bool:
    """Whether a machine is reached, and neither its server nor its data directory answers."""
    return node.reachable and node.server is None and node.cluster is None and "cluster" in node.problems


def _clients_cannot_write(work: Operation) -> bool:
    error = work.run.watch(
        "Write through the load balancer",
        lambda: try_write(work.run, _WRITE_LIMIT_S),
        lambda error: why(error) or "ok",
    )
    return write_fails(error) or (error is not None and database_away(work.seen))


def write_fails(error: HarborHaError | None) -> bool:
    """Whether a write failed because nobody could do it; a Harbor that refuses it (401, read-only) is alive."""
    if isinstance(error, HarborRefused):
        return error.status >= 500
    return isinstance(error, HarborUnreachable)


def database_away(seen: SiteLook) -> bool:
    """Whether every Harbor that was asked says in its health that it has lost its database.

    Where the write is refused for its password or by read-only mode, this tells what the refusal hides.
    """
    told = [node.harbor.components.get("database") for node in seen.every if node.harbor is not None]
    known = [state for state in told if state is not None]
    return bool(known) and "healthy" not in known
