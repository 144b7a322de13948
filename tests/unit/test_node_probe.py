"""The probe, on this machine: what hangs is reported and does not keep the rest from being heard."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocks import HarborSite
from flows.rules.primary import Server, server_state
from flows.rules.rejoin import Rejoin, classify_rejoin
from flows.rules.shutdown_proof import Proof, shutdown_proof
from tasks import clock
from tasks.errors import HostUnreachable
from tasks.hosts.connection import Host
from tasks.postgres.facts import Guard, NodeFacts
from tasks.postgres.facts_parser import parse_answer
from tasks.postgres.facts_query import FACTS_QUERY
from tasks.postgres.probe import NODE_PROBE, PROBE_LIMIT_S, probe
from tests.unit.local_host import as_user
from tests.unit.local_postgres import programs

pytestmark = pytest.mark.servers


PROGRAMS = programs()


def request(root: Path, **changes: Any) -> dict[str, Any]:
    """What to look at: nothing exists until a test makes it."""
    return {
        "limit_s": 4.0,
        "harbor_s": 2.0,
        "images": True,
        "runs_postgres": True,
        "runs_harbor": True,
        "bin_dir": PROGRAMS or str(root / "bin"),
        "conf_dir": str(root / "conf"),
        "unit": "harbor-ha-test-of-no-unit.service",
        "data_dir": str(root / "data"),
        "socket_dir": str(root),
        "port": 5999,
        "database": "registry",
        "query": FACTS_QUERY,
        "nas_path": str(root),
        "install_dir": str(root / "harbor"),
        "https_port": 1,
        "hostname": "harbor.example",
        "state_dir": str(root / "state"),
        "guard_file": str(root / "guard.json"),
        "shared_files": {"paused": str(root / "nas" / "paused.json")},
        "peers": [],
        **changes,
    }


def look(wanted: dict[str, Any], name: str = "node-a", source: str = "") -> NodeFacts:
    started = clock.now()
    done = subprocess.run(
        ["python3", "-c", source or NODE_PROBE],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return parse_answer(name, json.loads(done.stdout), started, clock.now(), "direct")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def fake_cluster(root: Path) -> None:
    (root / "data" / "pg_wal").mkdir(parents=True)
    (root / "data" / "PG_VERSION").write_text("15\n")


def test_a_bare_machine_is_a_reached_node_without_anything(tmp_path: Path) -> None:
    facts = look(request(tmp_path))
    assert facts.reachable
    assert facts.cluster is None
    assert facts.server is None
    assert facts.harbor is None
    assert facts.boot_id
    assert abs(facts.clock_skew_s or 99) < 2


def test_a_server_that_hangs_does_not_hide_the_rest(tmp_path: Path) -> None:
    fake_cluster(tmp_path)
    # /tmp, not pytest's directory, which postgres may not enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as programs_dir:
        Path(programs_dir).chmod(0o755)
        program(Path(programs_dir) / "psql", "#!/bin/sh\nexec sleep 60\n")
        facts = look(request(tmp_path, bin_dir=programs_dir, limit_s=1.5))
    assert "did not answer" in facts.problems["server"]
    assert facts.cluster is not None
    assert facts.data_disk is not None


def test_our_files_are_read_and_a_damaged_one_is_not_taken_for_absent(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "accepted.json").write_text('{"primary": "node-a", "timeline": 3}')
    (state / "lock.json").write_text("{")
    (state / "paused.json").write_text("")
    facts = look(request(tmp_path))
    assert facts.state["accepted"] == {"primary": "node-a", "timeline": 3}
    assert facts.state["lock"] == {"damaged": True}
    assert facts.state["paused"] == {"damaged": True}


def test_a_guard_that_never_ran_is_a_fact_and_one_that_runs_tells_its_limit(tmp_path: Path) -> None:
    assert look(request(tmp_path)).guard == Guard(False)
    up = float(Path("/proc/uptime").read_text().split()[0])
    told = {"version": "ab", "self_fence_s": 20, "uptime": up - 7, "pass": 3}
    (tmp_path / "guard.json").write_text(json.dumps(told))
    guard = look(request(tmp_path)).guard
    assert guard is not None
    assert (guard.version, guard.self_fence_s, guard.runs) == ("ab", 20.0, True)
    assert 7 <= (guard.age_s or 0) < 12
    (tmp_path / "guard.json").write_text("{")
    facts = look(request(tmp_path))
    assert facts.guard is None
    assert "guard" in facts.problems


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_images_that_the_registrys_user_may_not_use_are_a_fact(tmp_path: Path) -> None:
    """The site was healthy while every push ended with 500: only what the API does had been looked at."""
    registry = tmp_path / "registry"
    assert look(request(tmp_path)).images_denied == (f"{registry} (missing)",)
    registry.mkdir()
    assert look(request(tmp_path)).images_denied == (str(registry),)
    os.chown(registry, 10000, 10000)
    assert look(request(tmp_path)).images_denied == ()


def test_the_nas_tells_what_no_node_does_and_a_damaged_copy_is_not_taken_for_absent(tmp_path: Path) -> None:
    assert look(request(tmp_path)).shared == {}
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "paused.json").write_text('{"reason": "new switch"}')
    assert look(request(tmp_path)).shared == {"paused": {"reason": "new switch"}}
    (tmp_path / "nas" / "paused.json").write_text("{")
    assert look(request(tmp_path)).shared == {"paused": {"damaged": True}}


def test_a_nas_that_hangs_is_waited_for_no_longer_than_everything_else(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    os.mkfifo(tmp_path / "nas" / "paused.json")
    facts = look(request(tmp_path, limit_s=1.5))
    assert "did not answer" in facts.problems["shared"]
    assert facts.boot_id


def test_start_conf_is_read_without_its_comments(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "start.conf").write_text("# Automatic startup configuration\n\nmanual # for now\n")
    assert look(request(tmp_path)).start_conf == "manual"


def test_only_names_of_overrides_leave_the_node(tmp_path: Path) -> None:
    fake_cluster(tmp_path)
    auto = "# by hand\nprimary_conninfo = 'host=x password=hush'\nwork_mem='4MB'\n"
    (tmp_path / "data" / "postgresql.auto.conf").write_text(auto)
    facts = look(request(tmp_path))
    assert facts.cluster is not None
    assert facts.cluster.auto_conf == ("primary_conninfo", "work_mem")
    assert "hush" not in repr(facts)


def test_no_password_of_harbor_leaves_the_node(tmp_path: Path) -> None:
    env = tmp_path / "harbor" / "common" / "config" / "core" / "env"
    env.parent.mkdir(parents=True)
    env.write_text("POSTGRESQL_HOST=10.0.0.11\nPOSTGRESQL_PASSWORD=hush\n")
    facts = look(request(tmp_path))
    assert facts.harbor is not None
    assert facts.harbor.configured_database == "10.0.0.11"
    assert "hush" not in repr(facts)


def test_an_engine_that_is_down_does_not_hide_which_database_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "harbor").mkdir()
    (tmp_path / "harbor" / "harbor.yml").write_text("")
    stopped = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stopped))
    source = NODE_PROBE.replace("/var/run/docker.sock", str(stopped))
    facts = look(request(tmp_path), source=source)
    assert "refused" in facts.problems["harbor_containers"]
    assert facts.harbor is not None
    assert facts.harbor.containers == {}


def test_a_peer_is_open_or_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert look(request(tmp_path, peers=[["node-b", "127.0.0.1", port]])).tcp == {"node-b": "open"}
    assert look(request(tmp_path, peers=[["node-b", "127.0.0.1", port]])).tcp == {"node-b": "refused"}


class DeadHost:
    name = "node-a"

    def python(self, *_: object, **__: object) -> None:
        raise HostUnreachable("It does not answer.", where="node-a")


def test_a_node_that_is_not_reached_is_a_fact_and_not_an_error() -> None:
    postgres = SimpleNamespace(
        major=15, cluster="main", data_dir="/d", archive_dir="/a", port=5432, database="registry"
    )
    machine = SimpleNamespace(name="node-a", address="10.0.0.11", runs_postgres=True, runs_harbor=True)
    site = SimpleNamespace(
        name="main",
        nodes=[machine],
        node=lambda name: machine,
        postgres=postgres,
        nas=SimpleNamespace(path="/nas"),
        harbor=SimpleNamespace(install_dir="/opt/harbor", https_port=443, hostname="h"),
    )
    facts = probe(cast(HarborSite, site), cast(Host, DeadHost()), path="via node-b")
    assert not facts.reachable
    assert facts.error == "via node-b: node-a: It does not answer."
    assert PROBE_LIMIT_S < 5, "a look must not eat the seconds of a failover"


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
    assert shutdown_proof(a, b, clock.now()).kind is Proof.PROVEN

    pair.ctl("b", "-w", "promote")
    a, b = pair.look("a"), pair.look("b")
    assert (a.timeline, b.timeline) == (1, 2), "the control file of b still says 1"
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
