"""Listen to a node's beacon: one long session a node, opened again whenever it ends.

Only lines are read here; what they mean is decided elsewhere (`flows.rules.watch`).
"""

import contextlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from blocks import HarborSite
from tasks.errors import HarborHaError, HostKeyChanged, LoginRefused
from tasks.guard.on_node.guard_note import heartbeat_path
from tasks.hosts.connection import connect
from tasks.node_program import node_program
from tasks.observation.beats import MAX_LINE, Beat, Ear, LineDamaged
from tasks.observation.on_node import beacon
from tasks.operation.files import PAUSED, shared_path
from tasks.operation.store import nas_path_of
from tasks.postgres.layout import STATE_DIR, layout_of

BEACON = node_program(beacon)

logger = logging.getLogger("harbor_ha.watch")

# A session ends by itself after this at the latest, on the node too (`Host.stream`); the next one follows at once.
SESSION_S = 3600.0
WORD_S = 5.0
# Three words missed: the orchestrator is gone, and the program on the node ends.
SILENCE_S = 20.0
BEAT_S = 1.0
# Lines that did not come: a path or a machine that is gone, and another session is tried.
DEAF_BEATS = 3
# A node that is busy starts a program slowly; hung up meanwhile, it would never be heard.
FIRST_LINE_S = 10.0
# For the login and the way to the first byte, a second attempt included; nothing else ends that wait.
OPENING_S = 25.0
# Between two attempts to open a session: at once after a sound one, then twice as long each time.
PAUSE_S = 0.5
MAX_PAUSE_S = 8.0
# What nobody mends within seconds. Each knock is a line in the node's log of logins, and there are programs that ban
# for it: the failover would be kept out as well.
REFUSED_PAUSE_S = 60.0


def pause_s(failures: int, *, refused: bool = False) -> float:
    """Return the seconds to wait for before the next session.

    Args:
        failures: how many sessions in a row have ended without a line.
        refused: the last one because of the key or the user.
    """
    return REFUSED_PAUSE_S if refused else min(MAX_PAUSE_S, PAUSE_S * 2.0**failures)


class Stream(Protocol):
    """A running beacon: what `Host.stream` gives."""

    @property
    def stdin(self) -> Any:
        """Its input."""

    @property
    def stdout(self) -> Any:
        """Its output."""


Open = Callable[[float], AbstractContextManager[Stream]]


def beacon_request(site: HarborSite, node_name: str, beat_s: float = BEAT_S) -> dict[str, Any]:
    """Say what the beacon of a node looks at; plain data without secrets, one line."""
    layout, nas = layout_of(site), nas_path_of(site, node_name)
    return {
        "bin_dir": layout.bin,
        "major": layout.major,
        "data_dir": layout.data,
        "socket_dir": "/var/run/postgresql",
        "port": layout.port,
        "state_dir": STATE_DIR,
        "guard_file": heartbeat_path({}),
        "shared_paused": shared_path(nas, site.name, PAUSED) if nas else None,
        "silence_s": SILENCE_S + beat_s,
        "beat_s": beat_s,
    }


