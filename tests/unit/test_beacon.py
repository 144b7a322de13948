"""The beacon: one line a second from a node, whatever hangs there, and not for longer than somebody listens."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import HostUnreachable, LoginRefused
from tasks.guard.on_node.guard_question import Question
from tasks.node_program import node_program
from tasks.observation.beacon import BEACON, Listener, beacon_request, pause_s
from tasks.observation.beats import Beat, Ear, LineDamaged
from tasks.observation.on_node import beacon
from tasks.observation.on_node.beacon_notes import keep, notes_of
from tests.unit.harbor_site import make_site
from tests.unit.local_host import local_host
from tests.unit.local_pair import PORTS, Clusters, real_clusters

LINE = {"n": 1, "up": 50.0, "boot": "b", "sql": None, "sql_age": None, "ended": False, "door": None}
LINE |= {"sql_well_age": None, "door_well_age": None, "guard_age": None, "shared_age": None}


def request(clusters: Clusters, name: str, **more: Any) -> dict[str, Any]:
    """What the beacon of a cluster is asked."""
    (clusters.root / f"{name}.state").mkdir(exist_ok=True)
    return {
        "bin_dir": clusters.bin,
        "major": int(clusters.bin.split("/")[4]),
        "data_dir": str(clusters.root / name),
        "socket_dir": str(clusters.root),
        "port": PORTS[name],
        "state_dir": str(clusters.root / f"{name}.state"),
        "guard_file": str(clusters.root / f"{name}.guard.json"),
        "shared_paused": None,
        "silence_s": 20.0,
        "beat_s": 1.0,
        **more,
    }


@contextmanager
def listening(node: str, wanted: dict[str, Any]) -> Iterator[Listener]:
    """Listen to a beacon on this machine."""
    listener = Listener(
        node,
        wanted,
        lambda limit: local_host().stream(["python3", "-u", "-c", BEACON], timeout=limit),
        lambda: None,
    )
    listener.start()
    try:
        yield listener
    finally:
        listener.stop()


def until(condition: Callable[[], bool], told: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


def newest(listener: Listener) -> Beat:
    """The newest line."""
    assert listener.beat is not None, listener.error
    return listener.beat


@pytest.fixture(scope="module")
def pair() -> Iterator[Clusters]:
    """A primary and its standby, for all tests here."""
    with real_clusters() as made:
        made.copy()
        yield made


@pytest.mark.servers
class TestOnRealServers:
    """With a primary and its standby."""

    def test_both_tell_their_role_their_timeline_and_their_position(self, pair: Clusters) -> None:
        with listening("a", request(pair, "a")) as first, listening("b", request(pair, "b")) as second:
            for listener in (first, second):
                until(
                    lambda heard=listener: bool(heard.beat and heard.beat.answered_at and heard.beat.open_at),
                    lambda heard=listener: (heard.beat, heard.error),
                )
            until(lambda: bool(newest(first).senders), lambda: first.beat)
            up, down = newest(first), newest(second)
            assert (up.in_recovery, up.timeline, up.read_only) == (False, 1, False)
            assert [(s.name, s.state) for s in up.senders] == [("ha_node_b", "streaming")]
            assert (down.in_recovery, down.timeline, down.receiver) == (True, 1, "streaming")
            assert down.heard_at is not None
            assert up.position is not None
            assert down.position is None
            before = up.lsn
            pair.sql("a", "CREATE TABLE IF NOT EXISTS t (x int); INSERT INTO t VALUES (1);")
            until(lambda: (newest(first).lsn or 0) > (before or 0), lambda: first.beat)

    def test_one_session_serves_for_all_lines(self, pair: Clusters) -> None:
        with listening("a", request(pair, "a")) as listener:
            until(lambda: listener.lines >= 4, lambda: listener.error)
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'harbor-ha-beacon';"
            assert pair.sql("a", count) == "1"

    def test_a_postmaster_that_hangs_lets_nobody_in_and_the_lines_say_so(self, pair: Clusters) -> None:
        # Sessions that are open answer on: by them alone it looked sound.
        with listening("a", request(pair, "a")) as listener:
            until(lambda: newest_good(listener) > 0, lambda: listener.beat)
            os.kill(pair.postmaster("a"), signal.SIGSTOP)
            try:
                stopped = time.monotonic()
                until(lambda: newest(listener).written_at > stopped + 3, lambda: listener.beat)
                beat = newest(listener)
                assert beat.answered_at is not None
                assert beat.answered_at > stopped + 1, "the session that was open answers"
                assert beat.good_at < stopped + 1.0
            finally:
                os.kill(pair.postmaster("a"), signal.SIGCONT)
            until(lambda: newest_good(listener) > stopped + 3, lambda: listener.beat)

    def test_a_server_that_was_killed_is_told_at_once_and_found_again(self, pair: Clusters) -> None:
        with listening("b", request(pair, "b")) as listener:
            until(lambda: newest_good(listener) > 0, lambda: listener.beat)
            killed = time.monotonic()
            pair.stop("b", "immediate")
            until(lambda: newest(listener).ended, lambda: listener.beat)
            assert newest(listener).good_at < time.monotonic()
            lines = listener.lines
            until(lambda: listener.lines > lines + 2, lambda: listener.error)
            assert newest(listener).good_at < killed + 1.5
            pair.start("b")
            until(lambda: newest_good(listener) > killed + 1.5, lambda: listener.beat)


def newest_good(listener: Listener) -> float:
    """When the server last answered and let somebody in."""
    return listener.beat.good_at if listener.beat else 0.0


def spawned(tmp_path: Path, **more: Any) -> "subprocess.Popen[bytes]":
    """A beacon with a server that was never there."""
    wanted = {
        "bin_dir": "/nonexistent",
        "major": 15,
        "data_dir": str(tmp_path / "data"),
        "socket_dir": str(tmp_path),
        "port": 5432,
        "state_dir": str(tmp_path / "state"),
        "guard_file": str(tmp_path / "guard.json"),
        "shared_paused": None,
        "silence_s": 20.0,
        "beat_s": 1.0,
        **more,
    }
    process = subprocess.Popen(
        ["python3", "-u", "-c", node_program(beacon)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(wanted).encode() + b"\n")
    process.stdin.flush()
    return process


def read_line(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """The next line."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Leave nothing behind."""
    with suppress(OSError):
        process.kill()
    process.wait(10)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def test_it_ends_with_its_input(tmp_path: Path) -> None:
    process = spawned(tmp_path)
    try:
        read_line(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    finally:
        finish(process)


def test_it_ends_when_nobody_says_a_word_though_nobody_takes_its_lines_either(tmp_path: Path) -> None:
    process = spawned(tmp_path, silence_s=1.0)
    try:
        assert process.wait(20) == 0
    finally:
        finish(process)


def test_what_the_orchestrator_asks_is_what_the_beacon_reads(tmp_path: Path) -> None:
    process = spawned(tmp_path, **beacon_request(make_site(tmp_path), "node-a"))
    try:
        assert Ear("node-a").read(read_line(process), 1.0).answered_at is None
    finally:
        finish(process)


def test_a_node_that_cannot_keep_a_note_says_why(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    process = spawned(tmp_path)
    try:
        assert process.stdin is not None
        process.stdin.write(b'{"keep": {"last_primary": "{\\"at\\": 1}"}}\n')
        process.stdin.flush()
        told: dict[str, Any] = {}
        deadline = time.monotonic() + 10
        while not told.get("kept"):
            assert time.monotonic() < deadline
            told = read_line(process)
        assert told["kept"]["last_primary"] not in ("kept", "older", "busy")
    finally:
        finish(process)


def test_words_keep_it_alive(tmp_path: Path) -> None:
    process = spawned(tmp_path, silence_s=3.0)
    try:
        assert process.stdin is not None
        begun = time.monotonic()
        while time.monotonic() < begun + 6:
            read_line(process)
            process.stdin.write(b"{}\n")
            process.stdin.flush()
        assert process.poll() is None
    finally:
        finish(process)


def test_a_nas_that_hangs_keeps_no_line_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "paused.json")  # opening it for reading hangs as long as nobody writes
    process = spawned(tmp_path, shared_paused=str(tmp_path / "paused.json"))
    try:
        begun = time.monotonic()
        assert [read_line(process)["n"] for _ in range(3)] == [1, 2, 3]
        assert time.monotonic() - begun < 8
    finally:
        finish(process)


def test_what_it_is_asked_to_keep_is_on_the_disk_and_told(tmp_path: Path) -> None:
    process = spawned(tmp_path)
    try:
        note = {"node": "node-a", "at": time.time(), "position": {"timeline": 1, "lsn": 17}}
        assert process.stdin is not None
        process.stdin.write(json.dumps({"keep": {"last_primary": json.dumps(note)}}).encode() + b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 10
        while read_line(process).get("kept") != {"last_primary": "kept"}:
            assert time.monotonic() < deadline
        path = tmp_path / "state" / "last_primary.json"
        assert json.loads(path.read_text()) == note
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        finish(process)


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("last_primary", '{"at": 99}', "older"),
        ("last_primary", '{"at": 100}', "older"),
        ("last_primary", '{"at": 101}', "kept"),
        ("last_primary", '{"at": -9999}', "kept"),  # the clock of what is there was wrong by hours
        ("last_primary", "nonsense", "JSONDecodeError"),
        ("accepted", '{"at": 101}', "not ours to keep"),
    ],
)
def test_a_note_that_was_late_on_its_way_takes_no_newer_ones_place(
    tmp_path: Path, name: str, text: str, answer: str
) -> None:
    (tmp_path / "last_primary.json").write_text('{"at": 100}')
    assert keep({"state_dir": str(tmp_path)}, name, text) == answer
    kept = (tmp_path / "last_primary.json").read_text()
    assert kept == (text if answer == "kept" else '{"at": 100}')


