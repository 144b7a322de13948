"""The table of all scenarios: printed at the end of the session, and written into docs/faults.md on demand."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

COLUMNS = ("scenario", "expected", "observed", "seconds", "acknowledged", "lost", "reported lost")


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
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row.cells())} |" for row in ROWS]
    return "\n".join(lines)


def write_page(file: Path, failed: int) -> None:
    """Put the table into the page between its marks; the rest of the page is left alone."""
    text = file.read_text(encoding="utf-8")
    begin, end = "<!-- BEGIN results -->\n", "<!-- END results -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    note = f"`make test-faults` on {now}, {machine}: {len(ROWS)} rows, {failed} tests failed.\n\n"
    file.write_text(f"{before}{begin}{note}{render()}\n{end}{after}", encoding="utf-8")
