"""Part of node programs: may this node be a primary? Pure decisions over what it sees of itself and its peers."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from tasks.on_node.acceptance import rank

PRIMARY = "primary"
PROMOTED = "promoted"  # a primary, and made one by an operation since its start
STANDBY = "standby"
TOLD_TO_PROMOTE = "told to promote"  # a standby still, that nothing but a start of its server keeps from it
DOWN = "down"  # its machine answers, its server does not run
STARTING = "starting"  # its port is open and it cannot be asked: it recovers, or it turns the login away
SILENT = "silent"

# How long after its start a primary yields to a peer that nobody has accepted. Later a second primary was made
# by somebody, and which one is right is not for a machine to say.
YIELD_S = 120.0

# What kept a server from running, that the guard may start again by itself.
SELF_FENCED = "self-fence"
START_HELD = "held start"
PROMOTION_HELD = "held for a promotion"

# How long nothing must have spoken against it. A standby that is being promoted still says that it is one, and has
# tried this node's port: a network mended just then made two writers.
START_AFTER_S = 10.0

# What the guard does next.
NONE, YIELD, FENCE, HOLD, START, FORGET = "none", "yield", "fence", "hold", "start", "forget"

_PRIMARIES = (PRIMARY, PROMOTED)

Claim = Optional[Dict[str, Any]]


class Local(NamedTuple):
    """This node: its cluster's identity and timeline, and whether it would start as a standby."""

    node: str
    sysid: str
    timeline: int
    standby_signal: bool


class Peer(NamedTuple):
    """Another database node, as it answers."""

    name: str
    state: str
    sysid: Optional[str] = None
    timeline: int = 0


class Start(NamedTuple):
    """Whether a server may start.

    Attributes:
        transient: it may later, with nothing done but waiting.
        told: what is waited for is the promotion of a standby that was told to.
    """

    allowed: bool
    why: str
    transient: bool = False
    told: bool = False


class Sight(NamedTuple):
    """What one pass of the guard has seen.

    Attributes:
        running: a server process works in the data directory.
        signal: standby.signal is there; None when that could not be looked at, ever.
        local: this node; None when it was not looked at, or could not be.
        claims: who was accepted as the primary, as the records say that could be read.
        peers: the other database nodes; only answers to questions of this moment.
        running_s: how long the server has run, by the monotonic clock; infinite when it is not known.
        silent_s: seconds since a witness last answered a question, by the monotonic clock. A question that could
            not be put counts as one without an answer.
        held: `SELF_FENCED`, `PROMOTION_HELD`, `START_HELD`, or None: why it does not run although it should.
        restored: which database the site was restored as, as the NAS says.
        asked: which node was told to promote itself last, as the NAS says.
    """

    running: bool
    signal: Optional[bool]
    local: Optional[Local] = None
    claims: Sequence[Claim] = ()
    peers: Sequence[Peer] = ()
    running_s: float = float("inf")
    silent_s: float = 0.0
    held: Optional[str] = None
    restored: Claim = None
    asked: Claim = None


def judge_start(
    local: Local,
    claims: Sequence[Claim],
    peers: Sequence[Peer],
    alone: Optional[bool] = None,
    restored: Claim = None,
    asked: Claim = None,
) -> Start:
    """Decide whether this node's server may start, and say why.

    A peer that is silent does not keep the accepted primary from starting: after a power cut of the whole
    site, or with the standby under repair, nobody else would ever start it. A peer that is there and cannot be
    asked does: it may be the primary that replaced this one, in crash recovery or with another password.

    Args:
        claims: the records of who was accepted last, of this node and of the NAS; None for one that never was.
        alone: no witness answers; None when the site has no self-fence, and being alone is no reason.
        restored: which database the site was restored as, as the NAS says.
        asked: which node was told to promote itself last, as the NAS says.
    """
    if local.standby_signal:
        return Start(True, "it is a standby")
    against = must_leave(local, restored) or _peer_against(local, peers)
    for claim in _not_outdone(local, claims):
        against = against or _claim_against_start(local, claim)
    if against is not None:
        return Start(False, against)
    pending = must_wait(local, peers, asked, claims)
    if pending is not None:
        return Start(False, pending, True, True)
    unasked = [peer.name for peer in peers if peer.state == STARTING]
    if unasked:
        told = "%s is there and cannot be asked (it recovers, or it turns the login away); that is no consent"
        return Start(False, told % ", ".join(unasked), True)
    if alone:
        return Start(False, "no witness answers, and with a self-fence an isolated node is no primary", True)
    return Start(True, "no peer is a primary on its timeline or a newer one")


def may_start(
    local: Local, accepted: Claim, peers: Sequence[Peer], alone: Optional[bool] = None
) -> Tuple[bool, str]:
    """Decide whether this node's server may start, and say why; see `judge_start`.

    Args:
        accepted: `accepted.json`: the primary that was accepted last; None when none ever was.
        alone: no witness answers, on a site with a self-fence; None without one.
    """
    start = judge_start(local, (accepted,), peers, alone)
    return start.allowed, start.why


