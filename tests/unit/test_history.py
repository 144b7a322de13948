"""Timeline history files."""

import pytest

from tasks.postgres.history import FIRST, parse_history
from tasks.postgres.lsn import Lsn

TEXT = "1\t0/40000A0\tno recovery target specified\n\n2\t0/6000148\tno recovery target specified\n"


def test_each_ancestor_has_its_switchpoint() -> None:
    history = parse_history(3, TEXT)
    assert history.switchpoint(1) == Lsn.parse("0/40000A0")
    assert history.switchpoint(2) == Lsn.parse("0/6000148")
    assert history.contains(3)
    assert not history.contains(4)


def test_a_timeline_that_is_no_ancestor_has_none() -> None:
    assert parse_history(5, TEXT).switchpoint(4) is None


def test_the_first_timeline_has_no_ancestors() -> None:
    assert FIRST.contains(1)
    assert FIRST.switchpoint(1) is None


def test_comments_and_empty_lines_are_skipped() -> None:
    assert parse_history(2, "# a comment\n\n1 0/1 x\n").forks[0].timeline == 1


@pytest.mark.parametrize("text", ["1", "2 0/1 x\n1 0/2 x", "3 0/1 x", "x 0/1 y", "1 nowhere x"])
def test_a_damaged_history_is_refused_and_not_guessed_at(text: str) -> None:
    with pytest.raises(ValueError, match=r"history line|order|invalid literal|not a WAL"):
        parse_history(3, text)
