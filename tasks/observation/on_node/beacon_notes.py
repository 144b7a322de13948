"""Part of the beacon: what our flows left on this node, and what the orchestrator asks to have kept here."""

import json
import os
import time
from typing import Any, Dict, Optional

from tasks.on_node.authority import Busy, state_lock
from tasks.on_node.pg_disk import text_of, write_durably

# What a watcher acts by, and what it tells on; by the names of tasks/operation/files.py.
READ = ("paused", "accepted", "lock", "operation", "durability", "verdict")
# What it may have kept, and the field by which the newer one is told from the older.
KEPT = {"last_primary": "at", "witnessed": "at", "verdict": "since"}


def notes_of(want: Dict[str, Any]) -> Dict[str, Any]:
    """Read the state files; one that cannot be read is named as damaged, and must not pass for absent."""
    found: Dict[str, Any] = {}
    for name in READ:
        value = note_in("%s/%s.json" % (want["state_dir"], name))
        if value is not None:
            found[name] = value
    for name, field in sorted(KEPT.items()):
        value = note_in("%s/%s.json" % (want["state_dir"], name))
        if name not in found and value is not None:
            # Only how old it is: the note of the witnesses alone is longer than all the rest.
            found[name] = {field: value.get(field)}
    guard = note_in(want["guard_file"])
    if guard is not None:
        found["guard"] = {key: guard.get(key) for key in ("version", "self_fence_s", "uptime")}
    return found


def shared_pause(want: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Read the NAS's copy of the pause. May hang with the NAS: ask in a `Question`.

    Raises OSError where nothing of ours is: a NAS that is not mounted does not say that the pause is over.
    """
    os.stat(os.path.dirname(want["shared_paused"]))
    return note_in(want["shared_paused"])


def note_in(path: str) -> Optional[Dict[str, Any]]:
    """Read a small JSON object; None when there is none."""
    try:
        if os.path.isfile(path) and os.path.getsize(path) > MAX_NOTE:
            return {"damaged": True}
        text = text_of(path)
        value = None if text is None else json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {"damaged": True}
    return value if value is None or isinstance(value, dict) else {"damaged": True}


def keep(want: Dict[str, Any], name: str, text: str) -> str:
    """Write a note, unless what is there is as new; say what became of it.

    A line may be delivered a minute late, and another orchestrator may have written since.
    """
    field = KEPT.get(name)
    if field is None:
        return "not ours to keep"
    try:
        given = float(json.loads(text)[field])
        with state_lock(want):
            path = "%s/%s.json" % (want["state_dir"], name)
            known = (note_in(path) or {}).get(field)
            if isinstance(known, (int, float)) and _newer(known, given):
                return "older"
            write_durably(path, text)
    except Busy:
        return "busy"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return type(error).__name__
    return "kept"


def _newer(known: float, given: float) -> bool:
    """Whether a note that is there is newer than another, and not of a clock that went wrong.

    One of those would keep all later ones out, and the position that it holds would pass for the newest.
    """
    return given <= known < given + MAX_AHEAD_S and known <= time.time() + MAX_SKEW_S


# A word is no later on its way: the session has ended by then.
MAX_AHEAD_S = 120.0
# Between the clocks of a node and an orchestrator that are both kept right.
MAX_SKEW_S = 5.0
# A line is read up to 64 KiB, and all notes of a node are in it; what our flows write is below 2.
MAX_NOTE = 8 << 10


def guard_age(notes: Dict[str, Any], up: float) -> Optional[float]:
    """Tell how long ago the guard said that it runs; None when it did not, or said it before this boot."""
    told = (notes.get("guard") or {}).get("uptime")
    if not isinstance(told, (int, float)) or told > up + 1:
        return None
    return max(0.0, up - float(told))
