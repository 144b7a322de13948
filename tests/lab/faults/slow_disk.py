"""A disk that is slow for some seconds: a limit of the kernel on one node's writes, by its control group.

Where this machine offers none (a control group without `io`), or where the disk is not slower with it, the processes
that wait for a disk most are stopped and let go in short bursts instead: checkpointer, WAL writer, background writer.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from lab.faults.stage import Stage
from lab.shell import docker

# Writes a second; a commit is one at the least, and its neighbours' come before it.
_WRITES_A_SECOND = 5
_SYNCED_WRITES = 25
DISK_S = 6.0
"""Seconds for which it is slow at the most."""
# Without a limit they take some milliseconds each.
_SLOW_S = 2.0
_GROUPS = Path("/sys/fs/cgroup")
_BURSTS = """
for burst in 1 2 3 4 5 6; do
    pkill -STOP -u postgres -f 'postgres: .*(checkpointer|walwriter|background writer)'; sleep 0.7
    pkill -CONT -u postgres -f 'postgres: .*(checkpointer|walwriter|background writer)'; sleep 0.2
done
true
"""


def slow_disk(stage: Stage, node: str) -> str:
    """Make a database node's disk slow for about five seconds; return how.

    A file beside the data directory is written meanwhile, each block synced: that takes as long as the limit says. The
    limit is taken away after its time whatever has become of that: where one journal of the file system serves all,
    synced writes wait for PostgreSQL's, and stood for a minute.
    """
    device = _device()
    limit = _limit(stage, node)
    if limit is not None and device:
        file, words = limit
        with ThreadPoolExecutor(max_workers=1) as pool:
            file.write_text(f"{device} {words.format(_WRITES_A_SECOND)}\n")
            try:
                writing = pool.submit(_synced_writes, stage, node)
                wait([writing], timeout=DISK_S)
            finally:
                file.write_text(f"{device} {words.format('max' if '=' in words else 0)}\n")
            seconds = writing.result()
        if seconds >= _SLOW_S:
            return f"{_SYNCED_WRITES} synced writes in {seconds:.1f} s, of which {DISK_S:.0f} at most with a limit"
    stage.shell(node, _BURSTS)
    return "checkpointer and WAL writer stopped in bursts"


def _synced_writes(stage: Stage, node: str) -> float:
    target = f"{stage.layout.data.rpartition('/')[0]}/slow-disk"
    begun = time.monotonic()
    dd = f"dd if=/dev/zero of={target} bs=4k count={_SYNCED_WRITES} oflag=dsync status=none"
    stage.shell(node, f"{dd}; rm -f {target}")
    return time.monotonic() - begun


def _device() -> str:
    """The disk that the engine's files are on, as `254:0`; of a partition, the whole one. "" where it is none."""
    number = os.stat("/var/lib/docker").st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    disk = place.parent if (place / "partition").exists() else place
    return (disk / "dev").read_text().strip() if (disk / "dev").exists() else ""


def _limit(stage: Stage, node: str) -> tuple[Path, str] | None:
    """The file that limits the writes of a node's PostgreSQL, and what is written there after the device."""
    # Version 1 has no limits for the groups below one: the group of PostgreSQL itself is asked for.
    postmaster = f"$(head -n 1 {stage.layout.data}/postmaster.pid)"
    for line in stage.shell(node, f"cat /proc/{postmaster}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        file = _GROUPS / "blkio" / path.lstrip("/") / "blkio.throttle.write_iops_device"
        if "blkio" in names.split(",") and file.exists():
            return file, "{}"
    # Version 2: the container's, for all below it. Inside, it is only a part of its name.
    init = docker("inspect", "--format", "{{.State.Pid}}", stage.lab.topology.container(node)).strip()
    for line in Path(f"/proc/{init}/cgroup").read_text().splitlines():
        path = line.split(":", 2)[2].removesuffix("/init.scope")
        file = _GROUPS / path.lstrip("/") / "io.max"
        if line.startswith("0::") and file.exists():
            return file, "wiops={}"
    return None
