"""Climb the fencing ladder until the old primary is certain not to accept writes; the rule says which rung."""

import time
from typing import NoReturn

from flows.operation import Operation
from flows.rules.fence import SUFFICIENT, Command, Rung, choose_fence
from flows.rules.table import FACTS_LIMIT_S, Decision
from tasks import clock
from tasks.fencing import steps as fencing
from tasks.operation.record import Fence, Phase
from tasks.postgres import ha_steps as postgres

# SSH, command, drain, and looks between; a ladder that turns in circles is a defect, not a reason to go on.
_MAX_RUNGS = 12


def fence(work: Operation, *, attest_fenced: bool) -> None:
    """Fence the old primary and record the rung.

    Raises:
        Refused: the site's policy is not met; the reason says exactly what an operator would have to attest.
    """
    record = work.held
    work.advance(Phase.FENCING)
    command = Command.NONE
    for _ in range(_MAX_RUNGS):
        rung = _next(work, command, attest_fenced=attest_fenced)
        if rung.kind in SUFFICIENT:
            work.note("Fence", rung)
            work.advance(Phase.FENCED, fence=Fence(rung.kind.value, rung.reasons[0], time.time()))
            return
        if rung.kind is Rung.REFUSE:
            _refuse(work, rung)
        if rung.kind is Rung.SSH:
            work.run.on(postgres.fence_by_ssh, work.path(work.seen.node(record.expected_primary)))
            work.look_at(record.expected_primary)
        elif rung.kind is Rung.COMMAND:
            outcome = work.run.on(fencing.fence_by_command, node=record.expected_primary)
            command = Command.CONFIRMED if outcome.data["confirmed"] else Command.FAILED
        elif rung.kind is Rung.DRAIN:
            work.run.on(fencing.drain, record.expected_primary)
            work.look_at(record.expected_primary)
        else:
            time.sleep(1.0)
            work.look_at(record.expected_primary)
    _refuse(work, rung)


def _next(work: Operation, command: Command, *, attest_fenced: bool) -> Decision[Rung]:
    record = work.held
    stale = work.witnesses is None or work.witnesses.observed_at.age(clock.now()) > FACTS_LIMIT_S / 2
    if stale or work.seen.seconds < 0:
        work.look_at(record.expected_primary)
    assert work.witnesses is not None
    return choose_fence(
        work.seen.node(record.expected_primary),
        work.seen.others(record.expected_primary),
        work.witnesses,
        work.policy,
        clock.now(),
        command=command,
        silent_for_s=_silent_for(work),
        attest_fenced=attest_fenced,
    )


def _silent_for(work: Operation) -> float | None:
    # The operation began when somebody already missed the primary; what `check` last saw may be older.
    return time.time() - work.held.started_at


def _refuse(work: Operation, rung: Decision[Rung]) -> NoReturn:
    work.refuse(f"{work.held.expected_primary} is not fenced, so nothing is promoted.", rung)
