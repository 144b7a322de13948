"""Climb the fencing ladder until the old primary is certain not to accept writes; the rule says which rung."""

import time
from typing import NoReturn

from flows.machinery.operation import Operation
from flows.machinery.service import unresponsive
from flows.machinery.sight import last_primary
from flows.rules.fence import SUFFICIENT, Command, Rung, choose_fence
from flows.rules.primary import Contact, contact_of
from flows.rules.table import FACTS_LIMIT_S, Decision
from tasks import clock
from tasks.errors import HarborHaError, Superseded
from tasks.fencing import steps as fencing
from tasks.operation.record import Fence, Phase
from tasks.operation.store import LockLost
from tasks.postgres import ha_steps as postgres

# SSH, command and drain, each with what it needs; a ladder that turns in circles is a defect, not a reason to
# go on. Waiting for the self-fence is not a rung.
_MAX_RUNGS = 6
_WAIT_S = 1.0
# A look takes 4 s, and a wait one. Less than the self-fence's margin, which a sign of life in between would eat.
_UNSEEN_LIMIT_S = 8.0
_MAX_WAITS = 600
_NEVER_WATCHED = Decision(
    Rung.REFUSE,
    "never watched for long enough",
    (
        f"In {_MAX_WAITS} looks there was no silence without a gap of over {_UNSEEN_LIMIT_S:.0f} s, on which the "
        "self-fence rests.",
    ),
    (
        "This orchestrator is too slow, or stands still again and again: give its machine more processor, or switch "
        "the old primary off, look that it is off, and call again with attest_fenced=true.",
    ),
)


def fence(work: Operation, *, attest_fenced: bool) -> None:
    """Fence the old primary and record the rung.

    Raises:
        Refused: the site's policy is not met; the reason says exactly what an operator would have to attest.
        Superseded, LockLost: another run works on the site.
    """
    if work.held.phase is not Phase.FENCING:
        work.advance(Phase.FENCING, fence=None)
    climb = Climb(work)
    while True:
        rung = climb.next(attest_fenced=attest_fenced)
        if rung.kind in SUFFICIENT:
            work.note("Fence", rung)
            record_fence(work, rung, climb.held_since(rung.kind))
            return
        if climb.waits > _MAX_WAITS:
            _refuse(work, _NEVER_WATCHED)
        if rung.kind is Rung.REFUSE or climb.rungs > _MAX_RUNGS:
            _refuse(work, rung)
        climb.act(rung.kind)


