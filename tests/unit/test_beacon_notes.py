"""What a beacon that runs in this process tells: notes, pauses, sessions that break, and lines that are not its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import HostUnreachable, LoginRefused
from tasks.guard.on_node.guard_question import Question
from tasks.observation.beacon import Listener, pause_s
from tasks.observation.beats import Ear, LineDamaged
from tasks.observation.on_node import beacon
from tests.unit.waiting import until

LINE = {"n": 1, "up": 50.0, "boot": "b", "sql": None, "sql_age": None, "ended": False, "door": None}
LINE |= {"sql_well_age": None, "door_well_age": None, "guard_age": None, "shared_age": None}


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
