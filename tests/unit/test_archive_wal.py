"""The program behind archive_command, as PostgreSQL calls it."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tasks.postgres.archive import ARCHIVE_WAL

SEGMENT = "00000002000000000000000A"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An empty archive."""
    directory = tmp_path / "archive"
    directory.mkdir()
    return directory


def archived(archive: Path, name: str, content: bytes) -> "subprocess.CompletedProcess[str]":
    """Archive a segment with this content."""
    source = archive.parent / "pg_wal"
    source.write_bytes(content)
    argv = ["sh", "-c", ARCHIVE_WAL, "archive-wal", str(source), str(archive / name)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def aged(path: Path, days: float) -> Path:
    """A file of so many days ago."""
    path.write_bytes(b"old")
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return path


def names(archive: Path) -> list[str]:
    """What is in the archive."""
    return sorted(path.name for path in archive.iterdir())


def test_a_segment_is_there_whole_and_nothing_else(archive: Path) -> None:
    assert archived(archive, SEGMENT, b"wal").returncode == 0
    assert names(archive) == [SEGMENT]
    assert (archive / SEGMENT).read_bytes() == b"wal"


def test_a_segment_that_was_archived_before_a_crash_is_no_failure(archive: Path) -> None:
    archived(archive, SEGMENT, b"wal")
    assert archived(archive, SEGMENT, b"wal").returncode == 0


def test_another_history_is_never_overwritten(archive: Path) -> None:
    archived(archive, SEGMENT, b"wal")
    done = archived(archive, SEGMENT, b"WAL of a split brain")
    assert done.returncode == 1
    assert "two histories" in done.stderr
    assert (archive / SEGMENT).read_bytes() == b"wal"


def test_what_is_a_week_old_goes_and_what_a_killed_copy_left_goes_after_a_day(archive: Path) -> None:
    aged(archive / "000000020000000000000001", 8)
    aged(archive / "000000020000000000000002", 6)
    aged(archive / "00000002.history", 400)
    aged(archive / "000000020000000000000003.node-a.77.partial", 2)
    aged(archive / "an-operators-file", 400)
    assert archived(archive, SEGMENT, b"wal").returncode == 0
    assert names(archive) == sorted(
        ["000000020000000000000002", "00000002.history", SEGMENT, "an-operators-file"]
    )
