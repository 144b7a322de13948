"""What the state files that nodes tell of say to a watcher: paused, in progress, cooling down, left unfinished."""

import math
from collections.abc import Iterable

from tasks.clock import Moment
from tasks.observation.beats import Beat
from tasks.operation.files import LOCK, OPERATION, PAUSED
from tasks.operation.holder import describe, known_dead
from tasks.operation.record import Lock, OperationRecord, RecordDamaged, lock_from, record_from

_ON_NAS = f"shared_{PAUSED}"
# A node that is heard tells its notes again each second.
_SETTLED_S = 5.0


def pause_in(beats: Iterable[Beat]) -> str:
    """Return why the site is paused, as any node said last; the one that knows may be the one that is silent.

    What one said that is silent since is over when another has read on the NAS, later, that there is no pause: it was
    ended while that node was off.
    """
    every = list(beats)
    over_at = max((beat.shared_at or -math.inf for beat in every if _not_on_nas(beat)), default=-math.inf)
    for beat in every:
        local = beat.notes.get(PAUSED) if beat.written_at + _SETTLED_S >= over_at else None
        shared = beat.notes.get(_ON_NAS) if (beat.shared_at or math.inf) >= over_at else None
        for note in (local, shared):
            if note is not None:
                reason = note.get("reason") if isinstance(note, dict) else None
                return str(reason or "the pause cannot be read")
    return ""


def _not_on_nas(beat: Beat) -> bool:
    return _ON_NAS in beat.notes and beat.notes[_ON_NAS] is None


def busy_with(fresh: Iterable[Beat], now: Moment) -> str:
    """Say who works on the site, by the locks on nodes that are heard; a silent one's may be over."""
    for beat in fresh:
        lock = _lock(beat)
        if lock is not None and _alive(lock, beat, now):
            return f"{describe(lock.holder)} works on operation {lock.op_id}."
    return ""


def cooling(beats: Iterable[Beat], cooldown_s: float, now: Moment) -> bool:
    """Whether the last failover is too recent; an open one goes on all the same."""
    record = latest(beats)
    if record is None or record.open or record.failover_at is None:
        return False
    return now.wall - record.failover_at < cooldown_s


def unfinished_in(beats: Iterable[Beat]) -> OperationRecord | None:
    """Return the operation that has come to promoting and was left open: what it promoted serves nobody yet."""
    record = latest(beats)
    return record if record is not None and record.open and record.past_return else None


def latest(beats: Iterable[Beat]) -> OperationRecord | None:
    """Return the newest operation record; one that cannot be read is the flow's to refuse."""
    found = []
    for beat in beats:
        try:
            record = record_from(beat.notes.get(OPERATION), beat.node)
        except RecordDamaged:
            continue
        if record is not None:
            found.append(record)
    return max(found, key=lambda record: record.progress, default=None)


def _lock(beat: Beat) -> Lock | None:
    try:
        lock = lock_from(beat.notes.get(LOCK), beat.node)
    except RecordDamaged:
        return None
    # What a killed run left is over at once on the machine where it ran.
    return None if lock is None or known_dead(lock.holder) else lock


def _alive(lock: Lock, beat: Beat, now: Moment) -> bool:
    return lock.alive(now.wall, beat.boot, beat.up_s + now.monotonic - beat.written_at)
