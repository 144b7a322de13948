"""Who holds a lock: this very process, told from one that had its number before."""

import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A process of an orchestrator, as a lock names it: `host:pid:start:boot:namespace:machine`.

    Attributes:
        host: its host name.
        pid: its process id.
        start: when it started, in clock ticks since the boot; process ids are used again.
        boot: the first part of the machine's boot id.
        namespace: its process id namespace; two containers have different processes of the same number.
        machine: its id and its network cards, hashed: a clone has the id, and other cards.
    """

    host: str
    pid: int
    start: str
    boot: str
    namespace: str
    machine: str

    def __str__(self) -> str:
        return ":".join([self.host, str(self.pid), self.start, self.boot, self.namespace, self.machine])


def this_process() -> Holder:
    """Describe the process that asks."""
    return process_of(os.getpid())


def process_of(pid: int) -> Holder:
    """Describe a process of this machine."""
    return Holder(
        socket.gethostname().replace(":", "-"),
        pid,
        _start_of(pid),
        _text("/proc/sys/kernel/random/boot_id")[:8],
        str(os.stat("/proc/self/ns/pid").st_ino),
        _machine(),
    )


def known_dead(holder: str) -> bool:
    """Tell whether a lock's holder is certainly gone: a process of this machine that runs no more.

    A process of another machine, or of another container, is never certainly gone; its lock runs out.
    """
    parts = holder.split(":")
    if len(parts) != 6 or not parts[1].isdigit():
        return False
    other = Holder(parts[0], int(parts[1]), *parts[2:])
    here = this_process()
    if not here.boot or (other.boot, other.namespace, other.machine) != (
        here.boot,
        here.namespace,
        here.machine,
    ):
        # Of an earlier boot, or of a machine that was cloned from the same image or snapshot: the name and the id
        # are the same, and the other one may be alive. Its lock is over a minute after its last step.
        return False
    return _start_of(other.pid) != other.start


def describe(holder: str) -> str:
    """Name a lock's holder for a reader, who looks for it with `ps`; the rest is for `known_dead`."""
    host, _, rest = holder.partition(":")
    pid = rest.partition(":")[0]
    return f"process {pid} on {host}" if pid.isdigit() else holder


def _machine() -> str:
    cards = sorted(
        _text(str(card / "address"))
        for card in Path("/sys/class/net").glob("*")
        if (card / "device").exists()
    )
    return hashlib.sha256("\n".join([_text("/etc/machine-id"), *cards]).encode()).hexdigest()[:8]


def _start_of(pid: int) -> str:
    """Return when a process started; empty when there is none. A zombie counts as none: it does nothing."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if len(fields) < 20 or fields[0] in ("Z", "X") else fields[19]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
