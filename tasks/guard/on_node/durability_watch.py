"""Runs on a database node all the time: writes go on within 15 s of losing the standby, and that is recorded.

In `preferred` it relaxes synchronous replication when the standby has said nothing for 10 s, also when the
orchestrator is away, and restores it when the standby has caught up. In `required` it only records. On a standby
it keeps when the primary was last heard; a primary tells on the NAS that it lives.
"""

import json
import os
import time
from typing import Any, Dict, Optional

from tasks.guard.on_node.beat import Beat
from tasks.guard.on_node.durability_rules import next_step, standby_state
from tasks.guard.on_node.guard_look import CONFIG
from tasks.guard.on_node.heard import Ear
from tasks.on_node.pg_disk import postmaster_of, text_of, write_durably
from tasks.on_node.pg_run import Failed, psql
from tasks.on_node.pg_sync import set_sync

PERIOD_S = 2.0
RELOAD_S = 2.0
_RECORDS = {"RECORD_SYNC": "SYNC", "RECORD_ASYNC": "ASYNC", "RECORD_DEGRADED": "ASYNC_DEGRADED"}

# The reply time is the standby's clock: only whether it moves is looked at.
_LOOK = """
SELECT CASE WHEN pg_is_in_recovery() THEN 'null' ELSE json_build_object(
  'lsn', pg_current_wal_lsn()::text,
  'waits', current_setting('synchronous_standby_names') <> '',
  'senders', coalesce((SELECT json_agg(json_build_object('state', state, 'sync_state', sync_state,
      'lag_bytes', pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint, 'reply', reply_time::text))
    FROM pg_stat_replication
    WHERE application_name = ANY (string_to_array('%s', ','))), '[]'))::text END
"""


class Watch:
    """When the standby was last heard; begins anew with every start, as if it had just been heard."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: this node is no primary."""
        self.heard_at = time.monotonic()
        self.replies = ""

    def silent_s(self, senders: Any) -> float:
        """Return the seconds since a standby reported."""
        replies = json.dumps(sorted(str(sender["reply"]) for sender in senders))
        if senders and replies != self.replies:
            self.heard_at = time.monotonic()
        self.replies = replies
        return time.monotonic() - self.heard_at


def look(p: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Ask the server; None when it is no primary."""
    if postmaster_of(p["data"]) is None or os.path.exists(p["data"] + "/standby.signal"):
        return None
    seen: Optional[Dict[str, Any]] = json.loads(psql(p, _LOOK % ",".join(p["standbys"]), 5))
    return seen


def recorded(p: Dict[str, Any]) -> str:
    """Return the recorded state; empty when there is none or it is damaged."""
    try:
        return str(json.loads(text_of(p["state_dir"] + "/durability.json") or "{}").get("state", ""))
    except ValueError:
        return ""


def take(p: Dict[str, Any], watch: Watch) -> bool:
    """Take one step if one is due; tell whether one was taken."""
    seen = look(p)
    if seen is None:
        watch.forget()
        return False
    standby = standby_state(seen["senders"], watch.silent_s(seen["senders"]))
    step = next_step(p["durability"], seen["waits"], standby, recorded(p))
    if step in ("NONE", "HOLD"):
        return False
    print("%s: standby %s, position %s" % (step, standby, seen["lsn"]), flush=True)
    if step in _RECORDS:
        state = {"state": _RECORDS[step], "lsn": seen["lsn"], "at": time.time()}
        write_durably(p["state_dir"] + "/durability.json", json.dumps(state, sort_keys=True) + "\n")
    else:
        names = "" if step == "RELAX" else "FIRST 1 (%s)" % ", ".join(p["standbys"])
        set_sync(p, names)
        return in_force(p, names)
    return True


def in_force(p: Dict[str, Any], names: str) -> bool:
    """Wait until the server goes by a setting, for a reload is not instant and the next look must see its effect."""
    deadline = time.monotonic() + RELOAD_S
    while psql(p, "SHOW synchronous_standby_names") != names:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def loop() -> None:
    """Look every two seconds; a pass that fails is told and tried again."""
    watch, ear, beat = Watch(), Ear(), Beat()
    while True:
        try:
            p = json.loads(text_of(CONFIG) or "{}")
            beat.pulse(p)
            while take(p, watch):
                continue
            ear.listen(p)
        except (Failed, ValueError, KeyError, OSError) as error:
            print("%s: %s" % (type(error).__name__, error), flush=True)
        time.sleep(PERIOD_S)


if __name__ == "__main__":
    loop()
