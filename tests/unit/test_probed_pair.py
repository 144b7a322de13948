"""The probe on a real pair of servers: how each is seen, and what a switchover asks the standby."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flows.rules.primary import Server, server_state
from flows.rules.rejoin import Rejoin, classify_rejoin
from tasks import clock
from tasks.postgres.facts import NodeFacts
from tasks.postgres.on_node import pg_wait_replay
from tests.unit.local_host import as_user
from tests.unit.probed import PROGRAMS, look, request

pytestmark = pytest.mark.servers


@dataclass(frozen=True)
class Pair:
    """A primary on port 5998 and its standby on 5999, in one directory."""

    root: Path

    def wanted(self, name: str) -> dict[str, Any]:
        port = {"a": 5998, "b": 5999}[name]
        return request(self.root, data_dir=str(self.root / name), socket_dir=str(self.root), port=port)

    def look(self, name: str) -> NodeFacts:
        return look(self.wanted(name), f"node-{name}")

    def run(self, *argv: str) -> None:
        done = subprocess.run(
            as_user(list(argv), "postgres"), capture_output=True, text=True, timeout=60, cwd=self.root
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def ctl(self, name: str, *argv: str) -> None:
        with (self.root / "ctl.log").open("ab") as log:
            argv = (f"{PROGRAMS}/pg_ctl", "-D", f"{self.root}/{name}", "-l", f"{self.root}/{name}.log", *argv)
            done = subprocess.run(
                as_user(list(argv), "postgres"), stdout=log, stderr=log, timeout=60, cwd=self.root
            )
        assert done.returncode == 0, (self.root / f"{name}.log").read_text()

    def sql(self, name: str, text: str) -> None:
        port = str(self.wanted(name)["port"])
        self.run(f"{PROGRAMS}/psql", "-XAtqh", str(self.root), "-p", port, "-d", "postgres", "-c", text)

    def awaits(self, name: str, **changes: Any) -> dict[str, Any]:
        """What a switchover asks the standby: whether it holds everything of the primary that was shut down."""
        control = self.look("a").control
        assert control is not None
        wanted = {"sysid": control.system_identifier, "timeline": 1, "limit_s": 1, **changes}
        given = {"bin": str(PROGRAMS), "socket_dir": str(self.root), "port": str(self.wanted(name)["port"])}
        return pg_wait_replay.wait({**given, **wanted})

    def configure(self, name: str, port: int, peer: int) -> None:
        text = f"""
