"""The old primary's exact end, known since the fence: whether to go on, or to take back who has more."""

from flows.machinery.operation import Operation
from flows.rules.after_fence import AfterFence, after_fence
from flows.rules.table import Decision
from tasks import clock
from tasks.errors import Refused
from tasks.operation.record import Phase
from tasks.postgres import ha_steps as postgres


def weigh_exact_end(work: Operation, *, accept_data_loss: bool) -> str:
    """Weigh the loss once more with what the old primary tells since it was stopped.

    Returns:
        nothing when the standby may go on to its promotion; else that the old primary is the primary again.

    Raises:
        Refused: neither; the old primary stays fenced.
    """
    record, seen = work.held, work.seen
    primary, standby = seen.node(record.expected_primary), seen.node(record.target)
    decision = after_fence(primary, standby, work.policy, clock.now(), accept_data_loss=accept_data_loss)
    work.note("After the fence", decision)
    if decision.kind is AfterFence.PROMOTE:
        return ""
    if decision.kind is AfterFence.REFUSE:
        work.refuse(f"{record.target} must not take over.", decision)
    return start_old(work, decision)


def start_old(work: Operation, decision: Decision[AfterFence]) -> str:
    """Start the old primary again, which was stopped cleanly on its own machine; fence it again if that fails.

    Raises:
        Refused: it does not start.
    """
    record = work.held
    # The phase says to whoever comes next that nothing was promoted; the node acts by it only when it has it.
    work.advance(Phase.TAKING_BACK, required=record.expected_primary)
    path = work.path(work.seen.node(record.expected_primary))
    done, failed = work.run.try_each(
        postgres.compensate, [path], timeline=record.from_timeline or 1, authority=work.authority()
    )
    if failed:
        work.confirm_intent()
        work.run.try_each(postgres.fence_by_ssh, [path], authority=work.authority())
        raise Refused(
            f"{record.target} must not take over.",
            [*decision.lines(), f"{record.expected_primary} could not be started again: {failed[path]}"],
        )
    work.record = work.held.at(Phase.TAKING_BACK, fence=None)
    return f"{decision.reasons[0]} {record.expected_primary} is the primary again: {done[path].detail}. No failover."
