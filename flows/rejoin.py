"""A former primary comes back as a standby: the cheapest safe way, nothing removed, losses listed."""

from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.machinery.beside import Beside
from flows.machinery.ending import ends_named
from flows.machinery.harbor_return import harbor_beside, serve_again, serve_meanwhile
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.machinery.sight import open_record
from flows.rules.rejoin import Rejoin, classify_rejoin
from flows.rules.table import Decision
from tasks import clock
from tasks.errors import HarborHaError, Refused
from tasks.guard import steps as guard
from tasks.operation.files import UNTOLD
from tasks.operation.record import OperationKind, Phase
from tasks.outcome import Outcome
from tasks.postgres import ha_steps as postgres
from tasks.postgres import steps as pair
from tasks.postgres.layout import slot_of
from tasks.postgres.rejoin import CannotFollow

_UNREAD = "what a rejoin has found there stays noted: run rejoin again, which reads it"
_COMMITS_SHOWN = 20
_WAYS = {
    Rejoin.NOTHING: "follows already",
    Rejoin.FOLLOW: "followed",
    Rejoin.START_ONLY: "was started",
    Rejoin.REWIND: "was rewound",
    Rejoin.CLONE: "was cloned",
}


@flow(
    name="rejoin",
    flow_run_name="rejoin of {node} in {site}",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
)
@ends_named
def rejoin(site: str, node: str, dry_run: bool = False) -> dict[str, Any]:
    """Make a node the standby of the primary again, and bring its Harbor back to the clients.

    Follows when nothing diverged, rewinds when it did, clones when a rewind cannot. What only this node had
    is kept aside and listed. Killed at any moment, the next call goes on.

    Args:
        site: Name of the saved site.
        node: The node that is to follow.
        dry_run: Look, decide, show the way, and change nothing.
    """
    run = Protocol.begin("rejoin", site, dry_run)
    with Operation.begin(run) as work:
        if not dry_run and is_told_only(work, node):
            return tell(work, node)
        primary = find_primary(work, node)
        decision = classify(work, node, primary)
        if dry_run:
            return publish(run, f"Would rejoin {node} to {primary}: {decision.kind}.", work.sections)
        resumed = begin(work, node, primary)
        if resumed or decision.kind is Rejoin.STOP_FIRST:
            decision = classify_anew(work, node, primary, decision)
        with harbor_beside(work, node, primary) as harbors:
            way = return_of_the_data(work, node, primary, decision.kind, harbors)
            way = follow(work, node, primary, way, harbors)
        serve_again(work, node, primary, harbors)
        # Told before the end is recorded: killed between the two it is run again, and tells again what was lost.
        told = publish(run, headline(work, node, primary, way), work.sections)
        note_told(work, node)
        work.close()
        return told


def is_told_only(work: Operation, node: str) -> bool:
    """Tell whether the node has become the primary since a rejoin of it found what was lost, and was not told."""
    found = [facts for facts in work.seen.nodes if facts.name == node and facts.is_primary]
    return bool(found) and UNTOLD in found[0].state


def tell(work: Operation, node: str) -> dict[str, Any]:
    """Report what rejoins of the node found before it became the primary; nothing else is done."""
    list_losses(work, node, node, kept_only=True, interrupted=False)
    said = work.sections.get("Lost commits", ["nothing is left to tell"])[0]
    told = publish(work.run, f"{node} is the primary; of before: {said}.", work.sections)
    note_told(work, node)
    return told


def note_told(work: Operation, node: str) -> None:
    """Note on the node that the report has told what was lost; where that was not read, the next one has to."""
    if _UNREAD not in work.sections.get("Lost commits", ()):
        work.run.try_each(postgres.note_told, [node])


