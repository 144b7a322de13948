"""Somebody who brings the site back by what `check`, reports and the runbook say, when every failure is gone."""

from typing import Any

from flows.rules.policy import policy_of
from flows.rules.verdict import Verdict, verdict
from tasks import clock
from tasks.operation.record import OperationRecord, record_from
from tests.simulation.actors import FLOW_LIMIT_S, Cast, accepted
from tests.simulation.invariants import OPERATION
from tests.simulation.world.health import JOBS, unhealthy
from tests.simulation.world.looks import GUARD_VERSION, look
from tests.simulation.world.machines import Node
from tests.simulation.world.power import power_off, power_on
from tests.simulation.world.site import MASK, World
from tests.simulation.world.texts import SIM_JSON


def open_operation(world: World) -> OperationRecord | None:
    """Find the operation that was begun last and not ended."""
    found = [
        record_from(SIM_JSON.loads(node.files[OPERATION]))
        for node in world.nodes.values()
        if OPERATION in node.files
    ]
    last = max(
        (record for record in found if record is not None), key=lambda record: record.progress, default=None
    )
    return last if last is not None and last.open else None


# No program of a drawn history is longer on its way.
LATEST_S = 1000.0
START_CONF = "/etc/postgresql/15/main/start.conf"


class Operator:
    """Somebody who does what reports and the runbook say, one thing after the other."""

    def __init__(self, cast: Cast, rounds: int) -> None:
        self.cast, self.world = cast, cast.world
        self.actor = cast.operator = cast.engine.spawn("operator", cast.desk, lambda: self.work(rounds))
        self.log: list[str] = []
        self.orchestrator = "o1"

    def work(self, rounds: int) -> str:
        """Act until the site is healthy; return what is wrong with it at the end."""
        for number in range(rounds):
            self.cast.engine.sleep(20.0 if number else 60.0)
            self.await_the_late()
            why, (kind, told) = self.unhealthy(), self.check()
            if kind is Verdict.IN_OPERATION:
                # Of a process that is dead or stands still: its lock runs out.
                continue
            if not why and (not told or number == rounds - 1):
                return f"check still says: {told}" if told else ""
            if why.startswith(JOBS) and not told:
                # No look shows it, so a report must have said so.
                told = self.restart_jobs(why.rpartition(" ")[2])
            if not told:
                self.cast.monitor.violated("check tells", f"it says HEALTHY, and {why}")
            self.act(why, told)
        return f"{self.unhealthy()} after: {'; '.join(self.log[-6:])}"

    def await_the_late(self) -> None:
        """Wait for what is on its way where nothing is wrong: it arrives when everybody has gone home."""
        until = self.cast.engine.now + LATEST_S
        while not self.unhealthy() and any(not program.done for program in self.world.programs):
            if self.cast.engine.now > until:
                return
            self.cast.engine.sleep(20.0)

    def check(self) -> tuple[Verdict, str]:
        """Give the real verdict, and what it complains of; empty when it calls the site healthy."""
        world = self.world
        seen = look(world.site)
        addresses = {node.name: node.address for node in world.site.nodes}
        served = {name: world.check_up(name) and name not in world.drained for name in world.nodes}
        judged = verdict(
            seen.every,
            addresses,
            policy_of(world.site),
            clock.now(),
            write_error=None if world.engine.now - world.served_at < 5.0 else "no write was accepted",
            balancer_up=served,
            guard_version=GUARD_VERSION,
        )
        if judged.kind is Verdict.HEALTHY:
            return judged.kind, ""
        world.note(f"check: {judged.kind}: {'; '.join(judged.reasons)}")
        return judged.kind, "; ".join(judged.lines())

    def unhealthy(self) -> str:
        """Say what `check` would complain of."""
        world = self.world
        paused = any("/var/lib/harbor-ha/paused.json" in node.files for node in world.nodes.values())
        if paused or any(path.endswith("/paused.json") for path in world.nas_files):
            return "paused"
        record = open_operation(world)
        return unhealthy(world) or (f"{record.kind} is unfinished" if record else "")

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

    def act(self, why: str, told: str) -> None:
        """Do the next thing.

        Args:
            why: what is wrong in truth.
            told: what `check` says, with its remedies.
        """
        world = self.world
        primaries = world.primaries
        if why == "paused":
            _, text = self.call("pause", end=True)
            for node in world.nodes.values():
                # The fence command has switched it off since every failure was repaired.
                if "Bring the node back" in text and node.name in text:
                    power_on(world, node)
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
        self.by_hand(told)
        if "Run bootstrap: it points every Harbor" in told or "Run bootstrap: it gives the guards" in told:
            self.call("bootstrap")

    def by_hand(self, told: str) -> None:
        """Do what `check` asks for beside flows: start a guard, end a drain, let the boot start a primary again."""
        world = self.world
        for node in world.nodes.values():
            if f"on {node.name}, which found commits that only it had" in told:
                self.call("rejoin", node=node.name)
            guard = world.guards.get(node.name)
            if "The guard does not run" in told and guard is not None and guard.done and node.lives:
                self.cast.start_guard(node)
                world.changed()
            left = any(f"{node.name} is still drained" in report.text for report in self.cast.monitor.reports)
            if "load balancer does not serve" in told and left and world.check_up(node.name):
                # Only where a report has said so: a drain does not outlive its operation unheard.
                world.note(f"the operator ends the drain of {node.name}")
                world.drained.discard(node.name)
            if "would not start at boot" in told and f"node={node.name} " in told and not node.primary:
                self.call("rejoin", node=node.name)
            if "would not start at boot" in told and node.primary:
                world.note(f"the operator lets the boot start {node.name} again")
                node.files.pop(MASK, None)
                node.files[START_CONF] = "auto\n"

    def again(self, record: OperationRecord) -> bool:
        """Call what was left unfinished again; tell whether it was admitted."""
        if record.kind == "failover":
            kind, text = self.failover(record.expected_primary)
        elif record.kind == "switchover":
            kind, text = self.call("switchover", to=record.target)
        else:
            kind, text = self.call("rejoin", node=record.target)
        node = self.world.nodes[record.target]
        if f"Bring {node.name} back and run again" in text and node.lives and node.server is None:
            self.start(node)
        if f"A restart of PostgreSQL on {node.name} takes it back" in text and node.server is not None:
            self.world.stop(node, "fast")
            self.start(node)
        return kind == "ended" and "Nothing was done" not in text

    def fail_over(self) -> None:
        """No primary: call failover for the one that was accepted last; or start it by hand, as the runbook does."""
        primary = accepted(self.world)
        _, text = self.failover(primary)
        for node in self.world.nodes.values():
            named = node.name == primary or f"PostgreSQL on {node.name} does not answer" in text
            if "Start it as a standby and call again" in text and named and node.lives and not node.server:
                self.start(node)

    def restart_jobs(self, name: str) -> str:
        """Do what a report says of a jobservice; return what it says, or nothing."""
        told = [report.text for report in self.cast.monitor.reports if f"jobservice of {name}" in report.text]
        harbor = self.world.nodes[name].harbor
        if told and harbor is not None and harbor.running:
            harbor.jobs = harbor.core
        return told[-1] if told else ""

    def start(self, node: Node) -> None:
        """Start PostgreSQL by hand."""
        self.world.note(f"the operator starts PostgreSQL on {node.name}")
        start = self.cast.engine.spawn(f"start on {node.name}", node, lambda: self.world.start(node))
        self.world.programs.append(start)

    def failover(self, primary: str) -> tuple[str, str]:
        """Call failover, and what its refusal asks for; return how the last call ended."""
        kind, text = self.call("failover", expected_primary=primary)
        node = self.world.nodes[primary]
        vouch = {}
        if "attest_fenced=true" in text or ("COOLDOWN" in text or "cooldown" in text):
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
