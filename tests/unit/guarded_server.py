"""A real server with its guard: what a node's programs are given, and how a test lets the guard pass."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node import boot_guard, guard_acts, guard_rules, guard_watch
from tasks.guard.on_node.guard_look import local
from tasks.on_node.pg_disk import servers_in
from tasks.postgres.on_node import pg_fence
from tests.unit.local_postgres import running_postgres

# The kernel sends nothing to this address over TCP: silence, also where a proxy answers for everybody else.
NOWHERE = ["redis", "255.255.255.255", 6379]


@pytest.fixture
def p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a node's programs are given, for a real primary; nothing of systemd or Docker is touched."""
    monkeypatch.setattr(guard_acts, "stop_containers", lambda: None)
    monkeypatch.setattr(guard_watch, "start_containers", lambda: None)
    monkeypatch.setattr(guard_watch, "systemctl", lambda *words: "")
    monkeypatch.setattr(pg_fence, "mask", lambda p: True)
    monkeypatch.setattr(boot_guard, "PATIENCE_S", 0.0)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "start.conf").write_text("auto\n")
    with running_postgres(schema="") as server:
        yield {
            "node": "node-a",
            "address": "127.0.0.1",
            "major": int(Path(server.programs).parts[4]),
            "data": f"{server.sockets}/data",
            "conf": str(tmp_path / "conf"),
            "bin": server.programs,
            "port": str(server.port),
            "unit": "postgresql@15-main.service",
            "socket_dir": server.sockets,
            "state_dir": str(tmp_path / "state"),
            "run_dir": str(tmp_path / "run"),
            "nas_accepted": str(tmp_path / "nas" / "accepted.json"),
            "log": f"{server.sockets}/log",
            "peers": [],
            "witnesses": [NOWHERE],
            "replication_user": "replicator",
            "passfile": "/nonexistent",
            "self_fence_s": None,
            "graceful_s": 10,
            "archiver_grace_s": 2,
            "immediate_s": 3,
            "kill_s": 3,
            "limit_s": 10,
        }


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that is open and answers nothing, like a server that cannot be asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of passes that allow a start is enough where nothing is promoted."""
    monkeypatch.setattr(guard_rules, "START_AFTER_S", 1.0)


def unwritable(tmp_path: Path) -> str:
    """A directory that nobody can make: root may write everywhere else, also on what is read-only by its mode."""
    file = tmp_path / "no-directory"
    file.touch()
    return str(file / "state")


def block_standby_signal(p: dict[str, Any]) -> None:
    Path(p["data"], "standby.signal.harbor-ha.tmp").mkdir()


def guard_of(p: dict[str, Any], tmp_path: Path) -> guard_watch.Guard:
    config = tmp_path / "node.json"
    config.write_text(json.dumps(p))
    return guard_watch.Guard("1", str(config))


def passes_until(guard: guard_watch.Guard, act: str, limit_s: float = 15.0) -> None:
    deadline = time.monotonic() + limit_s
    while guard.one_pass() != act:
        assert time.monotonic() < deadline, f"no {act}"
        time.sleep(0.1)


def accept(p: dict[str, Any], path: Path, node: str, timeline: int = 1) -> None:
    here = local(p)
    assert here is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {"primary": node, "timeline": timeline, "system_identifier": here.sysid}
    path.write_text(json.dumps(text))


def stopped(p: dict[str, Any], tmp_path: Path) -> str:
    """Stop the server and give the configuration's path."""
    guard_acts.stop_server(p)
    assert servers_in(p["data"]) == []
    (tmp_path / "node.json").write_text(json.dumps(p))
    return str(tmp_path / "node.json")
