"""Which rung of the fencing ladder comes next, and is it enough?"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.policy import SELF_FENCE_MARGIN_S, Policy
from flows.rules.primary import Contact, Other, Server, contact_of, other_state, server_state
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.record import OperationRecord
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts


class Rung(StrEnum):
    """What to do next about the old primary. The last five are ends; the others lead to another look."""

    SSH = "SSH"
    COMMAND = "COMMAND"
    DRAIN = "DRAIN"
    WAIT = "WAIT"
    STOPPED = "STOPPED"  # seen stopped, and kept from starting as a primary
    COMMANDED = "COMMANDED"  # switched off by the site's command, which confirmed it
    # Time alone. A primary that still saw the load balancer or Redis (its own Harbor being down, so that neither
    # saw it) has not fenced itself; no client reaches it, but a job or a hand on the machine could write.
    SELF_FENCE = "SELF_FENCE"
    WITNESSES = "WITNESSES"
    ATTESTED = "ATTESTED"
    REFUSE = "REFUSE"


# A standby's receiver looks fresh for 8 s after its primary's last word, Redis counts a client of the last 5 s, a
# load balancer's check takes 2 s to fail; a look takes 3 s more.
ECHO_S = 14.0

# With one of these the old primary cannot accept writes that Harbor's clients could see.
SUFFICIENT = frozenset({Rung.STOPPED, Rung.COMMANDED, Rung.SELF_FENCE, Rung.WITNESSES, Rung.ATTESTED})


class Command(StrEnum):
    """The site's fence command."""

    NONE = "none"
    READY = "not tried"
    CONFIRMED = "confirmed off"
    FAILED = "failed"


class SelfFence(StrEnum):
    """The self-fence of an isolated primary, as time tells."""

    NONE = "not seen"
    PENDING = "not elapsed"
    ELAPSED = "elapsed"


@dataclass(frozen=True)
class FenceView:
    """What the rules below look at; the texts are for the reasons.

    Attributes:
        held: the stopped server is kept down: standby.signal, start.conf or mask.
        witnesses_suffice: the policy `fencing: witnesses`.
        drained: the load balancer gives the old primary's machine no clients (or the site has none).
        ssh_failed: it was tried over SSH in this run, and is not fenced.
        just_off: the command has confirmed only some seconds ago: what is heard or seen may be from before.
        unresponsive: its kernel completes TCP handshakes and nothing else is seen of it, and clients cannot write.
    """

    server: Server
    held: bool
    other: Other
    contact: Contact
    command: Command
    self_fence: SelfFence
    witnesses_suffice: bool
    drained: bool
    attested: bool
    ssh_failed: bool = False
    just_off: bool = False
    unresponsive: bool = False
    primary: str = "the primary"
    standby: str = "the standby"
    sightings: str = ""
    gaps: str = ""
    wait_s: float = 0.0
    ssh_trouble: str = ""

    @property
    def reached(self) -> bool:
        """Whether SSH works."""
        return self.server is not Server.UNSEEN

    @property
    def hangs(self) -> bool:
        """Whether only its kernel is seen, and the site suffers from it."""
        seen = not self.reached and self.contact is Contact.SEEN
        return self.unresponsive and seen and self.other is Other.SILENT

    @property
    def all_lost(self) -> bool:
        """Whether the standby and every witness have lost it."""
        return self.other is Other.SILENT and self.contact is Contact.LOST


