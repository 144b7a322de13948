"""The table: each peer with each of its settings on machines of its own, and what happened to its clients."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.peers import auto_failover, patroni
from benchmarks.peers.accidents import ACCIDENTS, Peer, prepare
from benchmarks.peers.commits import summary
from benchmarks.peers.machines import Machines, machines
from lab.shell import step
from tasks.errors import HarborHaError

ROUNDS = 5

PEERS: dict[str, Callable[[Machines], Peer]] = {
    "patroni-default": lambda nodes: patroni.Patroni(nodes, patroni.DEFAULT),
    "patroni-fastest": lambda nodes: patroni.Patroni(nodes, patroni.FASTEST),
    "auto-failover-default": lambda nodes: auto_failover.AutoFailover(nodes, auto_failover.DEFAULT),
    "auto-failover-fastest": lambda nodes: auto_failover.AutoFailover(nodes, auto_failover.FASTEST),
}


@dataclass
class Row:
    """One peer with one of its settings.

    Attributes:
        name: in `PEERS`.
        what: its version and settings.
        seconds: of each accident, one for each round.
        loads: of this machine, before each round.
        problem: why it ended early; "" when it did not.
    """

    name: str
    what: str = ""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ACCIDENTS})
    loads: list[float] = field(default_factory=list)
    problem: str = ""

    def lines(self) -> list[str]:
        """The row for a reader."""
        load = f"; load {min(self.loads):.1f} to {max(self.loads):.1f}" if self.loads else ""
        lines = [f"{self.name}: {self.what or 'not set up'}{load}"]
        lines += [f"    {accident}: {summary(seconds)}" for accident, seconds in self.seconds.items()]
        if self.problem:
            lines.append(f"    did not go on: {self.problem}")
        return lines


def run(names: Sequence[str] = tuple(PEERS), rounds: int = ROUNDS) -> list[str]:
    """Measure peers, one after the other; returns lines for a reader.

    Args:
        names: of `PEERS`.
        rounds: how often each of them has each accident.
    """
    lines = []
    for name in names:
        row = Row(name)
        try:
            with machines() as nodes:
                _measure(row, PEERS[name](nodes), rounds)
        except HarborHaError as error:
            row.problem = str(error)
        finally:
            # Now, too: what ends the whole run in the next half hour shall not take this with it.
            print("\n".join(row.lines()), file=sys.stderr, flush=True)
        lines += row.lines()
    return lines


def _measure(row: Row, peer: Peer, rounds: int) -> None:
    with step(f"Set up {row.name}"):
        row.what = peer.install()
        prepare(peer)
    for number in range(rounds):
        row.loads.append(os.getloadavg()[0])
        for accident, happen in ACCIDENTS.items():
            with step(f"{accident}, {number + 1} of {rounds}"):
                seconds = happen(peer)
            row.seconds.setdefault(accident, []).append(seconds)
            print(f"    {accident}: {seconds:.2f} s", file=sys.stderr, flush=True)
