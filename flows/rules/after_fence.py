"""After the fence: the old primary's exact end may be known now. Is the standby still the one to go on with?

Before the fence the loss was bounded by a position that somebody had seen up to three minutes earlier. Stopped
cleanly on its own machine, the old primary tells its very end, and it was 300 MB ahead.
"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.policy import Policy
from flows.rules.promotion import stopped
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.postgres.facts import NodeFacts


class AfterFence(StrEnum):
    """Who becomes the primary."""

    PROMOTE = "PROMOTE"
    RESTART_OLD = "RESTART_OLD"
    REFUSE = "REFUSE"


@dataclass(frozen=True)
class AfterFenceView:
    """The exact end of the old primary against the standby.

    Attributes:
        lag_bytes: what the standby lacks; None when the end is not known exactly, or the standby's position is not.
        sound: the old primary was reached, is the same database on the standby's timeline, and was shut down cleanly.
    """

    lag_bytes: int | None
    max_lag_bytes: int
    accepted: bool
    sound: bool
    primary: str = "the primary"
    standby: str = "the standby"


AFTER_FENCE_RULES: tuple[Rule[AfterFenceView, AfterFence], ...] = (
    Rule(
        "end not known",
        "the old primary was not seen cleanly shut down, so its exact end is not known",
        lambda v: v.lag_bytes is None,
        AfterFence.PROMOTE,
        "The exact end of {primary} is not known; what was weighed before the fence stands.",
    ),
    Rule(
        "within the limit",
        "the standby lacks no more than max_lag_bytes of the exact end",
        lambda v: v.lag_bytes is not None and v.lag_bytes <= v.max_lag_bytes,
        AfterFence.PROMOTE,
        "{standby} lacks {lag_bytes:,} bytes of the exact end of {primary} ({max_lag_bytes:,} allowed).",
    ),
    Rule(
        "loss accepted",
        "the standby lacks more, and the operator accepts the loss",
        lambda v: v.accepted,
        AfterFence.PROMOTE,
        "{standby} lacks {lag_bytes:,} bytes of the exact end of {primary}; the operator accepts that loss.",
    ),
    Rule(
        "the old primary has more",
        "the standby lacks more, and the old primary was shut down cleanly on a machine that is reached",
        lambda v: v.sound,
        AfterFence.RESTART_OLD,
        "{standby} lacks {lag_bytes:,} bytes of the exact end of {primary} ({max_lag_bytes:,} allowed), and {primary} "
        "was shut down cleanly: it is started again, and nothing is lost.",
    ),
    Rule(
        "too much would be lost",
        "otherwise",
        lambda v: True,
        AfterFence.REFUSE,
        "{standby} lacks {lag_bytes:,} bytes of the exact end of {primary} ({max_lag_bytes:,} allowed).",
        "Start {primary} again by hand, or call with accept_data_loss.",
    ),
)


def after_fence(
    primary: NodeFacts, standby: NodeFacts, policy: Policy, now: Moment, *, accept_data_loss: bool = False
) -> Decision[AfterFence]:
    """Say who becomes the primary, with what is known since the fence.

    Args:
        primary: facts of the old primary, taken after the fence.
        standby: facts of the standby, likewise.
        policy: the site's settings.
        now: the moment of the decision.
        accept_data_loss: the operator accepts losing writes.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(primary.name, primary.observed_at), (standby.name, standby.observed_at)], now)
    control, cluster, position = primary.control, primary.cluster, standby.position
    clean = stopped(primary) and control is not None and control.shut_down_cleanly
    end = cluster.checkpoint_end if clean and cluster is not None else None
    same = primary.system_identifier == standby.system_identifier and primary.timeline == standby.timeline
    view = AfterFenceView(
        lag_bytes=None if end is None or position is None else max(0, end - position.lsn),
        max_lag_bytes=policy.max_lag_bytes,
        accepted=accept_data_loss,
        sound=clean and same,
        primary=primary.name,
        standby=standby.name,
    )
    return first_match(AFTER_FENCE_RULES, view)