def find_primary(work: Operation, node: str) -> str:
    """Name the one primary that the node is to follow.

    Raises:
        Refused: no such node, it is the primary itself, or there is not exactly one primary.
    """
    names = [facts.name for facts in work.seen.nodes]
    reasons = []
    if node not in names:
        raise Refused("No rejoin.", [f"{node} is no database node of the site -> one of {', '.join(names)}"])
    primaries = [facts.name for facts in work.seen.nodes if facts.is_primary]
    if not work.seen.node(node).reachable:
        reasons.append(f"{node} is not reached: {work.seen.node(node).error} -> start the machine first")
    if primaries == [node]:
        reasons.append(f"{node} is the primary itself -> nothing to do, or run failover")
    elif not primaries:
        reasons.append("no node is a primary -> run check, then failover")
    elif len(primaries) > 1 and node not in primaries:
        reasons.append(f"{' and '.join(primaries)} are both primaries -> run check")
    others = [name for name in primaries if name != node]
    if len(primaries) > 1 and node in primaries and others:
        reasons.append(
            f"{node} is a primary beside {others[0]} -> stop PostgreSQL on {node} if {others[0]} has what is to stay"
        )
    if reasons:
        raise Refused(f"{node} cannot rejoin.", reasons)
    return others[0]


def classify(work: Operation, node: str, primary: str) -> Decision[Rejoin]:
    """Choose the way.

    Raises:
        Refused: no way is safe.
    """
    record = open_record(work.seen)
    begun = record is not None and record.kind is OperationKind.REJOIN and record.target == node
    decision = classify_rejoin(
        work.seen.node(node),
        work.seen.node(primary),
        clock.now(),
        slot=slot_of(node),
        cloning=begun and record is not None and record.phase is Phase.CLONING,
    )
    work.note("The way back", decision)
    if decision.kind is Rejoin.REFUSE:
        work.refuse(f"{node} cannot rejoin.", decision)
    return decision


def classify_anew(work: Operation, node: str, primary: str, decision: Decision[Rejoin]) -> Decision[Rejoin]:
    """Let the node come to rest, then choose the way.

    A killed rejoin may have left its rewind or copy running there; a server that does not follow is stopped.
    """
    work.run.on(postgres.await_copy, node)
    if decision.kind is Rejoin.STOP_FIRST:
        stop(work, node)
    work.look()
    return classify(work, node, primary)


def begin(work: Operation, node: str, primary: str) -> bool:
    """Take the lock; an open rejoin of the same node goes on, anything else in the way refuses.

    Returns:
        whether one goes on.

    Raises:
        Refused: another operation is open.
    """
    record = open_record(work.seen)
    if record is not None and record.kind is OperationKind.REJOIN and record.target == node:
        work.resume(record)
    elif record is not None:
        raise Refused(
            f"{node} cannot rejoin now.",
            [f"{record.kind} {record.op_id} is open ({record.phase}) -> run it again first; it goes on"],
        )
    else:
        work.open(OperationKind.REJOIN, primary, node, {})
    # The node was away when this was written elsewhere. What it knows from before keeps its boot guard, and a
    # failover that can ask only this node, from the truth.
    seen = work.seen.node(primary)
    work.run.on(
        guard.accept_primary,
        *work.paths(),
        primary=primary,
        timeline=seen.timeline or 0,
        sysid=seen.system_identifier or "",
        term=work.held.term,
    )
    return record is not None


def return_of_the_data(work: Operation, node: str, primary: str, way: Rejoin, harbors: Beside) -> Rejoin:
    """Bring the node's data to the primary's history, if it is not there; list what only it had before.

    Args:
        work: the rejoin.
        node: the node.
        primary: whose history it is to have.
        way: the way back.
        harbors: the node's Harbor, which comes back beside this.

    Returns:
        the way that it really went: a node that cannot be rewound is cloned.
    """
    if way not in (Rejoin.REWIND, Rejoin.CLONE):
        # The one that was interrupted has removed it; "nothing was lost" was its end once. One that another operation
        # took over is not this one, and left its list on the node.
        interrupted = work.held.phase in (Phase.REWINDING, Phase.CLONING, Phase.SETTLING)
        list_losses(work, node, primary, kept_only=True, interrupted=interrupted)
        return way
    list_losses(work, node, primary)
    if way is Rejoin.REWIND:
        work.advance(Phase.REWINDING)
        given = {"operation": work.held.op_id, "authority": work.authority()}
        with work.run.beside(postgres.rewind, [node], then=[primary], required=False, **given) as rewound:
            serve_meanwhile(work, node, rewound, harbors)
        if isinstance(rewound[node], Outcome):
            return Rejoin.REWIND
        work.sections["The way back"].append(f"the rewind failed, so the node is cloned: {rewound[node]}")
    clone(work, node, primary, harbors)
    return Rejoin.CLONE


