"""Make a former primary follow again: as it is, rewound, or (in standby.py) cloned. Which one, a rule says."""

from typing import Any

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres import promote, proof
from tasks.postgres.layout import PASSFILE, layout_of, peers_of
from tasks.postgres.on_node import pg_await_copy, pg_follow, pg_rewind
from tasks.postgres.run_on_node import Authority, run_on_node
from tasks.postgres.sql import document

_PG_REWIND = node_program(pg_rewind)
_PG_AWAIT_COPY = node_program(pg_await_copy)
_PG_FOLLOW = node_program(pg_follow)

# Replay of what a standby missed before it answers; a database of some GB after an hour away.
_START_LIMIT_S = 300.0
_RECOVERY_LIMIT_S = 600.0
_REWIND_LIMIT_S = 1800.0


class NotFollowing(HarborHaError):
    """The node did not come up as a standby of the primary."""


class CannotFollow(NotFollowing):
    """The node's data will never follow that primary: WAL that it needs is gone, or it is on another line."""


class RewindFailed(HarborHaError):
    """pg_rewind could not be used or did not end; the node needs a clone.

    Attributes:
        half: the directory is a mixture and must not be started.
    """

    def __init__(self, what: str, where: str, half: bool) -> None:
        self.half = half
        super().__init__(
            what,
            where=where,
            meaning="The data directory is half rewound; it must not be started."
            if half
            else "The data directory is as it was.",
            remedy="Clone the node; the old directory is kept aside.",
        )


def follow(site: HarborSite, standby: Host, primary: Host, *, authority: Authority | None = None) -> Outcome:
    """Start the node as a standby and prove that it replays; for all ways to rejoin, as their last step.

    Gives the primary its slots, clears what must not be in postgresql.auto.conf, restores the autostart, drops
    stale slots. On a standby that follows already it only proves.

    Raises:
        CannotFollow: its log says that only a copy helps.
        NotFollowing: it runs as a primary, does not start, or does not replay a marker.
    """
    slots = promote.ensure_slots(site, primary, peers=[peer.name for peer in peers_of(site, primary.name)])
    answer = run_on_node(
        site, standby, _PG_FOLLOW, limit=_START_LIMIT_S + 10, limit_s=_START_LIMIT_S, authority=authority
    )
    if answer.get("cannot_follow"):
        raise _not_following(standby, answer["problem"], CannotFollow)
    if "problem" in answer:
        raise _not_following(standby, answer["problem"])
    stale = promote.drop_stale_slots(site, standby)
    try:
        marker = proof.replicate_marker(site, standby, primary)
    except proof.MarkerNotReplayed as error:
        script = ["sh", "-c", 'tail -c "+$1" "$2" | tail -n 200', "sh", str(answer["log_from"] + 1)]
        log = standby.run([*script, layout_of(site).log]).stdout.strip()
        kind = CannotFollow if pg_follow.CANNOT_FOLLOW.search(log) else NotFollowing
        tail = "\n".join(log.splitlines()[-5:])
        raise _not_following(standby, f"{error.what} Its log ends: {tail}", kind) from error
    did = answer["changed"] or slots.changed or stale.changed
    said = changed if did else unchanged
    return said(f"follows {primary.name}; {marker.detail}", **marker.data)


def await_copy(site: HarborSite, node: Host, *, limit_s: float = _REWIND_LIMIT_S) -> Outcome:
    """Wait for a rewind or copy on the node that a killed flow left running; its end decides what comes next.

    Raises:
        NotFollowing: it still runs when the time is up.
    """
    answer = run_on_node(site, node, _PG_AWAIT_COPY, limit=limit_s + 10, limit_s=limit_s)
    if answer["busy"]:
        raise _not_following(node, f"a rewind or copy from before still runs after {limit_s:.0f} s.")
    return unchanged(f"no copy is under way; waited {answer['waited_s']:.1f} s")


def rewind(
    site: HarborSite, node: Host, primary: Host, *, operation: str, authority: Authority | None = None
) -> Outcome:
    """Rewind a stopped, diverged node to the primary's history; it is not started (`follow` does that).

    First a checkpoint on the primary: without it pg_rewind sees no divergence. What only this node has is kept
    in /var/lib/harbor-ha/diverged/<operation>/. Run again after it worked, it does nothing.

    Args:
        operation: the operation's id; names the evidence.

    Returns:
        data: `evidence`, the directory with the diverged WAL.

    Raises:
        RewindFailed: clone instead.
    """
    promote.checkpoint(site, primary)
    # After the checkpoint, before anything is read: from here on the primary keeps what the rewound node needs.
    promote.ensure_slots(
        site, primary, peers=[peer.name for peer in peers_of(site, primary.name)], anew=[node.name]
    )
    limits = {"recovery_s": _RECOVERY_LIMIT_S, "rewind_s": _REWIND_LIMIT_S}
    answer = run_on_node(
        site,
        node,
        _PG_REWIND,
        limit=sum(limits.values()) + 60,
        operation=operation,
        source=f"host={primary.address} port={layout_of(site).port} user={site.postgres.rewind.user} "
        "dbname=postgres sslmode=require connect_timeout=5",
        passfile=PASSFILE,
        authority=authority,
        **limits,
        **history_of(site, primary),
    )
    if "problem" in answer:
        raise RewindFailed(f"It was not rewound: {answer['problem']}.", node.name, answer["half"])
    if answer["state"] == "already":
        return unchanged("rewound before and not started since", evidence=answer["evidence"])
    return changed(
        f"rewound to {answer['switchpoint']} of timeline {answer['timeline']}; "
        f"what only it had is kept in {answer['evidence']}",
        evidence=answer["evidence"],
    )


def history_of(site: HarborSite, primary: Host) -> dict[str, Any]:
    """Read the primary's timeline, its history's text and its position, as the programs on the nodes take them."""
    seen = document(site, primary, _HISTORY)
    return {
        "primary_timeline": seen["timeline"],
        "history": seen["history"] or "",
        "primary_lsn": seen["lsn"],
    }


def _not_following(standby: Host, why: str, kind: type[NotFollowing] = NotFollowing) -> NotFollowing:
    return kind(
        f"It does not follow: {why}",
        where=standby.name,
        meaning="The site has no standby there.",
        remedy="Run rejoin again; it looks anew and clones when nothing else works.",
    )


_HISTORY = """
SELECT json_build_object('timeline', timeline, 'lsn', pg_current_wal_lsn()::text, 'history', pg_read_file(
    'pg_wal/' || lpad(upper(to_hex(timeline)), 8, '0') || '.history', 0, 1048576, true))
  FROM (SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int AS timeline) here
"""
