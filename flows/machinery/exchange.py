"""The exchange of the roles, of a switchover and of a failover that finds one half done."""

from flows.machinery.operation import Operation
from flows.machinery.traffic import unstage
from tasks import clock
from tasks.operation.record import Fence, Phase
from tasks.postgres import ha_steps as postgres


def exchange(work: Operation) -> None:
    """Shut the primary down, prove that the standby has its last record, promote; or take it back.

    Raises:
        HarborHaError: it was taken back; the site is as before.
    """
    record, run = work.held, work.run
    work.advance(Phase.STOPPING)
    stopped = run.on(postgres.stop_for_switchover, record.expected_primary, authority=work.authority())
    proof = {key: stopped.data[key] for key in ("checkpoint", "timeline", "sysid")}
    run.on(postgres.prove_shutdown, record.target, **proof)
    evidence = f"shut down cleanly at {proof['checkpoint']}, replayed by {record.target}"
    work.advance(Phase.PROMOTING, fence=Fence("STOPPED", evidence, clock.now().wall))
    outcome = run.on(
        postgres.promote,
        record.target,
        from_timeline=proof["timeline"],
        operation=record.op_id,
        authority=work.authority(),
    )
    # Not written by itself: the next record, written before Harbor is repointed, says it too.
    work.record = work.held.at(Phase.PROMOTED, promoted_timeline=outcome.data["timeline"])


def take_back(work: Operation) -> list[str]:
    """Make the old primary the primary again, on its own timeline, and Harbor use it. Before a promotion only."""
    record = work.held
    if record.phase in (Phase.STOPPING, Phase.TAKING_BACK):
        work.advance(Phase.TAKING_BACK, required=record.expected_primary)
        work.run.on(
            postgres.compensate,
            record.expected_primary,
            timeline=record.from_timeline or 1,
            authority=work.authority(),
        )
    return unstage(work)


def follow(work: Operation) -> None:
    """Have the old primary follow the new one; if it does not, the site is up without a standby and says so."""
    record = work.held
    _, failed = work.run.try_each(
        postgres.follow, [record.expected_primary], then=[record.target], authority=work.authority()
    )
    work.sections.pop("No standby", None)
    for node, error in failed.items():
        work.sections.setdefault("No standby", []).append(f"{node}: {error} -> run rejoin for it")


def exchanged(work: Operation) -> str:
    """Say in one sentence how it ended."""
    record = work.held
    rest = "run rejoin for it" if "No standby" in work.sections else "is its standby"
    clients = f" {work.sections['Clients'][0]}" if "Clients" in work.sections else ""
    return (
        f"{record.target} is the primary on timeline {record.promoted_timeline}; "
        f"{record.expected_primary} {rest}.{clients}"
    )
