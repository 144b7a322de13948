"""Who acts by himself: orchestrators with their processes, the alert, the guards, and an operator who reads reports."""

import json
from collections.abc import Callable
from typing import Any

import flows.check
import flows.failover
import flows.pause
import flows.rejoin
import flows.switchover
from flows.machinery.operation import Operation
from tasks.errors import HarborHaError
from tasks.guard.install import CONFIG, node_config
from tasks.guard.on_node import boot_guard, guard_watch
from tasks.operation.record import OperationRecord, record_from
from tests.simulation.engine import Actor, Killed
from tests.simulation.invariants import OPERATION, Monitor
from tests.simulation.seams import SimProtocol
from tests.simulation.world.machines import Machine, Node
from tests.simulation.world.power import power_off, power_on
from tests.simulation.world.remote import SimHost
from tests.simulation.world.site import MASK, World

SITE = "example"
FLOWS: dict[str, Callable[..., Any]] = {
    "failover": flows.failover.failover.fn,
    "switchover": flows.switchover.switchover.fn,
    "rejoin": flows.rejoin.rejoin.fn,
    "pause": flows.pause.pause.fn,
}
# No flow of a site this small takes longer, a clone with a dead node in its way included.
FLOW_LIMIT_S = 4 * 3600.0


class Defect(Exception):
    """The flow raised what is none of our errors."""


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
        world.on_write = monitor.on_write
        world.start_guard = self.start_guard
        world.judge_boot = judge_boot
        for name in ("o1", "o2"):
            self.add(Orchestrator(name))

    def add(self, orchestrator: Orchestrator) -> None:
        """Set up an orchestrator."""
        self.orchestrators[orchestrator.name] = self.world.machines[orchestrator.name] = orchestrator

    def start_guard(self, node: Node) -> None:
        """Start the guard's service on a node that has booted."""
        if node.guard:
            self.world.guards[node.name] = self.engine.spawn(
                f"guard of {node.name}", node, guard_watch.watch, 0.5
            )

    def prepare(self) -> None:
        """Put on the nodes what bootstrap and the first check leave there."""
        world = self.world
        first = world.nodes[world.databases[0]]
        accepted = json.dumps(
            {"primary": first.name, "system_identifier": "7300000000000000001", "timeline": 1}
        )
        for name in world.databases:
            node = world.nodes[name]
            node.files["/var/lib/harbor-ha/accepted.json"] = accepted + "\n"
            config = node_config(world.site, SimHost(name))  # type: ignore[arg-type]
            node.files[CONFIG] = json.dumps(config)
            self.start_guard(node)

    def note_position(self) -> None:
        """Let `check` keep the primary's position."""

        def work() -> None:
            try:
                run = SimProtocol.begin("check", SITE)
                flows.check.record_position(Operation.begin(run))
            except HarborHaError as error:
                self.world.note(f"check: {error}")

        self.world.programs.append(self.engine.spawn("check", self.orchestrators["o2"], work))

    # --- flows ---------------------------------------------------------------------------------------------------

    def call(self, orchestrator: str, flow: str, **given: Any) -> Actor:
        """Call a flow on an orchestrator, in a process of its own."""
        place = self.orchestrators[orchestrator]
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

    def operate(self, rounds: int) -> Actor:
        """Have an operator bring the site back, by reports and runbook; every failure is gone."""
        self.operator = self.engine.spawn("operator", self.desk, lambda: Operator(self).work(rounds))
        return self.operator


def judge_boot(node: Node) -> bool:
    """Ask the boot guard, as systemd does before it starts the server."""
    return boot_guard.judge("15-main") == 0


def accepted(world: World) -> str:
    """Name the primary that was accepted last, as Prometheus or a human knows it."""
    best = (0, world.databases[0])
    for name in world.databases:
        text = world.nodes[name].files.get("/var/lib/harbor-ha/accepted.json")
        if text:
            note = json.loads(text)
            best = max(best, (int(note.get("timeline", 0)), str(note["primary"])))
    return best[1]


def open_operation(world: World) -> OperationRecord | None:
    """Find the operation that was begun last and not ended."""
    found = [
        record_from(json.loads(node.files[OPERATION]))
        for node in world.nodes.values()
        if OPERATION in node.files
    ]
    last = max(
        (record for record in found if record is not None), key=lambda record: record.progress, default=None
    )
    return last if last is not None and last.open else None


