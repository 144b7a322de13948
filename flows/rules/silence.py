"""What silence is: how many looks, how far apart, before who says nothing is taken for gone."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from flows.rules.primary import Primary, agreed
from flows.rules.table import Decision
from tasks.clock import Moment

# Two looks that say the same, of which the second began this much later: one lost packet is sent again after a second,
# so whatever swallows a first look's packets in one moment does not swallow the second's as well. When a look ended
# says nothing of silence: each of its questions has had its own time.
SILENCE_LOOKS = 2
SILENCE_APART_S = 1.0
# When a second look begins after the first one, at the earliest: then what a machine without power does not answer in
# the first look, within 1.25 s, is over, and each path is tried twice, one time after the other.
PACE_S = 1.25

# What the machine itself tells needs no second look; what is concluded from silence does.
FROM_THE_MACHINE = (
    Primary.HEALTHY,
    Primary.READ_ONLY,
    Primary.STARTING,
    Primary.DOWN_HOST_UP,
    Primary.BROKEN,
    Primary.DEMOTED,
    Primary.ALREADY_PROMOTED,
    Primary.SPLIT_BRAIN,
)
FROM_SILENCE = (Primary.GONE, Primary.HUNG, Primary.UNRESPONSIVE)


@dataclass(frozen=True)
class Round:
    """One look at the primary, and what it was taken for.

    Attributes:
        decision: what it was taken for.
        began: when the look began; none of its facts is older.
    """

    decision: Decision[Primary]
    began: Moment


def conclusive(rounds: Sequence[Round]) -> Decision[Primary] | None:
    """Say what the looks so far prove; None while they prove nothing.

    Args:
        rounds: in the order in which they began; at least one.
    """
    last = rounds[-1].decision
    if last.kind in FROM_THE_MACHINE:
        return last
    if last.kind in FROM_SILENCE and _silent(rounds):
        return agreed([each.decision for each in rounds[-SILENCE_LOOKS:]])
    return None


def at_the_end(rounds: Sequence[Round]) -> Decision[Primary] | None:
    """Say what is to be said of looks that have proven nothing when the time for them is over.

    Returns:
        nothing while the last ones are of one moment of silence; the next look ends that, one way or the other.

    Raises:
        ValueError: without any look.
    """
    decision = agreed([each.decision for each in rounds[-SILENCE_LOOKS:]])
    return None if decision.kind in FROM_SILENCE and not _silent(rounds) else decision


def _silent(rounds: Sequence[Round]) -> bool:
    """Whether the last looks say the same and began far enough apart."""
    last = rounds[-SILENCE_LOOKS:]
    if len(last) < SILENCE_LOOKS or len({each.decision.kind for each in last}) > 1:
        return False
    return all(before.began.age(after.began) >= SILENCE_APART_S for before, after in itertools.pairwise(last))
