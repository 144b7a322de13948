"""A primary whose machine lives and whose server does not answer: is it waited for before it is stopped?"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flows.rules.primary import Server, server_state
from flows.rules.table import Decision, Rule, first_match
from tasks.postgres.facts import NodeFacts


class Restart(StrEnum):
    """What is done with the server first. Whatever it is, it ends with a start where that is needed."""

    WAIT = "WAIT"
    PATIENCE = "PATIENCE"
    STOP = "STOP"
    START = "START"


@dataclass(frozen=True)
class RestartView:
    """What the rules below look at.

    Attributes:
        heard: a standby hears it.
        advanced: a standby has received more WAL between two looks.
    """

    server: Server
    heard: bool
    advanced: bool
    primary: str = "the primary"


RESTART_RULES: tuple[Rule[RestartView, Restart], ...] = (
    Rule(
        "in recovery",
        "the server is in crash recovery",
        lambda v: v.server is Server.STARTING,
        Restart.WAIT,
        "{primary} is in crash recovery: it is waited for within the restart budget and never killed within it.",
    ),
    Rule(
        "slow, and alive",
        "the server does not answer, and a standby hears it or has received more WAL since the look before",
        lambda v: v.server is Server.HUNG and (v.heard or v.advanced),
        Restart.PATIENCE,
        "{primary} does not answer but still sends WAL: it gets half the restart budget to answer, then a fast stop.",
    ),
    Rule(
        "hung",
        "the server does not answer, and nothing is heard of it",
        lambda v: v.server is Server.HUNG,
        Restart.STOP,
        "{primary} runs and does nothing any more: it is stopped (fast, then immediate, then killed) and started.",
    ),
    Rule(
        "stopped",
        "otherwise",
        lambda v: True,
        Restart.START,
        "{primary} does not run: it is started.",
    ),
)


def how_to_restart(
    primary: NodeFacts, standbys: Sequence[NodeFacts], before: Sequence[NodeFacts]
) -> Decision[Restart]:
    """Say how a server that does not answer is brought back.

    A primary whose storage was slow was taken for hung and got SIGQUIT while it committed.

    Args:
        primary: facts of the primary.
        standbys: facts of the other database nodes.
        before: the same of the look before; empty when there was none.
    """
    receivers = [node.server.receiver for node in standbys if node.server is not None]
    heard = any(receiver is not None and receiver.fresh for receiver in receivers)
    view = RestartView(server_state(primary), heard, advanced(before, standbys), primary.name)
    return first_match(RESTART_RULES, view)


def advanced(before: Sequence[NodeFacts], standbys: Sequence[NodeFacts]) -> bool:
    """Whether any standby has received more WAL since the look before."""
    earlier = {node.name: node.position for node in before}
    pairs = [(earlier.get(node.name), node.position) for node in standbys]
    return any(was is not None and now is not None and now.lsn > was.lsn for was, now in pairs)
