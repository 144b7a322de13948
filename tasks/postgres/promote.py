"""Make the standby the primary, and complete it: checkpoint and slots."""

import re
from collections.abc import Sequence

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of, peers_of, slot_of
from tasks.postgres.on_node import pg_hold, pg_promote
from tasks.postgres.run_on_node import Authority, run_on_node
from tasks.postgres.sql import execute

_PG_HOLD = node_program(pg_hold)
_PG_PROMOTE = node_program(pg_promote)

# Promotion takes 0.1 s; replaying what was received and not replayed takes the rest.
PROMOTE_LIMIT_S = 60.0
_OPERATION = re.compile(r"[A-Za-z0-9._-]{1,64}")


class PromotionNotFinished(HarborHaError):
    """The standby was told to promote itself and is still in recovery; it may do it at any moment."""


class PromotionFailed(HarborHaError):
    """The node cannot be, or was not, promoted the way it should be."""


class NoWrite(HarborHaError):
    """The node is the primary on a new timeline, but a write does not go through."""


def promote(
    site: HarborSite,
    host: Host,
    *,
    from_timeline: int,
    operation: str,
    limit_s: float = PROMOTE_LIMIT_S,
    unheard: str = "",
    authority: Authority | None = None,
) -> Outcome:
    """Promote the standby and prove it: no recovery, a higher timeline, standby.signal gone, a real commit.

    Called again after it worked, it only proves. Called again while the server is still busy with the first
    request, it waits and does not ask a second time.

    Args:
        from_timeline: the timeline that the standby follows.
        operation: the operation's id; it is written with the heartbeat row.
        limit_s: seconds for all of it.
        unheard: the node whose fence rests on silence: do nothing while this standby has a sign of life of it.

    Returns:
        data: `timeline` and `lsn` (a position after the proving write).

    Raises:
        PromotionNotFinished: still in recovery when time was up.
        PromotionFailed: it hears a primary, was primary before, follows another timeline, or left the wrong state.
        NoWrite: promoted, but a commit did not end within 5 s or was refused.
    """
    if not _OPERATION.fullmatch(operation):
        raise ValueError(f"not an operation's id: {operation!r}")
    answer = run_on_node(
        site,
        host,
        _PG_PROMOTE,
        limit=limit_s + 10,
        from_timeline=from_timeline,
        operation=operation,
        limit_s=limit_s,
        unheard=[site.node(unheard).address, layout_of(site).port] if unheard else None,
        wait_for=sync_names_after(site, host),
        authority=authority,
    )
    state = answer["state"]
    if state == "promoted":
        said = changed if answer["changed"] else unchanged
        detail = f"primary on timeline {answer['timeline']}, written up to {answer['lsn']}"
        return said(detail, timeline=answer["timeline"], lsn=answer["lsn"])
    if state == "heard":
        raise PromotionFailed(
            f"It was not promoted: {answer['why']}.",
            where=host.name,
            meaning="The old primary is alive: the fence is not true any more. Nothing was promoted.",
            remedy="Repair the path to it, or switch it off, then run the flow again.",
        )
    if state == "late":
        raise PromotionNotFinished(
            f"The promotion did not end within {limit_s:.0f} s: {answer['why']}.",
            where=host.name,
            meaning="The request stands; it may become the primary at any moment. The old primary must stay down.",
            remedy="Read its PostgreSQL log and run the flow again; it waits on and does not promote twice.",
        )
    if state == "no write":
        raise NoWrite(
            f"It is the primary on timeline {answer['timeline']}, but a write failed: {answer['why']}.",
            where=host.name,
            meaning="The old primary must stay down; Harbor cannot work yet.",
            remedy="Disk full, read-only, or waiting for a standby: repair and run the flow again.",
        )
    raise PromotionFailed(
        f"It was not promoted: {answer['why']}.",
        where=host.name,
        meaning="Facts have changed since the decision.",
        remedy="Run check to see who is the primary.",
    )


def sync_names_after(site: HarborSite, host: Host) -> str:
    """Return for whom commits wait from the promotion on: with `required` for a standby, also while there is none."""
    if site.postgres.durability != "required":
        return ""
    return f"FIRST 1 ({', '.join(slot_of(peer.name) for peer in peers_of(site, host.name))})"


