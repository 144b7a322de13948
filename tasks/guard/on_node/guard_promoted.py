"""Part of the guard: a promotion that comes true when nobody waits for it any more is accepted by its own node.

A replay of a minute outlasted the run that had asked for the promotion, nobody called again, and nothing said that the
new primary is one: the old one was back in touch, found nobody accepted beside itself, and took clients' writes.
"""

import os
from typing import Any, Dict, Optional, Tuple

from tasks.guard.on_node.guard_look import accepted
from tasks.guard.on_node.guard_rules import Claim
from tasks.on_node.accepted_here import accept_promoted
from tasks.on_node.authority import Busy, state_lock, state_of
from tasks.on_node.pg_disk import postmaster_of
from tasks.on_node.pg_run import Failed, psql
from tasks.on_node.pg_told import forget_request, requested

# One answer, so that a promotion between two of them is not taken for what was before it.
SERVES_SQL = """
SELECT pg_is_in_recovery(),
  CASE WHEN NOT pg_is_in_recovery() THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  (SELECT system_identifier FROM pg_control_system());
"""
# (timeline, system identifier) of a server that is a primary.
Serves = Tuple[int, str]


def settle_own_promotion(p: Dict[str, Any]) -> str:
    """Accept this node as the primary where it was told to become one, and has; tell `accepted`, or nothing.

    Where its server has been started anew as a standby, it has forgotten what it was told: `void`, and the request
    goes, here and on the NAS, where an old primary waits for it that cannot ask this server.

    Under the state lock: a program that still waits for the promotion holds it, and accepts by itself.
    """
    note = state_of(p, "promotion")
    if not is_void(note) and not is_open(note, accepted(p)):
        return ""
    try:
        with state_lock(p):
            return _settle(p, state_of(p, "promotion"), accepted(p))
    except Busy:
        return ""


def _settle(p: Dict[str, Any], note: Optional[Dict[str, Any]], own: Claim) -> str:
    void = is_void(note)
    if not void and not is_open(note, own):
        return ""
    came = came_true(note, own, serves(p))
    if came is not None:
        return "accepted" if accept_promoted(p, *came) else ""
    postmaster = postmaster_of(p["data"])
    if not void and (postmaster is None or not is_standby(p) or requested(p, postmaster)):
        return ""
    forget_request(p)
    return "void"


def is_void(note: Optional[Dict[str, Any]]) -> bool:
    """Tell whether somebody has found that the request is void, and the NAS may not know it yet."""
    return note is not None and bool(note.get("void"))


def is_standby(p: Dict[str, Any]) -> bool:
    """Ask this node's server whether it is a standby that nothing on disk tells to promote itself."""
    try:
        return psql(p, "SELECT pg_is_in_recovery()") == "t" and not os.path.exists(p["data"] + "/promote")
    except Failed:
        return False


def is_open(note: Optional[Dict[str, Any]], own: Claim) -> bool:
    """Tell whether this node was told to promote itself, and nobody was accepted by that term or a later one."""
    numbers = [(note or {}).get(key) for key in ("term", "from_timeline")]
    if note is None or is_void(note) or not all(isinstance(number, int) for number in numbers):
        return False
    ours = own is not None and own.get("system_identifier") == note.get("system_identifier")
    return not ours or int((own or {}).get("term") or 0) < note["term"]


def came_true(
    note: Optional[Dict[str, Any]], own: Claim, serves: Optional[Serves]
) -> Optional[Tuple[int, int, str]]:
    """Return what is to be accepted, as timeline, term and system identifier; None while nothing is.

    Args:
        note: promotion.json; whoever finds that the request is void removes it (pg_hold).
        own: who was accepted, as this node knows.
        serves: what the server says of itself; None for a standby, or one that does not answer.
    """
    if note is None or serves is None or not is_open(note, own):
        return None
    timeline, sysid = serves
    if sysid != note["system_identifier"] or timeline <= note["from_timeline"]:
        return None
    return timeline, note["term"], sysid


def serves(p: Dict[str, Any]) -> Optional[Serves]:
    """Ask this node's server whether it is a primary."""
    try:
        recovering, timeline, sysid = psql(p, SERVES_SQL).split("|")
    except (Failed, ValueError):
        return None
    return None if recovering == "t" else (int(timeline), sysid)
