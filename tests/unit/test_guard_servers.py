"""Guard and fence on a real server: they stop it whatever cannot be written, read or asked."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node import guard_acts, guard_watch
from tasks.guard.on_node.guard_rules import FENCE, NONE, START, YIELD
from tasks.on_node.pg_disk import age_of, postmaster_in, postmaster_of, servers_in
from tasks.postgres.on_node import pg_compensate, pg_fence, pg_stop
from tests.unit.guarded_server import (
    accept,
    block_standby_signal,
    guard_of,
    listener,
    p,
    passes_until,
    soon,
    unwritable,
)
from tests.unit.local_postgres import programs

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        programs() is None or os.geteuid() != 0, reason="needs PostgreSQL's programs and root"
    ),
]

__all__ = ["listener", "p", "soon"]


def test_a_self_fence_that_can_note_nothing_has_stopped_the_server(p: dict[str, Any], tmp_path: Path) -> None:
    p["state_dir"] = p["run_dir"] = unwritable(tmp_path)
    guard_acts.fence(p, "a test")
    assert servers_in(p["data"]) == []


def test_an_isolated_primary_on_a_full_disk_fences_itself_once_and_comes_back_in_touch(
    p: dict[str, Any],
    tmp_path: Path,
    listener: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(guard_watch, "systemctl", lambda *words: started.append(words))
    p.update(state_dir=unwritable(tmp_path), run_dir=unwritable(tmp_path), self_fence_s=1)
    guard = guard_of(p, tmp_path)
    passes_until(guard, FENCE)
    assert servers_in(p["data"]) == []
    assert [guard.one_pass() for _ in range(3)] == [NONE] * 3
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if "no witness has answered for 1 s" in line]) == 1
    assert len([line for line in said if line.startswith("heartbeat")]) == 1

    guard.config.ask = lambda: {**p, "witnesses": [["redis", "127.0.0.1", listener]]}
    passes_until(guard, START)
    assert started == [("start", "--no-block", p["unit"])]
    assert guard.one_pass() == NONE


def test_a_note_of_a_self_fence_in_memory_alone_is_found_by_the_next_guard(
    p: dict[str, Any], tmp_path: Path, listener: int
) -> None:
    p["state_dir"] = unwritable(tmp_path)
    assert guard_acts.fence(p, "a test") != []
    p["witnesses"] = [["redis", "127.0.0.1", listener]]
    passes_until(guard_of(p, tmp_path), START)


def test_a_configuration_that_cannot_be_read_any_more_leaves_the_last_limit_in_force(
    p: dict[str, Any], tmp_path: Path
) -> None:
    guard = guard_of({**p, "self_fence_s": 2}, tmp_path)
    assert guard.one_pass() == NONE
    (tmp_path / "node.json").write_text("{")
    passes_until(guard, FENCE)
    assert servers_in(p["data"]) == []


@pytest.mark.parametrize("broken", ["in_touch", "held"])
def test_a_pass_that_fails_counts_toward_the_self_fence_and_is_told_once(
    p: dict[str, Any],
    tmp_path: Path,
    listener: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: str,
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    p.update(self_fence_s=30, witnesses=[["redis", "127.0.0.1", listener]])
    guard = guard_of(p, tmp_path)
    monkeypatch.setattr(guard_watch, broken, fails)
    begun = guard.touched_at
    assert [guard.one_pass() for _ in range(3)] == [NONE] * 3
    assert guard.touched_at == begun, "a pass that failed was taken for being in touch"
    assert capsys.readouterr().out.count("can't start new thread") == 1
    guard.touched_at -= 60
    assert guard.one_pass() == FENCE
    assert servers_in(p["data"]) == []


@pytest.mark.parametrize(
    "damaged", ["{", "[1]", '{"primary": "node-b"}', '{"primary": "node-b", "timeline": "x"}']
)
def test_a_damaged_record_on_the_nas_stops_nothing(p: dict[str, Any], tmp_path: Path, damaged: str) -> None:
    accept(p, tmp_path / "nas" / "accepted.json", "node-a")
    (tmp_path / "nas" / "accepted.json").write_text(damaged)
    guard = guard_of({**p, "self_fence_s": None}, tmp_path)
    begun = guard.touched_at
    assert [guard.one_pass() for _ in range(2)] == [NONE] * 2
    assert guard.shared.error is not None
    guard.config.ask = lambda: {**p, "witnesses": []}
    guard.one_pass()
    assert guard.touched_at > begun
    assert servers_in(p["data"]) != []


def test_the_heartbeat_tells_which_guard_runs_by_which_limit(p: dict[str, Any], tmp_path: Path) -> None:
    guard = guard_of({**p, "self_fence_s": 30}, tmp_path)
    guard.one_pass()
    guard.one_pass()
    told = json.loads((tmp_path / "run" / "guard.json").read_text())
    assert (told["version"], told["self_fence_s"], told["pass"]) == ("1", 30, 2)
    assert 0 <= float(Path("/proc/uptime").read_text().split()[0]) - told["uptime"] < 5


def test_a_planted_link_is_not_followed_by_the_heartbeat(p: dict[str, Any], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "guard.json.new").symlink_to(victim)
    guard_of(p, tmp_path).one_pass()
    assert victim.read_text() == "mine"
    assert (tmp_path / "run" / "guard.json").is_file()


@pytest.mark.parametrize("where", ["state/accepted.json", "nas/accepted.json"])
def test_a_primary_of_any_age_yields_to_the_one_that_was_accepted(
    p: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    accept(p, tmp_path / where, "node-b")
    guard = guard_of(p, tmp_path)
    monkeypatch.setattr(guard, "age", lambda: 1e6)
    passes_until(guard, YIELD)
    assert servers_in(p["data"]) == []
    assert Path(p["data"], "standby.signal").exists()
    assert (tmp_path / "conf" / "start.conf").read_text() == "disabled\n"
    assert guard.one_pass() == NONE


@pytest.mark.parametrize(("node", "timeline"), [("node-a", 1), ("node-b", 0)])
def test_an_old_acceptance_or_its_own_stops_no_primary(
    p: dict[str, Any], tmp_path: Path, node: str, timeline: int
) -> None:
    accept(p, tmp_path / "state" / "accepted.json", node, timeline)
    guard = guard_of(p, tmp_path)
    assert [guard.one_pass() for _ in range(3)] == [NONE] * 3
    assert servers_in(p["data"]) != []


def test_a_yield_that_can_write_nothing_has_stopped_the_server(p: dict[str, Any], tmp_path: Path) -> None:
    block_standby_signal(p)
    p["conf"] = unwritable(tmp_path)
    problems = guard_acts.yield_to_peer(p, "a test")
    assert servers_in(p["data"]) == []
    assert [problem.partition(":")[0] for problem in problems] == ["standby.signal", "start.conf"]


def test_a_nas_that_hangs_holds_no_pass_up_and_is_read_by_one_at_a_time(
    p: dict[str, Any], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "hangs")
    guard = guard_of({**p, "nas_accepted": str(tmp_path / "hangs")}, tmp_path)
    before, begun = threading.active_count(), time.monotonic()
    for _ in range(4):
        guard.one_pass()
    assert time.monotonic() - begun < 4 * 3.5
    assert threading.active_count() - before <= 1
    # Whoever waits to read is let go.
    (tmp_path / "hangs").write_text("null")


def test_the_age_of_a_server_is_not_that_of_the_wall_clock(
    p: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    postmaster = postmaster_in(p["data"])
    assert postmaster is not None
    assert postmaster == postmaster_of(p["data"])
    pid_file = Path(p["data"], "postmaster.pid")
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([*lines[:2], str(int(lines[2]) - 7200), *lines[3:]]) + "\n")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert 0 <= age_of(postmaster) < 60


def test_the_fence_stops_the_server_first_and_says_what_it_could_not_write(
    p: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(p: dict[str, Any]) -> bool:
        raise OSError(30, "Read-only file system")

    block_standby_signal(p)
    p["conf"] = unwritable(tmp_path)
    monkeypatch.setattr(pg_fence, "mask", read_only)
    answer = pg_fence.fence(p)
    assert servers_in(p["data"]) == []
    assert (answer["how"], answer["clean"]) == ("fast", True)
    for part in ("masked: [Errno 30] Read-only", "start.conf", "standby.signal"):
        assert any(part in line for line in answer["against"]), answer["against"]
    assert json.dumps(answer)


def test_a_fenced_cluster_is_not_started_by_pg_ctlcluster_either(p: dict[str, Any], tmp_path: Path) -> None:
    assert pg_fence.fence(p)["against"] == []
    # pg_ctlcluster starts what is `manual` for the user postgres, past systemd and the boot guard.
    assert (tmp_path / "conf" / "start.conf").read_text() == "disabled\n"


def test_a_control_file_that_cannot_be_read_keeps_no_server_from_being_fenced(p: dict[str, Any]) -> None:
    p["bin"] = "/nonexistent"
    answer = pg_fence.fence({**p, "graceful_s": 3})
    assert servers_in(p["data"]) == []
    assert not answer["clean"]


def test_a_stopped_primary_that_cannot_be_held_is_said_not_to_be(p: dict[str, Any]) -> None:
    block_standby_signal(p)
    answer = pg_stop.stop(p)
    assert answer["state"] == "unheld"
    assert "standby.signal" in answer["why"]
    assert servers_in(p["data"]) == []


def test_a_primary_that_runs_is_not_called_lost_because_start_conf_cannot_be_written(
    p: dict[str, Any], tmp_path: Path
) -> None:
    answer = pg_compensate.compensate({**p, "conf": unwritable(tmp_path), "timeline": 1, "take_back": False})
    assert answer["state"] == "primary"
    assert "autostart" in answer["unwritten"][0]
