"""The truth: who reaches whom, who runs, who writes; and what happens by itself."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from blocks import HarborSite
from tests.simulation.engine import Actor, Engine
from tests.simulation.world.links import BALANCER, REDIS, Links
from tests.simulation.world.machines import (
    BURST_BYTES,
    CHECKPOINT_BYTES,
    START_LSN,
    SYSTEM,
    WRITE_BYTES,
    Branch,
    Data,
    Harbor,
    Machine,
    Node,
    Server,
)
from tests.simulation.world.noise import Noise, Write
from tests.simulation.world.texts import SIM_JSON
from tests.simulation.world.warned import nas_warns, peer_warns

WALL = 1_700_000_000.0
# How often clients and jobs write at the least while time goes on.
WRITE_EVERY_S = 1.0
RECOVERY_S = 3.0
MASK = "/etc/systemd/system/postgresql@15-main.service"
RECENT_WRITES = 400


class World(Links):
    """A site and its truth.

    Attributes:
        drained: nodes that the load balancer serves no clients.
        acks: acknowledged writes.
        accepted: the nodes that accepted a write in the turn at hand, by line.
        changes: counts what changes but writes; guards that see nothing change sleep.
        order: draws whether a step that runs beside others comes before or after them; None: before.
    """

    def __init__(
        self, site: HarborSite, engine: Engine, rng: random.Random, order: random.Random | None = None
    ) -> None:
        super().__init__()
        self.site = site
        self.engine = engine
        self.rng, self.order = rng, order
        self.machines: dict[str, Machine] = {}
        self.drained: set[str] = set()
        self.noise = Noise()
        self.acks: list[Write] = []
        self.changes = 0
        self.story: list[tuple[float, str]] = []
        self.programs: list[Actor] = []
        self.guards: dict[str, Actor] = {}
        self.served_at = 0.0
        self.gone: list[Data] = []
        self.nas_files: dict[str, str] = {}
        self.markers: dict[str, tuple[Branch, int]] = {}
        # Called wherever an orchestrator's process may be killed or stalled, with what it is about to do.
        self.boundary: Callable[[str], None] = lambda what: None
        self.on_report: Callable[[Any], None] = lambda report: None
        self.on_look: Callable[[str, bool], None] = lambda node, reached: None
        self.on_fence: Callable[[str], None] = lambda node: None
        self.on_run: Callable[[Any], None] = lambda run: None
        self.changed_at = 0.0
        self._written_at = -1.0
        self._settled = -1
        self.on_write: Callable[[Write], None] = lambda write: None
        self.on_stop: Callable[[Node, Server, str], None] = lambda node, server, how: None
        self.on_record: Callable[[Node, str | None, str], None] = lambda node, before, text: None
        self.on_lock: Callable[[Node, str | None, str], None] = lambda node, before, text: None
        self.start_guard: Callable[[Node], None] = lambda node: None
        self.judge_boot: Callable[[Node], bool] = lambda node: True
        self.nas_path = site.nas.path.rstrip("/")
        self.required = site.postgres.durability == "required"
        self.databases = [node.name for node in site.nodes if node.runs_postgres]
        self._build()

    # --- how it begins -------------------------------------------------------------------------------------

    def _build(self) -> None:
        first = self.databases[0]
        branch = Branch(1)
        for given in self.site.nodes:
            node = Node(given.name, given.address, self.site.postgres.data_dir.rstrip("/"))
            if given.runs_postgres:
                node.dirs[node.data_path] = Data(branch, START_LSN)
                primary = given.name == first
                node.server = Server(self.new_pid(node), "primary" if primary else "standby", -500.0)
                node.files["/etc/postgresql/15/main/start.conf"] = "auto\n"
                self.write_pid_file(node)
                data = node.dirs[node.data_path]
                if primary:
                    data.slots = {name: False for name in self.databases if name != first}
                else:
                    node.files[node.data_path + "/standby.signal"] = ""
                    data.state = "in archive recovery"
                    node.server.upstream, node.server.heard_at = first, 0.0
            if given.runs_harbor:
                node.harbor = Harbor(True, first, first, first)
            self.nodes[given.name] = self.machines[given.name] = node

    def note(self, text: str) -> None:
        """Put a line into the story."""
        self.story.append((self.engine.now, text))

    def moved(self) -> None:
        """Say that something changed that no guard looks at: clients and standbys try anew."""
        self.changes += 1

    def changed(self) -> None:
        """Say that something changed that a guard may look at."""
        self.changes += 1
        self.changed_at = self.engine.now
        for node in self.nodes.values():
            guard = self.guards.get(node.name)
            if guard is not None and guard.parked and node.lives:
                self.engine.wake(guard, self.rng.uniform(0.05, 1.0))

    # --- PostgreSQL --------------------------------------------------------------------------------------------

    def new_pid(self, node: Node) -> int:
        """Number a process."""
        node.next_pid += 1
        return node.next_pid

    def wall(self, machine: Machine) -> float:
        """Read a machine's wall clock."""
        return WALL + self.engine.now + machine.skew

    def write_pid_file(self, node: Node) -> None:
        """Leave the file that a postmaster leaves."""
        assert node.server is not None
        node.files[node.data_path + "/postmaster.pid"] = (
            f"{node.server.pid}\n{node.data_path}\n{int(self.wall(node))}\n"
        )

    def start(self, node: Node) -> str | None:
        """Start the unit; return why not, or nothing."""
        if node.server is not None:
            return None
        if MASK in node.files:
            return "the unit is masked"
        data = node.data
        if data is None:
            return "there is no cluster"
        if not self.judge_boot(node):
            return "the boot guard refused the start"
        # By what could be seen when it was let through, not when it began to wait for the others.
        node.unwarned = not (node.heard or nas_warns(self, node) or peer_warns(self, node))
        if not node.lives or node.server is not None:
            return "it did not answer"
        if node.disk != "ok":
            return "the data disk cannot be written to"
        if data.half:
            return "the directory is a mixture of two"
        self.note(f"{node.name}: PostgreSQL starts{' as a standby' if node.signal else ''}")
        if node.signal:
            node.server = Server(self.new_pid(node), "standby", self.engine.now)
            data.state = "in archive recovery"
        else:
            node.server = Server(self.new_pid(node), "recovering", self.engine.now)
            crashed = data.state != "shut down"
            if data.state in ("in archive recovery", "shut down in recovery"):
                # A standby's directory that is started as a primary goes on on the same timeline number.
                data.branch = Branch(data.branch.timeline, data.branch, data.end)
            data.state = "in crash recovery" if crashed else data.state
            server = node.server
            wait = node.slow_start or (RECOVERY_S if crashed else 0.3)
            self.engine.at(wait, lambda: self._recovered(node, server))
        for name in ("/backup_label", "/promote"):
            node.files.pop(node.data_path + name, None)
        self.write_pid_file(node)
        self.changed()
        return None

    def _recovered(self, node: Node, server: Server) -> None:
        if node.server is not server or server.state != "recovering":
            return
        if not node.lives:
            self.engine.at(1.0, lambda: self._recovered(node, server))
            return
        assert node.data is not None
        server.state = "primary"
        node.data.state = "in production"
        self.checkpoint(node)
        self.changed()

    def checkpoint(self, node: Node) -> None:
        """Write a checkpoint: the control file names the true timeline from here on."""
        data = node.data
        assert data is not None
        if node.server is not None and node.server.state == "primary":
            data.checkpoint, data.control_timeline = data.end, data.branch.timeline
            data.end += CHECKPOINT_BYTES
        else:
            data.checkpoint, data.control_timeline = data.end, data.branch.timeline

    def stop(self, node: Node, how: str) -> None:
        """End a server: `fast` with all that it wrote sent and a checkpoint, else as it is."""
        server, data = node.server, node.data
        if server is None:
            return
        self.on_stop(node, server, how)
        if how == "fast" and data is not None and node.disk == "ok" and not server.hung:
            if server.state == "primary":
                # Its senders go on until the standbys have all of it, the shutdown checkpoint included.
                server.stopping = False
                self.replicate()
                data.checkpoint, data.control_timeline = data.end, data.branch.timeline
                data.end += CHECKPOINT_BYTES
                data.checkpoint_end, data.state = data.end, "shut down"
                self.replicate()
            elif server.state == "standby":
                data.state, data.min_recovery = "shut down in recovery", data.end
                data.checkpoint = max(data.checkpoint, START_LSN)
        if how != "lost":
            node.files.pop(node.data_path + "/postmaster.pid", None)
        elif data is not None and server.state == "standby":
            data.min_recovery = max(data.min_recovery, data.end - WRITE_BYTES)
        node.server = None
        self.note(f"{node.name}: PostgreSQL ended ({how})")
        self.changed()

    def promote(self, node: Node) -> None:
        """Take the request to promote; the end of recovery comes in its own time."""
        server = node.server
        assert server is not None
        node.files[node.data_path + "/promote"] = ""
        node.asked_at, node.asked_with_nas = self.engine.now, self.has_nas(node.name)
        self.note(f"{node.name}: asked to promote itself")
        self.engine.at(node.slow_promotion or 0.2, lambda: self._promoted(node, server))

    def _promoted(self, node: Node, server: Server) -> None:
        if node.server is not server or server.state != "standby":
            return
        if not node.lives or server.hung:
            self.engine.at(1.0, lambda: self._promoted(node, server))
            return
        data = node.data
        assert data is not None
        node.files.pop(node.data_path + "/promote", None)
        node.files.pop(node.data_path + "/standby.signal", None)
        data.branch = Branch(data.branch.timeline + 1, data.branch, data.end)
        data.slots = {}
        server.state, server.upstream, data.state = "primary", None, "in production"
        self.note(f"{node.name}: is a primary on timeline {data.branch.timeline}, from {data.end:X}")
        self.changed()

    # --- what goes on by itself ------------------------------------------------------------------------------

    def between(self) -> None:
        """Let a moment pass: standbys receive, clients and jobs write."""
        now = self.engine.now
        if self.changes == self._settled and now - self._written_at < WRITE_EVERY_S:
            return
        self._settled, self._written_at = self.changes, now
        self.replicate()
        self._write()
        if self.required:
            self._record_durability()

    def _record_durability(self) -> None:
        """Note on a primary that its commits wait for a standby, as the durability service does."""
        for node in self.primaries:
            if node.files.get(SYNC_FILE, "''").rstrip().endswith("''") or not any(self.standbys_of(node)):
                continue
            if '"SYNC"' not in node.files.get(DURABILITY_FILE, "") and node.root == "ok":
                node.files[DURABILITY_FILE] = SIM_JSON.dumps(
                    {"state": "SYNC", "lsn": "0/0", "at": self.wall(node)}
                )

    def upstream_of(self, node: Node) -> Node | None:
        """Find the primary that a standby can stream from: reached, of its line, with its slot."""
        data = node.data
        if data is None or data.half:
            return None
        for name in self.databases:
            other = self.nodes[name]
            if other is node or not other.primary or not self.path(node.name, name):
                continue
            source = other.data
            assert source is not None
            if source.slots.get(node.name) is not False or data.end < source.floor:
                continue
            left = source.branch.left_at(data.branch) if source.branch is not data.branch else source.end
            if left is not None and data.end <= left:
                return other
        return None

    def replicate(self) -> None:
        """Let every standby receive what its primary has."""
        for name in self.databases:
            node = self.nodes[name]
            server, data = node.server, node.data
            if server is None or server.state != "standby" or not node.lives or server.hung or data is None:
                continue
            source = self.upstream_of(node) if node.disk == "ok" else None
            server.upstream = source.name if source else None
            if source is None or source.data is None:
                if server.life_at is not None and self._lives(name):
                    server.life_at = self.engine.now
                continue
            server.heard_at = server.life_at = self.engine.now
            if name not in self.noise.lag:
                data.branch, data.end = source.data.branch, source.data.end

    def _lives(self, name: str) -> bool:
        """Tell what the durability service of a standby sees: whether the accepted primary's port is open."""
        text = self.nodes[name].files.get("/var/lib/harbor-ha/accepted.json")
        known = [str(SIM_JSON.loads(text)["primary"])] if text else []
        peers = [peer for peer in self.databases if peer != name and peer in known] or self.databases
        return any(peer != name and self.port(name, peer) == "open" for peer in peers)

    def _write(self) -> None:
        now = self.engine.now
        tried = []
        for name, node in self.nodes.items():
            harbor = node.harbor
            if harbor is None or not harbor.running or not node.lives:
                continue
            if self.path(name, REDIS) and REDIS not in self.down:
                node.redis_at = now
            served = not self.noise.read_only and name not in self.drained and harbor.running
            if served and BALANCER not in self.down and self.path(BALANCER, name):
                tried.append(("client", name, harbor.core))
            tried += [("job", name, target) for target in (harbor.jobs, harbor.next) if target is not None]
        for by, origin, target in tried:
            if self.write(by, origin, target) and by == "client":
                self.served_at = now

    def write(self, by: str, origin: str, target: str, size: int = WRITE_BYTES) -> bool:
        """Write through a Harbor into the database that it uses; tell whether it was acknowledged."""
        node = self.nodes[target]
        data = node.dirs.get(node.data_path)
        if data is None or not node.accepts or not self.path(origin, target):
            return False
        data.end += size
        waits = node.files.get(SYNC_FILE)
        if waits is not None and not waits.rstrip().endswith("''"):
            self.replicate()
            if not any(self.has_all(other, data) for other in self.standbys_of(node)):
                return False
        write = Write(by, target, data.branch, data.end, self.engine.now, origin)
        self.acks.append(write)
        self.on_write(write)
        return True

    def burst(self, node: Node) -> None:
        """Write much at once."""
        if node.primary and node.data is not None:
            node.data.end += BURST_BYTES

    def standbys_of(self, node: Node) -> Iterator[Node]:
        """Give the standbys that stream from a primary."""
        for name in self.databases:
            server = self.nodes[name].server
            if server is not None and server.state == "standby" and server.upstream == node.name:
                yield self.nodes[name]

    @staticmethod
    def has_all(node: Node, data: Data) -> bool:
        """Tell whether a node holds all of a directory's WAL."""
        return node.data is not None and node.data.has(data.branch, data.end)

    # --- what the load balancer does ----------------------------------------------------------------------------

    def check_up(self, name: str) -> bool:
        """Say what the load balancer's own check says of a node: its Harbor is healthy, database included."""
        node = self.nodes[name]
        harbor = node.harbor
        if harbor is None or not harbor.running or not node.lives or not self.path(BALANCER, name):
            return False
        database = self.nodes[harbor.core]
        return database.primary and self.path(name, harbor.core)

    @property
    def primaries(self) -> list[Node]:
        """The database nodes that run as primaries."""
        return [self.nodes[name] for name in self.databases if self.nodes[name].primary]


DURABILITY_FILE = "/var/lib/harbor-ha/durability.json"
SYNC_FILE = "/etc/postgresql/15/main/conf.d/20-harbor-ha-sync.conf"
__all__ = ["SYSTEM", "World", "Write"]