def _peer_against(local: Local, peers: Sequence[Peer]) -> Optional[str]:
    for peer in peers:
        words = (peer.name, peer.timeline, local.timeline)
        if peer.sysid != local.sysid:
            continue
        if peer.state in _PRIMARIES and peer.timeline >= local.timeline:
            return "%s is the primary on timeline %d, this node has timeline %d" % words
        if peer.state in (STANDBY, TOLD_TO_PROMOTE) and peer.timeline > local.timeline:
            return "%s follows timeline %d, this node has timeline %d" % words
    return None


def _claim_against_start(local: Local, claim: Claim) -> Optional[str]:
    if claim is None:
        return None
    named, timeline = claim.get("primary"), int(claim.get("timeline", 0))
    if named != local.node and timeline >= local.timeline:
        return "%s was accepted as the primary on timeline %d" % (named, timeline)
    if timeline > local.timeline:
        return "it was the primary on timeline %d; its data is older" % timeline
    return None


def of_this_database(local: Local, claim: Claim) -> bool:
    """Tell whether a record is about this node's database; the NAS may remember the one before it."""
    return claim is not None and str(claim.get("system_identifier")) == local.sysid


def still_claims(local: Local, claims: Sequence[Claim], restored: Claim = None) -> Tuple[Claim, ...]:
    """Keep what speaks of this node's database, also where a claim does not say of which one it speaks.

    This node's own record may be of a database that was moved away; a new one was refused by it for ever. And what a
    restore to a point in time went back behind says nothing on the node that it was made on.

    Args:
        restored: what a restore on this node has left: `over`, the acceptance that it found on the NAS.
    """
    over = (restored or {}).get("over")
    ours = [claim for claim in claims if claim is not None and (over is None or claim != over)]
    return tuple(claim for claim in ours if str(claim.get("system_identifier", local.sysid)) == local.sysid)


def must_yield(
    local: Local, running_s: float, peers: Sequence[Peer], claims: Sequence[Claim] = ()
) -> Optional[str]:
    """Say why a running primary must stop for another one; None when it need not.

    Whoever was accepted on this timeline or a newer one is the primary, however long this server has run: it
    was started past the boot guard, or before the record came. So is a peer that an operation has promoted, where
    nobody has come to write that down or the NAS is away; two records of one timeline are ordered by their terms. A
    peer that somebody made a primary by hand outranks only a server that has just started (two machines that boot
    at once: neither saw the other one's server).

    Args:
        running_s: seconds, by the monotonic clock; the wall clock may have been stepped.
        claims: records of who was accepted; one of another database says nothing.
    """
    if local.standby_signal:
        return None
    ours = [claim for claim in claims if claim is not None and of_this_database(local, claim)]
    for claim in _not_outdone(local, ours):
        named, timeline = claim.get("primary"), int(claim.get("timeline", 0))
        if named != local.node and timeline >= local.timeline:
            return "%s was accepted as the primary on timeline %d, this node has timeline %d" % (
                named,
                timeline,
                local.timeline,
            )
    for peer in peers:
        if peer.state not in _PRIMARIES or peer.sysid != local.sysid or peer.timeline <= local.timeline:
            continue
        made = peer.state == PROMOTED or any(claim.get("primary") == peer.name for claim in ours)
        if made or running_s <= YIELD_S:
            return "%s is the primary on timeline %d" % (peer.name, peer.timeline)
    return None


def _not_outdone(local: Local, claims: Sequence[Claim]) -> List[Dict[str, Any]]:
    """Leave out what an acceptance of this node itself outdoes.

    Of three nodes a second one that had been told to promote itself became a primary on the same timeline after the
    third, which could not reach it, had been accepted by a later term.
    """
    there = [claim for claim in claims if claim is not None]
    own = max((rank(claim) for claim in there if claim.get("primary") == local.node), default=(0, 0))
    return [claim for claim in there if claim.get("primary") == local.node or rank(claim) >= own]


def must_leave(local: Local, restored: Claim) -> Optional[str]:
    """Say why this node's database must not serve: the site was restored as another one; None when it was not.

    An old machine that booted after a disaster's restore found only its own name in the records, and its Harbor served
    beside the new one: two databases on one Redis and one NAS.
    """
    now = (restored or {}).get("system_identifier")
    if local.standby_signal or now is None or str(now) == local.sysid:
        return None
    return (
        "the site was restored on %s as the database %s, and this is the old one (%s); move it away and run bootstrap, "
        "or remove restored.json from the site's .harbor-ha on the NAS if the restore is to be forgotten"
    ) % ((restored or {}).get("node"), now, local.sysid)


