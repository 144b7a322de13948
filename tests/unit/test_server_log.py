"""Why a server does not start is told in a few lines: its own, and of this start."""

from pathlib import Path

import pytest

from tasks.on_node.pg_log import log_since, log_size

AT = "2026-11-23 02:21:45.639 UTC"
CUT_OFF = f"{AT} [2307] harbor@registry FATAL:  terminating connection due to unexpected postmaster exit\n"
NO_PROGRAM = 'program "postgres" is needed by pg_ctl but was not found\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "postgresql-15-main.log"
    path.write_text(f"{AT} [71] LOG:  received SIGHUP, reloading configuration files\n" + CUT_OFF)
    return path


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_what_was_there_before_the_start_is_not_told(log: Path) -> None:
    before = log_size(str(log))
    append(log, f"{AT} [90] FATAL:  could not map anonymous shared memory\n")
    assert log_since(str(log), before) == f"{AT} [90] FATAL:  could not map anonymous shared memory"


def test_clients_that_were_turned_away_do_not_hide_the_reason(log: Path) -> None:
    before = log_size(str(log))
    append(log, f"{AT} [90] PANIC:  could not locate a valid checkpoint record\n" + CUT_OFF * 100)
    assert log_since(str(log), before) == f"{AT} [90] PANIC:  could not locate a valid checkpoint record"


def test_where_there_are_only_clients_they_are_told(log: Path) -> None:
    assert "harbor@registry FATAL" in log_since(str(log), log_size(str(log)) - len(CUT_OFF))


def test_what_two_attempts_said_is_told_once(log: Path) -> None:
    before = log_size(str(log))
    append(log, NO_PROGRAM * 2)
    assert log_since(str(log), before) == NO_PROGRAM.strip()


def test_of_a_log_of_gigabytes_only_the_end_is_read_and_no_half_line_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(8 << 30)
        file.seek(0, 2)
        file.write(b"\n" + b"x" * 70_000 + b"\nthe last line\n")
    assert log_since(str(log), 1000) == "the last line"


def test_a_log_that_was_rotated_meanwhile_is_read_from_its_beginning(log: Path) -> None:
    before = log_size(str(log))
    log.write_text("the new one\n")
    assert log_since(str(log), before) == "the new one"


def test_a_start_that_logged_nothing_is_told_with_the_logs_name(log: Path) -> None:
    assert log_since(str(log), log_size(str(log))) == f"nothing was written to {log}"
    log.unlink()
    assert log_size(str(log)) == 0
    assert log_since(str(log), 0) == f"nothing was written to {log}"
