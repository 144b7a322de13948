"""Who accepts writes, sampled on each node itself every 100 ms: a partition hides nothing from it.

A row is updated over the server's own socket by a role that pg_hba admits there. All machines of the lab have one
clock, so the samples of two nodes can be compared.
"""

import subprocess
import threading
import time
from dataclasses import dataclass

from lab.site_lab import Lab


@dataclass(frozen=True)
class Sample:
    """One write that a node acknowledged.

    Attributes:
        begun, acked: wall times; the commit lies between them.
        timeline: on which it was written.
    """

    node: str
    begun: float
    acked: float
    timeline: int


class Sampler:
    """Tries a write on each database node, all the time.

    Args:
        lab: the lab.
        nodes: names of the database nodes.
    """

    def __init__(self, lab: Lab, nodes: list[str]) -> None:
        self.samples: list[Sample] = []
        self._lab = lab
        self._ended = threading.Event()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._threads = [threading.Thread(target=self._follow, args=(node,), daemon=True) for node in nodes]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the samplers; on a node they end with their input."""
        self._ended.set()
        for process in list(self._processes.values()):
            process.stdin.close()  # type: ignore[union-attr]
        for thread in self._threads:
            thread.join(10)

    def _follow(self, node: str) -> None:
        while not self._ended.is_set():
            argv = [
                "docker",
                "exec",
                "-i",
                self._lab.topology.container(node),
                "python3",
                "-u",
                "-c",
                _ON_NODE,
            ]
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._processes[node] = process
            assert process.stdout is not None
            for line in process.stdout:
                words = line.split()
                # A machine that loses its power may leave half a line behind.
                if len(words) == 3:
                    self.samples.append(Sample(node, float(words[0]), float(words[1]), int(words[2])))
            process.wait()
            # Without power there is nothing to ask.
            self._ended.wait(0.3)


def overlaps(samples: list[Sample]) -> list[str]:
    """Name every instant at which two nodes accepted writes; none is the only right answer.

    A write that begins on an older timeline after one was acknowledged on a newer one was accepted beside it.
    And a timeline belongs to one node for ever.
    """
    found = []
    owners: dict[int, str] = {}
    for sample in sorted(samples, key=lambda sample: sample.acked):
        owner = owners.setdefault(sample.timeline, sample.node)
        if owner != sample.node:
            found.append(f"{sample.node} wrote on timeline {sample.timeline}, which is {owner}'s")
    for timeline in owners:
        newer = [sample.acked for sample in samples if sample.timeline > timeline]
        late = [s for s in samples if s.timeline == timeline and newer and s.begun > min(newer)]
        found += [
            f"{s.node} accepted a write on timeline {timeline}, {s.begun - min(newer):.2f} s after a newer one"
            for s in late[:3]
        ]
    return found


def wait_for_sample(sampler: Sampler, after: float, limit: float = 20.0) -> Sample:
    """Wait for a write that begins after a moment; an assertion when there is none."""
    deadline = time.monotonic() + limit
    while True:
        for sample in reversed(sampler.samples):
            if sample.begun > after:
                return sample
        assert time.monotonic() < deadline, f"no node accepted a write for {limit:.0f} s"
        time.sleep(0.05)


_ON_NODE = r"""
import glob, os, pwd, select, subprocess, sys, threading, time

def leave():
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=leave, daemon=True).start()
TLI = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
SQL = "UPDATE faults.pulse SET at = clock_timestamp() RETURNING 'w', %s;\n\\echo .\n" % TLI
postgres = pwd.getpwnam("postgres")
# Not /usr/bin/psql, which is Perl: where the server is down it is started ten times a second, beside the failover.
PSQL = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1]

def demote():
    os.setgid(postgres.pw_gid)
    os.setuid(postgres.pw_uid)

def lines(stream):
    data = b""
    while not data.endswith(b".\n"):
        if not select.select([stream], [], [], 2.0)[0]:
            raise TimeoutError
        block = os.read(stream.fileno(), 4096)
        if not block:
            raise EOFError
        data += block
    return data.decode().splitlines()

while True:
    try:
        session = subprocess.Popen(
            [PSQL, "-XAtqw", "-h", "/var/run/postgresql", "-p", "5432", "-d", "postgres", "-f", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=demote,
            env={"PATH": os.environ["PATH"], "PGCONNECT_TIMEOUT": "2", "LC_ALL": "C"}, cwd="/",
        )
    except OSError:
        time.sleep(0.5)
        continue
    try:
        while True:
            begun = time.time()
            session.stdin.write(SQL.encode())
            session.stdin.flush()
            for line in lines(session.stdout):
                if line.startswith("w|"):
                    os.write(1, ("%.6f %.6f %s\n" % (begun, time.time(), line[2:])).encode())
            time.sleep(0.1)
    except (OSError, EOFError, TimeoutError):
        session.kill()
    session.wait()
    time.sleep(0.1)
"""