class Operator:
    """Somebody who does what reports and the runbook say, one thing after the other."""

    def __init__(self, cast: Cast) -> None:
        self.cast, self.world = cast, cast.world
        self.log: list[str] = []
        self.orchestrator = "o1"

    def work(self, rounds: int) -> str:
        """Act until the site is healthy; return what is wrong with it at the end."""
        for number in range(rounds):
            self.cast.engine.sleep(20.0 if number else 60.0)
            why = self.unhealthy()
            if not why:
                return ""
            self.act(why)
        return f"{self.unhealthy()} after: {'; '.join(self.log[-6:])}"

    def unhealthy(self) -> str:
        """Say what `check` would complain of."""
        world = self.world
        paused = any("/var/lib/harbor-ha/paused.json" in node.files for node in world.nodes.values())
        if paused or any(path.endswith("/paused.json") for path in world.nas_files):
            return "paused"
        record = open_operation(world)
        return world.healthy() or (f"{record.kind} is unfinished" if record else "")

    def call(self, flow: str, **given: Any) -> tuple[str, str]:
        """Call a flow and read what it says."""
        actor = self.cast.call(self.orchestrator, flow, **given)
        self.cast.engine.join(actor, FLOW_LIMIT_S)
        if not actor.done:
            self.cast.engine.kill(actor)
        kind, text = actor.result or ("Crashed", str(actor.error))
        self.log.append(f"{flow}({', '.join(map(str, given.values()))}): {kind}: {text[:160]}")
        if "is in progress" in text:
            # Its process is dead: the lock runs out.
            self.cast.engine.sleep(61.0)
        return kind, text

    def act(self, why: str) -> None:
        """Do the next thing."""
        world = self.world
        primaries = world.primaries
        if why == "paused":
            self.call("pause", end=True)
            return
        if len(primaries) > 1:
            self.two_primaries(primaries)
            return
        record = open_operation(world)
        if record is not None and self.again(record):
            return
        if not primaries:
            self.fail_over()
            return
        for name in world.databases:
            node = world.nodes[name]
            if node is not primaries[0] and (
                node.server is None or node.server.upstream != primaries[0].name or MASK in node.files
            ):
                if not node.on:
                    power_on(world, node)
                    return
                self.call("rejoin", node=name)
                return
        for name in world.databases:
            if name != primaries[0].name and name in why:
                self.call("rejoin", node=name)
                return

    def again(self, record: OperationRecord) -> bool:
        """Call what was left unfinished again; tell whether it was admitted."""
        if record.kind == "failover":
            kind, text = self.failover(record.expected_primary)
        elif record.kind == "switchover":
            kind, text = self.call("switchover", to=record.target)
        else:
            kind, text = self.call("rejoin", node=record.target)
        return kind == "ended" and "Nothing was done" not in text

    def fail_over(self) -> None:
        """No primary: call failover for the one that was accepted last."""
        self.failover(accepted(self.world))

    def failover(self, primary: str) -> tuple[str, str]:
        """Call failover, and what its refusal asks for."""
        kind, text = self.call("failover", expected_primary=primary)
        node = self.world.nodes[primary]
        vouch = {}
        if "attest_fenced=True" in text or ("COOLDOWN" in text or "cooldown" in text):
            if not self.world.ssh(self.orchestrator, primary):
                power_off(self.world, node)
                vouch["attest_fenced"] = True
            elif "cooldown" in text:
                vouch["attest_fenced"] = False
                vouch["accept_data_loss"] = True
        if "accept_data_loss" in text:
            vouch["accept_data_loss"] = True
        if vouch:
            self.cast.engine.sleep(15.0)
            kind, text = self.call("failover", expected_primary=primary, **vouch)
        return kind, text

    def two_primaries(self, primaries: list[Node]) -> None:
        """The runbook's page: keep the higher timeline, fence the other by hand."""
        keep = max(primaries, key=lambda node: node.data.branch.timeline if node.data else 0)
        for node in primaries:
            if node is not keep:
                self.world.note(f"the operator fences {node.name} by hand")
                node.files[node.data_path + "/standby.signal"] = ""
                self.world.stop(node, "fast")