def hold(site: HarborSite, host: Host, *, authority: Authority) -> Outcome:
    """See what a node is that a killed run may have promoted; the lock is ours, so that run does nothing more.

    Returns:
        data: `state` (`standby`, `pending`: told to promote itself and not done, `primary`, `down`), `timeline`.

    Raises:
        Superseded: the lock there is not ours any more.
    """
    answer = run_on_node(site, host, _PG_HOLD, limit=15, authority=authority)
    detail = f"{answer['state']}" + (f" on timeline {answer['timeline']}" if answer["timeline"] else "")
    return unchanged(detail, state=answer["state"], timeline=answer["timeline"])


def checkpoint(site: HarborSite, primary: Host, *, timeout: float = 300.0) -> Outcome:
    """Write a checkpoint, so that the control file names the true timeline.

    Without it pg_rewind finds source and target on the same timeline and leaves a diverged node as it is.

    Args:
        timeout: seconds; a checkpoint writes all dirty buffers.

    Raises:
        HarborHaError: the control file still names another timeline, or the node is in recovery.
    """
    rows = execute(site, primary, _CHECKPOINT, timeout=timeout)
    recovering, control, current = rows[-1]
    if recovering == "t" or control != current:
        raise HarborHaError(
            f"After a checkpoint the control file says timeline {control}, the server {current or 'recovery'}.",
            where=primary.name,
            meaning="A rewind from this node would see no divergence.",
            remedy="Run check; the node may not be the primary.",
        )
    return changed(f"checkpoint on timeline {current}", timeline=int(current))


def ensure_slots(
    site: HarborSite, primary: Host, *, peers: Sequence[str], anew: Sequence[str] = ()
) -> Outcome:
    """Give the primary exactly the slots of its standbys; a slot that lost its WAL is made again.

    The slot of a standby that is away keeps the xmin of its last word (hot_standby_feedback), and vacuum removes
    nothing that was deleted since, for as long as a copy takes.

    Args:
        peers: the names of the nodes that follow it, or will.
        anew: those that are about to be rewound or cloned: they need no WAL from before, so their slots are made
            anew when they hold back vacuum. A node that goes on as it is needs the WAL that its slot keeps.
    """
    wanted, renewed = (",".join(slot_of(peer) for peer in listed) for listed in (peers, anew))
    rows = execute(site, primary, _ENSURE_SLOTS, wanted=wanted, anew=renewed)
    done = [f"{what} {slot}" for what, slot in rows]
    return changed(", ".join(done)) if done else unchanged(f"slots as wanted: {wanted or 'none'}")


def drop_stale_slots(site: HarborSite, standby: Host) -> Outcome:
    """Drop our slots on a standby: nobody streams from it, and each would keep its WAL for ever."""
    rows = execute(site, standby, _DROP_STALE)
    return changed(f"dropped {', '.join(row[0] for row in rows)}") if rows else unchanged("no stale slots")


_CHECKPOINT = """
CHECKPOINT;
SELECT pg_is_in_recovery(), (SELECT timeline_id FROM pg_control_checkpoint()),
  CASE WHEN NOT pg_is_in_recovery()
    THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
"""

# ~ '^ha_' because `_` is a wildcard of LIKE. Others' slots are none of our business.
_ENSURE_SLOTS = """
SELECT 'dropped', slot_name FROM (
  SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots
   WHERE slot_name ~ '^ha_' AND slot_type = 'physical' AND NOT active
     AND (wal_status = 'lost' OR NOT slot_name = ANY (string_to_array(:'wanted', ','))
       OR coalesce(xmin, catalog_xmin) IS NOT NULL AND slot_name = ANY (string_to_array(:'anew', ',')))) gone;
SELECT 'created', slot_name FROM (
  SELECT name AS slot_name, pg_create_physical_replication_slot(name, true)
    FROM unnest(string_to_array(:'wanted', ',')) AS name
   WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = name)) made;
"""

_DROP_STALE = """
SELECT slot_name FROM (
  SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots
   WHERE pg_is_in_recovery() AND slot_name ~ '^ha_' AND slot_type = 'physical' AND NOT active) gone
"""
