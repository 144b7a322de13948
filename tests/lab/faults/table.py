"""The table of all scenarios: printed at the end of the session, and written into docs/faults.md on demand."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- BEGIN results -->\n", "<!-- END results -->"
COLUMNS = ("scenario", "expected", "observed", "seconds", "acknowledged", "lost", "reported lost")
_HEAD = (f"| {' | '.join(COLUMNS)} |", "|---|---|---|---:|---:|---:|---:|")


@dataclass(frozen=True)
class Row:
    """One scenario.

    Attributes:
        scenario: its number in the list of scenarios and what happens.
        expected, observed: in words.
        seconds: of the flow that the scenario is about; None when no flow is.
        acknowledged: writes (database and pushes) acknowledged while it lasted.
        lost: of these, not there at the end.
        reported: commits to the writer's table that rejoin listed as lost.
    """

    scenario: str
    expected: str
    observed: str
    seconds: float | None = None
    acknowledged: int = 0
    lost: int = 0
    reported: int | None = None

    def cells(self) -> tuple[str, ...]:
        """The row as texts."""
        seconds = "" if self.seconds is None else f"{self.seconds:.1f}"
        reported = "" if self.reported is None else str(self.reported)
        texts = (self.scenario, self.expected, self.observed, seconds)
        return (*texts, str(self.acknowledged), str(self.lost), reported)


ROWS: list[Row] = []


def render() -> str:
    """Render all rows as a Markdown table."""
    return "\n".join([*_HEAD, *_lines()])


def write_page(file: Path, failed: int) -> None:
    """Put the table of a whole run into the page between its marks; the rest of the page is left alone."""
    before, _, after = _parts(file)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    note = f"`make test-faults` on {_today()}, {machine}: {len(ROWS)} rows; tests that failed: {failed}."
    file.write_text(f"{before}{BEGIN}{note}\n\n{render()}\n{END}{after}", encoding="utf-8")


def write_again(file: Path) -> None:
    """Replace in the page the rows of the scenarios that were run again, and say which they are."""
    before, results, after = _parts(file)
    again = list(dict.fromkeys(row.scenario for row in ROWS))
    old = [line for line in results.strip().splitlines() if line.startswith("| ") and line not in _HEAD]
    kept = [line for line in old if line.split(" | ")[0].removeprefix("| ") not in again]
    notes = results.partition("|")[0].rstrip()
    note = f"Run again on {_today()}: {'; '.join(again)}."
    rows = "\n".join([*_HEAD, *sorted([*kept, *_lines()])])
    text = "\n\n".join([notes, note, rows])
    file.write_text(f"{before}{BEGIN}{text}\n{END}{after}", encoding="utf-8")


def _lines() -> list[str]:
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row.cells())} |" for row in ROWS]


def _parts(file: Path) -> tuple[str, str, str]:
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    results, _, after = rest.partition(END)
    return before, results, after


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
