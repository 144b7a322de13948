"""What can befall a site, as events that a history is made of; and how all of it is taken away again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.actors import Cast, Orchestrator
from tests.simulation.world.machines import Node
from tests.simulation.world.power import freeze, power_off, power_on
from tests.simulation.world.site import World


@dataclass(frozen=True)
class Event:
    """One thing that happens.

    Attributes:
        at: seconds after the beginning.
        kind: one of `KINDS`.
        args: what it happens to.
    """

    at: float
    kind: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind}({', '.join(map(str, self.args))})"


# Of orchestrators, and of what they will meet: a guard sees the same after them.
UNSEEN_BY_GUARDS = (
    "symptom",
    "no_symptom",
    "call",
    "alert",
    "check",
    "kill",
    "stall",
    "clone",
    "late_program",
    "fence",
)


def apply(world: World, cast: Cast, event: Event) -> None:
    """Let it happen; the guards have looked a moment before."""
    seen = event.kind not in UNSEEN_BY_GUARDS
    for guard in world.guards.values():
        if seen and guard.parked and guard.place.lives:
            world.engine.wake(guard)

    def act() -> None:
        world.note(f"EVENT {event.kind}({', '.join(map(str, event.args))})")
        KINDS[event.kind](world, cast, *event.args)
        if seen:
            world.changed()

    world.engine.at(0.02, act)


def _crash(world: World, cast: Cast, name: str) -> None:
    world.stop(world.nodes[name], "lost")


def _hang(world: World, cast: Cast, name: str) -> None:
    server = world.nodes[name].server
    if server is not None:
        server.hung = True


def _disk(world: World, cast: Cast, name: str, which: str, state: str) -> None:
    node = world.nodes[name]
    setattr(node, which, state)
    if which == "disk" and state == "full" and node.server is not None and node.server.state == "primary":
        # PostgreSQL panics when it cannot write WAL.
        world.stop(node, "lost")


def _cut(world: World, cast: Cast, one: str, other: str) -> None:
    world.cut.add((one, other))


def _isolate(world: World, cast: Cast, name: str) -> None:
    others = [*world.nodes, *cast.orchestrators, "balancer", "redis"]
    world.cut.update((name, other) for other in others if other != name)


def _mend(world: World, cast: Cast, name: str) -> None:
    world.cut = {pair for pair in world.cut if name not in pair}
    if name in world.nodes:
        world.nodes[name].back_at = world.engine.now


def _clone(world: World, cast: Cast, name: str) -> None:
    """A second machine with the same name and machine id, from a snapshot; the original goes on."""
    copy = Orchestrator(f"{name}-clone", host=cast.orchestrators[name].host, boot=77)
    if copy.name not in cast.orchestrators:
        cast.add(copy)


def _kill(world: World, cast: Cast, name: str) -> None:
    for actor in cast.flows:
        if actor.place is cast.orchestrators[name] and not actor.done:
            world.note(f"{actor.name} is killed")
            world.engine.kill(actor)


def _stall(world: World, cast: Cast, name: str, seconds: float) -> None:
    for actor in cast.flows:
        if actor.place is cast.orchestrators[name] and not actor.done:
            world.note(f"{actor.name} stands still for {seconds:.0f} s")
            world.engine.stall(actor, seconds)


def _slot_lost(world: World, cast: Cast, name: str) -> None:
    """The WAL that a standby needs is removed, because it was away for too long."""
    for primary in world.primaries:
        data, node = primary.data, world.nodes[name]
        behind = node.data is not None and data is not None and node.server is None
        if behind and data is not None and name in data.slots:
            data.slots[name], data.floor = True, data.end


def _guard(world: World, cast: Cast, name: str, works: bool) -> None:
    node = world.nodes[name]
    node.guard = works
    if not works and name in world.guards:
        world.engine.kill(world.guards[name])
    elif works and world.guards[name].done and node.lives:
        cast.start_guard(node)


def _fence(world: World, cast: Cast, how: str) -> None:
    world.noise.fence = how
    cast.monitor.lied = cast.monitor.lied or how == "lies"


def _thawed(world: World, node: Node, seconds: float) -> None:
    freeze(world, node, seconds)
    node.thawed_at = world.engine.now + seconds  # type: ignore[attr-defined]


def _set(world: World, name: str, **values: Any) -> None:
    for key, value in values.items():
        setattr(world.nodes[name], key, value)


def _call(world: World, cast: Cast, orchestrator: str, flow: str, given: tuple[tuple[str, Any], ...]) -> None:
    if orchestrator in cast.orchestrators:
        cast.call(orchestrator, flow, **dict(given))


def _unhang(world: World, name: str) -> None:
    server = world.nodes[name].server
    if server is not None:
        server.hung = False


def _serve_reads(world: World, name: str, only: bool) -> None:
    server = world.nodes[name].server
    if server is not None:
        server.read_only = only


def _down(world: World, cast: Cast, name: str) -> None:
    world.down.add(name)


KINDS: dict[str, Callable[..., None]] = {
    "power_off": lambda world, cast, name: power_off(world, world.nodes[name]),
    "power_on": lambda world, cast, name: power_on(world, world.nodes[name]),
    "freeze": lambda world, cast, name, seconds: _thawed(world, world.nodes[name], seconds),
    "crash": _crash,
    "hang": _hang,
    "disk": _disk,
    "cut": _cut,
    "isolate": _isolate,
    "mend": _mend,
    "clone": _clone,
    "kill": _kill,
    "stall": _stall,
    "slot_lost": _slot_lost,
    "guard": _guard,
    "fence": _fence,
    "late_program": lambda world, cast, name, seconds: world.noise.late_program.__setitem__(name, seconds),
    "lag": lambda world, cast, name: world.noise.lag.add(name),
    "no_lag": lambda world, cast, name: world.noise.lag.discard(name),
    "burst": lambda world, cast, name: world.burst(world.nodes[name]),
    "slow_promotion": lambda world, cast, name, seconds: _set(world, name, slow_promotion=seconds),
    "slow_start": lambda world, cast, name, seconds: _set(world, name, slow_start=seconds),
    "clock": lambda world, cast, name, seconds: setattr(world.machines[name], "skew", seconds),
    "down": _down,
    "up": lambda world, cast, name: world.down.discard(name),
    "unhang": lambda world, cast, name: _unhang(world, name),
    "no_threads": lambda world, cast, name: world.noise.no_threads.add(name),
    "harbor_read_only": lambda world, cast: setattr(world.noise, "read_only", True),
    "read_only": lambda world, cast, name: _serve_reads(world, name, True),
    "symptom": lambda world, cast, name, what: world.noise.symptoms.add((name, what)),
    "no_symptom": lambda world, cast, name, what: world.noise.symptoms.discard((name, what)),
    "harbor_stops": lambda world, cast, name: setattr(world.nodes[name].harbor, "running", False),
    "check": lambda world, cast: cast.note_position(),
    "alert": lambda world, cast, times: cast.alert(60.0, times),
    "call": _call,
}


def heal(world: World, cast: Cast) -> None:
    """Take every failure away: what is left to do is what the documentation tells the operator."""
    world.note("every failure is repaired")
    world.cut.clear()
    world.down.clear()
    world.noise.fence, world.noise.late_program, world.noise.lag = "truthful", {}, set()
    world.noise.read_only = False
    world.noise.no_threads.clear()
    world.noise.symptoms.clear()
    for machine in world.machines.values():
        machine.skew = 0.0
    for node in world.nodes.values():
        node.root = node.disk = "ok"
        node.back_at = world.engine.now
        node.slow_promotion = node.slow_start = 0.0
        node.guard = True
        if node.server is not None:
            node.server.hung = node.server.read_only = False
        if not node.on:
            power_on(world, node)
        elif node.name in world.guards and world.guards[node.name].done and node.lives:
            cast.start_guard(node)
        if node.on and node.harbor is not None and not node.harbor.running and not has_note(node):
            # `docker start` by hand, or the containers' own restart policy.
            node.harbor.start()
    world.changed()


def has_note(node: Node) -> bool:
    """Tell whether the self-fence holds this node's Harbor down."""
    return "/var/lib/harbor-ha/self_fence.json" in node.files
