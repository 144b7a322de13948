"""A limit of seconds in the lab: what a slow machine explains, and what it does not."""

from collections.abc import Callable

import pytest

from tests.lab.faults import pace

LIMIT_S = 10.0


def _attempts(*seconds: float) -> Callable[[], float]:
    left = iter(seconds)
    return lambda: next(left)


def _shell(node: str, script: str) -> str:
    raise AssertionError("the machine is measured although an attempt was quick enough")


@pytest.fixture
def restart_s(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Say how long Docker takes to restart both cores."""
    return lambda seconds: monkeypatch.setattr(pace, "_seconds_for_both_cores", lambda shell: seconds)


def test_one_attempt_in_time_is_enough_and_nothing_is_measured() -> None:
    pace.best_of_two(LIMIT_S, _attempts(9.9), _shell)
    pace.best_of_two(LIMIT_S, _attempts(12.0, 9.9), _shell)


def test_on_a_machine_of_the_usual_pace_the_limit_holds(restart_s: Callable[[float], None]) -> None:
    restart_s(pace.REFERENCE_S)
    with pytest.raises(AssertionError, match=r"allowed are 10\.0 s, 10\.0 s on this machine"):
        pace.best_of_two(LIMIT_S, _attempts(10.1, 10.1), _shell)


def test_a_quick_machine_does_not_lower_the_limit_below_what_is_said(
    restart_s: Callable[[float], None],
) -> None:
    restart_s(pace.REFERENCE_S / 2)
    with pytest.raises(AssertionError, match=r"10\.0 s on this machine"):
        pace.best_of_two(LIMIT_S, _attempts(11.0, 11.0), _shell)


def test_a_slow_machine_explains_so_much_and_no_more(restart_s: Callable[[float], None]) -> None:
    restart_s(1.3 * pace.REFERENCE_S)
    pace.best_of_two(LIMIT_S, _attempts(12.9, 13.5), _shell)
    with pytest.raises(AssertionError, match=r"13\.0 s on this machine"):
        pace.best_of_two(LIMIT_S, _attempts(13.1, 13.1), _shell)
    restart_s(10 * pace.REFERENCE_S)
    with pytest.raises(AssertionError, match=r"20\.0 s on this machine"):
        pace.best_of_two(LIMIT_S, _attempts(20.1, 20.1), _shell)
