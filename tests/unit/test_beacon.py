"""The beacon: one line a second from a node, whatever hangs there, and not for longer than somebody listens."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tasks.node_program import node_program
from tasks.observation.beacon import BEACON, Listener, beacon_request
from tasks.observation.beats import Beat, Ear
from tasks.observation.on_node import beacon
from tasks.observation.on_node.beacon_notes import keep, notes_of
from tests.unit.harbor_site import make_site
from tests.unit.local_host import local_host
from tests.unit.local_pair import PORTS, Clusters, real_clusters
from tests.unit.waiting import until


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
