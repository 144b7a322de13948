"""The tables of the benchmarks: the median counts, and a reader sees where its seconds went."""

import pytest

from benchmarks.figures import Figure, covered, longest, table

STEPS = [
    {"title": "Look", "begin": 0.5, "seconds": 2.0},
    {"title": "Look", "begin": 2.0, "seconds": 1.5},
    {"title": "Promote", "begin": 4.0, "seconds": 1.0},
    {"title": "Restart jobservice", "begin": 5.5, "seconds": 9.0},
]


def test_the_median_and_the_spread_stand_beside_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    figure = Figure("to the first push", 4.0)
    for seconds in (3.0, 9.0, 2.0):
        figure.add(seconds)
    assert figure.cells()[:-1] == ("to the first push", "4 s", "3.0 s", "2.0..9.0", "0.75", "3")
    assert "9.00 s" in capsys.readouterr().out


def test_where_the_seconds_went_is_told_of_the_typical_time() -> None:
    figure = Figure("to the first push")
    for seconds, where in ((3.0, "the usual way"), (9.0, "a detour"), (2.0, "luck")):
        figure.add(seconds, where)
    assert table([figure])[2].strip() == "the usual way"


def test_what_was_not_measured_says_so_and_is_no_zero() -> None:
    assert "not measured" in table([Figure("to the first push", 7.0)])[1]


def test_steps_of_one_name_count_together_and_what_overlaps_counts_once() -> None:
    told = longest(STEPS, until=5.0)
    assert told == "Look (2 times) 3.0, Promote 1.0, in no step 1.0"


def test_what_goes_on_after_the_first_push_was_not_waited_for() -> None:
    assert "Restart jobservice 0.5" in longest(STEPS, until=6.0)
    assert "Restart jobservice 9.0" in longest(STEPS)


def test_what_came_before_the_gap_was_not_waited_for() -> None:
    assert longest(STEPS, since=3.0, until=5.0) == "Promote 1.0, Look 0.5, in no step 0.5"


def test_seconds_in_which_two_spans_go_on_are_counted_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6)]) == 4
    assert covered([(0, 10), (1, 2)]) == 10
    assert covered([]) == 0
