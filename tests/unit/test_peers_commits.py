"""How long clients of another high-availability tool could not commit, read off what was acknowledged."""

import pytest

from benchmarks.peers.commits import Commit, first_after, longest_gap, summary


def commits(node: str, *moments: float, session: float = 0.0) -> list[Commit]:
    return [Commit(moment, node, session) for moment in moments]


def test_an_outage_ends_with_the_first_commit_on_the_other_node() -> None:
    seen = [*commits("a", 1.0, 9.9), *commits("b", 32.5, 32.6)]
    assert first_after(seen, 10.0, "a") == pytest.approx(22.5)


def test_the_order_in_which_two_threads_noted_their_commits_does_not_matter() -> None:
    seen = [*commits("b", 32.6, 32.5), *commits("a", 9.9, 1.0)]
    assert first_after(seen, 10.0, "a") == pytest.approx(22.5)


def test_processes_that_outlive_their_postmaster_for_a_moment_do_not_end_the_outage() -> None:
    dying = commits("a", 10.05)
    assert first_after(dying, 10.0, "a") is None
    assert first_after([*dying, *commits("a", 11.3, session=11.0)], 10.0, "a") == pytest.approx(1.3)


def test_a_connection_to_the_standby_that_is_older_than_the_accident_ends_the_outage() -> None:
    assert first_after(commits("b", 12.0, session=3.0), 10.0, "a") == pytest.approx(2.0)


def test_without_a_commit_afterwards_the_outage_is_not_over() -> None:
    assert first_after(commits("b", 9.0), 10.0, "a") is None


def test_the_longest_gap_counts_over_both_nodes() -> None:
    seen = [*commits("a", 1.0, 1.05, 1.1), *commits("b", 2.4, 2.45)]
    assert longest_gap(seen, 1.07) == pytest.approx(1.3)


def test_a_gap_that_began_before_the_switchover_was_asked_for_is_counted_whole() -> None:
    assert longest_gap(commits("a", 1.0, 2.0), 1.5) == pytest.approx(1.0)


def test_a_gap_that_was_over_before_is_none_of_the_switchover() -> None:
    assert longest_gap(commits("a", 1.0, 9.0, 9.1, 9.4), 9.05) == pytest.approx(0.3)


def test_a_median_is_told_with_its_spread() -> None:
    assert summary([28.9, 23.7, 26.8]) == "26.8 s (23.7 to 28.9, 3 times)"


def test_what_was_not_measured_is_no_number() -> None:
    assert summary([]) == "not measured"
