"""Who is what at one moment: a row for each node, as `harbor-ha status` lists them and as `check` draws them."""

from collections.abc import Iterable, Sequence

from tasks.postgres.facts import NodeFacts, Sender
from tasks.postgres.layout import slot_of

HEAD = ("node", "role", "state", "TL", "lag", "Harbor", "balancer", "guard")


def topology(
    nodes: Sequence[NodeFacts], databases: Iterable[str], balancer: dict[str, bool] | None
) -> list[tuple[str, ...]]:
    """Give a row for each node, as in HEAD; a text is empty where the node has none of it.

    Args:
        nodes: facts of every node.
        databases: names of those that run PostgreSQL.
        balancer: whom the load balancer serves; None: it cannot be asked, or there is none.
    """
    primaries = [node for node in nodes if node.is_primary]
    server = primaries[0].server if len(primaries) == 1 else None
    senders = {sender.application_name: sender for sender in server.senders} if server else {}
    rows: list[tuple[str, ...]] = []
    for node in nodes:
        sender = senders.get(slot_of(node.name)) if node.is_standby else None
        row = (node.name, _role(node, node.name in set(databases)), _state(node, sender))
        timeline = str(node.timeline) if node.timeline is not None else ""
        rows.append(
            (*row, timeline, _lag(node, sender), _harbor(node), _served(node, balancer), _guard(node))
        )
    return rows


def _role(node: NodeFacts, database: bool) -> str:
    if node.is_primary:
        return "primary"
    if node.is_standby:
        return "standby"
    return "unknown" if database else "no database"


def _state(node: NodeFacts, sender: Sender | None) -> str:
    if not node.reachable:
        return "not reached"
    if node.server is None:
        return "" if node.cluster is None else "does not answer" if node.running else "stopped"
    if node.is_primary:
        return "running"
    receiver = node.server.receiver
    if sender is not None:
        return f"{sender.state}, {sender.sync_state}"
    return receiver.status if receiver is not None and receiver.fresh else "hears nothing"


def _lag(node: NodeFacts, sender: Sender | None) -> str:
    if not node.is_standby:
        return ""
    return "unknown" if sender is None or sender.lag_bytes is None else size(sender.lag_bytes)


def _harbor(node: NodeFacts) -> str:
    if node.harbor is None:
        return "" if node.reachable else "unknown"
    return node.harbor.health or "no answer"


def _served(node: NodeFacts, balancer: dict[str, bool] | None) -> str:
    if balancer is None:
        return "unknown"
    return {True: "served", False: "not served"}.get(balancer[node.name], "") if node.name in balancer else ""


def _guard(node: NodeFacts) -> str:
    return "" if node.guard is None else "runs" if node.guard.runs else "silent"


def size(count: int) -> str:
    """Name a number of bytes in the unit that fits."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"
