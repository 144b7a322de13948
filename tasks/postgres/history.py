"""Timeline history files: where each timeline left its parent."""

from dataclasses import dataclass

from tasks.postgres.lsn import Lsn


@dataclass(frozen=True)
class Fork:
    """One line of a history file: `timeline` ended at `switchpoint`, for `reason`."""

    timeline: int
    switchpoint: Lsn
    reason: str


@dataclass(frozen=True)
class TimelineHistory:
    """The ancestors of a timeline, oldest first."""

    timeline: int
    forks: tuple[Fork, ...]

    def switchpoint(self, timeline: int) -> Lsn | None:
        """Return where this history left `timeline`; None when `timeline` is not an ancestor.

        The position is the first one that belongs to the child.
        """
        for fork in self.forks:
            if fork.timeline == timeline:
                return fork.switchpoint
        return None

    def contains(self, timeline: int) -> bool:
        """Tell whether `timeline` is this one or an ancestor of it."""
        return timeline == self.timeline or self.switchpoint(timeline) is not None


FIRST = TimelineHistory(1, ())


def parse_history(timeline: int, text: str) -> TimelineHistory:
    """Read the content of `<timeline in 8 hex digits>.history`.

    Raises:
        ValueError: for a malformed line, or ancestors that do not increase towards `timeline`.
    """
    forks: list[Fork] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        fields = line.split(None, 2)
        if len(fields) < 2:
            raise ValueError(f"timeline {timeline}: not a history line: {line!r}")
        fork = Fork(int(fields[0]), Lsn.parse(fields[1]), fields[2] if len(fields) > 2 else "")
        if fork.timeline >= timeline or (forks and fork.timeline <= forks[-1].timeline):
            raise ValueError(f"timeline {timeline}: ancestors out of order at {line!r}")
        forks.append(fork)
    return TimelineHistory(timeline, tuple(forks))
