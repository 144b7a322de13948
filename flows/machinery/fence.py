"""Climb the fencing ladder until the old primary is certain not to accept writes; the rule says which rung."""

import time
from typing import NoReturn

from flows.machinery.operation import Operation
from flows.machinery.sight import last_primary
from flows.rules.fence import SUFFICIENT, Command, Rung, choose_fence
from flows.rules.primary import Contact, contact_of
from flows.rules.table import FACTS_LIMIT_S, Decision
from tasks import clock
from tasks.fencing import steps as fencing
from tasks.operation.record import Fence, Phase
from tasks.postgres import ha_steps as postgres

# SSH, command and drain, each with what it needs; a ladder that turns in circles is a defect, not a reason to
# go on. Waiting for the self-fence is not a rung.
_MAX_RUNGS = 6
_WAIT_S = 1.0


def fence(work: Operation, *, attest_fenced: bool) -> None:
    """Fence the old primary and record the rung.

    Raises:
        Refused: the site's policy is not met; the reason says exactly what an operator would have to attest.
    """
    record = work.held
    if work.held.phase is not Phase.FENCING:
        work.advance(Phase.FENCING, fence=None)
    command = Command.NONE
    silence = Silence(work)
    rungs = 0
    while True:
        rung = _next(work, command, silence, attest_fenced=attest_fenced)
        rungs += rung.kind is not Rung.WAIT
        if rung.kind in SUFFICIENT:
            work.note("Fence", rung)
            record_fence(work, rung)
            return
        if rung.kind is Rung.REFUSE or rungs > _MAX_RUNGS:
            _refuse(work, rung)
        if rung.kind is Rung.SSH:
            work.confirm_intent()
            path = work.path(work.seen.node(record.expected_primary))
            work.run.on(postgres.fence_by_ssh, path, authority=work.authority())
            work.look_at(record.expected_primary)
        elif rung.kind is Rung.COMMAND:
            outcome = work.run.on(fencing.fence_by_command, node=record.expected_primary)
            command = Command.CONFIRMED if outcome.data["confirmed"] else Command.FAILED
        elif rung.kind is Rung.DRAIN:
            work.advance(Phase.FENCING, drained=(*work.held.drained, record.expected_primary))
            work.run.on(fencing.drain, record.expected_primary)
            work.look_at(record.expected_primary)
        else:
            time.sleep(_WAIT_S)
            work.look_at(record.expected_primary)


def record_fence(work: Operation, rung: Decision[Rung]) -> None:
    """Record the rung that was reached.

    A machine that is seen stopped and held says so itself to whoever comes next; that record is written with the
    next one, and clients wait for one write less.
    """
    fence = Fence(rung.kind.value, rung.reasons[0], time.time())
    work.fenced_at = time.monotonic()
    if rung.kind is Rung.STOPPED:
        work.record = work.held.at(Phase.FENCED, fence=fence)
    else:
        work.advance(Phase.FENCED, fence=fence)


class Silence:
    """How long this process has seen the old primary silent without a break.

    Not since the operation was recorded: of a run that was killed in between, nobody knows what went on.
    """

    def __init__(self, work: Operation) -> None:
        self._since: float | None = None
        self.observe(work)

    def observe(self, work: Operation) -> None:
        """Take the newest look into account; any sign of life begins the count anew."""
        primary = work.seen.node(work.held.expected_primary)
        lost = work.witnesses is not None and contact_of(work.witnesses) is Contact.LOST
        if primary.reachable or not lost:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()

    @property
    def seconds(self) -> float | None:
        """Seconds of unbroken silence; None when there is none."""
        return None if self._since is None else time.monotonic() - self._since


def _next(work: Operation, command: Command, silence: Silence, *, attest_fenced: bool) -> Decision[Rung]:
    record = work.held
    stale = work.witnesses is None or work.witnesses.observed_at.age(clock.now()) > FACTS_LIMIT_S / 2
    if stale:
        work.look_at(record.expected_primary)
    silence.observe(work)
    assert work.witnesses is not None
    # Not what the site file says: the guard that runs there may have another limit, or none.
    last = record.last_primary or last_primary(work.seen, record.expected_primary)
    return choose_fence(
        work.seen.node(record.expected_primary),
        work.seen.others(record.expected_primary),
        work.witnesses,
        work.policy,
        clock.now(),
        command=command,
        silent_for_s=silence.seconds,
        self_fence_seen_s=last.self_fence_s if last is not None else None,
        attest_fenced=attest_fenced,
    )


def _refuse(work: Operation, rung: Decision[Rung]) -> NoReturn:
    work.refuse(f"{work.held.expected_primary} is not fenced, so nothing is promoted.", rung)
