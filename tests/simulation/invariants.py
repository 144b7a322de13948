"""What must hold after every event of a history, whatever happened; and what the documentation excepts by name."""

from dataclasses import dataclass
from typing import Any

from tests.simulation.seams import Report
from tests.simulation.world.here import isolated
from tests.simulation.world.machines import Branch, Node, Server
from tests.simulation.world.site import World, Write
from tests.simulation.world.texts import SIM_JSON

OPERATION = "/var/lib/harbor-ha/operation.json"
PAST_RETURN = ("promoting", "promoted", "opening", "settling")
OPENED = ("opening", "settling")
LOCK = "/var/lib/harbor-ha/lock.json"
# "A frozen virtual machine that wakes up may write for the second until its guard looks"; and its stop takes five.
WAKING_S = 8.0
# A guard looks at the others every ten seconds, and then stops its server.
LOOKING_S = 16.0
# Clients and jobs write at least once a second.
SERVED_S = 5.0
# Two looks that begin in the same moment are one.
APART_S = 1.0
# Steps after which "nothing was changed" is not so any more, unless the run has undone them.
CHANGING = (
    "Fence over SSH",
    "Promote the standby",
    "Shut the primary down",
    "Clone from the primary",
    "Rewind",
)


@dataclass(frozen=True)
class Violation:
    """What went wrong."""

    at: float
    invariant: str
    text: str


@dataclass(eq=False)
class Promotion:
    """A server that became a primary on a line of its own.

    Attributes:
        operation: whose record its node had then.
        rung: by which the old primary was fenced.
        in_touch: some old primary lived then, and saw somebody.
        unguarded: the guard of some old primary did not run.
        asked_at: when it was told to: from then on the old primary is replaced.
    """

    node: str
    operation: str
    branch: Branch
    at: float
    rung: str
    in_touch: bool
    unguarded: bool
    asked_at: float


