"""A run as a timeline: which step took how long, which one it waited for, and when nothing was done at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.pictures import svg

WIDTH, LABELS, RIGHT, ROW, TOP = 860, 330, 60, 19, 46
MOST_ROWS = 26
# A shorter gap is what the next step's beginning takes.
IDLE_S = 0.3
# Of a step that begins later than this after another's end, something else was in between.
_FOLLOWS_S = 0.5

Kind = Literal["changed", "unchanged", "failed"]


@dataclass(frozen=True)
class Bar:
    """One step.

    Attributes:
        title: what the report calls it.
        where: its nodes, or nothing.
        begin_s: seconds after the run's start.
        seconds: how long it took.
        kind: what became of it.
    """

    title: str
    where: str
    begin_s: float
    seconds: float
    kind: Kind

    @property
    def end_s(self) -> float:
        """Seconds after the run's start."""
        return self.begin_s + self.seconds


def idle(bars: Sequence[Bar], total_s: float) -> list[tuple[float, float]]:
    """Give the spans of at least IDLE_S in which no step was at work: the run itself waited, or thought."""
    spans, at = [], 0.0
    for bar in sorted(bars, key=lambda bar: bar.begin_s):
        if bar.begin_s - at >= IDLE_S:
            spans.append((at, bar.begin_s))
        at = max(at, bar.end_s)
    return [*spans, (at, total_s)] if total_s - at >= IDLE_S else spans


def waited_for(bar: Bar, bars: Sequence[Bar]) -> Bar | None:
    """Give the step whose end this one waited for: the last that ended just before it began; None: for none."""
    before = [other for other in bars if other is not bar and other.end_s <= bar.begin_s + 0.05]
    last = max(before, key=lambda other: other.end_s, default=None)
    return last if last is not None and bar.begin_s - last.end_s <= _FOLLOWS_S else None


def shown(bars: Sequence[Bar]) -> list[Bar]:
    """Give the bars that have a place: all, or the longest, with every one that failed, in the order of time."""
    kept = sorted(bars, key=lambda bar: (bar.kind == "failed", bar.seconds), reverse=True)[:MOST_ROWS]
    return sorted(kept, key=lambda bar: bar.begin_s)


def timeline(title: str, bars: Sequence[Bar], total_s: float) -> str:
    """Draw the steps of a run.

    Args:
        title: of the picture.
        bars: the steps, in any order.
        total_s: how long the run took.
    """
    rows, gaps = shown(bars), idle(bars, total_s)
    end = max([total_s, 0.1, *(bar.end_s for bar in bars)])
    scale = (WIDTH - LABELS - RIGHT) / end
    bottom = TOP + ROW * len(rows)
    rest = [bar for bar in bars if bar not in rows]
    parts = [svg.text(12, 22, title, "big", at_most=60), *_axis(end, scale, bottom)]
    waited = sum(stop - start for start, stop in gaps)
    parts.append(svg.text(WIDTH - 12, 22, f"{total_s:.1f} s, {waited:.1f} s idle", "dim", anchor="end"))
    for start, stop in gaps:
        tip = f"idle for {stop - start:.1f} s"
        parts.append(
            svg.rect(LABELS + start * scale, TOP, (stop - start) * scale, bottom - TOP, "idle", tip=tip)
        )
    place = {id(bar): TOP + ROW * index for index, bar in enumerate(rows)}
    for bar in rows:
        parts += _row(bar, waited_for(bar, bars), place, scale)
    parts += _legend(bottom + 34, rest)
    return svg.picture(WIDTH, bottom + 46, title, parts)


def _row(bar: Bar, before: Bar | None, place: Mapping[int, float], scale: float) -> list[str]:
    y, x = place[id(bar)], LABELS + bar.begin_s * scale
    width = max(2.0, bar.seconds * scale)
    where = f" ({bar.where})" if bar.where else ""
    kind = "bad" if bar.kind == "failed" else ""
    parts = [svg.text(LABELS - 8, y + 13, bar.title + where, kind, anchor="end", at_most=48)]
    if before is not None and id(before) in place:
        start = LABELS + before.end_s * scale
        parts.append(svg.path([(start, place[id(before)] + ROW - 6), (start, y + 9), (x, y + 9)], "way"))
    parts.append(svg.rect(x, y + 4, width, ROW - 8, bar.kind, tip=f"{bar.title}{where}: {bar.seconds:.1f} s"))
    parts.append(svg.text(x + width + 4, y + 13, f"{bar.seconds:.1f}", "dim"))
    return parts


def _axis(end_s: float, scale: float, bottom: float) -> list[str]:
    step = next((each for each in (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800) if end_s / each <= 9), 3600)
    parts, at = [], 0.0
    while at <= end_s:
        x = LABELS + at * scale
        parts.append(svg.path([(x, TOP - 2), (x, bottom)], "axis"))
        parts.append(svg.text(x, TOP - 6, f"{at:g} s", "dim", anchor="middle"))
        at = round(at + step, 3)
    return parts


def _legend(y: float, rest: Sequence[Bar]) -> list[str]:
    parts, x = [], 12.0
    for kind, word in (
        ("changed", "changed"),
        ("unchanged", "looked, waited"),
        ("failed", "failed"),
        ("idle", "idle"),
    ):
        parts += [svg.rect(x, y - 9, 12, 10, kind), svg.text(x + 17, y, word, "dim")]
        x += 37 + 7 * len(word)
    if rest:
        more = f"and {len(rest)} short steps, {sum(bar.seconds for bar in rest):.1f} s"
        parts.append(svg.text(WIDTH - 12, y, more, "dim", anchor="end"))
    return parts
