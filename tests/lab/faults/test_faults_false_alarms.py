"""A hundred false alarms under load: not one failover, and the site served all the time.

Every kind is done for real on the lab: SIGSTOP, the packet filter's chance, the kernel's limit of writes (where there
is none, `slow_disk.py` says what is done in its place), SQL, and the end of processes and containers. "All the time"
is a limit for each kind, with its reason in `false_alarms.py`: a restart of the only way in is seen by who comes in.

    HARBOR_HA_FALSE_ALARMS=14              that many, instead of a hundred
    HARBOR_HA_FALSE_ALARM_KINDS=loss,disk  these kinds only
    HARBOR_HA_FALSE_ALARM_SEED=2           another order
"""

import os
import random
import time
from collections import Counter
from typing import Any

import pytest

from deployments.runs import ENDED
from tests.lab.faults import table
from tests.lab.faults.false_alarms import Kind, Played, Served, sequence
from tests.lab.faults.scene import Scene
from tests.lab.faults.stage import Stage, wait_for
from tests.lab.faults.unattended import Unattended, seconds_of

COUNT = int(os.environ.get("HARBOR_HA_FALSE_ALARMS", "100"))
NAMES = [name for name in os.environ.get("HARBOR_HA_FALSE_ALARM_KINDS", "").split(",") if name]
SEED = int(os.environ.get("HARBOR_HA_FALSE_ALARM_SEED", "1"))

# Until the site is sound again. A call that was made is a run that looks, finds the primary alive, and ends.
SOUND_S = 120.0
# What a call may have ended as: nothing was changed by either.
_HARMLESS = {"Nothing to do", "Refused"}
_STARTED = "SELECT pg_postmaster_start_time()"


class Alarms:
    """Plays them on a site under load, and keeps what each has cost.

    Args:
        scene: under load.
        watcher: that may call.
    """

    def __init__(self, scene: Scene, watcher: Unattended) -> None:
        self.scene, self.watcher = scene, watcher
        self.played: list[Played] = []
        self.commits = Served(scene.writes_log, "ack", "t")
        self.pushes = Served(scene.pushes_log, "digest", "ended")
        self.runs: list[dict[str, Any]] = []

    def play(self, drawn: list[Kind]) -> None:
        """Play one after the other, each on a site that is sound."""
        chance = random.Random(SEED)
        for number, kind in enumerate(drawn, 1):
            begin = time.time()
            try:
                kind.play(self.scene, self.watcher, chance)
                self._wait_until_sound(time.time())
            except Exception as error:
                raise AssertionError(f"alarm {number} of {len(drawn)}, {kind.what}: {error}") from error
            self.played.append(Played(kind, begin, time.time()))

    def _wait_until_sound(self, over: float) -> None:
        """Wait for a commit and a push after the alarm, for a calm watcher, and for a healthy pair with no run."""
        wait_for(lambda: self.commits.since(over), SOUND_S, "it takes no writes any more")
        wait_for(lambda: self.pushes.since(over), SOUND_S, "it takes no pushes any more")
        wait_for(self.watcher.calm, SOUND_S, self.watcher.told)
        stage = self.scene.stage
        wait_for(stage.healthy, SOUND_S, lambda: f"it is not a healthy pair any more: {stage.troubles()}")
        # A call that is still in a queue would be killed by the restart of the orchestrator.
        wait_for(self._calls_have_ended, SOUND_S, "a run of failover does not end")

    def _calls_have_ended(self) -> bool:
        self.runs = self.watcher.runs()
        return all(run["state_type"] in ENDED for run in self.runs)

    def ends(self) -> dict[str, int]:
        """How many calls there were, by what they ended as."""
        return dict(Counter(run["state_name"] for run in self.runs))

    def gaps(self, kind: Kind) -> tuple[float, float]:
        """The longest time without a commit, and without a push, in all alarms of a kind."""
        spans = [(each.begin, each.end) for each in self.played if each.kind is kind]
        commits, pushes = (
            max(served.longest_gap(*span) for span in spans) for served in (self.commits, self.pushes)
        )
        return commits, pushes

    def row(self, kind: Kind) -> table.Row:
        """What all alarms of a kind have cost, for the table."""
        spans = [(each.begin, each.end) for each in self.played if each.kind is kind]
        calls = sum(any(a <= seconds_of(run["created"]) < b for a, b in spans) for run in self.runs)
        acknowledged = sum(a <= at < b for a, b in spans for at in (*self.commits.times, *self.pushes.times))
        commits, pushes = self.gaps(kind)
        return table.Row(
            f"W3 false alarm: {kind.what}, {len(spans)} times",
            f"no failover, commits ≤ {kind.commits_s:.0f} s and pushes ≤ {kind.pushes_s:.0f} s apart: {kind.because}",
            f"no failover, {calls} calls; gap {commits:.1f} s for commits, {pushes:.1f} s for pushes",
            acknowledged=acknowledged,
        )


@pytest.mark.faults
@pytest.mark.timeout(3 * 3600)
def test_a_hundred_false_alarms_move_nothing_and_the_site_is_served_all_the_time(stage: Stage) -> None:
    drawn = sequence(COUNT, NAMES, SEED)
    title = f"W3 {len(drawn)} false alarms under load"
    with Scene(stage, title, "not one failover, nothing restarted, nothing lost") as scene:
        started = stage.value(scene.first_primary, _STARTED)
        with Unattended(stage) as watcher:
            alarms = Alarms(scene, watcher)
            alarms.play(drawn)
        assert alarms.ends().keys() <= _HARMLESS, f"calls: {alarms.ends()}\n{watcher.told()}"
        scene.unmoved()
        assert stage.value(scene.first_primary, _STARTED) == started, "the primary was restarted"
        scene.saw(f"calls: {alarms.ends() or 'none'}")
    kinds = list(dict.fromkeys(drawn))
    table.ROWS.extend(alarms.row(kind) for kind in kinds)
    print(table.render())
    slow = [
        f"{kind.what}: commits {commits:.1f} s apart (of {kind.commits_s}), pushes {pushes:.1f} s (of {kind.pushes_s})"
        for kind in kinds
        for commits, pushes in [alarms.gaps(kind)]
        if commits > kind.commits_s or pushes > kind.pushes_s
    ]
    assert not slow, slow