class Monitor:
    """Looks at everything that happens."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found: list[Violation] = []
        self.promotions: list[Promotion] = []
        self.told: set[int] = set()
        self.reports: list[Report] = []
        self.excepted: set[str] = set()
        self.lied = False
        self.accepted_loss = False
        self.ended: set[str] = set()
        # By flow and node: when each of its looks began, and whether it reached the machine.
        self.looks: dict[tuple[str, str], list[tuple[float, bool]]] = {}
        self._lines: dict[str, Branch] = {
            name: node.data.branch for name, node in world.nodes.items() if node.data is not None
        }

    def violated(self, invariant: str, text: str) -> None:
        """Keep a violation; it is a line of the story too."""
        self.world.note(f"VIOLATION of `{invariant}`: {text}")
        self.found.append(Violation(self.world.engine.now, invariant, text))

    # --- silence ---------------------------------------------------------------------------------------------------

    def on_look(self, node: str, reached: bool) -> None:
        """A flow, or a thread of it, begins a look at a node."""
        self.looks.setdefault((self._flow(), node), []).append((self.world.engine.now, reached))

    def on_fence(self, node: str) -> None:
        """A flow has a machine switched off: one that it has never reached was silent for two looks."""
        looks = self.looks.get((self._flow(), node), [])
        began = [at for at, _ in looks]
        if (
            not any(reached for _, reached in looks)
            and max(began, default=0.0) - min(began, default=0.0) < APART_S
        ):
            self.violated("silence is seen twice", f"{node} is switched off after one moment of silence")

    def _flow(self) -> str:
        actor = self.world.engine.current
        return actor.name.removeprefix("thread of ") if actor is not None else ""

    # --- two writers ---------------------------------------------------------------------------------------------

    def on_write(self, write: Write) -> None:
        """A commit was acknowledged."""
        if self._lines.get(write.node) is not write.branch:
            self._new_line(write)
        if write.by == "proof":
            return
        if self.world.required and not self._kept_twice(write):
            self.violated("required is kept", f"{write.node} acknowledged a write that no other node has")
        known: list[Branch] = []
        for promotion in self.promotions:
            if promotion.branch is write.branch or promotion.branch.left_at(write.branch) is None:
                continue
            if any(promotion.branch.left_at(branch) is not None for branch in known):
                # A switchover later, of a primary whose own promotion stands beside this write as documented.
                continue
            if promotion.branch.left_at(write.branch) > write.lsn:  # type: ignore[operator]
                continue
            excepted = self._excepted(write, promotion)
            if excepted:
                self.excepted.add(excepted)
                known.append(promotion.branch)
                continue
            self.violated(
                "two writers",
                f"{write.node} accepted a {write.by}'s write on timeline {write.branch.timeline} "
                f"after {promotion.node} "
                f"had left it for timeline {promotion.branch.timeline} ({promotion.rung or 'no rung'})",
            )
            return

    def _kept_twice(self, write: Write) -> bool:
        nodes = [node for node in self.world.nodes.values() if node.name != write.node]
        return any(node.data is not None and node.data.has(write.branch, write.lsn) for node in nodes)

    def _new_line(self, write: Write) -> None:
        node = self.world.nodes[write.node]
        self._lines[write.node] = write.branch
        if write.branch in [known.branch for known in self.promotions] or write.branch.parent is None:
            return
        old = [
            other
            for other in self.world.nodes.values()
            if other.data and other.data.branch is write.branch.parent
        ]
        in_touch = any(
            other.lives and other.server and not other.signal and not isolated(other) for other in old
        )
        rung, operation = rung_and_operation(node)
        now, unguarded = self.world.engine.now, any(not other.guard for other in old)
        self.promotions.append(
            Promotion(write.node, operation, write.branch, now, rung, in_touch, unguarded, node.asked_at)
        )
        allowed = self.world.site.failover.max_lag_bytes
        for other in old:
            more = other.data.end - write.branch.fork if other.data else 0
            sound = (
                rung == "STOPPED"
                and other.data is not None
                and other.data.state == "shut down"
                and other.disk == "ok"
            )
            if sound and more > allowed and not self.accepted_loss:
                self.violated(
                    "who has more goes on",
                    f"{other.name} was sound, and had {more} bytes more than {node.name}",
                )

    def on_record(self, node: Node, before: str | None, text: str) -> None:
        """An operation's record is written: what has promoted is not taken back, aborted or forgotten.

        And traffic is opened to no node that was not promoted.
        """
        new = SIM_JSON.loads(text)
        if new["phase"] == "done":
            self.ended.add(new["op_id"])
        data = self.world.nodes[new["target"]].data
        newer = data is not None and data.branch.timeline > (new["from_timeline"] or 1)
        if new["phase"] in OPENED and new["kind"] != "rejoin" and not newer:
            self.violated("only a primary is opened", f"{new['op_id']} opens traffic to {new['target']}")
        if before is None:
            return
        old = SIM_JSON.loads(before)
        if old["kind"] == "rejoin" or old["phase"] not in PAST_RETURN:
            return
        forward = new["op_id"] == old["op_id"] and (new["phase"] in PAST_RETURN or new["phase"] == "done")
        # A node that was away at its end keeps an older copy.
        if self._promoted(old) and not forward and old["op_id"] not in self.ended:
            self.violated(
                "only forward",
                f"{old['op_id']} had promoted {old['target']}; now {new['op_id']} is {new['phase']}",
            )

    def _promoted(self, record: Any) -> bool:
        """Tell whether an operation has made its target a primary; another one may have after it."""
        return any(p.node == record["target"] and p.operation == record["op_id"] for p in self.promotions)

    def on_stop(self, node: Node, server: Server, how: str) -> None:
        """A server ends."""
        actor = self.world.engine.current
        restarting = actor is not None and actor.name.startswith("pg_compensate")
        if server.state == "recovering" and how != "lost" and restarting:
            self.violated("a recovery is not killed", f"{node.name}'s server was stopped while it recovered")

    def _excepted(self, write: Write, promotion: Promotion) -> str:
        """Name the line of docs/failover.md that says that this is not excluded; empty when none does."""
        world, node = self.world, self.world.nodes[write.node]
        thawed = getattr(node, "thawed_at", -1e9)
        if self.lied:
            return "fence_command: a command that returns 0 for a machine that runs"
        if promotion.rung == "WITNESSES" and write.by == "job":
            return "witnesses: whatever writes on the isolated node itself"
        if promotion.rung == "WITNESSES" and world.engine.now - node.back_at < WAKING_S:
            return "witnesses: an isolated primary that comes back, until its guard has looked"
        if promotion.rung == "WITNESSES" and (not node.guard or write.node in world.noise.no_threads):
            return "witnesses: a machine on which no guard looks"
        if promotion.rung == "SELF_FENCE" and write.by == "job" and promotion.in_touch:
            return "self_fence_s: a primary that still sees the load balancer or Redis"
        if promotion.rung == "SELF_FENCE" and world.engine.now - thawed < WAKING_S:
            return "self_fence_s: a frozen machine that wakes up"
        if promotion.rung == "SELF_FENCE" and promotion.unguarded:
            return "self_fence_s: its guard was stopped after it had been seen"
        # It may have booted while the promotion was on its way; its server has started after that.
        started = node.server.started if node.server is not None else -1e9
        switched_on = node.boot > 1 and started > promotion.asked_at
        if promotion.rung == "ATTESTED" and switched_on and write.by == "job":
            return "attest_fenced: somebody switched it on before rejoin"
        # With a self-fence an isolated node does not start as a primary at all.
        off = promotion.rung in ("COMMANDED", "WITNESSES")
        off = off or (promotion.rung == "SELF_FENCE" and not isolated(node))
        if off and switched_on and node.unwarned:
            if write.by == "job":
                return "fence_command and others: switched on again while nobody who knew answered"
            new = world.nodes[promotion.node]
            # Also until the old one's guard has looked again, which is a while after the new one is back.
            away = new.server is None or world.engine.now - new.server.started < LOOKING_S
            cut_off = world.port(node.name, new.name) != "open"
            if away or cut_off or world.engine.now - max(node.back_at, new.back_at) < LOOKING_S:
                return "fence_command and others: switched on again, and back before the failover has ended"
        return ""

    # --- what reports say -----------------------------------------------------------------------------------------

    def gone(self) -> list[int]:
        """Number the acknowledged writes that the one primary does not have, and nobody told of."""
        primaries = self.world.primaries
        if len(primaries) != 1 or primaries[0].data is None:
            return []
        data = primaries[0].data
        return [
            number
            for number, write in enumerate(self.world.acks)
            if number not in self.told and not data.has(write.branch, write.lsn)
        ]

    def on_report(self, report: Report) -> None:
        """A run published its report."""
        self.reports.append(report)
        self.world.note(f"report of {report.run.name}: {report.headline}")
        if report.run.name == "rejoin" and not report.run.dry_run:
            self._losses(report)

    def _losses(self, report: Report) -> None:
        gone = self.gone()
        lines = report.sections.get("Lost commits", [])
        said = lines[0] if lines else ""
        node = report.headline.split(" ", 1)[0]
        own = [number for number in gone if self.world.acks[number].node == node]
        if "cannot be known" in said:
            self.told.update(own)
        elif "existed only on" in said and not said.startswith("nothing"):
            count = int(said.split(" ", 1)[0])
            if count < len(own):
                self.violated(
                    "losses are told", f"{len(own)} writes of {node} are gone, the report says: {said}"
                )
            self.told.update(own)
        elif "nothing was lost" in report.text and own:
            self.violated(
                "losses are told", f"{len(own)} writes of {node} are gone, the report: nothing was lost"
            )

    def on_end(self, name: str, run: Any, text: str) -> None:
        """A run ended, with an error or without; `text` is what the operator reads of it."""
        if run is None:
            return
        self._after_the_lock(name, run)
        self._put_back(name, run)
        promoted = any(record.title == "Promote the standby" and record.outcome for record in run.records)
        other = any(
            record.error and record.title != "Write through the load balancer" for record in run.records
        )
        if promoted and text and self.world.noise.read_only and not other:
            self.violated(
                "what follows a promotion", f"{name} ended after it, as Harbor is in read-only mode: {text}"
            )
        if "Nothing was changed" not in text:
            return
        done = [
            f"{record.title} on {record.nodes[0] if record.nodes else ''}"
            for record in run.records
            if record.outcome is not None and record.outcome.changed and record.title in CHANGING
        ]
        done += [
            f"{record.nodes[0]} is drained"
            for record in run.records
            if record.title.startswith("Drain") and record.outcome is not None and record.outcome.changed
            if record.nodes and record.nodes[0].split(" ")[0] in self.world.drained
        ]
        taken_back = any(
            record.title == "Take the old primary back" and record.outcome for record in run.records
        )
        if done and not taken_back:
            self.violated("a report is true", f"{name} says that nothing was changed: {'; '.join(done)}")

    def _after_the_lock(self, name: str, run: Any) -> None:
        """Who has been told that its lock is another's changes nothing more."""
        lost = False
        for record in run.records:
            if lost and record.outcome is not None and record.outcome.changed and "lock" not in record.title:
                self.violated("who was replaced stops", f"{name} went on with: {record.title}")
                return
            lost = lost or "this one has stopped" in record.error

    def _put_back(self, name: str, run: Any) -> None:
        """Who ends an operation early has tried to take away each next core that it has started, where it can go."""
        done = [
            (record.title, record.nodes[0].split(" ")[0], record.outcome.detail if record.outcome else "")
            for record in run.records
            if record.nodes
        ]
        if not any(title == "Close the operation" and "aborted" in detail for title, _, detail in done):
            return
        started = {node for title, node, detail in done if title == "Start Harbor's next core" and detail}
        origin = name.rpartition(" on ")[2]
        for node in sorted(started - {node for title, node, _ in done if title == "Repoint Harbor"}):
            harbor = self.world.nodes[node].harbor
            if self.world.ssh(origin, node) and harbor is not None and harbor.next is not None:
                self.violated("one core", f"{name} ended early and left one on {node}")

    # --- at the end ------------------------------------------------------------------------------------------------

    def at_the_repair(self) -> None:
        """Nothing was wrong but one machine, and whoever can replace it was called."""
        waited = self.world.engine.now - self.world.served_at
        if waited > SERVED_S:
            self.violated("it serves again", f"no client's write was accepted for {waited:.0f} s")

    def at_the_end(self, why_not_healthy: str) -> None:
        """The failures are gone, and the operator has done what the documentation says."""
        if why_not_healthy:
            self.violated("it becomes healthy", why_not_healthy)
            return
        gone = self.gone()
        if gone:
            first = self.world.acks[gone[0]]
            self.violated(
                "losses are told",
                f"{len(gone)} acknowledged writes are gone and no report says so, "
                f"the first on {first.node} at {first.at:.0f} s",
            )
        for node in self.world.nodes.values():
            if node.harbor is not None and node.harbor.next is not None:
                self.violated("one core", f"{node.name} still runs a second one, for {node.harbor.next}")
            lock = node.files.get(LOCK)
            record = SIM_JSON.loads(node.files.get(OPERATION, "null"))
            if lock and record and record["phase"] in ("done", "aborted"):
                held = SIM_JSON.loads(lock)
                age = self.world.engine.now - node.booted_at - held["renewed"]["uptime"]
                left = held["ttl_s"] - age if held["renewed"]["boot"].startswith(node.boot_id()) else 0.0
                if left > 60.0:
                    self.violated(
                        "no lock outlives its operation",
                        f"the lock on {node.name} lives for {left:.0f} s more",
                    )


def rung_and_operation(node: Node) -> tuple[str, str]:
    """Read by which rung the old primary was fenced and for which operation, from the promoted node's record."""
    record = SIM_JSON.loads(node.files.get(OPERATION, "null"))
    if not isinstance(record, dict):
        return "", ""
    fence = record.get("fence")
    return str(fence["rung"]) if fence else "", str(record["op_id"])
