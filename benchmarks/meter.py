"""Seconds, and whose CPU they were: of this process, of programs on the node, of the OSS server."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PREFECT_ALONE = (
    "import prefect, re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
)


@dataclass(frozen=True)
class Spent:
    """What a piece of work took, in seconds.

    Attributes:
        wall: by the clock.
        here: CPU of this process.
        node: CPU of the programs that it started and that have ended, which is what runs on a node.
        oss: CPU of the OSS server.
    """

    wall: float
    here: float
    node: float
    oss: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s (CPU: ours {self.here:.1f}, node {self.node:.1f}, OSS {self.oss:.1f})"


def measured(work: Callable[[], object], oss_pid: int = 0) -> Spent:
    """Run the work and say what it took."""
    before = _now(oss_pid)
    work()
    after = _now(oss_pid)
    return Spent(*(late - early for early, late in zip(before, after, strict=True)))


def mb_a_core(size: int, cpu: float) -> str:
    """Say how much a core moves in a second; so many bytes took so many seconds of CPU."""
    return f"{size / cpu / 1e6:.0f} MB/s" if cpu >= 0.1 else "too little CPU to say"


def _now(oss_pid: int) -> tuple[float, float, float, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    node = children.ru_utime + children.ru_stime
    return time.monotonic(), time.process_time(), node, cpu_of(oss_pid) if oss_pid else 0.0


def cpu_of(pid: int) -> float:
    """CPU seconds of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mb() -> float:
    """The most memory that this process ever had, in MB; not the one that started it, as getrusage says."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("the kernel does not say VmHWM")


def prefect_alone_mb() -> float:
    """The same for a process that imported Prefect and nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", _PREFECT_ALONE], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout) / 1024


@contextmanager
def on_cores(pid: int, cores: set[int]) -> Iterator[None]:
    """Bind a process, and what it starts from now on, to some cores; to all of them afterwards.

    With every party on the same cores, one would measure how they share them and not the software.
    """
    before = os.sched_getaffinity(pid)
    try:
        os.sched_setaffinity(pid, cores & before or before)
        yield
    finally:
        os.sched_setaffinity(pid, before)