def test_a_note_that_is_ahead_of_the_nodes_own_clock_keeps_no_later_one_out(tmp_path: Path) -> None:
    # A clock was ten minutes ahead and was set right: for ten minutes no position was kept, and a failover took the
    # one that was there for the newest.
    (tmp_path / "last_primary.json").write_text(json.dumps({"at": time.time() + 90}))
    assert keep({"state_dir": str(tmp_path)}, "last_primary", json.dumps({"at": time.time()})) == "kept"
    (tmp_path / "last_primary.json").write_text(json.dumps({"at": time.time() - 5}))
    assert keep({"state_dir": str(tmp_path)}, "last_primary", json.dumps({"at": time.time() - 600})) == "kept"


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"reason": "' + "x" * 70_000 + '"}', "5"])
def test_a_damaged_note_is_not_taken_for_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "paused.json").write_text(text)
    wanted = {"state_dir": str(tmp_path), "guard_file": str(tmp_path / "guard.json")}
    assert notes_of(wanted) == {"paused": {"damaged": True}}


def quiet(tmp_path: Path, **more: Any) -> beacon.Beacon:
    """A beacon in this process, with nothing around it."""
    wanted = {
        "bin_dir": "/nonexistent",
        "major": 15,
        "socket_dir": str(tmp_path),
        "port": 5432,
        "beat_s": 1.0,
    }
    wanted |= {"state_dir": str(tmp_path), "guard_file": str(tmp_path / "guard.json"), "shared_paused": None}
    return beacon.Beacon({**wanted, **more})


