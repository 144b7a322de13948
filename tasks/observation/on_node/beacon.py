"""Runs on a node: says once a second how its PostgreSQL is, for as long as somebody listens and speaks.

The first line of its input says what to look at; each further line is a word of the orchestrator, with notes to
keep. It ends with its input, or when no word came for `silence_s` seconds, or a line cannot be got rid of: it never
outlives its orchestrator for long. What may hang (the server, its disk, the NAS) is asked in threads, and never
keeps a line waiting: the line then says how old the last answer is.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any, Dict

from tasks.guard.on_node.guard_question import Question
from tasks.observation.on_node.beacon_notes import guard_age, keep, notes_of, shared_pause
from tasks.observation.on_node.beacon_talk import MUTE, SHUT, Talk, knock
from tasks.on_node.authority import boot_id, uptime

# Its server is asked twice for each line.
ASKS_A_BEAT = 2
# How soon a line follows what has changed.
TICK_S = 0.1
NOTES_S = 1.0
SHARED_S = 15.0
# From here on an answer is late, and its coming is worth a line of its own.
LATE_S = 1.2
# Unchanged notes are told again so often: the line may be the first that somebody reads.
RETELL_S = 20.0
NEVER = float("-inf")


class Beacon:
    """What is known of this node, and when it was told last."""

    def __init__(self, want: Dict[str, Any]) -> None:
        self.want = want
        self.word_at = time.monotonic()
        self.talk = Talk(want)
        self.sql = Question(self.talk.ask)
        self.door = Question(lambda: knock(want))
        self.notes = Question(lambda: notes_of(want))
        self.shared = Question(lambda: shared_pause(want))
        self.keeping = threading.Lock()
        self.due: Dict[str, float] = {}
        # Until when all was well with each: what is not left open does no harm, however old its last answer is.
        self.well_at = {"sql": NEVER, "door": NEVER}
        self.number = 0
        self.told_notes: Any = None
        self.told_at = float("-inf")
        self.kept: Dict[str, str] = {}

    def is_due(self, name: str, every_s: float) -> bool:
        """Whether so many seconds have passed since the last time."""
        now = time.monotonic()
        if now < self.due.get(name, float("-inf")):
            return False
        self.due[name] = now + every_s
        return True

    def look(self) -> None:
        """Put the questions that are due; wait for none."""
        if self.is_due("notes", NOTES_S):
            self.notes.put(0)
        if self.want.get("shared_paused") and self.is_due("shared", SHARED_S):
            self.shared.put(0)
        self.talk.give_up_what_is_stuck()
        for name, question in (("sql", self.sql), ("door", self.door)):
            if question.hangs:
                continue
            if question.answer is not None and question.error is None and question.answer not in (SHUT, MUTE):
                self.well_at[name] = time.monotonic()
            # One that has hung is asked again the moment that it answers: what stood still for two seconds is well
            # again at once, and not after another half second.
            if self.is_due(name, self.want["beat_s"] / ASKS_A_BEAT):
                question.put(0)

    def state(self) -> Any:
        """What is worth a line at once when it changes."""
        role = self.sql.answer.get("in_recovery") if self.sql.answer else None
        late = time.monotonic() - min(self.well_at.values()) > LATE_S * self.want["beat_s"]
        return (late, role, self.door.answer, self.sql.error is not None)

    def line(self) -> Dict[str, Any]:
        """Compose a line. Ages are in seconds, at the moment of the line."""
        now, up = time.monotonic(), uptime()
        notes = self.notes.answer or {}
        self.number += 1
        told: Dict[str, Any] = {"n": self.number, "up": up, "boot": boot_id()}
        told["sql"] = self.sql.answer
        told["sql_age"] = None if self.sql.answer is None else now - self.sql.asked_at
        told["ended"] = self.sql.error is not None
        told["door"] = self.door.answer
        for name, well_at in sorted(self.well_at.items()):
            told[name + "_well_age"] = None if well_at == NEVER else now - well_at
        told["guard_age"] = guard_age(notes, up)
        told["shared_age"] = None if self.shared.asked_at < 0 else now - self.shared.asked_at
        if self.kept:
            told["kept"], self.kept = self.kept, {}
        whole = dict(notes) if self.shared.asked_at < 0 else dict(notes, shared_paused=self.shared.answer)
        seen = dict(whole, guard=dict(whole.get("guard") or {}, uptime=None))
        # What was not read yet is not gone: the first line of a session ended pauses and locks.
        known = self.notes.answer is not None
        if known and (seen != self.told_notes or now - self.told_at > RETELL_S):
            self.told_notes, self.told_at, told["notes"] = seen, now, seen
        return told

    def hear(self, line: str) -> None:
        """Take a word of the orchestrator, and keep what it brings; beside the rest, for a disk may hang."""
        self.word_at = time.monotonic()
        try:
            word = json.loads(line)
            wanted = dict(word.get("keep") or {})
        except (ValueError, AttributeError, TypeError):
            return
        if wanted:
            threading.Thread(target=self.keep, args=(wanted,), daemon=True).start()

    def keep(self, wanted: Dict[str, str]) -> None:
        """Write notes, one word after the other; while a disk hangs, what comes is dropped."""
        if not self.keeping.acquire(False):
            return
        try:
            for name, text in sorted(wanted.items()):
                self.kept = dict(self.kept, **{name: keep(self.want, name, text)})
        finally:
            self.keeping.release()

    def leave(self) -> None:
        """End at once, whatever hangs, and take the session along."""
        self.talk.close()
        os._exit(0)


def listen(beacon: Beacon) -> None:
    """Read words until there are no more."""
    for line in iter(sys.stdin.readline, ""):
        beacon.hear(line)
    beacon.leave()


def watch_over(beacon: Beacon) -> None:
    """End it when nobody has said a word for too long: a line that nobody takes would hold it for ever."""
    while time.monotonic() - beacon.word_at < beacon.want["silence_s"]:
        time.sleep(TICK_S * 5)
    beacon.leave()


def main() -> None:
    """Say how the node is until it is time to end."""
    beacon = Beacon(json.loads(sys.stdin.readline()))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: beacon.leave())
    for target in (listen, watch_over):
        threading.Thread(target=target, args=(beacon,), daemon=True).start()
    beat_at, before = time.monotonic(), None
    try:
        while True:
            beacon.look()
            time.sleep(TICK_S)
            now, state = time.monotonic(), beacon.state()
            if now >= beat_at or state != before:
                sys.stdout.write(json.dumps(beacon.line(), separators=(",", ":")) + "\n")
                sys.stdout.flush()
                beat_at, before = now + beacon.want["beat_s"], state
    except (OSError, ValueError):
        beacon.leave()


if __name__ == "__main__":
    main()
