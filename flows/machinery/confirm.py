"""Look until it is certain what has become of the primary."""

import time

from flows.machinery.operation import Operation
from flows.machinery.service import unresponsive
from flows.rules.primary import Primary, classify_primary
from flows.rules.silence import PACE_S, Round, at_the_end, conclusive, quiet
from tasks import clock

# A standby's receiver is fresh for 4 s after its primary's last word, for 8 s where it still has the time of before;
# Redis counts a client of the last 5 s.
CONFIRM_S = 15.0
_NOTHING_TO_DO = (Primary.HEALTHY, Primary.ALREADY_PROMOTED)
_NEVER = (Primary.READ_ONLY, Primary.CONTROL_PARTITION, Primary.WRITERS_ATTACHED, Primary.SPLIT_BRAIN)


def confirm(work: Operation, expected_primary: str) -> str:
    """Look until it is certain what has become of the primary, for 15 s at the most.

    Returns:
        why nothing is to be done, or nothing when a failover is due.

    Raises:
        Refused: it is alive somewhere, or it cannot be told.
    """
    rounds: list[Round] = []
    deadline = time.monotonic() + CONFIRM_S
    while True:
        if rounds or work.witnesses is None or work.witnesses.node != expected_primary:
            _look_again(work, expected_primary)
        assert work.witnesses is not None
        seen, hangs = work.seen, unresponsive(work, expected_primary)
        primary, others = seen.node(expected_primary), seen.others(expected_primary)
        found = classify_primary(primary, others, work.witnesses, clock.now(), unresponsive=hangs)
        rounds.append(Round(found, work.witnesses.observed_at, quiet(primary, work.witnesses)))
        decision = conclusive(rounds, work.policy.silence_s)
        if decision is None and time.monotonic() > deadline:
            decision = at_the_end(rounds, work.policy.silence_s)
        if decision is not None:
            break
    work.leave_ahead()
    work.note("The primary", decision)
    if decision.kind in _NOTHING_TO_DO:
        return f"Nothing was done: {decision.reasons[0]}"
    helpless = decision.kind is Primary.UNRESPONSIVE and not work.policy.has_fence_command
    if decision.kind in _NEVER or helpless:
        work.refuse(f"No failover from {expected_primary}.", decision)
    return ""


def _look_again(work: Operation, expected_primary: str) -> None:
    """Take the look that is under way, or look when the time for the next one has come."""
    if work.look_taken_ahead(expected_primary):
        return
    if work.witnesses is not None:
        time.sleep(max(0.0, PACE_S - work.witnesses.observed_at.age(clock.now())))
    work.look_at(expected_primary)
