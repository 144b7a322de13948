"""Many sites and one watcher, small: what `python -m benchmarks watch` measures, for some seconds."""

import pytest

from benchmarks.watch import measure

pytestmark = pytest.mark.servers


def test_thirty_sites_are_looked_at_in_time_and_those_that_are_cut_off_are_called() -> None:
    seen = measure(30, 1.0, 24.0, ssh=False, core=None)
    assert (seen.missed, seen.false_calls) == (0, 0)
    assert len(seen.noticed_s) == 3
    # Its patience is three seconds from the last line, which comes up to a second before the cut.
    assert max(seen.noticed_s) < 6.5
    assert seen.lines > 50
    assert seen.mb[1] < seen.mb[0] + 20
    assert seen.cpu < 0.5


def test_over_ssh_it_is_the_same() -> None:
    seen = measure(4, 1.0, 15.0, ssh=True, core=None)
    assert (seen.missed, seen.false_calls, len(seen.noticed_s)) == (0, 0, 1)
