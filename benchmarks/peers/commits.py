"""What a writer's acknowledged commits say about an outage. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Commit:
    """One commit that was acknowledged.

    Attributes:
        at: when the writer had the answer, in seconds of the monotonic clock.
        node: who answered.
        session: when the connection was opened, by the same clock.
    """

    at: float
    node: str
    session: float


def first_after(commits: Sequence[Commit], begun: float, victim: str) -> float | None:
    """How long nobody could commit after an accident.

    Args:
        commits: in any order.
        begun: when the accident happened, by the clock of the commits.
        victim: the node that it happened to. Its processes may still answer on connections of before for a moment.

    Returns:
        the seconds until the first commit on the other node or on a new connection; None: there was none yet.
    """
    later = [
        commit.at
        for commit in commits
        if commit.at > begun and (commit.node != victim or commit.session > begun)
    ]
    return min(later) - begun if later else None


def longest_gap(commits: Sequence[Commit], begun: float) -> float:
    """The longest time between two commits, of those that ended after `begun`.

    Raises:
        ValueError: there are no two such commits.
    """
    moments = sorted(commit.at for commit in commits)
    return max(late - early for early, late in pairwise(moments) if late > begun)


def summary(seconds: Sequence[float]) -> str:
    """The median with the spread, for a reader: `26.8 s (23.7 to 28.9, 5 times)`."""
    if not seconds:
        return "not measured"
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}, {len(seconds)} times" if len(seconds) > 1 else "once"
    return f"{statistics.median(seconds):.1f} s ({spread})"
