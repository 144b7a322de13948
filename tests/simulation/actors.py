"""Who acts by himself: orchestrators with their processes, the alert, the guards, and an operator who reads reports."""

from collections.abc import Callable
from typing import Any

import flows.check
import flows.failover
import flows.pause
import flows.rejoin
import flows.switchover
from flows.machinery.operation import Operation
from flows.machinery.service import try_write, why
from flows.machinery.vision import blind, remember, sightings
from flows.rules.policy import policy_of
from flows.rules.verdict import verdict
from tasks import clock
from tasks.balancer import steps as balancer
from tasks.errors import HarborHaError, Refused
from tasks.guard.install import CONFIG, node_config
from tasks.guard.on_node import boot_guard, guard_watch
from tasks.harbor import steps as harbor
from tasks.operation import store
from tasks.postgres.promote import sync_names_after
from tests.simulation.engine import Actor, Killed
from tests.simulation.invariants import Monitor
from tests.simulation.seams import SimSecrets, publish
from tests.simulation.steps import SimProtocol
from tests.simulation.world.here import world as world_of_this
from tests.simulation.world.looks import GUARD_VERSION, ask_witnesses
from tests.simulation.world.machines import Machine, Node
from tests.simulation.world.remote import SimHost
from tests.simulation.world.site import DURABILITY_FILE, SYNC_FILE, World
from tests.simulation.world.texts import SIM_JSON

SITE = "example"
# No flow of a site this small takes longer, a clone with a dead node in its way included.
FLOW_LIMIT_S = 4 * 3600.0


def bootstrap(site: str) -> dict[str, Any]:
    """Stand for what `bootstrap` does to a site that is built: guards as the site file says, Harbors served.

    Raises:
        Refused: not every node is reached, or there is no one primary.
    """
    run = SimProtocol.begin("bootstrap", site)
    seen = Operation.begin(run).seen
    primaries = [node.name for node in seen.nodes if node.is_primary]
    if len(primaries) != 1 or not all(node.reachable for node in seen.every):
        raise Refused("No bootstrap.", ["a node is away, or there is no one primary"])
    hosts = [SimHost(node.name) for node in seen.nodes]
    op_id = f"bootstrap-{SimSecrets.token_hex(4)}"
    store.acquire(run.site, *hosts, op_id=op_id, required=[host.name for host in hosts])  # type: ignore[arg-type]
    try:
        for host in hosts:
            config = SIM_JSON.loads(host.node.files[CONFIG])
            host.node.files[CONFIG] = SIM_JSON.dumps(
                {**config, "self_fence_s": run.site.failover.self_fence_s}
            )
        world_of_this().changed()
        address = run.site.node(primaries[0]).address
        for node in [node.name for node in run.site.nodes if node.runs_harbor]:
            run.on(harbor.repoint_core, node, database_host=address)
            run.on(harbor.restart_jobservice, node, database_host=address)
            run.on(harbor.up, node)
            run.on(harbor.wait_healthy, node)
            run.on(balancer.admit, node)
    finally:
        store.release(run.site, *hosts, op_id=op_id)  # type: ignore[arg-type]
    return publish(run, "bootstrap: every Harbor uses the primary")


FLOWS: dict[str, Callable[..., Any]] = {
    "failover": flows.failover.failover.fn,
    "switchover": flows.switchover.switchover.fn,
    "rejoin": flows.rejoin.rejoin.fn,
    "pause": flows.pause.pause.fn,
    "bootstrap": bootstrap,
}


class Orchestrator(Machine):
    """A machine that flows run on. A clone shares name and machine id with its original, and not the boot."""

    def __init__(self, name: str, host: str = "", boot: int = 1) -> None:
        super().__init__(name)
        self.host = host or name
        self.machine_id = f"id-{self.host}"[:8]
        self.boot = boot
        self.pids: dict[int, int] = {}
        self.running: dict[int, Actor] = {}

    def boot_id(self) -> str:
        return f"{self.name[-2:]}{self.boot:06d}"


