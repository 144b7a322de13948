"""What a process starts on a node bears its mark, so that the next one waits for what a killed one left running."""

import multiprocessing
import time
from pathlib import Path

import pytest

from tasks.hosts import connection
from tasks.hosts.connection import MARK, connect, mark
from tasks.hosts.on_node.preflight_probe import unfinished
from tasks.observation import beacon
from tests.unit.harbor_site import make_site
from tests.unit.local_sshd import running_sshd


def test_two_flows_forked_from_one_process_do_not_take_each_others_commands_for_their_own() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        child = pool.apply(mark)
    assert child.startswith(f"{MARK}=")
    assert child != mark()


def test_a_process_keeps_its_mark() -> None:
    assert mark() == mark()


def test_a_beacon_is_no_work_that_the_next_flow_would_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It runs as long as a watcher does: bootstrap waited for its end, and refused.
    name = "HARBOR_HA_TEST"  # there may be other flows on this machine
    monkeypatch.setattr(connection, "MARK", name)
    with running_sshd({}) as node:
        monkeypatch.setattr(beacon, "connect", lambda _: connect(node))
        listener = beacon.listener_of(make_site(tmp_path), "node-a")
        with connect(node).stream(["sleep", "60"], timeout=60):
            deadline = time.monotonic() + 10
            while unfinished(name) != ["sleep 60"] and time.monotonic() < deadline:
                time.sleep(0.05)
            assert unfinished(name) == ["sleep 60"]
            listener.start()
            while not listener.lines and time.monotonic() < deadline + 10:
                time.sleep(0.05)
            assert listener.lines, listener.error
            assert unfinished(name) == ["sleep 60"]
            listener.stop()
