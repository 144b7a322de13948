"""Guard and fence on a real server: they stop it whatever cannot be written, read or asked."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node import boot_guard, guard_rules, guard_watch
from tasks.guard.on_node.guard_look import local
from tasks.guard.on_node.guard_rules import FENCE, HOLD, NONE, START, YIELD
from tasks.on_node.pg_disk import age_of, postmaster_in, postmaster_of, servers_in
from tasks.postgres.on_node import pg_compensate, pg_fence, pg_stop
from tests.unit.local_postgres import programs, running_postgres

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        programs() is None or os.geteuid() != 0, reason="needs PostgreSQL's programs and root"
    ),
]
# The kernel sends nothing to this address over TCP: silence, also where a proxy answers for everybody else.
NOWHERE = ["redis", "255.255.255.255", 6379]


@pytest.fixture
def p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a node's programs are given, for a real primary; nothing of systemd or Docker is touched."""
    monkeypatch.setattr(guard_watch, "stop_containers", lambda: None)
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


def test_a_self_fence_that_can_note_nothing_has_stopped_the_server(p: dict[str, Any], tmp_path: Path) -> None:
    p["state_dir"] = p["run_dir"] = unwritable(tmp_path)
    guard_watch.fence(p, "a test")
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
    assert guard_watch.fence(p, "a test") != []
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
    problems = guard_watch.yield_to_peer(p, "a test")
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


def stopped(p: dict[str, Any], tmp_path: Path) -> str:
    """Stop the server and give the configuration's path."""
    guard_watch.stop_server(p)
    assert servers_in(p["data"]) == []
    (tmp_path / "node.json").write_text(json.dumps(p))
    return str(tmp_path / "node.json")


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
    guard_watch.stop_server(p)
    guard.one_pass()
    guard.touched_at -= 120
    guard.one_pass()
    assert time.monotonic() - guard.touched_at > 100, "a stopped server's silence was forgotten"
