"""Planned exchange of the roles, without losing a write; until the promotion it can be taken back."""

from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.machinery.ending import NOTHING_TO_DO, ends_named
from flows.machinery.entry import decide_entry
from flows.machinery.exchange import exchange, exchanged, follow, take_back
from flows.machinery.next_cores import next_cores
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.machinery.sight import open_record
from flows.machinery.traffic import finish, open_traffic
from flows.rules.admission import live_lock
from flows.rules.resume import Entry
from flows.rules.switchover import MaySwitch, may_switch_over
from tasks import clock
from tasks.errors import Refused
from tasks.harbor import steps as harbor
from tasks.operation.record import OperationKind, Phase
from tasks.postgres import ha_steps as postgres

# A core needs about three seconds to its first answer; a busy machine has three times as long.
_CORE_ANSWERS_S = 10.0


@flow(
    name="switchover",
    flow_run_name="switchover of {site} to {to}",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
)
@ends_named
def switchover(site: str, to: str, dry_run: bool = False) -> dict[str, Any]:
    """Make another node the primary, planned and without loss; the old primary ends as its standby.

    Refuses with every reason before anything is touched. If the standby does not get everything, the old
    primary is taken back. Killed at any moment, the next call goes on.

    Args:
        site: Name of the saved site.
        to: The node that becomes the primary.
        dry_run: Look, decide, show what would be done, and change nothing.
    """
    run = Protocol.begin("switchover", site, dry_run)
    with Operation.begin(run) as work:
        work.way_back = take_back
        entry = admit(work, to)
        if entry is None:
            told = f"Nothing was done: {to} is the primary already."
            return publish(run, told, work.sections, state=NOTHING_TO_DO)
        if entry is Entry.OBSERVE:
            approve(work, to)
            if dry_run:
                return publish(run, f"Would make {to} the primary of {site}.", work.sections)
            begin(work, to)
        if entry in (Entry.OBSERVE, Entry.PROVE):
            exchange(work)
        if entry is not Entry.FINISH:
            open_traffic(work, follow=follow)
        finish(work, follow=follow)
        return publish(run, exchanged(work), work.sections)


def admit(work: Operation, to: str) -> Entry | None:
    """See whether there is something to do, or something that a killed run left.

    Returns:
        where to begin; None when the node is the primary and nothing is open.

    Raises:
        Refused: no such node, or another operation is open.
    """
    names = [node.name for node in work.seen.nodes]
    if to not in names:
        raise Refused(
            "No switchover.", [f"{to} is no database node of the site -> one of {', '.join(names)}"]
        )
    record = open_record(work.seen)
    if record is not None and record.kind is OperationKind.SWITCHOVER and not work.run.dry_run:
        work.resume(record)
        return resumed(work)
    if record is None and work.seen.node(to).is_primary:
        return None
    return Entry.OBSERVE


def resumed(work: Operation) -> Entry:
    """Say where the open switchover goes on; one that did nothing yet is closed and begun anew.

    Raises:
        Refused: two nodes run as primaries.
    """
    decision = decide_entry(work)
    if decision.kind is Entry.REFUSE:
        work.refuse("The switchover cannot go on.", decision)
    if decision.kind in (Entry.OBSERVE, Entry.CLOSE):
        # Nothing was promoted, which was asked on the target itself; so the way back is open.
        work.record = work.held.at(Phase.TAKING_BACK)
        if decision.kind is Entry.OBSERVE:
            left = take_back(work)
            work.sections.update({"What stays changed": left} if left else {})
        work.close(Phase.ABORTED)
        work.record = None
        work.look()
        return Entry.OBSERVE
    return decision.kind


def approve(work: Operation, to: str) -> None:
    """Check every precondition; refuse with all that are not met.

    Raises:
        Refused: with the list.
    """
    primary = current_primary(work, to)
    busy = live_lock(work.seen.nodes, clock.now()) is not None or open_record(work.seen) is not None
    decision = may_switch_over(
        work.seen.node(primary),
        work.seen.node(to),
        clock.now(),
        busy=busy,
        reverse_path=reverse_path(work, primary, to),
        client_write=client_write(work, primary),
    )
    work.note("Preconditions", decision)
    if decision.kind is MaySwitch.REFUSE:
        work.refuse(f"No switchover to {to}.", decision)


def current_primary(work: Operation, to: str) -> str:
    """Name the primary as the nodes tell; without one, the first other node, for the reasons of the refusal."""
    primaries = [node.name for node in work.seen.nodes if node.is_primary and node.name != to]
    return primaries[0] if primaries else work.seen.others(to)[0].name


def reverse_path(work: Operation, primary: str, to: str) -> bool | None:
    """Try the login that the old primary will need to follow; None when it cannot be tried."""
    if not work.seen.node(primary).reachable:
        return None
    done, _ = work.run.try_each(postgres.try_reverse_path, [primary], peer=to)
    return bool(done)


def client_write(work: Operation, primary: str) -> tuple[str, str] | None:
    """See what becomes of a client's write before anything is stopped; None where it is not tried."""
    if work.run.dry_run or not work.seen.node(primary).is_primary:
        return None
    told = work.run.on(harbor.write_through_balancer, timeout=5.0, settle_s=2.0).data
    return str(told["answer"]), str(told["why"])


def begin(work: Operation, to: str) -> None:
    """Take the lock and have the slow work done before anybody waits: two checkpoints, and the next cores' start."""
    primary = current_primary(work, to)
    work.open(OperationKind.SWITCHOVER, primary, to, {}, staged=work.run.site.failover.repoint == "edit")
    work.run.on(postgres.checkpoint, primary)
    with next_cores(work, answer_s=_CORE_ANSWERS_S):
        work.run.on(postgres.checkpoint, primary)
