"""One history: a site, what befalls it, who acts; and what it came to."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blocks import HarborSite, read_site_file
from tests.simulation.actors import Cast
from tests.simulation.engine import Circling, Engine
from tests.simulation.faults import Event, apply, heal
from tests.simulation.invariants import Monitor, Violation
from tests.simulation.operator import Operator
from tests.simulation.world import here
from tests.simulation.world.site import World
from tests.unit.site_on_disk import NOW, correct_site

# From the first event to the moment when every failure is taken away.
LONGEST_S = 3600.0
OPERATOR_ROUNDS = 14


@dataclass(frozen=True)
class Setting:
    """The site's settings that decisions depend on.

    Attributes:
        guard_s: the self-fence that the guards go by, where it is not the site file's.
        harbor: its version; a core from before 2.5 does not start on a standby.
    """

    fencing: str = "confirmed"
    fence_command: bool = True
    self_fence_s: int | None = None
    nodes: int = 2
    restart_first: bool = True
    durability: str = "async"
    guard_s: float | None = None
    harbor: str = "2.13.2"


@dataclass(frozen=True)
class Plan:
    """What happens in a history; replayed from it, it is the same history.

    Attributes:
        seed: for the durations of steps and the like.
        events: what befalls the site, by time.
        fates: what becomes of the orchestrator at its n-th boundary: `kill`, `stall` for so many seconds, or `late`:
            the program that it sends is delivered so many seconds late.
        quiet_s: seconds after the last event before everything is repaired.
        serves: nothing befalls but the primary, and what is wrong with it must not keep clients from writing until
            then.
        any_order: whether a step that runs beside others comes before or after them is drawn; else it comes before.
    """

    seed: int
    setting: Setting = Setting()
    events: tuple[Event, ...] = ()
    fates: tuple[tuple[int, str, float], ...] = ()
    quiet_s: float = 120.0
    serves: bool = False
    any_order: bool = False


@dataclass
class Outcome:
    """How a history ended."""

    plan: Plan
    violations: list[Violation]
    story: list[tuple[float, str]]
    boundaries: int
    excepted: set[str] = field(default_factory=set)


@cache
def _base() -> HarborSite:
    with TemporaryDirectory() as directory:
        on_disk = correct_site(Path(directory))
        nodes = on_disk.data["nodes"]
        nodes["node-c"] = {**nodes["node-b"], "address": "10.20.0.13", "runs_postgres": True}
        return read_site_file(on_disk.write(), now=NOW)


@cache
def site_of(setting: Setting) -> HarborSite:
    """Make the site of a history."""
    base = _base()
    failover = base.failover.model_copy(
        update={
            "fencing": setting.fencing,
            "fence_command": ["fence", "{node}"] if setting.fence_command else None,
            "self_fence_s": setting.self_fence_s,
            "restart_first": setting.restart_first,
        }
    )
    postgres = base.postgres.model_copy(update={"durability": setting.durability})
    harbor = base.harbor.model_copy(update={"version": setting.harbor})
    nodes = list(base.nodes[: setting.nodes])
    changed = {"failover": failover, "postgres": postgres, "harbor": harbor, "nodes": nodes}
    return base.model_copy(update=changed)


def run(plan: Plan, *, stop_at_violation: bool = True) -> Outcome:
    """Let a history happen. The seams must be closed."""
    engine, rng = Engine(), random.Random(plan.seed)
    order = random.Random(plan.seed) if plan.any_order else None
    world = World(site_of(plan.setting), engine, rng, order)
    here.enter(world)
    monitor = Monitor(world)
    cast = Cast(world, monitor)
    fates = {number: (kind, seconds) for number, kind, seconds in plan.fates}

    def fate(actor: Any, number: int, what: str) -> None:
        kind, seconds = fates.get(number, ("", 0.0))
        if kind == "kill":
            world.note(f"{actor.name} is killed ({what})")
            engine.kill(actor)
        elif kind == "stall":
            world.note(f"{actor.name} stands still for {seconds:.0f} s ({what})")
            engine.sleep(seconds)
        elif kind == "late" and what.startswith("before ") and " on " in what:
            world.noise.late_program[what.rpartition(" on ")[2]] = seconds

    cast.on_boundary = fate
    engine.between = world.between
    cast.prepare(plan.setting.guard_s)
    stop: Callable[[], bool] | None = (lambda: bool(monitor.found)) if stop_at_violation else None
    try:
        _live(plan, world, cast, monitor, stop)
    except Circling as error:
        monitor.violated("it comes to an end", str(error))
    finally:
        engine.end(
            [
                *world.guards.values(),
                *world.programs,
                *cast.flows,
                *([cast.operator] if cast.operator else []),
            ]
        )
    return Outcome(plan, monitor.found, world.story, cast.boundaries, monitor.excepted)


def _live(plan: Plan, world: World, cast: Cast, monitor: Monitor, stop: Callable[[], bool] | None) -> None:
    engine = world.engine
    engine.run(3.0)
    cast.note_position()
    last = 0.0
    for event in plan.events:
        last = max(last, event.at)
        engine.at(event.at, lambda event=event: apply(world, cast, event))  # type: ignore[misc]
    engine.run(3.0 + last + plan.quiet_s, stop)
    if plan.serves:
        monitor.at_the_repair()
    while any(node.frozen for node in world.nodes.values()) and not monitor.found:
        # Nobody repairs that; it ends by itself.
        engine.run(engine.now + 10.0)
    if monitor.found:
        return
    heal(world, cast)
    operator = Operator(cast, OPERATOR_ROUNDS).actor
    engine.run(engine.now + 12 * 3600.0, lambda: operator.done or bool(monitor.found))
    if monitor.found:
        return
    if operator.error is not None:
        raise operator.error
    monitor.at_the_end(operator.result if operator.done else "the operator still works after 12 h")