FENCE_RULES: tuple[Rule[FenceView, Rung], ...] = (
    Rule(
        "another primary",
        "another node is primary already",
        lambda v: v.other is Other.PRIMARY,
        Rung.REFUSE,
        "{standby} is a primary already; there is nothing to fence for.",
        "Run check. With two primaries decide which one holds the data to keep.",
    ),
    Rule(
        "stopped and held",
        "seen over SSH: no server process, and nothing can start it as a primary",
        lambda v: v.server in (Server.STOPPED, Server.UNUSABLE) and v.held,
        Rung.STOPPED,
        "{primary} is stopped and kept from starting as a primary; seen on the machine itself.",
    ),
    Rule(
        "over SSH",
        "SSH works over any path, and was not tried yet",
        lambda v: v.reached and not v.ssh_failed,
        Rung.SSH,
        "{primary} is reached: its server is stopped there and kept from starting.",
    ),
    Rule(
        "SSH does not fence it",
        "it could not be fenced over SSH (full disk, hanging disk, time limit, no proof), and there is a fence command",
        lambda v: v.ssh_failed and v.command is Command.READY,
        Rung.COMMAND,
        "{primary} could not be fenced over SSH ({ssh_trouble}): the site's fence command switches it off.",
    ),
    Rule(
        "off, and reached",
        "the fence command has confirmed that the machine is off, and SSH works",
        lambda v: v.reached and v.command is Command.CONFIRMED,
        Rung.REFUSE,
        "The fence command says that {primary} is off, and it is reached over SSH: the command is not true.",
        "Switch {primary} off and repair the command (docs/operations.md); then call again.",
    ),
    Rule(
        "SSH failed",
        "it is reached and could not be fenced over SSH; there is no fence command, or it has failed",
        lambda v: v.reached,
        Rung.REFUSE,
        "{primary} is reached and could not be fenced over SSH: {ssh_trouble}.",
        "Switch {primary} off at its power supply, hypervisor or cloud console, look that it is off, and call "
        "again with attest_fenced=true. A fence_command in the site file does that without you.",
    ),
    Rule(
        "wait for the echo",
        "the command has confirmed seconds ago; the standby or a witness may still speak of before",
        lambda v: (
            v.command is Command.CONFIRMED
            and v.just_off
            and (v.other is Other.HEARS or v.contact is Contact.SEEN)
        ),
        Rung.WAIT,
        "{primary} was switched off a moment ago; who still sees it must lose it first.",
    ),
    Rule(
        "hangs",
        "not reached; the standby has lost it; only its kernel answers, clients cannot write; there is a fence command",
        lambda v: v.hangs and v.command is Command.READY,
        Rung.COMMAND,
        "{primary} only completes TCP handshakes, and clients cannot write: the site's fence command switches it off.",
    ),
    Rule(
        "hangs, and stays on",
        "the same; there is no fence command, or it has failed",
        lambda v: v.hangs,
        Rung.REFUSE,
        "{primary} only completes TCP handshakes, and clients cannot write; nothing here can switch it off.",
        "Switch {primary} off at its power supply, hypervisor or cloud console, look that it is off, and call "
        "again with attest_fenced=true. A fence_command in the site file does that without you.",
    ),
    Rule(
        "standby hears it",
        "not reached, and the standby's receiver is fresh; no word of anybody outweighs that",
        lambda v: v.other is Other.HEARS,
        Rung.REFUSE,
        "{standby} still receives WAL from {primary}: it is alive and not fenced.",
        "Switch {primary} off. As long as it is heard, an attestation is not believed.",
    ),
    Rule(
        "somebody sees it",
        "not reached, and a witness sees it; no word of anybody outweighs that",
        lambda v: v.contact is Contact.SEEN,
        Rung.REFUSE,
        "{primary} is not fenced: {sightings}.",
        "Switch {primary} off. As long as it is seen, no attestation is believed.",
    ),
    Rule(
        "switched off",
        "the site's fence command has confirmed that the machine is off",
        lambda v: v.command is Command.CONFIRMED,
        Rung.COMMANDED,
        "The fence command has confirmed that {primary} is off.",
    ),
    Rule(
        "switch it off",
        "the site has a fence command that was not tried yet",
        lambda v: v.command is Command.READY,
        Rung.COMMAND,
        "{primary} is not reached: the site's fence command switches it off.",
    ),
    Rule(
        "attested",
        "an operator attests that the machine is off, and nothing that is seen says otherwise",
        lambda v: v.attested,
        Rung.ATTESTED,
        "The operator attests that {primary} cannot accept writes.",
    ),
    Rule(
        "drain first",
        "all have lost it; its own Harbor is not yet cut off from clients",
        lambda v: (
            v.all_lost and not v.drained and (v.witnesses_suffice or v.self_fence is not SelfFence.NONE)
        ),
        Rung.DRAIN,
        "All have lost {primary}; the load balancer drains it, so that no client reaches a Harbor there.",
    ),
    Rule(
        "self-fence elapsed",
        "all have lost it, it is drained, and its self-fence must have acted",
        lambda v: v.all_lost and v.drained and v.self_fence is SelfFence.ELAPSED,
        Rung.SELF_FENCE,
        "{primary} has been silent for longer than its self-fence and the margin, and is drained.",
    ),
    Rule(
        "witnesses",
        "all have lost it, it is drained, and the policy says `fencing: witnesses`",
        lambda v: v.all_lost and v.drained and v.witnesses_suffice,
        Rung.WITNESSES,
        "{standby} and every witness have lost {primary}, and it is drained: enough by the policy.",
    ),
    Rule(
        "wait for the self-fence",
        "all have lost it, it is drained, its self-fence has not elapsed",
        lambda v: v.all_lost and v.drained and v.self_fence is SelfFence.PENDING,
        Rung.WAIT,
        "{primary} fences itself {wait_s:.0f} s from now if it is alive and isolated.",
    ),
    Rule(
        "not fenced",
        "otherwise",
        lambda v: True,
        Rung.REFUSE,
        "{primary} is not reached and nothing proves that it is off{gaps}.",
        "Switch {primary} off at its power supply, hypervisor or cloud console, look that it is off, and call "
        "again with attest_fenced=true. You attest: the machine {primary} is off, or its network is "
        "unplugged, and nobody switches it on before rejoin has run.",
    ),
)