def must_wait(
    local: Local, peers: Sequence[Peer], asked: Claim = None, claims: Sequence[Claim] = ()
) -> Optional[str]:
    """Say why a primary must not run for now: a standby of its database was told to promote itself; None without one.

    Whoever told it took this node for fenced, and the request stands. It ends with a primary on a newer timeline, or
    with a start of that server, which forgets it; then this node may go on.

    Args:
        asked: which node was told to last, as the NAS says. Somebody switches the old primary on meanwhile, and it
            cannot ask that node.
        claims: the records of who was accepted.
    """
    for peer in peers:
        if peer.state == TOLD_TO_PROMOTE and peer.sysid == local.sysid:
            return (
                "%s was told to promote itself; only a start of its server makes it forget that" % peer.name
            )
    return _asked_and_open(local, peers, asked, claims)


def _asked_and_open(
    local: Local, peers: Sequence[Peer], asked: Claim, claims: Sequence[Claim]
) -> Optional[str]:
    """Say who was told to promote itself, by the NAS, where nothing shows what has become of that."""
    if asked is None or not of_this_database(local, asked) or asked.get("node") == local.node:
        return None
    if int(asked["from_timeline"]) < local.timeline:
        return None
    if any(claim is not None and int(claim.get("term") or 0) >= asked["term"] for claim in claims):
        return None
    if any(peer.name == asked.get("node") and peer.state == STANDBY for peer in peers):
        return None
    return (
        "the NAS says that %s was told to promote itself, and it does not answer as a standby; if it is gone for good, "
        "remove promotion.json from the site's .harbor-ha there, and start PostgreSQL here"
    ) % asked.get("node")


def must_fence(silent_s: float, self_fence_s: Optional[float]) -> Optional[str]:
    """Say why an isolated primary must stop itself; None when it need not.

    Args:
        silent_s: seconds since any witness answered; one that could not be asked has not.
        self_fence_s: the site's limit; None: never.
    """
    if self_fence_s is None or silent_s < self_fence_s:
        return None
    return "no witness has answered for %d s" % self_fence_s


def may_resume(
    local: Local, accepted: Claim, peers: Sequence[Peer], claims: Sequence[Claim] = (), asked: Claim = None
) -> bool:
    """Tell whether a primary that knew a reason to stop may start again: all peers answer, none took over.

    That a standby was told to promote itself stays so while it is cut off: the old primary started again then, and
    took clients' writes beside it.
    """
    answered = all(peer.state in (PRIMARY, PROMOTED, STANDBY, DOWN) for peer in peers)
    return answered and judge_start(local, (accepted,) + tuple(claims), peers, asked=asked).allowed


def next_act(sight: Sight, self_fence_s: Optional[float]) -> Tuple[str, str]:
    """Decide what the guard does about what it sees: the act, and why.

    A standby is left alone. A role that could never be looked at is taken for a primary's: stopping is the safe
    act, and a disk that does not answer must not keep an isolated primary from it.
    """
    if not sight.running:
        return _when_stopped(sight, self_fence_s)
    if sight.signal:
        return (FORGET, "it is a standby") if sight.held else (NONE, "")
    why = None if sight.local is None else must_leave(sight.local, sight.restored)
    if why is not None:
        return FENCE, why
    if sight.local is not None:
        why = must_yield(sight.local, sight.running_s, sight.peers, sight.claims)
        if why is not None:
            return YIELD, why
    why = must_fence(sight.silent_s, self_fence_s)
    if why is not None:
        return FENCE, why
    if sight.local is not None:
        why = must_wait(sight.local, sight.peers, sight.asked, sight.claims)
        if why is not None:
            return HOLD, why
    if sight.held and sight.silent_s == 0.0:
        return FORGET, "it runs again, and is in touch"
    return NONE, ""


def when_settled(act: str, free_s: float) -> str:
    """Start what was held only when every pass for `START_AFTER_S` would have.

    Args:
        free_s: seconds since the first of this row of passes.
    """
    return NONE if act == START and free_s < START_AFTER_S else act


def _when_stopped(sight: Sight, self_fence_s: Optional[float]) -> Tuple[str, str]:
    if sight.held is None:
        return NONE, ""
    if sight.signal:
        return FORGET, "somebody has made it a standby; it is theirs to start"
    if sight.local is None:
        return NONE, ""
    if must_leave(sight.local, sight.restored) is not None:
        return NONE, ""
    alone = sight.silent_s > 0.0
    if sight.held in (SELF_FENCED, PROMOTION_HELD):
        if not alone and may_resume(sight.local, None, sight.peers, sight.claims, sight.asked):
            return START, "in touch again and still the accepted primary"
        return NONE, ""
    alone_s = None if self_fence_s is None else alone
    start = judge_start(sight.local, sight.claims, sight.peers, alone_s, asked=sight.asked)
    return (START, start.why) if start.allowed else (NONE, "")
