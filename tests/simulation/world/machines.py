"""Machines, what stands on their disks, and the servers that run on them."""

from dataclasses import dataclass, field, replace
from typing import Any

SYSTEM = "7300000000000000001"
START_LSN = 0x6000000
# A write of a client, and a burst that no default of max_lag_bytes allows to lose.
WRITE_BYTES = 200
BURST_BYTES = 300 << 20
CHECKPOINT_BYTES = 120


@dataclass(eq=False)
class Branch:
    """A line of history: what one server wrote between its promotion and its end.

    Two branches may have the same timeline number; that they differ is what histories tell.
    """

    timeline: int
    parent: "Branch | None" = None
    fork: int = 0

    def forks(self) -> list[tuple[int, int]]:
        """Return timeline and switchpoint of each ancestor, oldest first, as a history file lists them."""
        found: list[tuple[int, int]] = []
        branch = self
        while branch.parent is not None:
            found.append((branch.parent.timeline, branch.fork))
            branch = branch.parent
        return found[::-1]

    def left_at(self, other: "Branch") -> int | None:
        """Return where this line left another one; None when that is no ancestor."""
        branch, limit = self, None
        while branch is not other:
            if branch.parent is None:
                return None
            limit = branch.fork if limit is None else min(limit, branch.fork)
            branch = branch.parent
        return limit


@dataclass(eq=False)
class Data:
    """A data directory. `state` and the positions below it are the control file's.

    Attributes:
        branch: the line that its WAL ends on.
        end: the end of its WAL, written or received.
        floor: WAL before this is not kept any more; a standby that needs it cannot follow.
        slots: standbys with a slot, and whether it was lost.
        half: a rewind was begun and not ended; whoever starts this starts a mixture.
    """

    branch: Branch
    end: int
    state: str = "in production"
    control_timeline: int = 1
    checkpoint: int = START_LSN
    checkpoint_end: int | None = None
    min_recovery: int = 0
    floor: int = 0
    slots: dict[str, bool] = field(default_factory=dict)
    half: bool = False

    def has(self, branch: Branch, lsn: int) -> bool:
        """Tell whether a write stands in this directory."""
        if branch is self.branch:
            return lsn <= self.end
        left = self.branch.left_at(branch)
        return left is not None and lsn <= min(left, self.end)

    def copied(self) -> "Data":
        """What a base backup of it holds."""
        return replace(self, state="in archive recovery", min_recovery=self.end, slots={}, half=False)


@dataclass(eq=False)
class Server:
    """A running PostgreSQL.

    Attributes:
        state: `recovering` (a primary's crash recovery: no SQL), `primary` or `standby`.
        stopping: a fast stop was asked for; no new sessions.
        hung: processes, and no SQL.
        sync: synchronous_standby_names.
        upstream: the primary that it streams from.
        heard_at: when the receiver heard the primary last.
        life_at: when the durability service saw the last sign of life of it: heard, or its port open.
    """

    pid: int
    state: str
    started: float
    stopping: bool = False
    hung: bool = False
    read_only: bool = False
    upstream: str | None = None
    heard_at: float = -1e9
    life_at: float | None = None

    @property
    def answers(self) -> bool:
        """Whether SQL is answered."""
        return self.state != "recovering" and not self.hung and not self.stopping


@dataclass(eq=False)
class Harbor:
    """Harbor on a node. Addresses are the node names of the databases.

    Attributes:
        next: the database of a core that runs beside the one that serves; None when there is none. No client reaches
            it, but what jobservice reports may.
    """

    running: bool
    configured: str
    core: str
    jobs: str
    next: str | None = None

    def start(self) -> None:
        """Start all of it anew, with the address that is configured; no engine and no guard starts a next core."""
        self.running, self.next = True, None
        self.core = self.jobs = self.configured

    def stop(self) -> None:
        """Stop all of it."""
        self.running, self.next = False, None


class Machine:
    """A machine with its clocks.

    Attributes:
        power, on: whether it has power, and whether it has booted.
        frozen: the kernel completes TCP handshakes and nothing else happens.
        skew: wall clock minus simulated time, beyond the common beginning.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.power = self.on = True
        self.frozen = False
        self.boot = 1
        self.booted_at = -1000.0
        self.skew = 0.0

    @property
    def lives(self) -> bool:
        """Whether programs run on it."""
        return self.on and not self.frozen

    def boot_id(self) -> str:
        """Name its boot."""
        return f"{self.name[-1]}{self.boot:07d}"


class Node(Machine):
    """A node of the site.

    Attributes:
        root, disk: the file systems of the system and of the data: `ok`, `full`, `read-only`; disk also `hang`.
        files: the content of files by path.
        dirs: data directories by path.
        asked_at: when its server was told to promote itself last.
        asked_with_nas: the NAS could be told of that.
        heard: since its boot it has held a start for a standby that was told to promote itself.
        unwarned: when its server started, no other node's server answered, no NAS knew better, and it had not `heard`.
        back_at: when its network was repaired last.
        guard: whether the guard's service works; the boot guard is systemd's to run.
    """

    def __init__(self, name: str, address: str, data_path: str) -> None:
        super().__init__(name)
        self.address = address
        self.data_path = data_path
        self.root = "ok"
        self.disk = "ok"
        self.files: dict[str, str] = {}
        self.dirs: dict[str, Data] = {}
        self.locks: dict[str, Any] = {}
        self.server: Server | None = None
        self.harbor: Harbor | None = None
        self.guard = True
        self.unwarned = False
        self.back_at = -1e9
        self.redis_at = -1e9
        self.next_pid = 100
        self.slow_promotion = 0.0
        self.asked_at = -1e9
        self.asked_with_nas = self.heard = False
        self.slow_start = 0.0

    @property
    def data(self) -> Data | None:
        """The cluster under the configured path."""
        return self.dirs.get(self.data_path)

    @property
    def signal(self) -> bool:
        """Whether whatever starts the directory starts a standby."""
        return self.data_path + "/standby.signal" in self.files

    @property
    def primary(self) -> bool:
        """Whether its server answers as one that can be written to, disks apart."""
        server = self.server
        if server is None or server.state != "primary" or server.hung or server.stopping:
            return False
        return self.on and not self.frozen

    @property
    def accepts(self) -> bool:
        """Whether a write ends with a commit here."""
        server = self.server
        return server is not None and not server.read_only and self.disk == "ok" and self.primary
