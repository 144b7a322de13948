"""Where the running actor is: what the replaced clocks, files and processes ask."""

import time as real_time
from typing import Any, cast

from tests.simulation.world.machines import Machine, Node
from tests.simulation.world.site import World

_world: list[World] = []


def enter(world: World) -> None:
    """Make this the world of the running history."""
    _world[:] = [world]


def world() -> World:
    """Give the world of the running history."""
    return _world[0]


def machine() -> Machine:
    """Give the machine that the running actor is on."""
    actor = world().engine.current
    assert actor is not None, "asked by nobody"
    return cast(Machine, actor.place)


def node() -> Node:
    """Give the node that the running program is on."""
    place = machine()
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

    def __getattr__(self, name: str) -> Any:
        # strftime, gmtime and the like.
        return getattr(real_time, name)


def guard_sleeps(seconds: float) -> None:
    """A guard that would see the same again sleeps until something changes; every second it costs a turn."""
    here = world()
    place = node()
    # What changed while it looked is looked at again; it was awake, so nobody wakes it.
    fresh = here.guard_saw.get(place.name) == here.changes
    here.guard_saw[place.name] = here.changes
    if not fresh or isolated(place) or place.data_path + "/promote" in place.files or self_fenced(place):
        here.engine.sleep(seconds)
    else:
        here.engine.park()
        here.guard_saw[place.name] = here.changes


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
    """Tell whether a note of the self-fence stands on it."""
    return "/var/lib/harbor-ha/self_fence.json" in place.files


SIM_TIME = SimTime()
