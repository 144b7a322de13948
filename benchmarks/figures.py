"""What was measured several times: the median, the spread, and how much of a budget that is."""

import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One row: seconds, measured several times.

    Attributes:
        what: from where to where.
        budget: seconds that the median may take; None where there is no budget.
        where: of each time the longest steps, in words.
        loads: of each time the machine's load of the last minute.
    """

    what: str
    budget: float | None = None
    seconds: list[float] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of what was measured."""
        return statistics.median(self.seconds)

    def add(self, seconds: float, where: str = "") -> None:
        """Keep one measurement, and tell it: whoever interrupts a run loses nothing."""
        self.seconds.append(seconds)
        self.where.append(where)
        self.loads.append(os.getloadavg()[0])
        print(f"        {self.what}: {seconds:.2f} s{f' ({where})' if where else ''}", flush=True)

    def typical(self) -> str:
        """Where the seconds went, of the time that is nearest to the median."""
        nearest = min(range(len(self.seconds)), key=lambda at: abs(self.seconds[at] - self.median))
        return self.where[nearest]

    def cells(self) -> tuple[str, ...]:
        """The row as texts."""
        if not self.seconds:
            return (self.what, _seconds(self.budget), "not measured", "", "", "0", "")
        part = f"{self.median / self.budget:.2f}" if self.budget else ""
        return (
            self.what,
            _seconds(self.budget),
            f"{self.median:.1f} s",
            _spread(self.seconds),
            part,
            str(len(self.seconds)),
            _spread(self.loads),
        )


HEAD = ("seconds", "budget", "median", "min..max", "of the budget", "times", "load")


def table(figures: Iterable[Figure]) -> list[str]:
    """Lay rows out for a reader; below each one where its seconds went."""
    listed = list(figures)
    cells = [HEAD, *(figure.cells() for figure in listed)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(HEAD))]
    lines = [_line(HEAD, widths)]
    for figure, row in zip(listed, cells[1:], strict=True):
        lines.append(_line(row, widths))
        if figure.seconds and figure.typical():
            lines.append(f"    {figure.typical()}")
    return lines


def longest(
    records: Sequence[Mapping[str, Any]], until: float = math.inf, since: float = 0.0, count: int = 3
) -> str:
    """Name the steps of a flow's run that took longest, all of one name together, and what was between all steps.

    Args:
        records: the steps, with `title`, `begin` and `seconds`.
        until, since: seconds after the flow's start; what went on before and goes on afterwards was not waited for.
        count: how many.
    """
    spans: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        begin = max(since, float(record["begin"]))
        end = min(until, float(record["begin"]) + float(record["seconds"]))
        if begin < end:
            spans.setdefault(record["title"], []).append((begin, end))
    if not spans:
        return ""
    every = [span for listed in spans.values() for span in listed]
    last = until if until < math.inf else max(end for _, end in every)
    steps = sorted(spans.items(), key=lambda item: -covered(item[1]))[:count]
    named = [
        f"{title}{f' ({len(listed)} times)' if len(listed) > 1 else ''} {covered(listed):.1f}"
        for title, listed in steps
    ]
    return ", ".join([*named, f"in no step {last - since - covered(every):.1f}"])


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one of the spans goes on."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    return "  ".join([f"{first:{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(rest, widths[1:], strict=True))])


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f}..{max(values):.1f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:g} s"
