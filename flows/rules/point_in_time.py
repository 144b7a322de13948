"""Which base backup and which nightly backup lead to a point in time, or why none does."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.backup.format.layout import BackupId
from tasks.errors import Refused
from tasks.pitr.catalogue import Reach

_OVERTAKEN = timedelta(minutes=15)
_FORM = "Write it like 2026-11-22T03:04:05+08:00."


def parse_time(text: str, now: datetime) -> datetime:
    """Read the time that the site is to be restored to.

    Raises:
        Refused: it is no time, has no zone, or has not come yet.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _refused(f"`{text}` is not a time. {_FORM}") from None
    if time.tzinfo is None:
        raise _refused(f"{text} has no time zone, and hours decide what is lost. {_FORM}")
    if time > now:
        raise _refused(f"{text} has not come yet; it is {now.isoformat(timespec='seconds')}.")
    return time


def choose_base(time: datetime, reaches: Sequence[Reach], major: int) -> Reach:
    """Choose the newest base backup from which the WAL in the bucket leads to the time.

    Args:
        time: with its zone.
        reaches: of all base backups, oldest first.
        major: of the PostgreSQL that the site is to have; files of another one it cannot read.

    Raises:
        Refused: none does; with the times that can be reached.
    """
    if not reaches:
        raise _refused(
            "There is no base backup in the bucket. Without `to_time` the nightly backup is restored; for the next "
            "time, set `backup.wal_archive: oss` and run base-backup."
        )
    fitting = [reach for reach in reaches if reach.first <= time <= reach.last]
    if fitting:
        # After a restore of a dump onto a newer PostgreSQL the bucket has both; what fits none is refused by admission.
        return ([reach for reach in fitting if reach.base.major == major] or fitting)[-1]
    if time < reaches[0].first:
        raise _refused(f"{time.isoformat()} is before the oldest base backup. {ranges(reaches)}")
    if time > max(reach.last for reach in reaches):
        raise _refused(
            f"{time.isoformat()} is after the last WAL that came into the bucket. {ranges(reaches)}"
        )
    raise _refused(f"{time.isoformat()} lies where WAL is missing in the bucket. {ranges(reaches)}")


def choose_nightly(time: datetime, complete: Sequence[BackupId]) -> tuple[BackupId, str]:
    """Choose where secretkey, keys and configuration come from, and say why that one.

    Raises:
        Refused: there is none. Without secretkey a restored database is worth little.
    """
    before = [backup for backup in complete if backup.started <= time]
    if before:
        return max(before), "the newest that began before that time"
    if complete:
        return min(complete), "the oldest there is; it began after that time"
    raise _refused("There is no complete nightly backup, and secretkey and keys are only there.")


def gap(reaches: Sequence[Reach], system_identifier: str, now: datetime) -> str:
    """Say why the present cannot be restored to from the bucket, and what to do; "" when it can.

    Args:
        reaches: of all base backups, oldest first.
        system_identifier: of the database that runs; a restored one is another.
        now: a hole that is younger than fifteen minutes may be a segment that another one has overtaken.
    """
    mine = [reach for reach in reaches if reach.base.system_identifier == system_identifier]
    if not mine:
        return "the bucket has WAL and no base backup of this database, so no time can be restored: run base-backup"
    if mine[-1].broken and now - mine[-1].last > _OVERTAKEN:
        return (
            f"WAL is missing in the bucket behind {_second(mine[-1].last)}, and no later time can be restored: "
            "run base-backup"
        )
    return ""


def ranges(reaches: Sequence[Reach]) -> str:
    """Say which times can be reached, overlapping ones as one."""
    merged: list[tuple[datetime, datetime]] = []
    for reach in sorted(reaches, key=lambda each: each.first):
        if merged and reach.first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], reach.last))
        else:
            merged.append((reach.first, reach.last))
    spans = " and ".join(f"from {_second(first)} to {_second(last)}" for first, last in merged)
    return f"Possible is {spans}."


def _second(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _refused(reason: str) -> Refused:
    return Refused("The site cannot be restored to that time.", [reason])
