"""Where the running actor is: what the replaced clocks, files and processes ask."""

import time as real_time
from typing import Any

from tests.simulation.world.machines import Machine, Node
from tests.simulation.world.site import World

# Longer than `guard_watch.LOOK_S`.
GUARD_LOOKS_S = 10.5
GUARD_NOTES = (
    "/var/lib/harbor-ha/self_fence.json",
    "/run/harbor-ha/self_fence.json",
    "/run/harbor-ha/held_start.json",
)
_world: list[World] = []


def enter(world: World) -> None:
    """Make this the world of the running history."""
    _world[:] = [world]


def world() -> World:
    """Give the world of the running history."""
    return _world[0]


def machine() -> Machine:
    """Give the machine that the running actor is on."""
    actor = _world[0].engine.current
    assert actor is not None, "asked by nobody"
    place: Machine = actor.place
    return place


def node() -> Node:
    """Give the node that the running program is on."""
    actor = _world[0].engine.current
    assert actor is not None, "asked by nobody"
    place = actor.place
    assert isinstance(place, Node), f"{place.name} is no node"
    return place


class SimTime:
    """Stands for the module `time`: simulated clocks, and sleeping lets the others run."""

    @staticmethod
    def time() -> float:
        return world().wall(machine())

    @staticmethod
    def monotonic() -> float:
        return world().engine.now + 1000.0

    @staticmethod
    def sleep(seconds: float) -> None:
        here = world()
        actor = here.engine.current
        if actor is not None and actor.name.startswith("guard of "):
            guard_sleeps(seconds)
            return
        # Loops that look every 20 ms are made coarser: a turn for each would be most of a history.
        here.engine.sleep(max(seconds, 0.25))

    @staticmethod
    def gmtime(seconds: float | None = None) -> real_time.struct_time:
        return real_time.gmtime(SimTime.time() if seconds is None else seconds)

    def __getattr__(self, name: str) -> Any:
        # strftime and the like.
        return getattr(real_time, name)


def guard_sleeps(seconds: float) -> None:
    """A guard that would see the same again sleeps until something changes; every pass it costs a turn.

    It looks at the others every ten seconds only, so it stays awake for longer than that after a change.
    """
    here = world()
    place = node()
    quiet = here.engine.now - here.changed_at
    if isolated(place) or self_fenced(place) or quiet < 1.0:
        here.engine.sleep(seconds)
    elif quiet < GUARD_LOOKS_S:
        here.engine.doze(GUARD_LOOKS_S)
    else:
        here.engine.park()


def isolated(place: Node) -> bool:
    """Tell whether a running primary has lost everybody, so that its guard counts the seconds."""
    here = world()
    if place.server is None or place.signal:
        return False
    peers = [name for name in here.databases if name != place.name]
    if any(here.port(place.name, name) != "silent" for name in peers):
        return False
    return all(here.service(place.name, name) == "silent" for name in ("balancer", "redis"))


def self_fenced(place: Node) -> bool:
    """Tell whether the guard has something left to do when it can: it has fenced itself, or holds a start back."""
    return any(path in place.files for path in GUARD_NOTES)


SIM_TIME = SimTime()