def test_notes_that_were_not_read_yet_are_not_told_as_gone(tmp_path: Path) -> None:
    # The first line of a new session said that there was no pause and no lock, and a failover was called for.
    told = quiet(tmp_path).line()
    assert "notes" not in told
    before = Ear("a", {"paused": {"reason": "kernel"}})
    assert before.read(told, 1.0).notes == {"paused": {"reason": "kernel"}}


def test_a_nas_that_was_not_read_yet_says_nothing_of_the_pause_that_it_held(tmp_path: Path) -> None:
    node = quiet(tmp_path, shared_paused=str(tmp_path / "nas.json"))
    node.notes.put(5)
    ear = Ear("a", {"shared_paused": {"reason": "kernel"}})
    beat = ear.read(node.line(), 1.0)
    assert (beat.notes["shared_paused"], beat.shared_at) == ({"reason": "kernel"}, None)
    node.shared.put(5)
    beat = ear.read(node.line(), 1.0)
    assert beat.notes["shared_paused"] is None
    assert beat.shared_at == pytest.approx(1.0, abs=0.5)


def test_a_nas_that_is_not_mounted_does_not_say_that_the_pause_is_over(tmp_path: Path) -> None:
    node = quiet(tmp_path, shared_paused=str(tmp_path / "not mounted" / "paused.json"))
    node.notes.put(5)
    node.shared.put(5)
    beat = Ear("a", {"shared_paused": {"reason": "kernel"}}).read(node.line(), 1.0)
    assert (beat.notes["shared_paused"], beat.shared_at) == ({"reason": "kernel"}, None)