def choose_fence(
    primary: NodeFacts,
    others: tuple[NodeFacts, ...],
    witnesses: Witnesses,
    policy: Policy,
    now: Moment,
    *,
    command: Command = Command.NONE,
    silent_for_s: float | None = None,
    attest_fenced: bool = False,
    self_fence_seen_s: float | None = None,
    ssh_trouble: str = "",
    off_for_s: float | None = None,
    unresponsive: bool = False,
) -> Decision[Rung]:
    """Choose the next rung; call again with new facts after SSH, COMMAND, DRAIN and WAIT.

    Args:
        primary: facts of the old primary.
        others: facts of the other database nodes.
        witnesses: what everybody else sees of it.
        policy: the site's settings.
        now: the moment of the decision.
        command: what became of the fence command; NONE is taken as READY when the site has one.
        silent_for_s: seconds since anybody last had proof of the primary's life, counted by this process from
            an unbroken observation (an old record does not count: it may have come back in between); None when
            not known.
        attest_fenced: an operator attests that the primary cannot accept writes.
        self_fence_seen_s: the limit that the primary's own guard went by when the site was last found healthy;
            None: no guard with a limit was seen, and none is counted on, whatever the site file says.
        ssh_trouble: why the rung SSH failed in this run; empty: it did not, or was not tried.
        off_for_s: seconds since the fence command has confirmed; None: it has not.
        unresponsive: only its kernel answers, and a write through the load balancer has failed just now.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    seen = [(node.name, node.observed_at) for node in (primary, *others)]
    require_fresh([*seen, ("the witnesses", witnesses.observed_at)], now)
    if command is Command.NONE and policy.has_fence_command:
        command = Command.READY
    needed = None if self_fence_seen_s is None else self_fence_seen_s + SELF_FENCE_MARGIN_S
    left = 0.0 if needed is None else max(0.0, needed - (silent_for_s or 0.0))
    gaps = ", ".join(witnesses.unknown)
    view = FenceView(
        server=server_state(primary),
        held=held(primary),
        other=other_state(others),
        contact=contact_of(witnesses),
        command=command,
        self_fence=SelfFence.NONE if needed is None else SelfFence.PENDING if left else SelfFence.ELAPSED,
        witnesses_suffice=policy.fencing == "witnesses",
        drained=witnesses.balancer_drained is True or not witnesses.has_balancer,
        attested=attest_fenced,
        ssh_failed=bool(ssh_trouble),
        just_off=off_for_s is not None and off_for_s < ECHO_S,
        unresponsive=unresponsive and witnesses.only_handshakes,
        primary=primary.name,
        standby=", ".join(node.name for node in others) or "no other node",
        sightings=", ".join(witnesses.sightings),
        gaps=f" ({gaps})" if gaps else "",
        wait_s=left,
        ssh_trouble=ssh_trouble,
    )
    return first_match(FENCE_RULES, view)


def held(node: NodeFacts) -> bool:
    """Whether a stopped server cannot come back as a primary: not by a reboot, not by a hand on `start`."""
    if not node.reachable or node.running or node.accepting:
        return False
    kept_down = bool(node.masked) or node.start_conf in ("manual", "disabled")
    if node.cluster is None:
        # Its disk may be missing only for now; standby.signal cannot be written there, so the mask must hold.
        return bool(node.masked) and "cluster" not in node.problems
    return kept_down and node.cluster.standby_signal


def recorded_rung(record: OperationRecord) -> Rung:
    """Return the rung that the record names; REFUSE when it names none that exists."""
    name = record.fence.rung if record.fence else ""
    return Rung(name) if name in set(Rung) else Rung.REFUSE
