"""Which processes are a data directory's server, on a machine that lets one see them and on one that does not."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from flows.rules.fence import held
from flows.rules.primary import Server, server_state
from flows.rules.promotion import stopped
from tasks.node_program import node_program
from tasks.on_node import pg_processes
from tests.unit.probed import look
from tests.unit.test_probed_pair import Pair, pair

pytestmark = pytest.mark.servers

__all__ = ["pair"]

# What a container without CAP_SYS_PTRACE sees: no other user's working directory.
BLIND = ("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace")
ASK = node_program(pg_processes) + "\nimport json, sys\nprint(json.dumps(server_processes(sys.argv[1])))\n"


def seen(data: Path, *prefix: str) -> tuple[list[int], list[int]]:
    """The processes of a data directory, and those that may be."""
    done = subprocess.run(
        [*prefix, "python3", "-c", ASK, str(data)], capture_output=True, text=True, timeout=30, check=True
    )
    own, unknown = json.loads(done.stdout)
    return own, unknown


@pytest.fixture
def blind() -> tuple[str, ...]:
    """The prefix of a program that may not look into the processes of others."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, to take a capability away")
    return BLIND


def postmaster(pair: Pair, name: str) -> int:
    return int((pair.root / name / "postmaster.pid").read_text().split("\n")[0])


def test_without_the_capability_the_same_processes_are_found(pair: Pair, blind: tuple[str, ...]) -> None:
    """An unreadable /proc/PID/cwd counted as "no process": a running server was reported STOPPED."""
    before, after = seen(pair.root / "a"), seen(pair.root / "a", *blind)
    assert postmaster(pair, "a") in after[0]
    # Servers that other tests just start may be; its own may not.
    assert not set(before[0]) & set(after[1])
    assert set(after[0]) & set(before[0])
    assert not set(after[0]) & set(seen(pair.root / "b")[0]), "the other cluster's are not taken for its own"


def test_orphans_of_a_killed_postmaster_that_cannot_be_looked_into_are_unknown_and_not_absent(
    pair: Pair, blind: tuple[str, ...]
) -> None:
    main = postmaster(pair, "a")
    children = [pid for pid in seen(pair.root / "a")[0] if pid != main]
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        os.kill(main, signal.SIGKILL)
        while main in seen(pair.root / "a")[0]:
            pass
        own, unknown = seen(pair.root / "a", *blind)
        assert own == []
        assert set(children) <= set(unknown)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        (pair.root / "a" / "postmaster.pid").unlink()


def test_a_server_whose_processes_are_hidden_is_neither_stopped_nor_held(
    pair: Pair, blind: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe itself, where it may not look: a hung server must not be taken for a stopped one."""
    main = postmaster(pair, "a")
    os.kill(main, signal.SIGSTOP)
    try:
        real = subprocess.run
        monkeypatch.setattr(subprocess, "run", lambda argv, **more: real([*blind, *argv], **more))
        facts = look(pair.wanted("a"), "node-a")
    finally:
        os.kill(main, signal.SIGCONT)
    assert facts.cluster is not None
    assert facts.cluster.processes
    assert server_state(facts) is Server.HUNG
    assert not stopped(facts)
    assert not held(facts)


def test_a_stale_pid_file_alone_is_no_server(pair: Pair, blind: tuple[str, ...]) -> None:
    stale = (pair.root / "a" / "postmaster.pid").read_text()
    pair.ctl("a", "-m", "fast", "-w", "stop")
    (pair.root / "a" / "postmaster.pid").write_text(stale)
    # A server of another test that just starts may be unknown to whoever may not read its directory.
    (servers, unknown), by_root = seen(pair.root / "a", *blind), seen(pair.root / "a")
    (pair.root / "a" / "postmaster.pid").unlink()
    assert by_root == ([], [])
    assert not servers
    assert int(stale.split()[0]) not in unknown


def test_shared_memory_tells_of_a_server_of_which_no_process_is_seen(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with hidepid, which hides the processes of others altogether."""
    main = postmaster(pair, "a")
    monkeypatch.setattr(pg_processes.os, "listdir", lambda path: [])
    assert pg_processes.server_processes(str(pair.root / "a")) == ([], [main])
