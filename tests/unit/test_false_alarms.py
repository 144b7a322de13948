"""The sequence of false alarms that the lab plays, and how it reads what its loads were acknowledged."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.lab.faults.false_alarms import KINDS, Served, sequence


def test_a_hundred_alarms_are_of_all_kinds_alike_and_the_same_for_one_seed() -> None:
    drawn = sequence(100, [], 1)
    assert drawn == sequence(100, [], 1) != sequence(100, [], 2)
    counts = Counter(kind.name for kind in drawn)
    assert set(counts) == {kind.name for kind in KINDS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {kind.name for kind in sequence(5, ["loss", "disk"], 1)} == {"loss", "disk"}


def test_a_kind_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"called flood; there are: standstill, loss, disk"):
        sequence(3, ["loss", "flood"], 1)


def test_the_longest_gap_is_that_which_touches_the_alarm_and_a_line_is_read_when_it_is_whole(
    tmp_path: Path,
) -> None:
    log = tmp_path / "writes"
    lines = [{"ack": at, "t": float(at)} for at in (1, 20, 21, 25, 26)]
    log.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"attempt": 27, "t": 27.0}]))
    served = Served(log, "ack", "t")
    assert served.since(25.5)
    assert not served.since(26.0)
    assert served.longest_gap(20.5, 24.0) == 4.0
    assert served.longest_gap(19.0, 24.0) == 19.0, "a gap that began before it"
    with log.open("a") as file:
        file.write('{"ack": 40, ')
    assert not served.since(26.0)
    with log.open("a") as file:
        file.write('"t": 40.0}\n')
    assert served.since(26.0)
    assert served.longest_gap(26.0, 39.0) == 14.0
