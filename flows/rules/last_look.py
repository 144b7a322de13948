"""The last look before the promotion: is the fence still true, and is the standby still a standby?"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.fence import SUFFICIENT, Rung, held
from flows.rules.primary import Contact, Other, Server, contact_of, other_state, server_state
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts

# The look and the promotion are one second apart; whoever stalls in between must look again.
LAST_LOOK_LIMIT_S = 8.0
# A fence counts for the process that climbed it, and for this long, since it was begun; then it is climbed again.
FENCE_LIMIT_S = 60.0
# The second time a command may have taken its own minute.
FENCE_WORN_S = 2 * FENCE_LIMIT_S


class LastLook(StrEnum):
    """What the last look says."""

    PROMOTE = "PROMOTE"
    ALREADY = "ALREADY"
    FENCE_AGAIN = "FENCE_AGAIN"
    ABORT = "ABORT"


@dataclass(frozen=True)
class LastLookView:
    """The fence that was reported, against what is seen now."""

    rung: Rung
    server: Server
    held: bool
    other: Other
    contact: Contact
    worn: bool = False
    primary: str = "the primary"
    standby: str = "the standby"
    sightings: str = ""
    age_s: float = 0.0

    @property
    def fenced(self) -> bool:
        """Whether the rung is one that suffices."""
        return self.rung in SUFFICIENT


_RUNNING_PRIMARY = (Server.WRITABLE, Server.READ_ONLY, Server.HUNG, Server.STARTING)

LAST_LOOK_RULES: tuple[Rule[LastLookView, LastLook], ...] = (
    Rule(
        "two primaries",
        "the standby is primary and the old primary runs as one",
        lambda v: v.other is Other.PRIMARY and v.server in _RUNNING_PRIMARY,
        LastLook.ABORT,
        "{standby} is a primary and {primary} runs as one too.",
        "Decide which one holds the data to keep, stop the other one, then run rejoin for it.",
    ),
    Rule(
        "promoted already",
        "the standby is primary",
        lambda v: v.other is Other.PRIMARY,
        LastLook.ALREADY,
        "{standby} is the primary already.",
    ),
    Rule(
        "no standby",
        "the standby does not answer",
        lambda v: v.other in (Other.DOWN, Other.UNREACHABLE),
        LastLook.ABORT,
        "{standby} does not answer.",
        "Bring {standby} back and call again; {primary} stays fenced.",
    ),
    Rule(
        "not fenced",
        "no rung of the ladder has been reached that suffices",
        lambda v: not v.fenced,
        LastLook.ABORT,
        "{primary} is not fenced ({rung}).",
    ),
    Rule(
        "came back",
        "the old primary is reached and its server runs as a primary",
        lambda v: v.server in _RUNNING_PRIMARY,
        LastLook.FENCE_AGAIN,
        "{primary} has come back and runs ({server}); it is fenced again, now over SSH.",
    ),
    Rule(
        "not held",
        "the old primary is reached, and what stopped it does not hold it",
        lambda v: v.server in (Server.STOPPED, Server.UNUSABLE) and not v.held,
        LastLook.FENCE_AGAIN,
        "{primary} is stopped, but it could start as a primary; it is fenced again, now over SSH.",
    ),
    Rule(
        "held",
        "the old primary is seen stopped and held, or running as a standby",
        lambda v: v.server in (Server.STOPPED, Server.UNUSABLE, Server.STANDBY),
        LastLook.PROMOTE,
        "{primary} is {server} and cannot be written to; {standby} may be promoted.",
    ),
    Rule(
        "heard again",
        "not reached, and the standby hears it",
        lambda v: v.other is Other.HEARS,
        LastLook.ABORT,
        "{standby} receives WAL from {primary} again: the fence ({rung}) is not true.",
        "Repair the path to {primary}; nothing was promoted.",
    ),
    Rule(
        "seen again",
        "not reached, and a witness sees it",
        lambda v: v.contact is Contact.SEEN,
        LastLook.ABORT,
        "{primary} is seen again although it is fenced ({rung}): {sightings}.",
        "Repair the path to {primary}; nothing was promoted.",
    ),
    Rule(
        "worn",
        "not reached; the fence was climbed again, and is older than two minutes all the same",
        lambda v: v.worn,
        LastLook.ABORT,
        "The fence of {primary} ({rung}) was begun {age_s:.0f} s ago, and who knows who has switched it on since.",
        "The fence command must say within a minute that a machine is off, and the orchestrator must not stand "
        "still (a paused or overloaded machine); then call again. Nothing was promoted.",
    ),
    Rule(
        "seen stopped, lost since",
        "not reached; it had been seen stopped and held",
        lambda v: v.rung in (Rung.STOPPED, Rung.COMMANDED, Rung.ATTESTED),
        LastLook.PROMOTE,
        "{primary} is fenced ({rung}) and has not been seen since; {standby} may be promoted.",
    ),
    Rule(
        "witness missing",
        "not reached; the fence rests on witnesses, and one of them could not be asked again",
        lambda v: v.contact is Contact.UNKNOWN,
        LastLook.ABORT,
        "The fence of {primary} rests on witnesses, and one of them does not answer any more.",
        "Make it answer, or attest that {primary} is off; nothing was promoted.",
    ),
    Rule(
        "still lost",
        "not reached; the standby and every witness have still lost it",
        lambda v: True,
        LastLook.PROMOTE,
        "{primary} is fenced ({rung}) and still lost to all; {standby} may be promoted.",
    ),
)


def last_look(
    rung: Rung,
    primary: NodeFacts,
    standby: NodeFacts,
    witnesses: Witnesses,
    now: Moment,
    *,
    fence_age_s: float,
) -> Decision[LastLook]:
    """Say whether the standby may be promoted now. Take the facts after the fence, not before it.

    Args:
        rung: the rung that was reached, from this run or from the operation record.
        primary: facts of the old primary.
        standby: facts of the standby to promote.
        witnesses: what everybody else sees of the old primary.
        now: the moment of the decision.
        fence_age_s: seconds since the fence was begun.

    Raises:
        FactsTooOld: when any of it is older than 8 s.
    """
    seen = [(node.name, node.observed_at) for node in (primary, standby)]
    require_fresh([*seen, ("the witnesses", witnesses.observed_at)], now, LAST_LOOK_LIMIT_S)
    view = LastLookView(
        rung=rung,
        server=server_state(primary),
        held=held(primary),
        other=other_state([standby]),
        contact=contact_of(witnesses),
        worn=fence_age_s > FENCE_WORN_S,
        age_s=fence_age_s,
        primary=primary.name,
        standby=standby.name,
        sightings=", ".join(witnesses.sightings),
    )
    return first_match(LAST_LOOK_RULES, view)
