"""What the site's settings allow, as the rules need it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from blocks import HarborSite

# Added to the self-fence's own time: its timer's period and the clocks' drift.
SELF_FENCE_MARGIN_S = 10.0


@dataclass(frozen=True)
class Policy:
    """The settings of a site that decisions depend on. Defaults are those of the Blocks.

    Attributes:
        fencing: what the automatic path must have before it promotes.
        has_fence_command: the site can switch a machine off.
        has_balancer: a load balancer that can be asked and told.
        self_fence_s: seconds after which an isolated primary is meant to stop itself; None: never. What a node's
            guard really goes by is a fact, `NodeFacts.guard`, and fencing counts on that alone.
        max_lag_bytes: WAL that an automatic failover may lose.
        last_position_limit_s: how old the last known position of the primary may be.
        silence_s: seconds between the beginnings of two looks that a primary must not have answered.
    """

    fencing: Literal["confirmed", "witnesses"] = "confirmed"
    has_fence_command: bool = False
    has_balancer: bool = True
    restart_first: bool = True
    self_fence_s: int | None = None
    max_lag_bytes: int = 1 << 20
    cooldown_s: int = 600
    durability: Literal["async", "preferred", "required"] = "async"
    last_position_limit_s: float = 180.0
    silence_s: float = 1.0

    @property
    def rests_on_witnesses(self) -> bool:
        """Whether a primary that is not reached is replaced only when everybody has lost it."""
        return not self.has_fence_command and (self.fencing == "witnesses" or self.self_fence_s is not None)


def policy_of(site: "HarborSite") -> Policy:
    """Take the policy out of a site's settings."""
    failover = site.failover
    return Policy(
        fencing=failover.fencing,
        has_fence_command=failover.switches_off,
        has_balancer=site.balancer.kind != "none",
        restart_first=failover.restart_first,
        self_fence_s=failover.self_fence_s,
        max_lag_bytes=failover.max_lag_bytes,
        cooldown_s=failover.cooldown_s,
        durability=site.postgres.durability,
        silence_s=failover.silence_s,
    )
