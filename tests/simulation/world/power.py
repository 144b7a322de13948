"""Machines lose power, boot, freeze; their programs go with them."""

from tests.simulation.world.machines import Node
from tests.simulation.world.site import World

BOOT_S = 20.0


def power_off(here: World, node: Node) -> None:
    """Take the power away."""
    node.power = False
    if not node.on:
        return
    here.note(f"{node.name}: loses power")
    node.on = node.frozen = False
    if node.server is not None:
        here.stop(node, "lost")
    if node.harbor is not None:
        node.harbor.stop()
    for actor in [*here.programs, *here.guards.values()]:
        if actor.place is node:
            here.engine.kill(actor)
    node.locks.clear()
    for path in [path for path in node.files if path.startswith("/run/")]:
        del node.files[path]
    here.changed()


def power_on(here: World, node: Node) -> None:
    """Give the power back; the machine boots and starts what starts by itself."""
    if node.power:
        return
    here.note(f"{node.name}: is switched on")
    node.power = True
    node.boot += 1
    node.heard = False
    boot = node.boot

    def booted() -> None:
        if node.on or not node.power or node.boot != boot:
            return
        node.on, node.booted_at = True, here.engine.now
        here.note(f"{node.name}: has booted")
        if node.name in here.databases:
            here.start_guard(node)
            if node.files.get("/etc/postgresql/15/main/start.conf", "").split() == ["auto"]:
                actor = here.engine.spawn(f"boot of {node.name}", node, lambda: here.start(node), 1.0)
                here.programs.append(actor)
        if node.harbor is not None:
            node.harbor.start()
        here.changed()

    here.engine.at(BOOT_S, booted)


def freeze(here: World, node: Node, seconds: float) -> None:
    """Stop everything on a machine but its kernel's handshakes, for so long."""
    if not node.lives:
        return
    here.note(f"{node.name}: freezes for {seconds:.0f} s")
    node.frozen = True
    boot = node.boot
    for actor in [*here.programs, *here.guards.values()]:
        if actor.place is node and not actor.done:
            here.engine.stall(actor, seconds)
    here.changed()

    def thaw() -> None:
        if node.boot == boot and node.frozen and node.on:
            node.frozen = False
            here.note(f"{node.name}: goes on")
            here.changed()

    here.engine.at(seconds, thaw)
