"""Two real clusters on this machine, laid out as on Debian, and the node programs run on them as on a node."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tasks.node_program import node_program
from tasks.postgres.facts import NodeFacts
from tests.unit.local_host import as_user
from tests.unit.local_postgres import programs
from tests.unit.probed import look, request

PORTS = {"a": 5996, "b": 5997}
# What the programs ask systemd for, done with pg_ctl: the unit's name is the directory's.
SYSTEMCTL = """#!/bin/sh
root={root}
for unit; do :; done
ctl() {{ runuser -u postgres -- {bin}/pg_ctl -D "$root/$unit" "$@" >/dev/null 2>&1; }}
case "$1" in
start)
  touch "$root/$unit.starts"; echo start >> "$root/$unit.starts"
  runuser -u postgres -- {bin}/pg_ctl -D "$root/$unit" -W -l "$root/$unit.log" \\
    -o "-c config_file=$root/$unit.conf/postgresql.conf" start >/dev/null 2>&1 </dev/null
  i=0; while [ ! -e "$root/$unit/postmaster.pid" ] && [ $i -lt 20 ]; do sleep 0.1; i=$((i+1)); done ;;
stop) ctl -m fast -w stop ;;
show) if ctl status; then echo ActiveState=active; else echo ActiveState=inactive; fi ;;
esac
exit 0
"""


@dataclass(frozen=True)
class Clusters:
    """Cluster `a`, the first primary, and `b`, its standby; each with its configuration beside it."""

    root: Path
    bin: str

    def given(self, name: str, **more: Any) -> dict[str, Any]:
        """What every program is told of a cluster."""
        return {
            "node": name,
            "address": "127.0.0.1",
            "major": int(self.bin.split("/")[4]),
            "data": str(self.root / name),
            "archive": str(self.root / f"{name}.archive"),
            "conf": str(self.root / f"{name}.conf"),
            "bin": self.bin,
            "port": str(PORTS[name]),
            "unit": name,
            "socket_dir": str(self.root),
            "state_dir": str(self.root / f"{name}.state"),
            "log": str(self.root / f"{name}.log"),
            **more,
        }

    def program(self, module: ModuleType, name: str, **more: Any) -> dict[str, Any]:
        """Run a program on a cluster's node."""
        done = subprocess.run(
            ["python3", "-c", node_program(module)],
            input=json.dumps(self.given(name, **more)),
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"},
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def run(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        """Run a program as the server's user."""
        done = subprocess.run(
            as_user(argv, "postgres"), input=stdin, capture_output=True, text=True, timeout=120, cwd="/"
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done.stdout.strip()

    def sql(self, name: str, text: str) -> str:
        """Run SQL on a cluster."""
        argv = ["-XAtqh", str(self.root), "-p", str(PORTS[name]), "-d", "postgres", "-v", "ON_ERROR_STOP=1"]
        return self.run(f"{self.bin}/psql", *argv, "-f", "-", stdin=text)

    def start(self, name: str, wait: bool = True) -> None:
        """Start a cluster; its output goes to its log."""
        options = f"-c config_file={self.root}/{name}.conf/postgresql.conf"
        argv = [f"{self.bin}/pg_ctl", "-D", str(self.root / name), "-w" if wait else "-W", "-o", options]
        with (self.root / "ctl.log").open("ab") as log:
            done = subprocess.run(
                as_user([*argv, "-l", str(self.root / f"{name}.log"), "start"], "postgres"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=120,
                cwd="/",
            )
        assert done.returncode == 0, self.log(name)

    def stop(self, name: str, mode: str = "fast") -> None:
        """Stop a cluster, if it runs."""
        self.run(f"{self.bin}/pg_ctl", "-D", str(self.root / name), "-m", mode, "-w", "stop", check=False)

    def promote(self, name: str) -> None:
        """Promote a cluster and write a checkpoint on its new timeline."""
        self.run(f"{self.bin}/pg_ctl", "-D", str(self.root / name), "-w", "promote")
        self.sql(name, "CHECKPOINT;")

    def log(self, name: str) -> str:
        """What a server said."""
        return (self.root / f"{name}.log").read_text(errors="replace")

    def postmaster(self, name: str) -> int:
        """The process id of the postmaster."""
        return int((self.root / name / "postmaster.pid").read_text().split("\n")[0])

    def look(self, name: str) -> NodeFacts:
        """Look at a cluster with the probe."""
        wanted = request(
            self.root,
            bin_dir=self.bin,
            data_dir=str(self.root / name),
            conf_dir=str(self.root / f"{name}.conf"),
            socket_dir=str(self.root),
            port=PORTS[name],
            state_dir=str(self.root / f"{name}.state"),
            runs_harbor=False,
        )
        return look(wanted, f"node-{name}")

    def own(self, *paths: Path) -> None:
        """Give paths to the server's user."""
        for path in paths:
            shutil.chown(path, "postgres", "postgres")

    def configure(self, name: str, **more: str) -> None:
        """Write a cluster's configuration; the peer is the other one."""
        peer = "b" if name == "a" else "a"
        conf = self.root / f"{name}.conf"
        (conf / "conf.d").mkdir(parents=True, exist_ok=True)
        settings = {
            "data_directory": str(self.root / name),
            "hba_file": str(conf / "pg_hba.conf"),
            "ident_file": str(conf / "pg_ident.conf"),
            "port": str(PORTS[name]),
            "listen_addresses": "",
            "unix_socket_directories": str(self.root),
            "wal_log_hints": "on",
            "fsync": "off",
            "hot_standby_feedback": "on",
            "wal_receiver_status_interval": "1s",
            "wal_retrieve_retry_interval": "200ms",
            "min_wal_size": "32MB",
            "max_wal_size": "64MB",
            "primary_conninfo": f"host={self.root} port={PORTS[peer]} application_name=ha_node_{name}",
            "primary_slot_name": f"ha_node_{name}",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            **more,
        }
        lines = [f"{key} = '{value}'" for key, value in settings.items()] + ["include_dir 'conf.d'"]
        (conf / "postgresql.conf").write_text("\n".join(lines) + "\n")
        (conf / "pg_hba.conf").write_text("local all all trust\nlocal replication all trust\n")
        (conf / "pg_ident.conf").write_text("")
        (conf / "start.conf").write_text("auto\n")
        self.own(conf, conf / "conf.d", *conf.glob("*.conf"))

    def copy(self) -> None:
        """Make `b` a running standby of `a`."""
        self.sql("a", "SELECT pg_create_physical_replication_slot('ha_node_b', true);")
        argv = ["-D", str(self.root / "b"), "-h", str(self.root), "-p", str(PORTS["a"]), "--no-sync"]
        self.run(f"{self.bin}/pg_basebackup", *argv, "-c", "fast", "-X", "stream", "-S", "ha_node_b")
        self.run("touch", str(self.root / "b" / "standby.signal"))
        self.start("b")
        self.caught_up("a", "b")

    def caught_up(self, up: str, down: str) -> None:
        """Wait until a standby has replayed all that its primary wrote."""
        position = self.sql(up, "SELECT pg_current_wal_lsn();")
        wait_for(
            lambda: self.sql(down, f"SELECT pg_last_wal_replay_lsn() >= '{position}';") == "t",
            30.0,
            lambda: self.log(down)[-2000:],
        )


def wait_for(condition: Callable[[], bool], limit_s: float, told: Callable[[], str]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


@contextmanager
def real_clusters(**settings: str) -> Iterator[Clusters]:
    """Make the primary `a` and run it; `copy` makes the standby. All of it is gone afterwards."""
    bin_dir = programs()
    if bin_dir is None:
        pytest.skip("no PostgreSQL server is installed here")
    if os.geteuid() != 0:
        pytest.skip("the programs change users, as on a node: needs root")
    # /tmp, not pytest's directory: a socket's path has at most 107 bytes, and postgres must reach it.
    root = Path(tempfile.mkdtemp(prefix="ha-", dir="/tmp"))
    made = Clusters(root, bin_dir)
    root.chmod(0o755)
    made.own(root)
    (root / "bin").mkdir()
    (root / "bin" / "systemctl").write_text(SYSTEMCTL.format(root=root, bin=bin_dir))
    (root / "bin" / "systemctl").chmod(0o755)
    try:
        made.run(f"{bin_dir}/initdb", "-D", f"{root}/a", "-A", "trust", "--no-sync", "-k")
        for name in PORTS:
            made.configure(name, **settings)
            (root / f"{name}.archive").mkdir()
            made.own(root / f"{name}.archive")
        made.start("a")
        yield made
    finally:
        for name in PORTS:
            if (root / name / "postmaster.pid").exists():
                made.stop(name, "immediate")
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def clusters() -> Iterator[Clusters]:
    """A streaming pair: `a` is the primary, `b` its standby."""
    with real_clusters() as made:
        made.copy()
        yield made
