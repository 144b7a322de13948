"""Does the standby hold everything that a stopped primary ever wrote?"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.promotion import stopped
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.postgres.facts import NodeFacts


class Proof(StrEnum):
    """Whether a standby has everything of a primary that was shut down."""

    PROVEN = "PROVEN"
    NOT_YET = "NOT_YET"
    NO_SHUTDOWN = "NO_SHUTDOWN"
    IMPOSSIBLE = "IMPOSSIBLE"


@dataclass(frozen=True)
class ProofView:
    """A stopped primary and the standby that is to replace it."""

    shut_down: bool
    same_line: bool
    beyond: bool
    checkpoint: str = "unknown"
    replayed: str = "unknown"


PROOF_RULES: tuple[Rule[ProofView, Proof], ...] = (
    Rule(
        "no clean shutdown",
        "the primary's control file does not say `shut down`, or a server still runs",
        lambda v: not v.shut_down,
        Proof.NO_SHUTDOWN,
        "The primary has not been shut down cleanly.",
    ),
    Rule(
        "another line",
        "other system identifier or timeline, or the standby is not in recovery",
        lambda v: not v.same_line,
        Proof.IMPOSSIBLE,
        "The standby does not follow this primary (database, timeline or role differ).",
    ),
    Rule(
        "proven",
        "replay is beyond the shutdown checkpoint, strictly: equal means that the record is missing",
        lambda v: v.beyond,
        Proof.PROVEN,
        "The standby has replayed {replayed}, beyond the shutdown checkpoint at {checkpoint}.",
    ),
    Rule(
        "not yet",
        "otherwise",
        lambda v: True,
        Proof.NOT_YET,
        "The standby has replayed {replayed}; the shutdown checkpoint at {checkpoint} is not proven.",
    ),
)


def shutdown_proof(primary: NodeFacts, standby: NodeFacts, now: Moment) -> Decision[Proof]:
    """Say whether the standby holds all that the primary ever wrote.

    The position of a checkpoint record is where it begins. A standby that has replayed up to exactly there
    has not received it, and the old primary could not follow it later (`forked off before current recovery
    point`).

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(primary.name, primary.observed_at), (standby.name, standby.observed_at)], now)
    control, server = primary.control, standby.server
    replayed = server.replay_lsn if server else None
    view = ProofView(
        shut_down=control is not None and control.shut_down_cleanly and stopped(primary),
        same_line=control is not None
        and server is not None
        and server.in_recovery
        and server.timeline == control.timeline
        and server.system_identifier == control.system_identifier,
        beyond=control is not None and replayed is not None and replayed > control.checkpoint,
        checkpoint=str(control.checkpoint) if control else "unknown",
        replayed=str(replayed) if replayed is not None else "unknown",
    )
    return first_match(PROOF_RULES, view)
