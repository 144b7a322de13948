"""The table of versions says what ran, and of what did not run that it did not."""

from pathlib import Path

import pytest

from lab import matrix
from lab.matrix import BEGIN, END, PAGE, Column, Road, main, render, write_page

OLD = Column(
    "bullseye",
    {"PostgreSQL": "13.23", "restored onto": "PostgreSQL 17.6"},
    {"bootstrap: two hosts": 61.234, "a client pushes and pulls": 0.5, "disaster-restore: onto 17": 50.0},
)
NEW = Column("trixie", {"PostgreSQL": "17.6"}, {"bootstrap: two hosts": 70.0})


def test_every_release_is_a_column_and_what_did_not_run_there_is_said() -> None:
    lines = render([OLD, NEW]).splitlines()
    assert "| what ran | bullseye | trixie |" in lines
    assert "| PostgreSQL | 13.23 | 17.6 |" in lines
    assert "| restored onto | PostgreSQL 17.6 |  |" in lines
    assert "| bootstrap: two hosts | 61.2 | 70.0 |" in lines
    assert "| disaster-restore: onto 17 | 50.0 | not run |" in lines
    assert not [line for line in lines if "a client" in line]


def test_only_what_lies_between_the_marks_of_the_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "versions.md"
    page.write_text(f"# Versions\n\n{BEGIN}old\n{END}\n\nMore.\n")
    write_page(page, "new")
    text = page.read_text()
    assert text.startswith(f"# Versions\n\n{BEGIN}`make test-matrix` on ")
    assert text.endswith(f"\n\nnew\n{END}\n\nMore.\n")
    assert "old" not in text


def test_the_page_has_its_marks() -> None:
    assert BEGIN in PAGE.read_text(encoding="utf-8")
    assert END in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("wanted", "problem", "status", "written"),
    [([], "", 0, True), (["trixie"], "", 0, False), ([], "node-a: broken", 1, False)],
    ids=["all", "one of them", "one failed"],
)
def test_the_page_is_written_when_all_went_to_the_end(
    wanted: list[str],
    problem: str,
    status: int,
    written: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = tmp_path / "versions.md"
    page.write_text(f"{BEGIN}{END}")
    gone, roads = [], []

    def run(road: Road) -> None:
        roads.append((road.name, road.newer))
        road.column.problem = problem if road.column.release == "trixie" else ""

    monkeypatch.setattr("lab.orchestrator.STATE", tmp_path)
    monkeypatch.setattr(matrix, "PAGE", page)
    monkeypatch.setattr(matrix, "clean", gone.append)
    monkeypatch.setattr(Road, "run", run)
    assert main(wanted) == status
    assert (page.read_text() != f"{BEGIN}{END}") == written
    # What failed is left to be looked at.
    assert gone.count("matrix-trixie") == (1 if problem else 2)
    assert ("matrix-trixie", None) in roads
    assert wanted or ("matrix-bullseye", "trixie") in roads
