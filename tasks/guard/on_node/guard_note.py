"""Part of node programs: what the guard notes down, where it can. No note keeps an act from being done.

/run is in memory and takes a note when the disk is full or read-only; it is empty after a boot.
"""

import json
import os
from typing import Any, Dict, Optional

from tasks.guard.on_node.guard_rules import PROMOTION_HELD, SELF_FENCED, START_HELD
from tasks.on_node.files import make_directories, write_file
from tasks.on_node.pg_disk import remove_durably, text_of, write_durably

RUN_DIR = "/run/harbor-ha"


def state_path(p: Dict[str, Any]) -> str:
    """Return the file that says that the node has fenced itself."""
    return str(p["state_dir"]) + "/self_fence.json"


def run_path(p: Dict[str, Any], name: str) -> str:
    """Return the path of a note in memory."""
    return "%s/%s.json" % (p.get("run_dir", RUN_DIR), name)


def heartbeat_path(p: Dict[str, Any]) -> str:
    """Return the file by which the guard tells that it runs."""
    return run_path(p, "guard")


def write_volatile(path: str, text: str) -> None:
    """Write a file in /run, whole or not at all; nothing that somebody has put there is followed."""
    make_directories(os.path.dirname(path), 0o755)
    write_file(path, text.encode(), 0o644)


def note_fence(p: Dict[str, Any], note: Dict[str, Any]) -> None:
    """Note that the node has fenced itself: in memory, which survives this program, and on the disk."""
    text = json.dumps(note, sort_keys=True) + "\n"
    try:
        write_volatile(run_path(p, "self_fence"), text)
    finally:
        write_durably(state_path(p), text)


def note_held_start(p: Dict[str, Any], why: str, told: bool) -> None:
    """Note that a start was refused for now; after the next boot the boot guard decides anew.

    Args:
        told: because a standby was told to promote itself; that stays so while nothing is heard of it.
    """
    write_volatile(run_path(p, "held_start"), json.dumps({"why": why, "told": told}) + "\n")


def held(p: Dict[str, Any]) -> Optional[str]:
    """Tell why the server does not run, if the guard may start it again."""
    if os.path.exists(run_path(p, "self_fence")) or os.path.exists(state_path(p)):
        return SELF_FENCED
    text = text_of(run_path(p, "held_start"))
    if text is None:
        return None
    try:
        told = bool(json.loads(text)["told"])
    except (ValueError, KeyError, TypeError):
        # Damaged: the more careful of the two.
        told = True
    return PROMOTION_HELD if told else START_HELD


def forget(p: Dict[str, Any]) -> None:
    """Drop the notes. Raises OSError when one cannot be dropped; the others are gone."""
    problem = None
    for path in (run_path(p, "held_start"), run_path(p, "self_fence"), state_path(p)):
        try:
            if text_of(path) is not None:
                remove_durably(path)
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem
