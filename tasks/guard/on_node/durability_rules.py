"""Part of a node program: the next step of synchronous replication, when nobody else is there to take it.

The same table as `flows.rules.durability`, which a test holds against it.
"""

from typing import Any, Dict, Sequence

ABSENCE_LIMIT_S = 10.0
CAUGHT_UP_BYTES = 1 << 20

SYNC, CAUGHT_UP, BEHIND, JUST_LOST, LOST = "sync", "caught up", "behind", "just lost", "lost"


def standby_state(senders: Sequence[Dict[str, Any]], silent_s: float) -> str:
    """Judge the standby by its walsenders.

    Args:
        senders: `state`, `sync_state` and `lag_bytes` of each.
        silent_s: seconds since any of them reported. The row of a machine without power stays for
            wal_sender_timeout, so being listed is not being there.
    """
    streaming = [sender for sender in senders if sender["state"] == "streaming"]
    if not streaming or silent_s >= ABSENCE_LIMIT_S:
        return LOST if silent_s >= ABSENCE_LIMIT_S else JUST_LOST
    if any(sender["sync_state"] in ("sync", "quorum") for sender in streaming):
        return SYNC
    if any(s["lag_bytes"] is not None and s["lag_bytes"] <= CAUGHT_UP_BYTES for s in streaming):
        return CAUGHT_UP
    return BEHIND


def next_step(promise: str, waits: bool, standby: str, recorded: str) -> str:
    """Return one change, or NONE, or HOLD; look again after it.

    Args:
        promise: `async`, `preferred` or `required`.
        waits: whether commits wait for a standby.
        standby: as `standby_state` says.
        recorded: `SYNC`, `ASYNC`, `ASYNC_DEGRADED`, or empty.
    """
    if promise == "async":
        if waits and recorded != "SYNC":
            return "RELAX"
        return "NONE" if recorded == "ASYNC" else "RECORD_ASYNC"
    if not waits and recorded == "SYNC":
        return "RECORD_DEGRADED"
    if promise == "required" and waits and standby in (LOST, JUST_LOST):
        return "HOLD"
    if waits and standby == LOST:
        # On the disk before the first write that may be lost.
        return "RELAX" if recorded == "ASYNC_DEGRADED" else "RECORD_DEGRADED"
    if waits and standby == SYNC and recorded != "SYNC":
        return "RECORD_SYNC"
    if not waits and standby in (CAUGHT_UP, SYNC):
        return "RESTORE"
    if not waits and recorded != "ASYNC_DEGRADED":
        return "RECORD_DEGRADED"
    return "NONE"
