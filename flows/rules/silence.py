"""What silence is: how many looks, how far apart, before who says nothing is taken for gone."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from flows.rules.primary import Primary, agreed
from flows.rules.table import Decision
from tasks.clock import Moment
from tasks.operation.witnesses import OPEN, Witnesses
from tasks.postgres.facts import NodeFacts

# Two looks of which the second began this much later: one lost packet is sent again after a second, so whatever
# swallows a first look's packets in one moment does not swallow the second's as well. When a look ended says nothing of
# silence: each of its questions has had its own time. More than this is the site's choice (`failover.silence_s`).
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
        quiet: the machine has answered nothing that it was asked, over any path and by anybody.
    """

    decision: Decision[Primary]
    began: Moment
    quiet: bool = False


def conclusive(rounds: Sequence[Round], apart_s: float = SILENCE_APART_S) -> Decision[Primary] | None:
    """Say what the looks so far prove; None while they prove nothing.

    Args:
        rounds: in the order in which they began; at least one.
        apart_s: seconds between the beginnings of two looks that prove a silence.
    """
    last = rounds[-1].decision
    if last.kind in FROM_THE_MACHINE:
        return last
    if last.kind in FROM_SILENCE and _silent(rounds, apart_s):
        return last
    return None


def at_the_end(rounds: Sequence[Round], apart_s: float = SILENCE_APART_S) -> Decision[Primary] | None:
    """Say what is to be said of looks that have proven nothing when the time for them is over.

    Args:
        rounds: as of `conclusive`.
        apart_s: as of `conclusive`.

    Returns:
        nothing while the last ones are of one moment of silence; the next look ends that, one way or the other.

    Raises:
        ValueError: without any look.
    """
    decision = agreed([each.decision for each in rounds[-SILENCE_LOOKS:]])
    return None if decision.kind in FROM_SILENCE and not _silent(rounds, apart_s) else decision


def quiet(primary: NodeFacts, witnesses: Witnesses) -> bool:
    """Whether a machine has answered nothing that it was asked: no path by SSH, and nobody's call of its port."""
    return not primary.reachable and not witnesses.mute and OPEN not in witnesses.tcp.values()


def _silent(rounds: Sequence[Round], apart_s: float) -> bool:
    """Whether the machine was silent in two looks that began far enough apart, and the last one says what it means.

    A machine that is gone is first quiet. Who is not asked but tells of before, the standby's receiver, the load
    balancer's check and Redis's clients, loses it some seconds later, each after several beats that did not come. So
    they count when they have lost it, and a look that only they have not is one of the two.
    """
    last = rounds[-1]
    if last.decision.kind is Primary.GONE:
        since = list(itertools.takewhile(lambda each: each.quiet, reversed(rounds)))
    else:
        kind = last.decision.kind
        since = list(itertools.takewhile(lambda each: each.decision.kind is kind, reversed(rounds)))
    return bool(since) and since[-1].began.age(last.began) >= apart_s
