"""Part of the durability service: when a standby last heard its primary, for whoever decides hours later.

The server forgets it: with its receiver, a minute after the primary's last word. A failover that was called then
counted the age of the primary's last known position to its own now, and refused what it had allowed before.
"""

import json
import os
import time
from typing import Any, Dict, Optional

from tasks.guard.on_node.guard_look import reaches
from tasks.on_node.pg_disk import postmaster_of, remove_durably, text_of, write_durably
from tasks.on_node.pg_run import Failed, psql

# As `tasks.postgres.facts.FRESH_MESSAGE_S`: an idle pair is silent for 5 s at the most.
SILENT_S = 8.0
# The note is written again when the machine's clock has been set by more than this.
STEP_S = 1.0

_HEARD = """
SELECT json_build_object(
  'server', pg_postmaster_start_time()::text,
  'lsn', greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text,
  'receipt', (SELECT last_msg_receipt_time::text FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  'age', (SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8
            FROM pg_stat_wal_receiver WHERE status = 'streaming'))::text
"""


class Ear:
    """What is known of the primary's last word; counted by a clock that nobody sets."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know nothing: this node is no standby, or its server did not listen."""
        self.heard_at: Optional[float] = None
        self.server = ""
        self.receipt: Optional[str] = None

    def listen(self, p: Dict[str, Any]) -> None:
        """Take one look; keep the note while the primary is silent, and only then.

        Raises:
            Failed: the own server does not answer; then it hears nobody, and the note is gone.
        """
        standby = postmaster_of(p["data"]) is not None and os.path.exists(p["data"] + "/standby.signal")
        if not standby:
            self.forget()
            drop(p)
            return
        try:
            seen = json.loads(psql(p, _HEARD, 3))
        except (Failed, ValueError):
            self.forget()
            drop(p)
            raise
        now = time.monotonic()
        if seen["server"] != self.server:
            self.forget()
            self.server = seen["server"]
            self.heard_at = adopted(p, seen, now)
        if seen["receipt"] is not None and seen["receipt"] != self.receipt:
            self.receipt = seen["receipt"]
            self.heard_at = max(self.heard_at or 0.0, now - max(0.0, float(seen["age"])))
        if self.heard_at is not None and now - self.heard_at > SILENT_S and primary_lives(p):
            # It does not stream, and yet somebody runs there who may commit.
            self.heard_at = now
        if self.heard_at is None or now - self.heard_at <= SILENT_S:
            drop(p)
        else:
            keep(p, seen, time.time() - (now - self.heard_at))


def note_path(p: Dict[str, Any]) -> str:
    """Return the path of the note."""
    return str(p["state_dir"]) + "/heard.json"


def note_of(p: Dict[str, Any]) -> Dict[str, Any]:
    """Read the note; empty when there is none, or it cannot be read."""
    try:
        found = json.loads(text_of(note_path(p)) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def adopted(p: Dict[str, Any], seen: Dict[str, Any], now: float) -> Optional[float]:
    """Return when the primary was heard by the note of this service before its restart; None when that may be wrong.

    The same server has listened since, and received nothing: a primary that had come back meanwhile would have sent
    what it wrote.
    """
    note = note_of(p)
    if (note.get("server"), note.get("lsn")) != (seen["server"], seen["lsn"]):
        return None
    at = note.get("at")
    return now - max(0.0, time.time() - at) if isinstance(at, float) else None


def primary_lives(p: Dict[str, Any]) -> bool:
    """Tell whether the accepted primary's port is open; without a record of one, whether any peer's is."""
    try:
        accepted = json.loads(text_of(p["state_dir"] + "/accepted.json") or "{}")
    except ValueError:
        accepted = {}
    name = accepted.get("primary") if isinstance(accepted, dict) else None
    known = [peer for peer in p["peers"] if peer[0] == name] or p["peers"]
    return any(reaches(address, int(port)) == "open" for _, address, port in known)


def keep(p: Dict[str, Any], seen: Dict[str, Any], at: float) -> None:
    """Write the note, if it is not there like this."""
    note = note_of(p)
    same = all(note.get(key) == seen[key] for key in ("server", "lsn")) and isinstance(note.get("at"), float)
    if same and abs(note["at"] - at) <= STEP_S:
        return
    text = json.dumps(
        {"silent": True, "at": at, "server": seen["server"], "lsn": seen["lsn"]}, sort_keys=True
    )
    write_durably(note_path(p), text + "\n")


def drop(p: Dict[str, Any]) -> None:
    """Remove the note: the primary is heard, or it is not known."""
    if os.path.exists(note_path(p)):
        remove_durably(note_path(p))
