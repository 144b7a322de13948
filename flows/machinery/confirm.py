"""Look until it is certain what has become of the primary."""

import time

from flows.machinery.operation import Operation
from flows.machinery.service import unresponsive
from flows.rules.primary import Primary, agreed, classify_primary
from flows.rules.table import Decision
from tasks import clock

# A standby's receiver is fresh for 4 s after its primary's last word, for 8 s where it still has the time of before;
# Redis counts a client of the last 5 s.
CONFIRM_S = 15.0
_ROUND_S = 1.0

# What the machine itself tells needs no second round; what is concluded from silence does.
_FROM_THE_MACHINE = (
    Primary.HEALTHY,
    Primary.READ_ONLY,
    Primary.STARTING,
    Primary.DOWN_HOST_UP,
    Primary.BROKEN,
    Primary.DEMOTED,
    Primary.ALREADY_PROMOTED,
    Primary.SPLIT_BRAIN,
)
_FROM_SILENCE = (Primary.GONE, Primary.HUNG, Primary.UNRESPONSIVE)
_NOTHING_TO_DO = (Primary.HEALTHY, Primary.ALREADY_PROMOTED)
_NEVER = (Primary.READ_ONLY, Primary.CONTROL_PARTITION, Primary.WRITERS_ATTACHED, Primary.SPLIT_BRAIN)


def confirm(work: Operation, expected_primary: str) -> str:
    """Look until it is certain what has become of the primary, for 15 s at the most.

    Returns:
        why nothing is to be done, or nothing when a failover is due.

    Raises:
        Refused: it is alive somewhere, or it cannot be told.
    """
    rounds: list[Decision[Primary]] = []
    deadline = time.monotonic() + CONFIRM_S
    while True:
        if rounds or work.witnesses is None:
            work.look_at(expected_primary)
        assert work.witnesses is not None
        seen, hangs = work.seen, unresponsive(work, expected_primary)
        primary, others = seen.node(expected_primary), seen.others(expected_primary)
        rounds.append(classify_primary(primary, others, work.witnesses, clock.now(), unresponsive=hangs))
        decision = _conclusive(rounds)
        if decision is None and time.monotonic() > deadline:
            decision = agreed(rounds[-2:])
        if decision is not None:
            break
        time.sleep(max(0.0, _ROUND_S - work.witnesses.observed_at.age(clock.now())))
    work.note("The primary", decision)
    if decision.kind in _NOTHING_TO_DO:
        return f"Nothing was done: {decision.reasons[0]}"
    helpless = decision.kind is Primary.UNRESPONSIVE and not work.policy.has_fence_command
    if decision.kind in _NEVER or helpless:
        work.refuse(f"No failover from {expected_primary}.", decision)
    return ""


def _conclusive(rounds: list[Decision[Primary]]) -> Decision[Primary] | None:
    last = rounds[-1]
    if last.kind in _FROM_THE_MACHINE:
        return last
    if last.kind in _FROM_SILENCE and len(rounds) > 1 and rounds[-2].kind is last.kind:
        return agreed(rounds[-2:])
    return None
