"""What the newest lines of the nodes say: who is heard, who claims to be the primary, what is wrong with it."""

from collections.abc import Sequence
from typing import Any

from tasks.clock import Moment
from tasks.observation.beats import Beat
from tasks.operation.files import ACCEPTED
from tasks.postgres.facts import FRESH_MESSAGE_S

# A beacon asks its server each half second and tells at once what has changed.
SUSPECT_S = 1.8
# A line a second; a second one may be on its way again after it was lost.
SPEAKS_S = 2.5
_SURELY_AFTER_S = 2.0


def limits(beat_s: float) -> tuple[float, float]:
    """Return for how long an answer counts, and a line, where a line comes each so many seconds."""
    slack = (beat_s - 1.0) * 2
    return SUSPECT_S + slack, SPEAKS_S + slack


def fresh_of(beats: Sequence[Beat], now: Moment, beat_s: float) -> list[Beat]:
    """Return the lines of the nodes that are heard."""
    return [beat for beat in beats if now.monotonic - beat.written_at <= limits(beat_s)[1]]


def has_asked(beat: Beat, at: float, speaks_s: float) -> bool:
    """Whether a beacon had the time to ask its server: of a session that has just begun it says nothing against it.

    A path that is whole again was taken for a server that does not answer on a machine that lives.
    """
    return beat.answered_at is not None or at - beat.session_at > speaks_s


def hears(age_s: float, after_s: float, patience_s: float) -> bool:
    """Whether a primary that was heard so long ago, so long after it was last well, lives.

    An idle one is heard each 5 s. Right after a power cut its last word is a moment younger than its last answer.
    """
    return age_s <= patience_s or (after_s > _SURELY_AFTER_S and age_s <= FRESH_MESSAGE_S)


def claims(beat: Beat, now: Moment, beat_s: float) -> bool:
    """Whether a node answers as primary."""
    recent = beat.answered_at is not None and now.monotonic - beat.answered_at <= limits(beat_s)[1]
    # One that has just been shut down, in a switchover, is none beside its successor.
    return recent and beat.in_recovery is False and not beat.ended


def accepted_by(beats: Sequence[Beat]) -> list[tuple[int, int, str]]:
    """Return who was accepted as primary, as any node noted it: timeline, rank behind who answers, name."""
    found: list[tuple[int, int, str]] = []
    for beat in beats:
        note: Any = beat.notes.get(ACCEPTED)
        if isinstance(note, dict) and isinstance(note.get("primary"), str):
            timeline = note.get("timeline")
            found.append((timeline if isinstance(timeline, int) else 0, 0, note["primary"]))
    return found


def trouble_of(primary: str, own: Beat | None, speaks: bool, at: float) -> str:
    """Say what is wrong with a primary that does not answer."""
    if own is None or not speaks:
        return f"nothing is heard from {primary}"
    if own.in_recovery:
        return f"PostgreSQL on {primary} is a standby"
    answered = own.answered_at is not None and at - own.answered_at <= SUSPECT_S
    if answered:
        return f"PostgreSQL on {primary} lets nobody in; its machine lives"
    state = "has ended its sessions" if own.ended else "does not answer"
    return f"PostgreSQL on {primary} {state}; its machine lives"
