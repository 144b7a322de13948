"""What looks like a dead primary and is none: each kind, how it is played, and what it may cost clients."""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.faults import accidents
from lab.faults.unattended import Unattended
from tests.lab.faults.scene import Scene
from tests.lab.faults.slow_disk import DISK_S, slow_disk

STANDSTILL_S = 2
LOSS_S = 6

# Beside everything else on the lab's one machine: a writer's pause and a checkpoint; a push and its patience of 1.5 s.
_COMMIT_S, _PUSH_S = 3.0, 4.0
# Harbor keeps an answer about its health for 10 s, and the balancer wants two good ones: one look at the wrong moment.
_HEALTH_S = 12.0
# A container of a service is started and answers.
_SERVICE_S = 4.0


@dataclass(frozen=True)
class Kind:
    """One kind of false alarm.

    Attributes:
        name: by which it is chosen.
        what: for the table.
        play: does it, and returns when it is over; what is to be drawn is drawn from the sequence's own chance.
        commits_s, pushes_s: the longest time that clients may be without one, in seconds.
        because: the reason for that.
    """

    name: str
    what: str
    play: Callable[[Scene, Unattended, random.Random], object]
    commits_s: float
    pushes_s: float
    because: str


def _stand_still(scene: Scene, _watcher: Unattended, _chance: random.Random) -> None:
    accidents.stand_still(scene.stage, scene.first_primary, STANDSTILL_S)


def _lose_packets(scene: Scene, _watcher: Unattended, chance: random.Random) -> None:
    other = chance.choice(["orchestrator", scene.first_standby])
    accidents.lose_packets(scene.stage, scene.first_primary, other, LOSS_S)


def _slow_disk(scene: Scene, _watcher: Unattended, _chance: random.Random) -> None:
    how = f"disk: {slow_disk(scene.stage, scene.first_primary)}"
    # In the table once, not a dozen times: how it was made slow on this machine.
    if not any(seen.startswith("disk: ") for seen in scene.observed):
        scene.saw(how)


def _terminate(scene: Scene, _watcher: Unattended, _chance: random.Random) -> None:
    accidents.terminate_all(scene.stage, scene.first_primary)


def _restart(service: str) -> Callable[[Scene, Unattended, random.Random], None]:
    def play(scene: Scene, _watcher: Unattended, _chance: random.Random) -> None:
        scene.stage.lab.stop(service)
        scene.stage.lab.start(service)

    return play


def _restart_orchestrator(_scene: Scene, watcher: Unattended, _chance: random.Random) -> None:
    watcher.restart()


KINDS = (
    Kind(
        "standstill",
        f"SIGSTOP of the primary for {STANDSTILL_S} s",
        _stand_still,
        STANDSTILL_S + _COMMIT_S,
        STANDSTILL_S + _HEALTH_S + _PUSH_S,
        "it stands still, and Harbor's health may have been asked meanwhile",
    ),
    Kind(
        "loss",
        f"30 % packet loss for {LOSS_S} s on a path of the primary",
        _lose_packets,
        LOSS_S + _COMMIT_S,
        LOSS_S + _PUSH_S,
        "the writer is at an end of that path; the other node's Harbor too",
    ),
    Kind(
        "disk",
        "slow disk of the primary",
        _slow_disk,
        DISK_S + _COMMIT_S,
        DISK_S + _HEALTH_S + _PUSH_S,
        "commits wait for the disk, and Harbor's health for commits",
    ),
    Kind(
        "terminate",
        "pg_terminate_backend of everything",
        _terminate,
        _COMMIT_S,
        _HEALTH_S + _PUSH_S,
        "clients connect again, and Harbor's health may have met a dead connection",
    ),
    Kind(
        "haproxy",
        "restart of HAProxy",
        _restart("lb"),
        _COMMIT_S,
        _SERVICE_S + _PUSH_S,
        "it is the only way in; the database is not behind it",
    ),
    Kind(
        "redis",
        "restart of Redis",
        _restart("redis"),
        _COMMIT_S,
        _SERVICE_S + _HEALTH_S + _PUSH_S,
        "no push without it, and Harbor's health says so; the database does without",
    ),
    Kind(
        "orchestrator",
        "restart of the orchestrator",
        _restart_orchestrator,
        2 * _COMMIT_S,
        2 * _PUSH_S,
        "it is not in the way of data, and only takes the machine's time",
    ),
)


def sequence(count: int, names: Sequence[str], seed: int) -> list[Kind]:
    """Draw the alarms: each kind as often as the others, as far as the count allows, in an order of chance.

    Args:
        names: of the kinds to take; none: all.
        seed: the same one draws the same sequence.

    Raises:
        ValueError: a name is no kind's.
    """
    known = {kind.name: kind for kind in KINDS}
    strange = sorted(set(names) - known.keys())
    if strange:
        raise ValueError(f"no false alarm is called {', '.join(strange)}; there are: {', '.join(known)}")
    kinds = [known[name] for name in names] or list(KINDS)
    chance = random.Random(seed)
    drawn = kinds * (count // len(kinds)) + chance.sample(kinds, count % len(kinds))
    chance.shuffle(drawn)
    return drawn


class Served:
    """What a load was acknowledged, from its log; each line is read once, for the file of an hour is long.

    Args:
        log: of the load.
        ack: the key that an acknowledgement has, and nothing else.
        ended: the key of its wall time.
    """

    def __init__(self, log: Path, ack: str, ended: str) -> None:
        self.times: list[float] = []
        self._ack, self._ended = ack, ended
        self._log, self._read = log, 0

    def since(self, moment: float) -> bool:
        """Whether one came after a moment."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        for line in map(json.loads, whole.splitlines()):
            if self._ack in line:
                self.times.append(line[self._ended])
        return any(time > moment for time in self.times[-10:])

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time between two of them that touches a span; both ends of the gap must be known."""
        pairs = itertools.pairwise(sorted(self.times))
        return max((late - early for early, late in pairs if late > begin and early < end), default=0.0)


@dataclass(frozen=True)
class Played:
    """One alarm that was played.

    Attributes:
        begin, end: wall times, from its beginning until the site was sound again.
    """

    kind: Kind
    begin: float
    end: float
