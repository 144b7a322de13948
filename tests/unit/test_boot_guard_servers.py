"""Boot guard and guard on a real server: who may start, who has to wait, and who starts again."""

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node import boot_guard, guard_acts, guard_rules, guard_watch
from tasks.guard.on_node.guard_look import local
from tasks.guard.on_node.guard_rules import FENCE, HOLD, NONE, START
from tasks.on_node.pg_disk import servers_in
from tests.unit.guarded_server import (
    NOWHERE,
    accept,
    guard_of,
    listener,
    p,
    passes_until,
    soon,
    stopped,
)
from tests.unit.local_postgres import programs

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        programs() is None or os.geteuid() != 0, reason="needs PostgreSQL's programs and root"
    ),
]

__all__ = ["listener", "p", "soon"]


def test_a_peer_that_is_there_and_cannot_be_asked_holds_the_start_until_it_can(
    p: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(guard_watch, "systemctl", lambda *words: started.append(words))
    with socket.create_server(("127.0.0.1", 0)) as peer:
        p["peers"] = [["node-b", "127.0.0.1", peer.getsockname()[1]]]
        config = stopped(p, tmp_path)
        assert boot_guard.judge("15-main", config) == 1
        guard = guard_watch.Guard("1", config)
        assert guard.one_pass() == NONE
    # Its machine answers and no server runs there.
    passes_until(guard, START)
    assert started == [("start", "--no-block", p["unit"])]
    assert boot_guard.judge("15-main", config) == 0


def test_a_primary_that_runs_stops_while_a_standby_was_told_to_promote_itself_and_starts_again_after_it(
    p: dict[str, Any], tmp_path: Path, listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started in the moment before the standby was told, and nobody had looked since."""
    here = local(p)
    assert here is not None
    state = [guard_rules.TOLD_TO_PROMOTE]
    monkeypatch.setattr(guard_watch, "ask", lambda *_: guard_rules.Peer("node-b", state[0], here.sysid, 1))
    p.update(peers=[["node-b", "127.0.0.1", listener]], witnesses=[])
    guard = guard_of(p, tmp_path)
    assert guard.one_pass() == HOLD
    assert servers_in(p["data"]) == []
    assert not Path(p["data"], "standby.signal").exists()
    assert guard.one_pass() == NONE
    state[0] = guard_rules.STANDBY
    passes_until(guard, START)


def test_an_isolated_node_with_a_self_fence_does_not_start_as_a_primary(
    p: dict[str, Any], tmp_path: Path, listener: int
) -> None:
    p.update(self_fence_s=30, peers=[["node-b", "255.255.255.255", 5432]])
    config = stopped(p, tmp_path)
    assert boot_guard.judge("15-main", config) == 1
    guard = guard_watch.Guard("1", config)
    assert guard.one_pass() == NONE
    guard.config.ask = lambda: {**p, "witnesses": [["redis", "127.0.0.1", listener]]}
    passes_until(guard, START)


def test_a_primary_that_is_back_in_touch_for_a_moment_is_not_started_by_it(
    p: dict[str, Any], tmp_path: Path, listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its standby was being promoted, had just tried this node's port and found it closed.
    monkeypatch.setattr(guard_rules, "START_AFTER_S", 3.0)
    p.update(self_fence_s=30, peers=[["node-b", "255.255.255.255", 5432]])
    config = stopped(p, tmp_path)
    assert boot_guard.judge("15-main", config) == 1
    guard = guard_watch.Guard("1", config)
    near, far = [["redis", "127.0.0.1", listener]], [NOWHERE]
    began = time.monotonic()
    while time.monotonic() < began + 4.0:
        for witnesses in (near, far):
            guard.config.ask = lambda seen=witnesses: {**p, "witnesses": seen}  # type: ignore[misc]
            assert guard.one_pass() == NONE
            time.sleep(0.1)
    guard.config.ask = lambda: {**p, "witnesses": near}
    steady = time.monotonic()
    passes_until(guard, START)
    assert time.monotonic() - steady >= 3.0


def test_without_a_self_fence_a_silent_site_keeps_no_accepted_primary_from_starting(
    p: dict[str, Any], tmp_path: Path
) -> None:
    p["peers"] = [["node-b", "255.255.255.255", 5432]]
    config = stopped(p, tmp_path)
    accept(p, tmp_path / "state" / "accepted.json", "node-a")
    assert boot_guard.judge("15-main", config) == 0


def test_the_nas_tells_a_node_that_was_off_of_the_new_primary(p: dict[str, Any], tmp_path: Path) -> None:
    config = stopped(p, tmp_path)
    accept(p, tmp_path / "state" / "accepted.json", "node-a")
    accept(p, tmp_path / "nas" / "accepted.json", "node-b", 2)
    assert boot_guard.judge("15-main", config) == 1
    (tmp_path / "nas" / "accepted.json").write_text(
        '{"primary": "node-b", "timeline": 9, "system_identifier": "another"}'
    )
    assert boot_guard.judge("15-main", config) == 0


def test_what_the_nas_tells_while_the_boot_guard_waits_for_the_others_counts(
    p: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asked the NAS before its eight seconds of patience, and the new primary was accepted in them."""
    monkeypatch.setattr(boot_guard, "PATIENCE_S", 3.0)
    p["peers"] = [["node-b", "255.255.255.255", 5432]]
    config = stopped(p, tmp_path)
    accept(p, tmp_path / "state" / "accepted.json", "node-a")
    accept(p, tmp_path / "nas" / "accepted.json", "node-a")
    nas = threading.Timer(1.0, accept, (p, tmp_path / "nas" / "accepted.json", "node-b", 2))
    nas.start()
    assert boot_guard.judge("15-main", config) == 1
    nas.join()


def test_an_old_machine_that_boots_after_the_site_was_restored_elsewhere_does_not_serve(
    p: dict[str, Any], tmp_path: Path
) -> None:
    """Its own record names itself, and the NAS's is of another database: nothing kept it from starting."""
    accept(p, tmp_path / "state" / "accepted.json", "node-a")
    restored = tmp_path / "nas" / "restored.json"
    restored.parent.mkdir()
    restored.write_text(json.dumps({"system_identifier": "99", "node": "node-c"}))
    guard = guard_of(p, tmp_path)
    passes_until(guard, FENCE)
    assert servers_in(p["data"]) == []
    assert boot_guard.judge("15-main", str(tmp_path / "node.json")) == 1
    restored.unlink()
    assert boot_guard.judge("15-main", str(tmp_path / "node.json")) == 0, "a person has decided otherwise"


def test_a_new_database_on_the_sites_own_machine_is_not_refused_by_the_record_of_the_one_before(
    p: dict[str, Any], tmp_path: Path
) -> None:
    other = {"primary": "node-b", "timeline": 9, "system_identifier": "77"}
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "accepted.json").write_text(json.dumps(other))
    config = stopped(p, tmp_path)
    assert boot_guard.judge("15-main", config) == 0


def test_a_server_started_past_the_boot_guard_while_isolated_is_stopped_at_once(
    p: dict[str, Any], tmp_path: Path
) -> None:
    guard = guard_of({**p, "self_fence_s": 60}, tmp_path)
    guard_acts.stop_server(p)
    guard.one_pass()
    guard.touched_at -= 120
    guard.one_pass()
    assert time.monotonic() - guard.touched_at > 100, "a stopped server's silence was forgotten"