class Listener:
    """Listens to one node in a thread of its own, whatever becomes of the node.

    Args:
        node: its name.
        request: what the beacon is to look at.
        open_stream: starts the beacon for at most so many seconds.
        hang_up: ends a session that is open, from another thread.

    Attributes:
        beat: the newest line; None before the first.
        came_at: when it came, by the monotonic clock.
        error: why no session is open, for the log; empty while one is, and before the first attempt has ended.
        lines: how many came.
        kept_at: when the node said last that it has a note, by the note's name.
        unkept: why it does not keep one, by name.
    """

    def __init__(
        self, node: str, request: dict[str, Any], open_stream: Open, hang_up: Callable[[], None]
    ) -> None:
        self.node = node
        self.beat: Beat | None = None
        self.came_at = float("-inf")
        self.error = ""
        self.lines = 0
        self.kept_at: dict[str, float] = {}
        self.unkept: dict[str, str] = {}
        self._request = request
        self._open = open_stream
        self._hang_up = hang_up
        self._wanted: dict[str, str] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._late_at = float("inf")
        self._ear = Ear(node)
        self._deaf_s = DEAF_BEATS * float(request.get("beat_s", BEAT_S))
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"beacon {node}")

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up and listen no more; what hangs is not waited for."""
        self._ended.set()
        self._hang_up()

    def keep(self, name: str, text: str) -> None:
        """Have a note kept on the node, with the next word to it; a newer one takes its place."""
        with self._lock:
            self._wanted[name] = text

    def hang_up_when_deaf(self, now: float) -> bool:
        """End a session over which nothing comes any more, so that another one is tried; tell whether it did.

        A machine without power closes nothing: its session would stay open for a quarter of an hour.
        """
        if now <= max(self.came_at + self._deaf_s, self._late_at) or self._ended.is_set():
            return False
        self._late_at = float("inf")
        self.error = "nothing comes from it"
        # Closing takes a lock that a connection attempt may hold.
        threading.Thread(target=self._hang_up, daemon=True).start()
        return True

    def _run(self) -> None:
        failures = 0
        while not self._ended.is_set():
            lines, refused = self.lines, False
            self._late_at = time.monotonic() + OPENING_S
            try:
                # Not all sessions of a hundred sites end in the same second.
                with self._open(SESSION_S * random.uniform(0.8, 1.0)) as stream:
                    self._late_at = time.monotonic() + FIRST_LINE_S
                    self._listen(stream)
                self.error = self.error or "the session has ended"
            except HarborHaError as error:
                self.error, refused = str(error), isinstance(error, LoginRefused | HostKeyChanged)
            except Exception as error:
                # Of what is not ours only the name: its text is not known.
                self.error = type(error).__name__
            finally:
                self._late_at = float("inf")
            failures = failures + 1 if self.lines == lines else 0
            self._ended.wait(pause_s(failures, refused=refused) * random.uniform(0.8, 1.2))

    def _listen(self, stream: Stream) -> None:
        self._say(stream, self._request)
        self._ear, word_at = Ear(self.node, self._ear.notes), time.monotonic()
        while not self._ended.is_set():
            line = stream.stdout.readline(MAX_LINE)
            if not line:
                return
            now = time.monotonic()
            self._take(line, now)
            wanted = self._take_wanted()
            if wanted or now - word_at >= WORD_S:
                self._say(stream, {"keep": wanted})
                word_at = now

    def _take(self, line: bytes, now: float) -> None:
        with contextlib.suppress(ValueError, RecursionError, LineDamaged):
            self.beat = self._ear.read(json.loads(line), now)
            self.came_at, self.error = now, ""
            self.lines += 1
            for name, word in self.beat.kept.items():
                if word in ("kept", "older"):
                    self.kept_at[name] = now
                    self.unkept.pop(name, None)
                else:
                    self.unkept[name] = word

    def _take_wanted(self) -> dict[str, str]:
        with self._lock:
            wanted, self._wanted = self._wanted, {}
        return wanted

    @staticmethod
    def _say(stream: Stream, word: dict[str, Any]) -> None:
        stream.stdin.write(json.dumps(word).encode() + b"\n")
        stream.stdin.flush()


def listener_of(site: HarborSite, node_name: str, beat_s: float = BEAT_S) -> Listener:
    """Make the listener for a database node, over SSH."""
    host = connect(site.node(node_name))

    def open_stream(limit_s: float) -> AbstractContextManager[Stream]:
        # Unmarked: bootstrap would wait for its end, which comes with the watcher's.
        return host.stream(["python3", "-u", "-c", BEACON], timeout=limit_s, marked=False)

    return Listener(node_name, beacon_request(site, node_name, beat_s), open_stream, host.close)