port = {port}
listen_addresses = ''
unix_socket_directories = '{self.root}'
wal_log_hints = on
fsync = off
wal_keep_size = 256MB
primary_conninfo = 'host={self.root} port={peer} application_name=ha_{name}'
primary_slot_name = 'ha_{name}'
"""
        with (self.root / name / "postgresql.conf").open("a") as file:
            file.write(text)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A real pair, streaming; stopped and removed afterwards."""
    if PROGRAMS is None:
        pytest.skip("no PostgreSQL server is installed here")
    # /tmp, not pytest's directory: a socket's path has at most 107 bytes, and postgres must reach it.
    root = Path(tempfile.mkdtemp(prefix="pair-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(root, "postgres")
    root.chmod(0o755)
    made = Pair(root)
    try:
        made.run(f"{PROGRAMS}/initdb", "-D", f"{root}/a", "-A", "trust", "--no-sync")
        made.configure("a", 5998, 5999)
        made.ctl("a", "-w", "start")
        made.sql("a", "SELECT pg_create_physical_replication_slot('ha_b', true)")
        made.run(
            *(f"{PROGRAMS}/pg_basebackup", "-D", f"{root}/b", "-h", str(root), "-p", "5998"),
            *("--no-sync", "-c", "fast", "-X", "stream", "-S", "ha_b"),
        )
        made.configure("b", 5999, 5998)
        made.run("touch", f"{root}/b/standby.signal")
        made.ctl("b", "-w", "start")
        yield made
    finally:
        for name in ("a", "b"):
            if (root / name / "postmaster.pid").exists():
                made.ctl(name, "-m", "immediate", "stop")
        shutil.rmtree(root, ignore_errors=True)


def caught_up(pair: Pair, up: str = "a", down: str = "b") -> tuple[NodeFacts, NodeFacts]:
    """Look at primary and standby until the standby has everything; a restart of it takes a moment."""
    deadline = clock.now().monotonic + 20
    while True:
        a, b = pair.look(up), pair.look(down)
        streams = b.server is not None and b.server.receiver is not None and b.server.receiver.fresh
        if streams and a.position == b.position:
            return a, b
        assert clock.now().monotonic < deadline, (a, b)


def test_a_real_pair_is_seen_switched_and_rejoined(pair: Pair) -> None:
    a, b = caught_up(pair)
    assert server_state(a) is Server.WRITABLE
    assert server_state(b) is Server.STANDBY
    assert a.server is not None
    assert [(s.application_name, s.state) for s in a.server.senders] == [("ha_b", "streaming")]
    assert [(slot.name, slot.active) for slot in a.server.slots] == [("ha_b", True)]
    assert a.cluster is not None
    assert a.cluster.control is not None
    assert a.cluster.control.can_rewind
    assert a.system_identifier == b.system_identifier

    pair.ctl("a", "-m", "fast", "-w", "stop")
    a, b = pair.look("a"), pair.look("b")
    assert server_state(a) is Server.STOPPED
    assert a.cluster is not None
    assert b.server is not None
    assert a.cluster.checkpoint_end == b.server.replay_lsn, "the measured end is where replay stands"
    assert a.control is not None
    proven = pair.awaits("b", checkpoint=str(a.control.checkpoint))
    assert (proven["problem"], proven["replayed"]) == (None, str(b.server.replay_lsn))
    assert "has replayed" in pair.awaits("b", checkpoint=str(b.server.replay_lsn))["problem"], (
        "up to exactly there, the record itself is missing"
    )
    assert "timeline 1" in pair.awaits("b", checkpoint=str(a.control.checkpoint), timeline=2)["problem"]
    assert "another database" in pair.awaits("b", checkpoint=str(a.control.checkpoint), sysid="1")["problem"]

    pair.ctl("b", "-w", "promote")
    a, b = pair.look("a"), pair.look("b")
    assert (a.timeline, b.timeline) == (1, 2), "the control file of b still says 1"
    assert "not in recovery" in pair.awaits("b", checkpoint="0/1")["problem"]
    assert b.cluster is not None
    assert b.cluster.history is not None
    assert a.cluster is not None
    assert b.cluster.history.switchpoint(1) == a.cluster.checkpoint_end
    assert classify_rejoin(a, b, clock.now()).kind is Rejoin.FOLLOW

    pair.sql("b", "SELECT pg_create_physical_replication_slot('ha_a', true)")
    pair.run("touch", f"{pair.root}/a/standby.signal")
    pair.ctl("a", "-w", "start")
    b, a = caught_up(pair, up="b", down="a")
    assert a.timeline == 2
    assert classify_rejoin(a, b, clock.now()).kind is Rejoin.NOTHING


def test_a_stopped_postmaster_is_running_and_not_answering(pair: Pair) -> None:
    postmaster = int((pair.root / "a" / "postmaster.pid").read_text().split("\n")[0])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        facts = pair.look("a")
    finally:
        os.kill(postmaster, signal.SIGCONT)
    assert server_state(facts) is Server.HUNG
    assert "timeout expired" in facts.problems["server"]


def test_a_diverged_primary_is_to_be_rewound_once(pair: Pair) -> None:
    caught_up(pair)
    pair.ctl("b", "-w", "promote")
    pair.sql("a", "CREATE TABLE lost AS SELECT generate_series(1, 1000)")
    pair.sql("b", "CHECKPOINT")
    pair.ctl("a", "-m", "fast", "-w", "stop")
    a, b = pair.look("a"), pair.look("b")
    assert classify_rejoin(a, b, clock.now()).kind is Rejoin.REWIND
    source = f"host={pair.root} port=5999 dbname=postgres"
    pair.run(
        *(f"{PROGRAMS}/pg_rewind", "-D", f"{pair.root}/a", "--no-ensure-shutdown", "--no-sync"),
        f"--source-server={source}",
    )
    assert classify_rejoin(pair.look("a"), b, clock.now()).kind is Rejoin.START_ONLY
    half = pair.look("a")
    assert half.cluster is not None
    assert half.control is not None
    before = replace(
        half, cluster=replace(half.cluster, control=replace(half.control, state="in production"))
    )
    assert classify_rejoin(before, b, clock.now()).kind is Rejoin.CLONE