def test_a_server_that_stood_still_is_asked_again_the_moment_that_it_answers(tmp_path: Path) -> None:
    # An answer is as old as its question: after two seconds the next one came another half second later.
    node, asked, go_on = quiet(tmp_path), [], threading.Event()

    def hang() -> None:
        asked.append(time.monotonic())
        go_on.wait(10)

    node.sql = Question(hang)
    node.look()
    time.sleep(0.55)
    node.look()
    go_on.set()
    node.sql.wait(5)
    node.look()
    node.sql.wait(5)
    assert len(asked) == 2


def test_what_is_asked_and_answered_is_well_until_the_next_question_is_left_open(tmp_path: Path) -> None:
    # Two seconds of standstill were three and more: half a second before it and what a busy machine needs after it.
    node, go_on = quiet(tmp_path), threading.Event()
    go_on.set()
    node.sql = Question(lambda: {"x": go_on.wait(10)})
    node.door = Question(lambda: "open")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (node.line()["sql_well_age"] is None or node.sql.hangs):
        node.look()
        time.sleep(0.05)
    time.sleep(0.4)
    node.look()
    assert node.line()["sql_well_age"] < 0.2
    go_on.clear()

    def asked() -> bool:
        node.look()
        return node.sql.hangs

    until(asked, node.line, 5)
    time.sleep(0.3)
    node.look()
    assert 0.3 <= node.line()["sql_well_age"] < 0.9
    go_on.set()
    node.sql.wait(5)
    node.look()
    assert node.line()["sql_well_age"] < 0.2


def test_a_session_that_does_not_come_about_is_given_up() -> None:
    # A machine lost its power between the login and the first line: nothing ended that wait.
    hung_up = threading.Event()

    @contextmanager
    def hang(_: float) -> Iterator[Any]:
        hung_up.wait(30)
        raise HostUnreachable("cut", where="a")
        yield

    listener = Listener("a", {}, hang, hung_up.set)
    listener.start()
    try:
        until(lambda: listener.hang_up_when_deaf(time.monotonic() + 40), lambda: "still waiting", 5)
        assert hung_up.wait(5)
    finally:
        listener.stop()


def test_who_is_refused_does_not_knock_each_second() -> None:
    # sshd's log was full of it, and what bans such clients would have kept the failover out as well.
    tries = []

    @contextmanager
    def refuse(_: float) -> Iterator[Any]:
        tries.append(time.monotonic())
        raise LoginRefused("no", where="a")
        yield

    listener = Listener("a", {}, refuse, lambda: None)
    listener.start()
    try:
        until(lambda: bool(listener.error), lambda: tries, 5)
        time.sleep(2)
        assert len(tries) == 1
    finally:
        listener.stop()


def test_sessions_that_break_are_made_anew_at_longer_and_longer_intervals() -> None:
    waits = [pause_s(failures) for failures in range(9)]
    assert waits == sorted(waits)
    assert waits[0] <= 1.0
    assert 5.0 <= waits[-1] <= 10.0, "a node that is back is heard again soon"


def test_a_line_that_waited_in_a_buffer_is_as_old_as_it_is() -> None:
    ear = Ear("a")
    assert ear.read({**LINE, "up": 50.0}, 1000.0).written_at == 1000.0
    assert ear.read({**LINE, "up": 51.0}, 1001.2).written_at == pytest.approx(1001.0, abs=0.01)
    assert ear.read({**LINE, "up": 52.0}, 1010.0).written_at == pytest.approx(1002.0, abs=0.01)
    again = ear.read({**LINE, "up": 1.0, "boot": "c"}, 1100.0)
    assert again.written_at == 1100.0, "after a boot its clock is another one"


@pytest.mark.parametrize(
    "told", [[], None, {}, {**LINE, "up": "x"}, {**LINE, "sql": 5}, {**LINE, "notes": 3}]
)
def test_a_line_that_is_not_a_beacons_is_no_line(told: Any) -> None:
    with pytest.raises(LineDamaged):
        Ear("a").read(told, 1.0)
