"""The table of versions says what ran, and of what did not run that it did not."""

from pathlib import Path

import pytest

from lab import columns, matrix
from lab.columns import BEGIN, END, PAGE, Column, render, state_of_code, write_page
from lab.matrix import Road, main

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


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "versions.md"
    made.write_text(f"{BEGIN}{END}")
    monkeypatch.setattr("lab.orchestrator.STATE", tmp_path)
    monkeypatch.setattr(columns, "STATE", tmp_path)
    monkeypatch.setattr(matrix, "PAGE", made)
    monkeypatch.setattr(matrix, "state_of_code", lambda: "this state")
    return made


class Gone:
    """What was asked of roads that nobody goes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cleaned: list[str] = []
        self.roads: list[tuple[str, str | None, bool]] = []
        self.problems: dict[str, str] = {}
        monkeypatch.setattr(matrix, "clean", self.cleaned.append)

    def run(self, road: Road) -> None:
        self.roads.append((road.name, road.newer, road.mixed))
        road.column.problem = self.problems.get(road.column.release, "")


@pytest.fixture
def gone(page: Path, monkeypatch: pytest.MonkeyPatch) -> Gone:
    made = Gone(monkeypatch)
    # As a method it would be given itself and not the road.
    monkeypatch.setattr(Road, "run", lambda road: made.run(road))
    return made


def test_the_page_is_written_when_all_went_to_the_end(gone: Gone, page: Path) -> None:
    assert main([]) == 0
    assert "| what ran | bullseye | bookworm | trixie |" in page.read_text()
    assert gone.cleaned.count("matrix-trixie") == 2
    # The backup of the oldest ends on the newest; one pair has two minor versions.
    assert gone.roads == [
        ("matrix-bullseye", "trixie", False),
        ("matrix-bookworm", None, True),
        ("matrix-trixie", None, False),
    ]


def test_one_that_failed_is_left_to_be_looked_at_and_the_page_as_it_was(gone: Gone, page: Path) -> None:
    gone.problems["trixie"] = "node-a: broken"
    assert main([]) == 1
    assert page.read_text() == f"{BEGIN}{END}"
    assert gone.cleaned.count("matrix-trixie") == 1


def test_releases_that_were_run_one_by_one_make_one_page(gone: Gone, page: Path) -> None:
    gone.problems["bookworm"] = "node-a: broken"
    main([])
    gone.problems.clear()
    assert main(["bookworm"]) == 0
    assert "| what ran | bullseye | bookworm | trixie |" in page.read_text()


def test_what_another_state_of_the_code_ran_is_not_in_the_page(
    gone: Gone, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["bullseye", "bookworm"])
    monkeypatch.setattr(matrix, "state_of_code", lambda: "another state")
    assert main(["trixie"]) == 0
    assert page.read_text() == f"{BEGIN}{END}"


def test_a_road_on_which_the_code_was_changed_does_not_count(
    gone: Gone, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["this state", "another state", "another state"])
    monkeypatch.setattr(matrix, "state_of_code", lambda: next(states))
    assert main(["trixie"]) == 1


def test_the_state_of_the_code_changes_with_what_runs_and_with_nothing_else(tmp_path: Path) -> None:
    for name in ("lab/one.py", "flows/two.py", "docs/page.md", "tests/test_one.py"):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text("as it was")
    before = state_of_code(tmp_path)
    (tmp_path / "docs/page.md").write_text("changed")
    (tmp_path / "lab/site.yml").write_text("made by a run")
    assert state_of_code(tmp_path) == before
    (tmp_path / "flows/two.py").write_text("changed")
    assert state_of_code(tmp_path) != before


def test_a_restore_of_the_nightly_backup_has_not_what_was_pushed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.orchestrator.STATE", tmp_path)
    for name in ("_stage", "_lose_everything"):
        monkeypatch.setattr(Road, name, lambda *_: "")
    monkeypatch.setattr("lab.site_lab.Lab.recreate", lambda *_, **__: None)
    road = Road("matrix-trixie", "trixie")
    road.pushed = ["before"]
    road.back_up()
    road.pushed.append("after a restore")
    road._lose_again()
    assert road.pushed == ["before"]
