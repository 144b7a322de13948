"""Which backups stay and which may go: generations by calendar, and what is never removed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

# A directory without marker is a backup that is under way, or one that died. Nobody's backup takes two days.
UNFINISHED_GRACE = timedelta(days=2)


@dataclass(frozen=True)
class BackupFact:
    """What the catalogue says of one backup.

    Attributes:
        started: when it began, with a time zone.
        complete: its completion marker exists and fits its manifest.
        with_images: complete, and every blob of it was in the bucket.
        held: somebody put a HOLD next to it.
        verified: a drill restored it.
        signed: the orchestrator made it, as far as its signature says.
        seconds: how long it took, which decides nothing; None: not known.
    """

    name: str
    started: datetime
    complete: bool
    with_images: bool = True
    held: bool = False
    verified: bool = False
    signed: bool = True
    seconds: float | None = None


@dataclass(frozen=True)
class Generations:
    """How many backups of each generation stay; zero switches a generation off.

    Attributes:
        at_least: the newest complete backups that stay whatever the generations say; one at the least.
        timezone: IANA name; where the site's days, weeks, months and years begin.
    """

    daily: int
    weekly: int
    monthly: int
    yearly: int
    at_least: int
    timezone: str


@dataclass(frozen=True)
class Verdict:
    """What happens to one backup, and every reason for it."""

    name: str
    keep: bool
    reason: str


_PERIODS: tuple[tuple[str, Callable[[date], tuple[int, ...]]], ...] = (
    ("daily", lambda day: (day.year, day.month, day.day)),
    ("weekly", lambda day: day.isocalendar()[:2]),
    ("monthly", lambda day: (day.year, day.month)),
    ("yearly", lambda day: (day.year,)),
)


def retain(backups: Iterable[BackupFact], policy: Generations, now: datetime) -> tuple[Verdict, ...]:
    """Judge all backups, newest first.

    A generation keeps the newest backup of each of its last N periods *that have one*: a site that was off
    for a month does not lose its old backups because the calendar went on.

    Args:
        backups: the whole catalogue, in any order.
        policy: how many of each generation stay.
        now: with a time zone; backups from the future (a wrong clock somewhere) are kept and not counted.
    """
    ordered = sorted(backups, key=lambda backup: (backup.started, backup.name), reverse=True)
    believed = [backup for backup in ordered if backup.complete and backup.signed and backup.started <= now]
    reasons = _reasons(believed, policy)
    return tuple(_judge(backup, reasons.get(backup.name, []), now) for backup in ordered)


def _reasons(believed: Sequence[BackupFact], policy: Generations) -> dict[str, list[str]]:
    """Why complete backups stay, by name; `believed` is newest first."""
    reasons: dict[str, list[str]] = {}

    def keep(backup: BackupFact, reason: str) -> None:
        reasons.setdefault(backup.name, []).append(reason)

    for backup in believed[:1]:
        keep(backup, "the newest complete backup")
    for backup in [b for b in believed if b.with_images][:1]:
        keep(backup, "the newest one with all images")
    for backup in [b for b in believed if b.verified][:1]:
        keep(backup, "the newest one that was restored in a drill")
    for backup in believed[: policy.at_least]:
        keep(backup, f"one of the last {policy.at_least}")
    zone = ZoneInfo(policy.timezone)
    for generation, period_of in _PERIODS:
        wanted: int = getattr(policy, generation)
        seen: set[tuple[int, ...]] = set()
        for backup in believed:
            period = period_of(backup.started.astimezone(zone).date())
            if period not in seen and len(seen) < wanted:
                keep(backup, generation)
                seen.add(period)
    return reasons


def _judge(backup: BackupFact, reasons: Sequence[str], now: datetime) -> Verdict:
    if backup.held:
        return Verdict(backup.name, True, ", ".join(["held by an operator", *reasons]))
    if backup.started > now:
        return Verdict(backup.name, True, "it lies in the future; look at the clocks")
    if not backup.complete:
        young = now - backup.started < UNFINISHED_GRACE
        return Verdict(backup.name, young, "not complete, may be under way" if young else "never completed")
    if not backup.signed:
        # Whoever writes into the bucket could make ten newer ones, and the real ones would be past all generations.
        return Verdict(
            backup.name, True, "not signed, counts for nothing: sign it after a drill, or remove it by hand"
        )
    if reasons:
        return Verdict(backup.name, True, ", ".join(reasons))
    return Verdict(backup.name, False, "past all generations")