class Climb:
    """The ladder, as far as this process has climbed it; what an earlier one did counts for nothing.

    Attributes:
        rungs: how many were tried.
        waits: how often it was waited; an orchestrator that is too slow to look never sees a silence without a gap.
    """

    def __init__(self, work: Operation) -> None:
        self._work = work
        self._node = work.held.expected_primary
        self._command = Command.NONE
        self._off_since: float | None = None
        self._ordered_at = 0.0
        self._ssh_trouble = ""
        self._ssh_done = False
        self._silence = Silence(work)
        self.rungs = self.waits = 0

    def next(self, *, attest_fenced: bool) -> Decision[Rung]:
        """Choose the next rung by what is seen now."""
        work = self._work
        if work.witnesses is None or work.witnesses.observed_at.age(clock.now()) > FACTS_LIMIT_S / 2:
            work.look_at(self._node)
        self._silence.observe(work)
        assert work.witnesses is not None
        # Not what the site file says: the guard that runs there may have another limit, or none.
        last = work.held.last_primary or last_primary(work.seen, self._node)
        return choose_fence(
            work.seen.node(self._node),
            work.seen.others(self._node),
            work.witnesses,
            work.policy,
            clock.now(),
            command=self._command,
            silent_for_s=self._silence.seconds,
            self_fence_seen_s=last.self_fence_s if last is not None else None,
            attest_fenced=attest_fenced,
            ssh_trouble=self._ssh_trouble,
            off_for_s=None if self._off_since is None else time.monotonic() - self._off_since,
            unresponsive=self._command is Command.NONE and unresponsive(work, self._node),
        )

    def act(self, rung: Rung) -> None:
        """Climb a rung, and look what has become of the machine."""
        work = self._work
        self.rungs += rung is not Rung.WAIT
        self.waits += rung is Rung.WAIT
        if rung is Rung.SSH:
            self._over_ssh()
        elif rung is Rung.COMMAND:
            self._by_command()
        elif rung is Rung.DRAIN:
            work.advance(Phase.FENCING, drained=(*work.held.drained, self._node))
            work.run.on(fencing.drain, self._node, by=work.in_time())
        else:
            time.sleep(_WAIT_S)
        # Its silence was seen twice before, and its end is the command's word: now it would have to answer.
        work.look_at(self._node, said_off=rung is Rung.COMMAND and self._command is Command.CONFIRMED)

    def held_since(self, rung: Rung) -> float:
        """Say from when on it is known that the fence held, by the monotonic clock; before anything was waited for.

        A run that stood still between the command's word and the look after it counted its fence from the look:
        the machine had been switched on again three minutes before.
        """
        if rung is Rung.COMMANDED:
            return self._ordered_at
        if rung is Rung.ATTESTED or self._work.witnesses is None:
            return time.monotonic()
        return self._work.witnesses.observed_at.monotonic

    def _over_ssh(self) -> None:
        """Stop the server on its machine; a machine that cannot be made to is switched off by the next rung.

        Raises:
            Superseded: the node has our lock no longer.
        """
        work = self._work
        work.confirm_intent()
        path = work.path(work.seen.node(self._node))
        try:
            work.run.on(postgres.fence_by_ssh, path, authority=work.authority())
        except Exception as error:
            # A full or hanging disk, a Python that does not start: the failover ended here, before the fence command.
            # A node that could not take the lock says "superseded" too, and means nobody.
            if isinstance(error, LockLost) or (isinstance(error, Superseded) and self._node in work.locked):
                raise
            self._ssh_trouble = _in_short(error)
            work.stays.append(f"PostgreSQL on {self._node} was told to stop over SSH, and may be stopped")
        else:
            if self._ssh_done:
                self._ssh_trouble = "it says that it is done, and the machine does not look so"
            self._ssh_done = True

    def _by_command(self) -> None:
        # Whoever has lost the lock switches nothing off.
        self._work.confirm_intent()
        self._ordered_at = time.monotonic()
        outcome = self._work.run.on(fencing.fence_by_command, node=self._node, by=self._work.in_time())
        self._command = Command.CONFIRMED if outcome.data["confirmed"] else Command.FAILED
        if outcome.data["confirmed"]:
            self._off_since = time.monotonic()
            self._work.stays.append(f"{self._node} was switched off by the fence command")


def record_fence(work: Operation, rung: Decision[Rung], since: float) -> None:
    """Record the rung that was reached, and from when on it counts (monotonic).

    Whoever comes next climbs again, whatever the record says. So it is written with the next one, and clients wait for
    one write less.
    """
    fence = Fence(rung.kind.value, rung.reasons[0], time.time())
    work.fenced_at = since
    work.record = work.held.at(Phase.FENCED, fence=fence)


class Silence:
    """How long this process has seen the old primary silent without a break.

    Not since the operation was recorded: of a run that was killed in between, nobody knows what went on. Nor over a
    pause in which this process stood still and saw nothing: the primary may have been in touch, and its guard counts
    from then on.
    """

    def __init__(self, work: Operation) -> None:
        self._since: float | None = None
        self._seen_at = time.monotonic()
        self.observe(work)

    def observe(self, work: Operation) -> None:
        """Take the newest look into account; any sign of life, and any gap, begins the count anew."""
        if time.monotonic() - self._seen_at > _UNSEEN_LIMIT_S:
            self._since = None
        self._seen_at = time.monotonic()
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


def _in_short(error: Exception) -> str:
    """Say why a step failed, on one line; of an error that is not ours only the name."""
    said = error.what if isinstance(error, HarborHaError) else type(error).__name__
    return (" ".join(said.split()).rstrip(".") or type(error).__name__)[:300]


def _refuse(work: Operation, rung: Decision[Rung]) -> NoReturn:
    work.refuse(f"{work.held.expected_primary} is not fenced, so nothing is promoted.", rung)
