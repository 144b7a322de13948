"""What to do about findings: the next right action, with its whole command, which an operator at night copies."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flows.rules.admission import accepted_primary, latest_record
from flows.rules.table import fill
from tasks.operation.files import LAST_PRIMARY, UNTOLD
from tasks.operation.record import OperationKind, OperationRecord, RecordDamaged, last_primary_from
from tasks.postgres.facts import NodeFacts

# Where a command needs a name that nobody can know from what was seen.
NODE = "NODE"
# Findings, the most urgent first. While one of these holds, a flow that another finding asks for would refuse or do
# harm: a standby that hears nothing was sent to rejoin, and a Harbor without a database to bootstrap, where a failover
# was due.
COMES_FIRST = (
    "two primaries",
    "superseded primary",
    "operation in progress",
    "nothing reached",
    "primary out of sight",
    "damaged record",
    "paused",
    "no primary",
    "unfinished operation",
)
_CALLS = ("{failover}", "{rejoin}", "{bootstrap}", "{again}", "{end_pause}")


def advise(found: Sequence[tuple[str, str]], seen: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Say what to do about each finding, and what of all that to do now.

    Args:
        found: name and remedy of each finding, the worst first; `{…}` are keys of `seen`.
        seen: the view that was judged.
    """
    names = [name for name, _ in found]
    first = next((name for name in COMES_FIRST if name in names), "")
    remedies = [
        f"First see to: {first}."
        if first and name != first and any(call in remedy for call in _CALLS)
        else fill(remedy, seen)
        for name, remedy in found
    ]
    now = remedies[names.index(first)] if first else next(filter(None, remedies), "")
    return tuple(remedies), now


def command(flow: str, site: str, **parameters: str) -> str:
    """Return the command line that starts a flow and waits for it, as it is typed."""
    given = "".join(f" --param {name}={value}" for name, value in parameters.items())
    return f"`harbor-ha run {flow} --site {site}{given} --watch`"


def failover_command(site: str, nodes: Sequence[NodeFacts]) -> str:
    """Return the call for a failover from the node that was the primary."""
    return command("failover", site, expected_primary=was_primary(nodes) or NODE)


def rejoin_commands(site: str, names: Iterable[str]) -> str:
    """Return the calls of rejoin for nodes, each once and in the order given."""
    wanted = list(dict.fromkeys(name for name in names if name)) or [NODE]
    return ", then ".join(command("rejoin", site, node=name) for name in wanted)


def again_command(site: str, nodes: Sequence[NodeFacts]) -> str:
    """Return the call that goes on with the operation begun last; empty when there is none that can be read.

    Where that has ended, a rejoin tells what one before it has found.
    """
    try:
        record = latest_record(nodes)
    except RecordDamaged:
        return ""
    untold = [node.name for node in nodes if UNTOLD in node.state]
    if untold and (record is None or not record.open):
        return rejoin_commands(site, untold)
    return _same(site, record) if record is not None else ""


def untold_losses(nodes: Sequence[NodeFacts]) -> list[str]:
    """Say which rejoins found commits that are lost, and ended before a report told of them."""
    found = []
    for node in nodes:
        noted = node.state.get(UNTOLD)
        operations = noted.get("operations") if isinstance(noted, dict) else None
        for operation, total in sorted(operations.items()) if isinstance(operations, dict) else ():
            found.append(
                f"the report of {operation} on {node.name}, which found commits that only it had: {total} are known"
            )
    return found


def _same(site: str, record: OperationRecord) -> str:
    if record.kind is OperationKind.FAILOVER:
        return command("failover", site, expected_primary=record.expected_primary)
    if record.kind is OperationKind.SWITCHOVER:
        return command("switchover", site, to=record.target)
    return command("rejoin", site, node=record.target)


def was_primary(nodes: Sequence[NodeFacts]) -> str:
    """Name the node that was the primary last, by what the nodes keep; empty when none of them knows."""
    accepted = accepted_primary(nodes)
    if accepted is not None:
        return accepted[0]
    noted = []
    for node in nodes:
        try:
            noted.append(last_primary_from(node.state.get(LAST_PRIMARY), node.name))
        except RecordDamaged:
            continue
    last = max((one for one in noted if one is not None), key=lambda one: one.at, default=None)
    if last is not None:
        return last.node
    # A cluster on disk that is no standby's was one.
    stopped = [
        n.name for n in nodes if n.cluster is not None and n.server is None and not n.cluster.standby_signal
    ]
    return stopped[0] if len(stopped) == 1 else ""
