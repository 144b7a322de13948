"""How a site is, by a look of its own: from the nodes and the bucket themselves, so also while Prefect is away."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from blocks import HarborSite
from flows.check import served
from flows.machinery.backup_report import catalogue_lines
from flows.rules.policy import policy_of
from flows.rules.table import Decision
from flows.rules.verdict import Verdict, verdict
from tasks import clock
from tasks.backup.format.catalogue import Entry, list_backups
from tasks.backup.settings import store_of
from tasks.errors import HarborHaError
from tasks.guard.install import guard_version
from tasks.observation.budget import CALM_BUDGET_S
from tasks.observation.look import look
from tasks.observation.witnesses import ask_witnesses
from tasks.postgres.facts import NodeFacts, Sender
from tasks.postgres.layout import slot_of

HEAD = ("node", "role", "state", "TL", "lag", "Harbor", "balancer", "guard")


def site_status(site: HarborSite) -> tuple[Decision[Verdict], list[str]]:
    """Look at a site once and judge it; nothing is written, neither on the nodes nor through Harbor.

    Returns:
        the verdict, and what an operator reads.

    Raises:
        FactsTooOld: everything hung for longer than a look may take.
    """
    seen = look(site, CALM_BUDGET_S)
    answers = ask_witnesses(site, [node.name for node in site.nodes])
    balancer = served(site, answers)
    addresses = {node.name: node.address for node in site.nodes}
    judged = verdict(
        seen.every,
        addresses,
        policy_of(site),
        clock.now(),
        balancer_up=balancer,
        guard_version=guard_version(),
        site=site.name,
    )
    lines = [f"{site.name} is {judged.kind} (by a look; `check` also writes through the load balancer)"]
    lines += table(HEAD, topology(seen.every, seen.databases, balancer))
    lines += [f"found: {line}" for line in judged.reasons]
    lines += [f"do now: {judged.first}"] if judged.first else []
    return judged, [*lines, last_backup(site)]


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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Set rows in columns, without blanks at the end of a line."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    return ["  " + "  ".join(line).rstrip() for line in lines]


def size(count: int) -> str:
    """Name a number of bytes in the unit that fits."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def last_backup(site: HarborSite) -> str:
    """Say which backup is the newest that is complete, by the bucket itself."""
    if site.oss is None:
        return "last backup: the site has no bucket"
    try:
        return describe_last(list_backups(store_of(site)), datetime.now(UTC))
    except HarborHaError as error:
        return f"last backup: the bucket cannot be asked: {error}"


def describe_last(entries: Sequence[Entry], now: datetime) -> str:
    """Name the newest complete backup of a catalogue, and what came after it."""
    complete = [entry for entry in entries if entry.complete]
    if not complete:
        return "last backup: none is complete"
    last = complete[-1]
    age = timedelta(seconds=int((now - last.backup.started).total_seconds()))
    later = sum(1 for entry in entries if entry.backup.started > last.backup.started)
    more = f"; {later} begun after it are not complete" if later else ""
    return f"last backup: {last.backup}, begun {age} ago, {size(last.size)} beside the images{more}"


def backup_lines(site: HarborSite) -> list[str]:
    """Give a line for each backup in the bucket, the newest first.

    Raises:
        Refused: the site has no bucket.
        StorageError: it cannot be asked.
    """
    return list(reversed(catalogue_lines(store_of(site), site))) or ["there is no backup"]