def clone(work: Operation, node: str, primary: str, harbors: Beside) -> None:
    """Copy the primary; the phase is CLONING until the copy is complete, whatever is seen of the node meanwhile."""
    work.advance(Phase.CLONING)
    work.run.on(pair.create_slot, primary, standby_name=node)
    with work.run.beside(postgres.clone, [node], then=[primary], authority=work.authority()) as copied:
        serve_meanwhile(work, node, copied, harbors)
    work.advance(Phase.SETTLING)


def follow(work: Operation, node: str, primary: str, way: Rejoin, harbors: Beside) -> Rejoin:
    """Start the node as a standby; where its log says that it never will follow, clone it.

    Returns:
        the way that it really went.

    Raises:
        CannotFollow: also the copy does not follow.
    """
    try:
        start_following(work, node, primary)
        return way
    except CannotFollow as error:
        if way is Rejoin.CLONE:
            raise
        work.sections["The way back"].append(
            f"it cannot follow as it is, so the node is cloned: {error.what}"
        )
    stop(work, node)
    if "Lost commits" not in work.sections:
        list_losses(work, node, primary)
    clone(work, node, primary, harbors)
    start_following(work, node, primary)
    return Rejoin.CLONE


def start_following(work: Operation, node: str, primary: str) -> None:
    """Start the node as a standby; the copy before it may have taken an hour."""
    work.confirm_intent()
    work.run.on(postgres.follow, node, primary, authority=work.authority())


def stop(work: Operation, node: str) -> None:
    """Stop the server of the node that rejoins, by all means."""
    work.confirm_intent()
    work.stays.append(f"PostgreSQL on {node} was stopped and is kept from starting, until a rejoin has ended")
    work.run.on(postgres.fence_by_ssh, node, authority=work.authority())


def list_losses(
    work: Operation, node: str, primary: str, *, kept_only: bool = False, interrupted: bool = True
) -> None:
    """Put into the report every commit that only the node has, or that this cannot be known.

    Args:
        work: the rejoin.
        node: the former primary.
        primary: who names the tables.
        kept_only: the node has none of it any more; its kept answer is all there is.
        interrupted: there must be one then.
    """
    operation = work.held.op_id if work.record is not None else ""
    given = {"operation": operation, "kept_only": kept_only, "interrupted": interrupted}
    try:
        lost = work.run.on(postgres.lost_commits, node, primary, **given)
    except HarborHaError as error:
        work.sections["Lost commits"] = [f"it cannot be known what was lost: {error}", _UNREAD]
        return
    if lost.data["none"]:
        return
    if not lost.data["known"]:
        work.sections["Lost commits"] = [f"it cannot be known what was lost: {lost.data['why']}"]
        return
    if not lost.data["total"]:
        work.sections["Lost commits"] = [f"nothing was lost: no commit existed only on {node}"]
        return
    commits = lost.data["commits"]
    lines = [
        f"{commit['at']} xid {commit['xid']}: {', '.join(commit['relations']) or 'no table'}"
        for commit in commits
    ]
    hidden = lost.data["total"] - _COMMITS_SHOWN
    more = [f"and {hidden} more; the WAL is kept on {node}"] if hidden > 0 else []
    count = "1 commit" if lost.data["total"] == 1 else f"{lost.data['total']} commits"
    work.sections["Lost commits"] = [
        f"{count} existed only on {node}",
        *lines[:_COMMITS_SHOWN],
        *more,
    ]


def headline(work: Operation, node: str, primary: str, way: Rejoin) -> str:
    """Say in one sentence how it ended."""
    said = f"{node} {_WAYS[way]} and replays what {primary} writes"
    losses = work.sections.get("Lost commits")
    if losses is None and way is Rejoin.FOLLOW:
        # Shown: it goes on from its own end on the primary's line, and has replayed what came after.
        losses = ["nothing was lost"]
    # What any other way cost, if it was not listed here, was found by another run.
    return f"{said}; {losses[0]}." if losses else f"{said}."
