"""The backups of a site as a chart: how old, how large and how long each one is, and which one is proven."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.pictures import svg
from flows.rules.topology import size

WIDTH, ROW, TOP = 860, 22, 62
_AGE, _SIZE, _TIME, _STATE = 195, 210, 475, 645
_SIZE_WIDTH, _TIME_WIDTH = 170.0, 95.0
MOST_ROWS = 20


@dataclass(frozen=True)
class Backup:
    """One backup.

    Attributes:
        name: its id.
        started: when it began.
        size: bytes of its own objects; images are shared by all.
        seconds: how long it took; None where nobody knows.
        complete: its marker is there and can be read.
        state: what else is to be said, such as "proven".
    """

    name: str
    started: datetime
    size: int
    seconds: float | None
    complete: bool
    state: str


def backups_chart(title: str, backups: Sequence[Backup], now: datetime) -> str:
    """Draw the backups, the newest on top.

    Args:
        title: of the picture.
        backups: in any order.
        now: from when ages are counted.
    """
    rows = sorted(backups, key=lambda backup: backup.started, reverse=True)[:MOST_ROWS]
    most = max((backup.size for backup in rows), default=0) or 1
    longest = max((backup.seconds or 0.0 for backup in rows), default=0.0) or 1.0
    parts = [svg.text(12, 24, title, "big", at_most=60)]
    heads = ((_AGE - 8, "age", "end"), (_SIZE, "size beside the images", "start"), (_TIME, "took", "start"))
    parts += [svg.text(x, TOP - 12, word, "dim", anchor=anchor) for x, word, anchor in heads]
    for index, backup in enumerate(rows):
        y = TOP + ROW * index
        parts += _row(backup, y, backup.size / most, (backup.seconds or 0.0) / longest, now - backup.started)
    if not rows:
        parts.append(svg.text(12, TOP + 14, "There is no backup.", "bad"))
    left = len(backups) - len(rows)
    height = TOP + ROW * max(1, len(rows)) + (26 if left else 10)
    if left:
        parts.append(svg.text(12, height - 10, f"and {left} older ones", "dim"))
    return svg.picture(WIDTH, height, title, parts)


def _row(backup: Backup, y: float, of_most: float, of_longest: float, age: timedelta) -> list[str]:
    kind = "changed" if backup.complete else "failed"
    took = "unknown" if backup.seconds is None else _duration(backup.seconds)
    return [
        svg.text(12, y + 14, backup.name, "dim", at_most=18),
        svg.text(_AGE - 8, y + 14, _age(age), anchor="end"),
        svg.rect(_SIZE, y + 4, max(2.0, _SIZE_WIDTH * of_most), ROW - 9, kind, tip=backup.name),
        svg.text(_SIZE + max(2.0, _SIZE_WIDTH * of_most) + 6, y + 14, size(backup.size), "dim"),
        svg.rect(_TIME, y + 4, max(2.0, _TIME_WIDTH * of_longest), ROW - 9, "unchanged"),
        svg.text(_TIME + max(2.0, _TIME_WIDTH * of_longest) + 6, y + 14, took, "dim"),
        svg.text(_STATE, y + 14, backup.state, "" if backup.complete else "bad", at_most=34),
    ]


def _age(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