class Cast:
    """All who act in a history."""

    def __init__(self, world: World, monitor: Monitor) -> None:
        self.world, self.monitor, self.engine = world, monitor, world.engine
        self.orchestrators: dict[str, Orchestrator] = {}
        self.flows: list[Actor] = []
        self.boundaries = 0
        self.on_boundary: Callable[[Actor, int, str], None] = lambda actor, number, what: None
        self.runs: dict[int, Any] = {}
        self.operator: Actor | None = None
        self.desk = Machine("desk")
        world.boundary = self._boundary
        world.on_run = self._begun
        world.on_report = monitor.on_report
        world.on_look = monitor.on_look
        world.on_fence = monitor.on_fence
        world.on_write = monitor.on_write
        world.on_stop = monitor.on_stop
        world.on_lock = self._locked
        world.on_record = monitor.on_record
        world.start_guard = self.start_guard
        world.judge_boot = judge_boot
        for name in ("o1", "o2"):
            self.add(Orchestrator(name))

    def add(self, orchestrator: Orchestrator) -> None:
        """Set up an orchestrator."""
        self.orchestrators[orchestrator.name] = self.world.machines[orchestrator.name] = orchestrator

    def _locked(self, node: Node, before: str | None, text: str) -> None:
        """A lock was written on a node: was it taken from somebody who lives and holds it?"""
        if before is None:
            return
        old, new = SIM_JSON.loads(before), SIM_JSON.loads(text)
        _, pid, _, boot, _, _ = old["holder"].split(":")
        age = self.engine.now - node.booted_at - old["renewed"]["uptime"]
        if old["holder"] == new["holder"] or age >= old["ttl_s"]:
            return
        for place in self.orchestrators.values():
            actor = place.running.get(int(pid))
            if (
                place.boot_id() == boot
                and actor is not None
                and not actor.done
                and old["renewed"]["boot"][:8] == node.boot_id()
            ):
                self.monitor.violated(
                    "a living lock is not taken", f"{new['holder']} took that of {old['holder']}"
                )

    def start_guard(self, node: Node) -> None:
        """Start the guard's service on a node that has booted."""
        if node.guard:
            self.world.guards[node.name] = self.engine.spawn(
                f"guard of {node.name}", node, guard_watch.watch, 0.5
            )

    def prepare(self, guard_s: float | None = None) -> None:
        """Put on the nodes what bootstrap and the first check leave there.

        Args:
            guard_s: another self-fence than the site file's, that the guards go by.
        """
        world = self.world
        first = world.nodes[world.databases[0]]
        accepted = SIM_JSON.dumps(
            {"primary": first.name, "system_identifier": "7300000000000000001", "timeline": 1}
        )
        for name in world.databases:
            node = world.nodes[name]
            node.files["/var/lib/harbor-ha/accepted.json"] = accepted + "\n"
            config = node_config(world.site, SimHost(name))  # type: ignore[arg-type]
            config["self_fence_s"] = config["self_fence_s"] if guard_s is None else guard_s
            node.files[CONFIG] = SIM_JSON.dumps(config)
            if world.site.postgres.durability == "required":
                node.files[DURABILITY_FILE] = SIM_JSON.dumps(
                    {"state": "SYNC", "lsn": "0/0", "at": world.wall(node)}
                )
                waits = sync_names_after(world.site, SimHost(name)) if node is first else ""  # type: ignore[arg-type]
                node.files[SYNC_FILE] = f"synchronous_standby_names = '{waits}'\n"
            self.start_guard(node)

    def note_position(self) -> None:
        """Let `check` judge the site, and keep the primary's position and who sees whom."""
        site = self.world.site

        def work() -> None:
            try:
                run = SimProtocol.begin("check", SITE)
                began = Operation.begin(run)
                answers = ask_witnesses(site, [node.name for node in site.nodes])
                note = sightings(site, began.seen, answers)
                judged = verdict(
                    began.seen.every,
                    {node.name: node.address for node in site.nodes},
                    policy_of(site),
                    clock.now(),
                    write_error=why(try_write(run)) or None,
                    balancer_up=flows.check.served(site, answers),
                    guard_version=GUARD_VERSION,
                    blind_witnesses=blind(site, began.seen, answers, note),
                )
                self.world.note(f"check: {judged.kind}: {'; '.join(judged.reasons)}")
                flows.check.record_position(began)
                remember(began, note)
            except HarborHaError as error:
                self.world.note(f"check: {error}")

        self.world.programs.append(self.engine.spawn("check", self.orchestrators["o2"], work))

    # --- flows ---------------------------------------------------------------------------------------------------

    def call(self, orchestrator: str, flow: str, **given: Any) -> Actor:
        """Call a flow on an orchestrator, in a process of its own."""
        place = self.orchestrators[orchestrator]
        self.monitor.accepted_loss = self.monitor.accepted_loss or bool(given.get("accept_data_loss"))
        pid = 1000 + len(self.flows)
        words = ", ".join(f"{name}={value}" for name, value in given.items())
        name = f"{flow} {len(self.flows) + 1} on {orchestrator}"
        self.world.note(f"{name} is called ({words})")

        def work() -> tuple[str, str]:
            return self._flow(actor, FLOWS[flow], given)

        actor = self.engine.spawn(name, place, work)
        place.pids[id(actor)] = pid
        place.running[pid] = actor
        self.flows.append(actor)
        return actor

    def _flow(self, actor: Actor, flow: Callable[..., Any], given: dict[str, Any]) -> tuple[str, str]:
        kind, text = "ended", ""
        try:
            text = flow(SITE, **given)["report"]
        except Killed:
            raise
        except HarborHaError as error:
            kind, text = type(error).__name__, str(error)
        except Exception as error:
            self.monitor.violated("our errors only", f"{actor.name}: {type(error).__name__}: {error}")
            raise
        if kind != "ended":
            self.world.note(f"{actor.name} ends: {text.replace(chr(10), ' ')}")
        self.monitor.on_end(actor.name, self.runs.get(id(actor)), text if kind != "ended" else "")
        return kind, text

    def _begun(self, run: Any) -> None:
        assert self.engine.current is not None
        self.runs[id(self.engine.current)] = run

    def _boundary(self, what: str) -> None:
        actor = self.engine.current
        if actor is not None and actor in self.flows:
            self.boundaries += 1
            self.on_boundary(actor, self.boundaries, what)

    # --- the operator ----------------------------------------------------------------------------------------------

    def alert(self, every_s: float, times: int) -> None:
        """Have the alert call failover while no client's write is accepted."""
        desk = self.desk
        world = self.world

        def work() -> None:
            left = times
            while left:
                self.engine.sleep(10.0)
                # Nobody reads an alert while nothing runs that could: the fault is over, or the operator has it.
                if world.engine.now - world.served_at < 15.0:
                    continue
                primary = accepted(world)
                done = self.call("o1", "failover", expected_primary=primary)
                left -= 1
                self.engine.join(done, FLOW_LIMIT_S)
                self.engine.sleep(every_s)

        self.world.programs.append(self.engine.spawn("alert", desk, work))


def judge_boot(node: Node) -> bool:
    """Ask the boot guard, as systemd does before it starts the server."""
    return boot_guard.judge("15-main") == 0


def accepted(world: World) -> str:
    """Name the primary that was accepted last, as Prometheus or a human knows it."""
    best = (0, world.databases[0])
    for name in world.databases:
        text = world.nodes[name].files.get("/var/lib/harbor-ha/accepted.json")
        if text:
            note = SIM_JSON.loads(text)
            best = max(best, (int(note.get("timeline", 0)), str(note["primary"])))
    return best[1]
