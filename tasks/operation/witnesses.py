"""What everybody but the orchestrator's SSH sees of a node that does not answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.clock import Moment
from tasks.operation.sightings import BALANCER, REDIS

OPEN = "open"
# Its silence is no vote: rules ask for it only when it does not reach the node, by SSH over any path.
ORCHESTRATOR = "the orchestrator"


@dataclass(frozen=True)
class Witnesses:
    """One round of questions about one node.

    Attributes:
        node: the node asked about.
        observed_at: when the round began.
        tcp: PostgreSQL's port there, by observer: `open`, `refused` or `silent`.
        mute: observers that should have been asked and did not answer; their view is not known.
        balancer_up: the load balancer's own check of the node; None when it cannot be asked or does not look,
            as in maintenance.
        balancer_only_connects: that check is a TCP connection and no more.
        balancer_drained: the load balancer gives the node no clients, read back; None when not known.
        redis_connected: the shared Redis heard from a client on the node within the last seconds (its idle
            time); None when it cannot be asked. Being listed is not enough: Redis keeps the clients of a
            machine that lost its power for minutes.
        has_balancer: the site has a load balancer to ask, and it has this node.
        has_redis: a Harbor runs on the node, so Redis should have clients from it.
        saw: who saw the node when it was last in service (names of nodes, `balancer`, `redis`); None: no note of
            that was found. Who did not see it then cannot lose it now.
        drained_by_us: this operation drained the node after the load balancer had lost it. Since then it does not
            look, and gives the node no clients either.
    """

    node: str
    observed_at: Moment
    tcp: Mapping[str, str] = field(default_factory=dict)
    mute: tuple[str, ...] = ()
    balancer_up: bool | None = None
    balancer_only_connects: bool = False
    balancer_drained: bool | None = None
    redis_connected: bool | None = None
    has_balancer: bool = True
    has_redis: bool = True
    saw: frozenset[str] | None = None
    drained_by_us: bool = False

    @property
    def sightings(self) -> tuple[str, ...]:
        """Who sees the node alive, in words."""
        seen = [
            f"{who} can open its PostgreSQL port" for who, state in sorted(self.tcp.items()) if state == OPEN
        ]
        if self.balancer_up:
            seen.append("the load balancer's check of it is up")
        if self.redis_connected:
            seen.append("Redis has a client from it")
        return tuple(seen)

    @property
    def seen_by(self) -> frozenset[str]:
        """Who sees the node now, by the names that `saw` has; not the orchestrator, whose own eye is no witness."""
        ports = {who for who, state in self.tcp.items() if state == OPEN and who != ORCHESTRATOR}
        others = {BALANCER: self.balancer_up, REDIS: self.redis_connected}
        return frozenset(ports | {who for who, sees in others.items() if sees})

    @property
    def unknown(self) -> tuple[str, ...]:
        """Which witnesses have no vote, in words: not to be asked, or blind."""
        return (*self.unanswered, *self.blind)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Which witnesses could not be asked or do not look, in words."""
        gaps = [f"{who} does not answer" for who in sorted(self.mute)]
        if self.has_balancer and self.balancer_up is None and not self._ours:
            gaps.append(
                "the load balancer has it in maintenance and does not look"
                if self.balancer_drained
                else "the load balancer's check is not known"
            )
        if self.has_redis and self.redis_connected is None:
            gaps.append("Redis's client list is not known")
        return tuple(gaps)

    @property
    def blind(self) -> tuple[str, ...]:
        """Which witnesses do not see the node and are not known to be able to, in words."""
        names = [who for who, state in sorted(self.tcp.items()) if state != OPEN and who != ORCHESTRATOR]
        words = {who: f"{who} could not open its PostgreSQL port when all was well either" for who in names}
        if self.has_balancer and (self.balancer_up is False or self._ours):
            words[BALANCER] = "the load balancer's check did not see it when all was well either"
        if self.has_redis and self.redis_connected is False:
            words[REDIS] = "Redis had no client of its addresses when all was well either"
        if self.saw is None and words:
            return (f"no note of `check` says who could see {self.node} when all was well",)
        return tuple(text for who, text in words.items() if who not in (self.saw or ()))

    @property
    def only_handshakes(self) -> bool:
        """Whether its kernel completes TCP handshakes and nobody sees more of it: as of a machine that hangs.

        Everybody must have been asked: who does not answer may know better, and without Redis no Harbor can write
        whatever the database does.
        """
        alive = self.balancer_up and not self.balancer_only_connects
        return bool(self.sightings) and not (alive or self.redis_connected or self.unanswered)

    @property
    def _ours(self) -> bool:
        return self.drained_by_us and self.balancer_drained is True
