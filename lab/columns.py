"""What `make test-matrix` has seen, a column for each release, and the tables that are made of it.

A column is kept with the state of the code that it was run with: releases that were run one by one, hours apart,
make one table when nothing that runs has changed between them, and else none.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import apt
from lab.topology import REPOSITORY, STATE

PAGE = REPOSITORY / "docs" / "versions.md"
BEGIN, END = "<!-- BEGIN results -->\n", "<!-- END results -->"
NOT_RUN = "not run"

# All that a road runs. Documents, tests and figures may change between two releases.
_RUNS = ("blocks", "tasks", "flows", "deployments", "lab", "requirements.lock")
# Written by a run itself.
_MADE = ("site.yml",)


@dataclass
class Column:
    """What was run on one release.

    Attributes:
        release: its code name.
        versions: what ran, by its name.
        results: seconds of each step that came to its end, by its title.
        problem: why the road ended before its end; "" when it did not.
    """

    release: str
    versions: dict[str, str] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def state_of_code(repository: Path = REPOSITORY) -> str:
    """A word that changes with anything that a road runs."""
    digest = hashlib.sha256()
    for part in _RUNS:
        for path in sorted([repository / part, *(repository / part).rglob("*")]):
            if path.is_file() and path.suffix != ".pyc" and path.name not in _MADE:
                content = path.read_bytes()
                digest.update(f"{path.relative_to(repository)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def keep(column: Column, code: str) -> None:
    """Remember a column, in place of an earlier one of its release.

    Args:
        column: of a road that was gone.
        code: the state of the code when it began.
    """
    directory = STATE / "matrix"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{column.release}.json").write_text(json.dumps({"code": code, **asdict(column)}, indent=1))


def kept(code: str) -> list[Column]:
    """The columns of roads that this state of the code went to their end, from the oldest release on."""
    found = []
    for release in apt.RELEASES:
        with suppress(OSError, ValueError, TypeError, AttributeError):
            note = json.loads((STATE / "matrix" / f"{release}.json").read_text())
            if note.pop("code", None) == code and not note.get("problem"):
                found.append(Column(**note))
    return found


def render(columns: Sequence[Column]) -> str:
    """Render what ran, and how long each step took, as two Markdown tables."""
    names = [column.release for column in columns]
    versions = _merged([column.versions for column in columns])
    # A step by a flow has a colon in its title; between them a client pushes and pulls.
    steps = [title for title in _merged([column.results for column in columns]) if ": " in title]
    ran = _table("what ran", names, {v: [c.versions.get(v, "") for c in columns] for v in versions})
    took = _table("seconds", names, {step: [_cell(c, step) for c in columns] for step in steps}, right=True)
    return f"{ran}\n\n{took}"


def _cell(column: Column, step: str) -> str:
    return f"{column.results[step]:.1f}" if step in column.results else NOT_RUN


def _merged(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all, in their order; what only a later one has comes behind."""
    return list(dict.fromkeys(key for part in parts for key in part))


def _table(
    title: str, names: Sequence[str], rows: Mapping[str, Sequence[str]], *, right: bool = False
) -> str:
    rule = "---:" if right else "---"
    lines = [f"| {title} | {' | '.join(names)} |", f"|---|{'|'.join([rule] * len(names))}|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def write_page(page: Path, text: str) -> None:
    """Put the tables into the page between its marks; the rest of the page is left alone."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    note = f"`make test-matrix` on {datetime.now(UTC):%Y-%m-%d}:"
    page.write_text(f"{before}{BEGIN}{note}\n\n{text}\n{END}{after}", encoding="utf-8")
