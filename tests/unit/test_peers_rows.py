"""The table of the other tools: a row that cannot run says why, and keeps what it measured until then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.peers import rows
from lab.shell import LabError


class Pair:
    """A peer whose second round finds no primary."""

    def __init__(self, measured: dict[str, Callable[[Any], float]]) -> None:
        self.rounds = 0
        measured["power cut"] = self.power_cut

    def install(self) -> str:
        return "Example 1.0"

    def power_cut(self, peer: object) -> float:
        self.rounds += 1
        if self.rounds == 2:
            raise LabError("Not within 180 s: both nodes are well.")
        return 20.0


@contextmanager
def no_machines() -> Iterator[None]:
    raise LabError("`docker` is not installed.", where="this machine")
    yield


@contextmanager
def machines() -> Iterator[None]:
    yield


def test_a_row_without_machines_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "machines", no_machines)
    lines = rows.run(["patroni-default"])
    assert lines[0] == "patroni-default: not set up"
    assert "    power cut: not measured" in lines
    assert "`docker` is not installed." in lines[-1]


def test_what_was_measured_before_a_failure_is_kept_and_the_next_row_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: dict[str, Callable[[Any], float]] = {}
    monkeypatch.setattr(rows, "machines", machines)
    monkeypatch.setattr(rows, "ACCIDENTS", measured)
    monkeypatch.setattr(rows, "prepare", lambda peer: None)
    monkeypatch.setattr(rows, "PEERS", dict.fromkeys(("one", "other"), lambda _: Pair(measured)))
    lines = rows.run(["one", "other"], rounds=2)
    assert [line for line in lines if line.startswith("    power cut")] == [
        "    power cut: 20.0 s (once)"
    ] * 2
    assert sum("did not go on: Not within 180 s" in line for line in lines) == 2
