"""How long clients wait: from the call of a flow to the first push and the first commit, against the budgets."""

import time
from dataclasses import dataclass, field

from benchmarks.figures import Figure, longest, table
from benchmarks.lab_site import ROUNDS, clients, expect, repeat, stage_of, until_served
from lab.faults import accidents
from lab.faults.clients import Clients
from lab.faults.stage import Stage, wait_for
from lab.faults.unattended import Unattended

# The first push after a power cut that nobody calls about: the goal, in seconds from the cut.
UNTOUCHED_S = 11.0
_END_S = 120.0


@dataclass(frozen=True)
class Figures:
    """What is measured in each round."""

    cut_push: Figure = field(
        default_factory=lambda: Figure("power cut, fence command: from the call to the first push", 7.0)
    )
    cut_commit: Figure = field(default_factory=lambda: Figure("    to the first commit"))
    at_once_push: Figure = field(
        default_factory=lambda: Figure("    the same, called in the moment of the cut", 7.0)
    )
    at_once_commit: Figure = field(default_factory=lambda: Figure("    to the first commit"))
    rejoin: Figure = field(default_factory=lambda: Figure("rejoin, until served again", 8.0))
    killed_push: Figure = field(
        default_factory=lambda: Figure("PostgreSQL killed for good: from the call to the first push", 5.0)
    )
    killed_commit: Figure = field(default_factory=lambda: Figure("    to the first commit"))
    switch_push: Figure = field(default_factory=lambda: Figure("switchover: longest gap between pushes", 2.5))
    switch_commit: Figure = field(
        default_factory=lambda: Figure("switchover: longest gap between commits", 1.0)
    )

    def lines(self) -> list[str]:
        """The table."""
        return table(vars(self).values())


def run(lab: str, rounds: int = ROUNDS) -> list[str]:
    """Measure what has a budget; returns lines for a reader.

    Raises:
        CannotRun: there is no lab on this machine.
    """
    stage, figures = stage_of(lab), Figures()

    def once() -> None:
        power_cut(stage, figures)
        power_cut(stage, figures, at_once=True)
        killed(stage, figures)
        switched(stage, figures)

    stopped = repeat(rounds, once)
    return [*figures.lines(), *stopped]


def untouched(lab: str, rounds: int = ROUNDS) -> list[str]:
    """Measure a power cut that nobody calls about, from the cut; returns lines for a reader.

    Raises:
        CannotRun: there is no lab on this machine.
    """
    stage = stage_of(lab)
    push = Figure("power cut, untouched: from the cut to the first push", UNTOUCHED_S)
    commit = Figure("    to the first commit")
    stage.restore()
    with Unattended(stage) as watcher:
        stopped = repeat(rounds, lambda: unattended_cut(stage, watcher, push, commit))
    return [*table([push, commit]), *stopped]


def power_cut(stage: Stage, figures: Figures, *, at_once: bool = False) -> None:
    """Cut the primary's power, call failover, and bring the node back.

    Args:
        stage: the site.
        figures: where the times are kept.
        at_once: call in the moment of the cut; else when the watcher does, who has to see trouble for a while.
    """
    old, new = _begin(stage)
    rows = (
        (figures.at_once_push, figures.at_once_commit) if at_once else (figures.cut_push, figures.cut_commit)
    )
    noticed_s = 0.0 if at_once else float(stage.site.failover.call_after_s)
    with clients(stage, "power-cut") as seen:
        cut = time.monotonic()
        stage.lab.stop(old)
        # Not a wait for something to happen: this is how long nobody has noticed yet.
        time.sleep(max(0.0, cut + noticed_s - time.monotonic()))
        called(seen, (old, new), *rows)
    stage.lab.start(old)
    back = stage.flow("rejoin", node=old)
    seconds = until_served(stage, old, back)
    expect(back, old)
    figures.rejoin.add(seconds, longest(back.records(), seconds))


def killed(stage: Stage, figures: Figures) -> None:
    """Kill the primary's PostgreSQL for good while its machine lives, call failover, and bring the node back."""
    old, new = _begin(stage)
    with clients(stage, "killed") as seen:
        accidents.kill_postgres_for_good(stage, old)
        called(seen, (old, new), figures.killed_push, figures.killed_commit)
    accidents.repair_postgres(stage, old)
    expect(stage.flow("rejoin", node=old).wait(_END_S), old)


def called(seen: Clients, pair: tuple[str, str], push: Figure, commit: Figure) -> None:
    """Call failover for the first of the pair; the second is its primary then."""
    old, new = pair
    run = seen.stage.flow("failover", expected_primary=old).wait(_END_S)
    expect(run, f"{new} is the primary")
    begun = float(run.answer["begun"])
    seconds = seen.first_push_after(begun)
    push.add(seconds, longest(run.records(), seconds))
    commit.add(seen.first_commit_on(new, begun))


def switched(stage: Stage, figures: Figures) -> None:
    """Exchange the roles, planned."""
    _, new = _begin(stage)
    with clients(stage, "switchover") as seen:
        run = stage.flow("switchover", to=new).wait(_END_S)
        expect(run, "is its standby")
        begun, ended = float(run.answer["begun"]), float(run.answer["ended"])
        seen.first_push_after(ended)
        early, late = (at - begun for at in seen.push_pause(begun))
        figures.switch_push.add(late - early, longest(run.records(), late, max(0.0, early)))
        figures.switch_commit.add(seen.write_gap())


def unattended_cut(stage: Stage, watcher: Unattended, push: Figure, commit: Figure) -> None:
    """Cut the primary's power, touch nothing until a push gets through, and bring the node back."""
    stage.restore()
    old, new = stage.primary, stage.standby
    wait_for(watcher.calm, 60.0, watcher.told)
    watcher.begun = time.time()
    with clients(stage, "untouched") as seen:
        cut = time.time()
        stage.lab.stop(old)
        seconds = seen.first_push_after(cut, 90.0)
        split = watcher.split(cut, seconds)
        push.add(seconds, ", ".join(f"{name} {at:.1f}" for name, at in split.items()))
        commit.add(seen.first_commit_on(new, cut))
        wait_for(lambda: watcher.runs()[0]["state_type"] == "COMPLETED", _END_S, watcher.told)
    stage.lab.start(old)
    expect(stage.flow("rejoin", node=old).wait(_END_S), old)


def _begin(stage: Stage) -> tuple[str, str]:
    """A healthy pair, whose position check has just kept; primary and standby."""
    stage.restore()
    stage.check()
    return stage.primary, stage.standby
