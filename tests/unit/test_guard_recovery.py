"""The guard and a server that lets nobody in: rejoin recovers a crashed primary with it, before it rewinds it."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node.guard_rules import NONE, YIELD
from tasks.on_node.pg_disk import postmaster_of, servers_in
from tests.unit.guarded_server import accept, guard_of, p, passes_until
from tests.unit.local_host import as_user
from tests.unit.local_postgres import programs

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        programs() is None or os.geteuid() != 0, reason="needs PostgreSQL's programs and root"
    ),
]
__all__ = ["p"]


def test_the_recovery_of_a_replaced_primary_is_not_ended_by_the_guard(
    p: dict[str, Any], tmp_path: Path
) -> None:
    subprocess.run(
        as_user([f"{p['bin']}/pg_ctl", "-D", p["data"], "-m", "fast", "stop"], "postgres"), cwd="/"
    )
    argv = [f"{p['bin']}/postgres", "--single", "-D", p["data"], "template1"]
    with subprocess.Popen(
        as_user(argv, "postgres"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/"
    ) as recovery:
        await_server(p["data"])
        accept(p, tmp_path / "state" / "accepted.json", "node-b", timeline=2)
        guard = guard_of(p, tmp_path)
        assert {guard.one_pass() for _ in range(5)} == {NONE}
        assert servers_in(p["data"]) != []
        recovery.communicate(timeout=20)
    assert recovery.returncode == 0


def test_a_replaced_primary_that_takes_clients_yields_all_the_same(p: dict[str, Any], tmp_path: Path) -> None:
    assert postmaster_of(p["data"]) is not None
    accept(p, tmp_path / "state" / "accepted.json", "node-b", timeline=2)
    passes_until(guard_of(p, tmp_path), YIELD)
    assert servers_in(p["data"]) == []


def await_server(data: str) -> None:
    """Wait until a server process works in a directory."""
    deadline = time.monotonic() + 10
    while not servers_in(data):
        assert time.monotonic() < deadline, "no server"
        time.sleep(0.05)
